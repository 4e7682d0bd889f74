"""
One detection after the other in Rerun's viewer: image, depth, cloud, stages, gripper, scores.

Everything is logged on two timelines: ``frame`` (a number) and, where frames have a time,
``time``. What a frame does not have is logged as empty, so that nothing of the frame before it
stays on the screen. Space is the camera's optical frame (x right, y down, z forward; metres).
"""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Any

import numpy as np

from ..detection import Candidate, Detection
from ..drawing import (
    PRE_GRASP_DISTANCE,
    StageDrawing,
    approach_path,
    draw_candidate,
    failure_cross,
    gripper_boxes,
    point_cloud,
)
from ..grasp_pose import Gripper
from ..reasons import Reason
from ..rgbd import RgbdFrame
from ..visualization import STAGE_TITLES, score_colour

try:
    import rerun as rr
    import rerun.blueprint as rrb
except ImportError as missing:
    raise ImportError('grasp_stn view needs the package rerun-sdk: pip install rerun-sdk') \
        from missing

APPLICATION = 'grasp_stn'
STAGES = ('stage_1_locations', 'stage_2_angles', 'stage_3_rectangles', 'stage_4_scores')
_BLUE, _YELLOW, _WHITE, _BEST = (60, 140, 255), (255, 210, 40), (255, 255, 255), (0, 200, 255)
_GRIPPER, _GHOST, _PATH = (30, 230, 60, 210), (30, 230, 60, 60), (30, 230, 60, 255)
_FAILED = (255, 40, 30)
_LEADER = (255, 255, 255, 90)
_JPEG_QUALITY = 85
# Pixels of an image 640 wide between two labels, and from the candidates to them.
_LABEL_PITCH, _LABEL_GAP = 34.0, 85.0


@dataclass(frozen=True)
class Shown:
    """
    What is shown of one moment.

    ``name`` says which image it is, ``time`` when it was taken in seconds since 1970 where that is
    known; ``titles`` are those of the stages of the network that made the ``detection``.
    """

    name: str
    frame: RgbdFrame
    detection: Detection
    time: float | None = None
    titles: tuple[str, ...] = STAGE_TITLES


class Scene:
    """Logs frame after frame into one recording of Rerun."""

    def __init__(self, gripper: Gripper | None = None):
        """Start a recording; grasps are drawn with the jaws of ``gripper``."""
        self.gripper = gripper or Gripper()
        self.approach_offset = PRE_GRASP_DISTANCE     # metres from the pre-grasp to the grasp
        self.recording = rr.RecordingStream(APPLICATION)
        self.frames = 0
        self.recording.log('space', rr.ViewCoordinates.RDF, static=True)
        self.recording.log('plots/best_score', rr.SeriesPoints(
            names='score of the best', colors=_BEST, marker_sizes=3), static=True)

    def log(self, shown: Shown) -> None:
        """Show one more moment."""
        self.recording.set_time('frame', sequence=self.frames)
        if shown.time is not None:
            self.recording.set_time('time', timestamp=shown.time)
        self.frames += 1
        frame, detection = shown.frame, shown.detection
        self._log('image/colour', rr.Image(frame.rgb).compress(jpeg_quality=_JPEG_QUALITY))
        if frame.depth is not None:
            millimetres = np.nan_to_num(frame.depth * 1e3, nan=0.0).clip(0, 65535)
            self._log('depth/image', rr.DepthImage(millimetres.astype(np.uint16), meter=1000.0))
        else:
            self._log('depth/image', rr.Clear(recursive=False))
        points, colours = point_cloud(frame)
        self._log('space/cloud', rr.Points3D(points, colors=colours, radii=0.0012))
        self._log_stages_in_image(detection, frame.size)
        self._log_stages_in_space(frame, detection)
        self._log('space/failed', rr.LineStrips3D(
            [line for pose in detection.failed for line in failure_cross(pose)], colors=_FAILED,
            radii=0.001))
        self._log_grasp(detection)
        self._log_numbers(shown)

    def _log(self, path: str, *what) -> None:
        self.recording.log(path, *what)

    def _log_stages_in_image(self, detection: Detection, size: tuple[int, int]) -> None:
        """One layer a stage, in pixels of the colour image."""
        candidates = detection.candidates
        located = [score_colour(c.location_score) for c in candidates]
        scored = [_BEST if c is detection.best else score_colour(c.score) for c in candidates]
        # Rerun counts from the corner of the first pixel, this package from its centre.
        self._log(f'image/{STAGES[0]}', rr.Points2D(
            [_pixel(c.location) for c in candidates], radii=rr.Radius.ui_points(5.0),
            colors=located))
        self._log(f'image/{STAGES[1]}', rr.LineStrips2D(
            [_angle_line(c) for c in candidates], colors=_YELLOW, radii=rr.Radius.ui_points(1.5)))
        for stage, colours in ((STAGES[2], [_WHITE] * len(candidates)), (STAGES[3], scored)):
            outlines = [np.vstack([_pixel(c.rectangle.corners), _pixel(c.rectangle.corners[:1])])
                        for c in candidates]
            jaws = [_pixel(c.rectangle.corners[list(pair)])
                    for c in candidates for pair in ((1, 2), (3, 0))]
            self._log(f'image/{stage}', rr.LineStrips2D(
                outlines, colors=colours, radii=rr.Radius.ui_points(1.0)))
            self._log(f'image/{stage}/jaws', rr.LineStrips2D(
                jaws, colors=[c for c in colours for _ in range(2)],
                radii=rr.Radius.ui_points(2.5)))

        at = label_positions(np.array([c.location for c in candidates]).reshape(-1, 2), size)
        layers: tuple[tuple[str, Any, list[str]], ...] = (
                (STAGES[0], located, [f'{c.location_score:.2f}' for c in candidates]),
                (STAGES[1], _YELLOW, [f'{math.degrees(c.theta):.0f}°' for c in candidates]),
                (STAGES[2], _WHITE, [f'{c.rectangle.opening:.0f} x {c.rectangle.jaw:.0f} px'
                                     for c in candidates]),
                (STAGES[3], scored, [_score_label(c, detection) for c in candidates]))
        for stage, shade, texts in layers:
            self._log(f'image/{stage}/labels', rr.Points2D(
                _pixel(at), colors=shade, radii=rr.Radius.ui_points(0.5), labels=texts,
                show_labels=True))
            self._log(f'image/{stage}/leaders', rr.LineStrips2D(
                [_pixel([c.location, end]) for c, end in zip(candidates, at, strict=True)],
                colors=_LEADER, radii=rr.Radius.ui_points(0.4)))

    def _log_stages_in_space(self, frame: RgbdFrame, detection: Detection) -> None:
        """One layer a stage, at the depth of the objects."""
        drawn: list[tuple[Candidate, StageDrawing]] = []
        for candidate in detection.candidates:
            drawing = draw_candidate(candidate, frame)
            if drawing is not None:
                drawn.append((candidate, drawing))
        colours = [_BEST if c is detection.best else score_colour(c.score) for c, _ in drawn]
        self._log(f'space/{STAGES[0]}', rr.Points3D(
            [d.location for _, d in drawn], colors=_BLUE, radii=0.004))
        self._log(f'space/{STAGES[1]}', rr.LineStrips3D(
            [d.angle for _, d in drawn], colors=_YELLOW, radii=0.0008))
        self._log(f'space/{STAGES[2]}', rr.LineStrips3D(
            [np.vstack([d.corners, d.corners[:1]]) for _, d in drawn], colors=_WHITE,
            radii=0.0007))
        self._log(f'space/{STAGES[2]}/jaws', rr.LineStrips3D(
            [d.corners[list(pair)] for _, d in drawn for pair in ((1, 2), (3, 0))],
            colors=_WHITE, radii=0.002))
        self._log(f'space/{STAGES[3]}', rr.Points3D(
            [d.label for _, d in drawn], colors=colours, radii=0.002,
            labels=[_score_label(c, detection) for c, _ in drawn], show_labels=True))

    def _log_grasp(self, detection: Detection) -> None:
        """The chosen grasp as a gripper with its real opening, and the way to it."""
        grasp = detection.best.grasp if detection.best is not None else None
        if grasp is None or self.approach_offset <= 0:
            self._log('space/approach/pre_grasp', rr.Boxes3D(centers=[], half_sizes=[]))
            self._log('space/approach', rr.Arrows3D(vectors=[], origins=[]))
        if grasp is None:
            self._log('space/gripper', rr.Boxes3D(centers=[], half_sizes=[]))
            return
        drawn = [('space/gripper', _GRIPPER, 0.0)]
        if self.approach_offset > 0:
            drawn.append(('space/approach/pre_grasp', _GHOST, self.approach_offset))
        for path, colour, back in drawn:
            boxes = gripper_boxes(grasp, self.gripper, back)
            self._log(path, rr.Boxes3D(
                centers=[box.centre for box in boxes], half_sizes=[box.size / 2 for box in boxes],
                quaternions=[rr.Quaternion(xyzw=grasp.quaternion)] * len(boxes), colors=colour,
                fill_mode='solid' if back == 0.0 else 'densewireframe', radii=0.0004))
        if self.approach_offset <= 0:
            return
        path_points = approach_path(grasp, self.approach_offset)
        self._log('space/approach', rr.Arrows3D(
            origins=[path_points[0]], vectors=[path_points[1] - path_points[0]], colors=_PATH,
            radii=0.0015, labels=[f'opening {grasp.opening * 1e3:.0f} mm'], show_labels=True))

    def _log_numbers(self, shown: Shown) -> None:
        detection = shown.detection
        best = detection.best
        self._log('plots/best_score', rr.Scalars([best.score] if best is not None else []))
        for stage, milliseconds in detection.milliseconds.items():
            self._log(f'times/{stage}', rr.Scalars([milliseconds]))
        self._log('candidates', rr.TextDocument(candidate_table(shown),
                                                media_type=rr.MediaType.MARKDOWN))
        level = rr.TextLogLevel.INFO if detection.reason is Reason.OK else rr.TextLogLevel.WARN
        text = f'{shown.name}: {detection.reason.name}'
        if detection.reason is not Reason.OK:
            text += f' - {detection.message or detection.reason.sentence}'
        self._log('outcome', rr.TextLog(text, level=level))


def _pixel(points) -> np.ndarray:
    """Pixels with integer centres -> Rerun's, whose first pixel spans 0 to 1."""
    return np.asarray(points, np.float64) + 0.5


def label_positions(locations: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """
    Locations (N, 2) in an image of ``size`` -> where their labels do not cover each other (N, 2).

    A column beside the candidates, in the order of their heights: candidates lie so close together
    that labels at their places would be unreadable.
    """
    if not len(locations):
        return np.zeros((0, 2))
    pitch, gap = (v * size[0] / 640 for v in (_LABEL_PITCH, _LABEL_GAP))
    right = locations[:, 0].max() + gap
    x = right if right < size[0] - gap else max(locations[:, 0].min() - gap, gap / 2)
    order = np.argsort(locations[:, 1], kind='stable')
    heights = locations[order, 1].copy()
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + pitch)
    # Pushed down only, the column would hang below the candidates.
    heights -= (heights - locations[order, 1]).mean()
    positions = np.full((len(locations), 2), x)
    positions[order, 1] = heights
    return positions


def _angle_line(candidate: Candidate) -> np.ndarray:
    direction = np.array([math.cos(candidate.theta), math.sin(candidate.theta)])
    reach = max(candidate.rectangle.opening / 2, 8.0)
    centre = _pixel(candidate.location)
    return np.stack([centre - reach * direction, centre + reach * direction])


def _score_label(candidate: Candidate, detection: Detection) -> str:
    return ('best ' if candidate is detection.best else '') + f'{candidate.score:.2f}'


def candidate_table(shown: Shown) -> str:
    """Every candidate with what each stage decided about it, as Markdown."""
    detection = shown.detection
    outcome = '' if detection.reason is Reason.OK else \
        f'\n\n**{detection.reason.name}**: {detection.message or detection.reason.sentence}'
    lines = [f'### {shown.name}{outcome}', '',
             '| | ' + ' | '.join((*shown.titles, 'opening', 'tips', 'pose')) + ' |',
             '|---' * (len(shown.titles) + 4) + '|']
    for number, candidate in enumerate(detection.candidates, 1):
        mark = '**best**' if candidate is detection.best else str(number)
        x, y = candidate.location
        r = candidate.rectangle
        opening = f'{candidate.grasp.opening * 1e3:.0f} mm' if candidate.grasp else '-'
        tips = '-' if candidate.finger_depth is None else f'{candidate.finger_depth * 1e3:.0f} mm'
        lines.append(
            f'| {mark} | ({x:.0f}, {y:.0f}) {candidate.location_score:.2f} '
            f'| {math.degrees(candidate.theta):.0f}° | ({r.x:.0f}, {r.y:.0f}) '
            f'{r.opening:.0f} x {r.jaw:.0f} px | {candidate.score:.3f} | {opening} '
            f'| {tips} | {candidate.reason.name} |')
    return '\n'.join(lines)


def eye(shown: Shown) -> rrb.EyeControls3D:
    """Return where the viewer's eye starts: above and before the grasp, as a person would look."""
    best = shown.detection.best
    if best is not None and best.grasp is not None:
        target = best.grasp.surface
    else:
        points, _ = point_cloud(shown.frame, 5000)
        target = np.median(points, axis=0) if len(points) else np.array([0.0, 0.0, 0.7])
    # In the optical frame: a little to the right, towards the lower border, and nearer.
    return rrb.EyeControls3D(position=target + np.array([0.16, 0.24, -0.30]), look_target=target,
                             eye_up=[0.0, -0.6, -0.8])


def layout(first: Shown | None = None, paused: bool = False) -> rrb.Blueprint:
    """Return how the viewer is laid out; the eye is placed for the ``first`` frame."""
    # One view a stage, so that what each of them added can be compared at a glance.
    panels = [rrb.Spatial2DView(origin='image', name='colour', contents=['image/colour']),
              rrb.Spatial2DView(origin='depth', name='depth')]
    panels += [rrb.Spatial2DView(origin='image', name=title.strip(),
                                 contents=['image/colour', f'image/{stage}/**'])
               for stage, title in zip(STAGES, first.titles if first else STAGE_TITLES,
                                       strict=True)]
    numbers = rrb.Tabs(
        rrb.TextDocumentView(origin='candidates', name='candidates'),
        rrb.TextLogView(origin='outcome', name='outcomes'),
        rrb.TimeSeriesView(origin='plots', name='best score'),
        rrb.TimeSeriesView(origin='times', name='milliseconds'), active_tab=0)
    space = rrb.Spatial3DView(origin='space', name='space',
                              eye_controls=eye(first) if first else None)
    return rrb.Blueprint(
        rrb.Horizontal(rrb.Vertical(space, numbers, row_shares=[5, 3]),
                       rrb.Grid(*panels, grid_columns=2), column_shares=[1, 1]),
        rrb.BlueprintPanel(state='collapsed'), rrb.SelectionPanel(state='collapsed'),
        rrb.TimePanel(state='collapsed', timeline='frame',
                      play_state='paused' if paused else 'following'),
        auto_views=False, auto_layout=False)

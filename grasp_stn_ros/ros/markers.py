"""
A detection as RViz markers, in 3-D at the depth of the objects.

One namespace a stage, one for the chosen grasp as a gripper with its real opening, one for the way
there from the pre-grasp pose, and one for the grasps that have failed before: RViz gives each
namespace a switch of its own.

Ids are stable: candidate ``i`` of a stage has the same ids in every message, so RViz replaces
rather than accumulates. What was there before and is not there now is deleted by name.
"""

from __future__ import annotations

from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
import numpy as np
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from ..detection import Candidate, Detection, Grasp
from ..drawing import (
    PRE_GRASP_DISTANCE,
    StageDrawing,
    approach_path,
    draw_candidate,
    failure_cross,
    gripper_boxes,
)
from ..grasp_pose import Gripper
from ..rgbd import RgbdFrame
from .conversions import pose_message

LOCATIONS, ANGLES, RECTANGLES, SCORES, BEST, APPROACH, FAILED = NAMESPACES = (
    'stage_1_locations', 'stage_2_angles', 'stage_3_rectangles', 'stage_4_scores', 'best_grasp',
    'approach', 'failed')

_BLUE, _YELLOW, _GREEN, _WHITE = (0.2, 0.5, 1.0), (1.0, 0.8, 0.1), (0.1, 0.9, 0.2), (1.0,) * 3
_RED = (1.0, 0.15, 0.1)
# Lengths of the drawing, metres.
_SPHERE, _LINE, _JAW_LINE, _TEXT, _ARROW = 0.008, 0.0015, 0.004, 0.012, 0.012


class MarkerBuilder:
    """
    Builds the MarkerArray of each detection and remembers which markers are shown.

    ``gripper`` and ``approach_offset`` may be changed between two detections.
    """

    def __init__(self, gripper: Gripper, approach_offset: float = PRE_GRASP_DISTANCE):
        """Draw grasps with the jaws of ``gripper``, from ``approach_offset`` metres before on."""
        self.gripper, self.approach_offset = gripper, approach_offset
        self._shown: set[tuple[str, int]] = set()

    def build(self, detection: Detection, frame: RgbdFrame, header: Header,
              lifetime: float) -> MarkerArray:
        """
        Markers of a detection in ``frame``, with ``header`` (the image's) and lifetime in seconds.

        Candidates for which there is no depth at all are left out. ``lifetime`` 0 means until
        replaced.
        """
        if frame.depth is None or frame.intrinsics is None:
            return self.clear(header)
        markers: list[Marker] = []
        for index, candidate in enumerate(detection.candidates):
            drawing = draw_candidate(candidate, frame)
            if drawing is not None:
                markers += _stages(index, candidate, drawing, candidate is detection.best)
        if detection.best is not None and detection.best.grasp is not None:
            grasp = detection.best.grasp
            markers += _gripper(grasp, self.gripper, BEST, 0.8)
            # Without a way there is nothing to see but the gripper once more.
            if self.approach_offset > 0:
                markers += _approach(grasp, self.gripper, self.approach_offset)
        markers += [_failed(number, pose) for number, pose in enumerate(detection.failed)]
        if not markers:
            return self.clear(header)
        whole, fraction = divmod(lifetime, 1.0)
        for marker in markers:
            marker.header = header
            marker.lifetime = Duration(sec=int(whole), nanosec=int(fraction * 1e9))
        shown = {(m.ns, m.id) for m in markers}
        markers += [Marker(header=header, ns=ns, id=number, action=Marker.DELETE)
                    for ns, number in sorted(self._shown - shown)]
        self._shown = shown
        return MarkerArray(markers=markers)

    def clear(self, header: Header) -> MarkerArray:
        """Remove everything, namespace by namespace."""
        self._shown = set()
        return MarkerArray(markers=[Marker(header=header, ns=ns, action=Marker.DELETEALL)
                                    for ns in NAMESPACES])


def _marker(namespace: str, number: int, kind: int, scale: tuple[float, float, float],
            color: tuple[float, ...], alpha: float) -> Marker:
    """Return a marker without header; the pose is the identity."""
    r, g, b = color
    return Marker(ns=namespace, id=number, type=kind, action=Marker.ADD,
                  pose=Pose(orientation=Quaternion(w=1.0)),
                  scale=Vector3(x=scale[0], y=scale[1], z=scale[2]),
                  color=ColorRGBA(r=r, g=g, b=b, a=alpha))


def _point(vector: np.ndarray) -> Point:
    return Point(x=float(vector[0]), y=float(vector[1]), z=float(vector[2]))


def _stages(index: int, candidate: Candidate, drawing: StageDrawing,
            best: bool) -> list[Marker]:
    """Return the markers of the four stages of one candidate."""
    alpha = 1.0 if best else 0.6
    sphere = _marker(LOCATIONS, index, Marker.SPHERE, (_SPHERE,) * 3, _BLUE, alpha)
    sphere.pose.position = _point(drawing.location)
    angle = _marker(ANGLES, index, Marker.LINE_LIST, (_LINE, 0.0, 0.0), _YELLOW, alpha)
    angle.points = [_point(end) for end in drawing.angle]
    color = _GREEN if best else _WHITE
    corners = [_point(corner) for corner in drawing.corners]
    # Corners 0-1 and 2-3 run along the opening, 1-2 and 3-0 are the jaw plates.
    opening = _marker(RECTANGLES, 2 * index, Marker.LINE_LIST, (_LINE, 0.0, 0.0), color, alpha)
    opening.points = [corners[i] for i in (0, 1, 2, 3)]
    jaws = _marker(RECTANGLES, 2 * index + 1, Marker.LINE_LIST, (_JAW_LINE, 0.0, 0.0), color,
                   alpha)
    jaws.points = [corners[i] for i in (1, 2, 3, 0)]
    score = _marker(SCORES, index, Marker.TEXT_VIEW_FACING, (0.0, 0.0, _TEXT), color, 1.0)
    score.pose.position = _point(drawing.label)
    score.text = f'{candidate.score:.2f}'
    return [sphere, angle, opening, jaws, score]


def _failed(number: int, pose: np.ndarray) -> Marker:
    """Return the cross where a grasp has failed."""
    cross = _marker(FAILED, number, Marker.LINE_LIST, (_JAW_LINE / 2, 0.0, 0.0), _RED, 1.0)
    cross.points = [_point(end) for end in failure_cross(pose).reshape(-1, 3)]
    return cross


def _gripper(grasp: Grasp, gripper: Gripper, namespace: str, alpha: float,
             back: float = 0.0) -> list[Marker]:
    """Two jaws and the palm behind them, ``back`` metres before the grasp's pose."""
    markers = []
    for number, box in enumerate(gripper_boxes(grasp, gripper, back)):
        size = (float(box.size[0]), float(box.size[1]), float(box.size[2]))
        marker = _marker(namespace, number, Marker.CUBE, size, _GREEN, alpha)
        marker.pose = pose_message(grasp)
        marker.pose.position = _point(box.centre)
        markers.append(marker)
    return markers


def _approach(grasp: Grasp, gripper: Gripper, distance: float) -> list[Marker]:
    """Return the gripper ``distance`` metres before the grasp, and an arrow from there to it."""
    ghost = _gripper(grasp, gripper, APPROACH, 0.25, distance)
    arrow = _marker(APPROACH, len(ghost), Marker.ARROW, (_ARROW / 2, _ARROW, _ARROW), _GREEN, 0.8)
    arrow.points = [_point(end) for end in approach_path(grasp, distance)]
    return [*ghost, arrow]

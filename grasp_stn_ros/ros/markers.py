"""
A detection as RViz markers: one namespace a stage, in 3-D at the depth of the objects.

Ids are stable: candidate ``i`` of a stage has the same ids in every message, so RViz replaces
rather than accumulates. What was there before and is not there now is deleted by name.
"""

from __future__ import annotations

import math

from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
import numpy as np
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from ..detection import Candidate, Detection, Grasp
from ..grasp_pose import Gripper
from ..rgbd import CameraIntrinsics, RgbdFrame
from .conversions import pose_message

LOCATIONS, ANGLES, RECTANGLES, SCORES, BEST = (
    'stage_1_locations', 'stage_2_angles', 'stage_3_rectangles', 'stage_4_scores', 'best_grasp')
NAMESPACES = (LOCATIONS, ANGLES, RECTANGLES, SCORES, BEST)

_BLUE, _YELLOW, _GREEN, _WHITE = (0.2, 0.5, 1.0), (1.0, 0.8, 0.1), (0.1, 0.9, 0.2), (1.0,) * 3
# Lengths of the drawing, metres.
_SPHERE, _LINE, _JAW_LINE, _TEXT = 0.008, 0.0015, 0.004, 0.012
_FINGER_LENGTH, _PALM, _HANDLE, _ARROW = 0.045, 0.015, 0.08, 0.012


class MarkerBuilder:
    """Builds the MarkerArray of each detection and remembers which markers are shown."""

    def __init__(self, gripper: Gripper):
        """Draw grasps with the jaws of ``gripper``."""
        self._gripper = gripper
        self._shown: set[tuple[str, int]] = set()

    def build(self, detection: Detection, frame: RgbdFrame, header: Header,
              lifetime: float) -> MarkerArray:
        """
        Markers of a detection in ``frame``, with ``header`` (the image's) and lifetime in seconds.

        Candidates for which there is no depth at all are left out. ``lifetime`` 0 means until
        replaced.
        """
        if frame.depth is None or frame.intrinsics is None or not detection.candidates:
            return self.clear(header)
        markers: list[Marker] = []
        for index, candidate in enumerate(detection.candidates):
            plane = _plane(candidate, frame)
            if plane is not None:
                markers += _stages(index, candidate, frame.intrinsics, plane,
                                   candidate is detection.best)
        if detection.best is not None and detection.best.grasp is not None:
            markers += _gripper(detection.best.grasp, self._gripper)
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


def _plane(candidate: Candidate, frame: RgbdFrame) -> tuple[np.ndarray, float] | None:
    """
    Return the plane {p: normal @ p = offset} to draw a candidate in, or None without depth.

    The one in which its rectangle lies where it has a grasp; otherwise parallel to the image at
    the nearest valid depth around the centre.
    """
    if candidate.grasp is not None:
        normal = candidate.grasp.approach
        return normal, float(normal @ candidate.grasp.surface)
    assert frame.depth is not None
    x, y = round(candidate.rectangle.x), round(candidate.rectangle.y)
    for reach in (3, 12, 48):
        window = frame.depth[max(y - reach, 0):max(y + reach + 1, 0),
                             max(x - reach, 0):max(x + reach + 1, 0)]
        if np.isfinite(window).any():
            return np.array([0.0, 0.0, 1.0]), float(np.nanmedian(window))
    return None


def _project(pixels: np.ndarray, intrinsics: CameraIntrinsics,
             plane: tuple[np.ndarray, float]) -> np.ndarray | None:
    """Pixels (N, 2) -> points (N, 3) in ``plane``; None where a ray runs along it."""
    normal, offset = plane
    rays = intrinsics.rays(pixels)
    slope = rays @ normal
    with np.errstate(divide='ignore', invalid='ignore'):
        points = rays * (offset / slope)[:, None]
    return points if np.isfinite(points).all() and np.abs(points).max() < 100 else None


def _stages(index: int, candidate: Candidate, intrinsics: CameraIntrinsics,
            plane: tuple[np.ndarray, float], best: bool) -> list[Marker]:
    """Return the markers of the four stages of one candidate."""
    alpha = 1.0 if best else 0.6
    rectangle = candidate.rectangle
    direction = np.array([math.cos(candidate.theta), math.sin(candidate.theta)])
    location = np.asarray(candidate.location, np.float64)
    reach = rectangle.opening / 2
    points = _project(np.concatenate([
        [location, location - reach * direction, location + reach * direction],
        rectangle.corners, [rectangle.corners[:2].mean(axis=0)]]), intrinsics, plane)
    if points is None:
        return []
    sphere = _marker(LOCATIONS, index, Marker.SPHERE, (_SPHERE,) * 3, _BLUE, alpha)
    sphere.pose.position = _point(points[0])
    angle = _marker(ANGLES, index, Marker.LINE_LIST, (_LINE, 0.0, 0.0), _YELLOW, alpha)
    angle.points = [_point(points[1]), _point(points[2])]
    color = _GREEN if best else _WHITE
    # Corners 0-1 and 2-3 run along the opening, 1-2 and 3-0 are the jaw plates.
    opening = _marker(RECTANGLES, 2 * index, Marker.LINE_LIST, (_LINE, 0.0, 0.0), color, alpha)
    opening.points = [_point(points[i]) for i in (3, 4, 5, 6)]
    jaws = _marker(RECTANGLES, 2 * index + 1, Marker.LINE_LIST, (_JAW_LINE, 0.0, 0.0), color,
                   alpha)
    jaws.points = [_point(points[i]) for i in (4, 5, 6, 3)]
    score = _marker(SCORES, index, Marker.TEXT_VIEW_FACING, (0.0, 0.0, _TEXT), color, 1.0)
    score.pose.position = _point(points[7])
    score.text = f'{candidate.score:.2f}'
    return [sphere, angle, opening, jaws, score]


def _gripper(grasp: Grasp, gripper: Gripper) -> list[Marker]:
    """Two jaws, the palm behind them and an arrow along the approach, at the grasp's pose."""
    thickness, height = gripper.finger_thickness, gripper.jaw_size
    width = grasp.opening + 2 * thickness
    jaw_at = (grasp.opening + thickness) / 2
    boxes = [((-_FINGER_LENGTH / 2, -jaw_at), (_FINGER_LENGTH, thickness, height)),
             ((-_FINGER_LENGTH / 2, jaw_at), (_FINGER_LENGTH, thickness, height)),
             ((-_FINGER_LENGTH - _PALM / 2, 0.0), (_PALM, width, height))]
    markers = []
    for number, ((along, across), size) in enumerate(boxes):
        box = _marker(BEST, number, Marker.CUBE, size, _GREEN, 0.8)
        box.pose = pose_message(grasp)
        box.pose.position = _point(grasp.position + grasp.rotation @ np.array([along, across, 0]))
        markers.append(box)
    arrow = _marker(BEST, len(boxes), Marker.ARROW, (_ARROW / 2, _ARROW, _ARROW), _GREEN, 0.8)
    end = grasp.position - (_FINGER_LENGTH + _PALM) * grasp.approach
    arrow.points = [_point(end - _HANDLE * grasp.approach), _point(end)]
    return [*markers, arrow]

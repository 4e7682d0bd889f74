"""
A detection as points, lines and boxes in space: one geometry for RViz and for the viewer.

Everything is in the camera's optical frame (REP-103: x right, y down, z forward), in metres.
"""

from __future__ import annotations

from dataclasses import dataclass
import math

import numpy as np

from .detection import Candidate, Grasp
from .grasp_pose import Gripper
from .rgbd import CameraIntrinsics, RgbdFrame

# Distance from the pre-grasp pose to the grasp in metres, against the approach direction, where no
# node says what its parameter approach_offset is.
PRE_GRASP_DISTANCE = 0.10
# Of the fingers and the palm behind them; no parameter of the gripper says how long they are, only
# how far they may reach, with room left before the palm.
FINGER_LENGTH, PALM_ROOM, PALM_DEPTH = 0.045, 0.005, 0.015
# Half of the side of the square that the cross over a failed grasp fills, metres.
_CROSS = 0.012
# Nothing that a gripper can reach is farther away.
_FARTHEST = 100.0


@dataclass(frozen=True)
class StageDrawing:
    """
    What the four stages decided about one candidate, at the depth of the object.

    ``location`` (3,); ``angle`` (2, 3), a line along the opening direction; ``corners`` (4, 3) of
    the rectangle, of which 0-1 and 2-3 run along the opening and 1-2 and 3-0 are the jaws;
    ``label`` (3,), where the score belongs.
    """

    location: np.ndarray
    angle: np.ndarray
    corners: np.ndarray
    label: np.ndarray


@dataclass(frozen=True)
class Box:
    """A box with ``centre`` (3,); ``size`` (3,) along the axes of the grasp it belongs to."""

    centre: np.ndarray
    size: np.ndarray


def draw_candidate(candidate: Candidate, frame: RgbdFrame) -> StageDrawing | None:
    """
    Return the stages of a candidate in space; None without depth or camera matrix.

    Drawn in the plane in which the rectangle lies where there is a grasp, and otherwise parallel
    to the image at the nearest valid depth around its centre.
    """
    if frame.depth is None or frame.intrinsics is None:
        return None
    plane = _plane(candidate, frame.depth)
    if plane is None:
        return None
    rectangle = candidate.rectangle
    direction = np.array([math.cos(candidate.theta), math.sin(candidate.theta)])
    location = np.asarray(candidate.location, np.float64)
    reach = rectangle.opening / 2
    points = _project(np.concatenate([
        [location, location - reach * direction, location + reach * direction],
        rectangle.corners, [rectangle.corners[:2].mean(axis=0)]]), frame.intrinsics, plane)
    if points is None:
        return None
    return StageDrawing(points[0], points[1:3], points[3:7], points[7])


def _plane(candidate: Candidate, depth: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Return the plane {p: normal @ p = offset} to draw a candidate in, or None without depth."""
    if candidate.grasp is not None:
        normal = candidate.grasp.approach
        return normal, float(normal @ candidate.grasp.surface)
    x, y = round(candidate.rectangle.x), round(candidate.rectangle.y)
    for reach in (3, 12, 48):
        window = depth[max(y - reach, 0):max(y + reach + 1, 0),
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
    return points if np.isfinite(points).all() and np.abs(points).max() < _FARTHEST else None


def gripper_boxes(grasp: Grasp, gripper: Gripper, back: float = 0.0) -> tuple[Box, Box, Box]:
    """
    Return two jaws, as far apart as the grasp opens them, and the palm behind them.

    Turned by ``grasp.rotation``. ``back`` is how far from the grasp the gripper is drawn, against
    the approach direction.
    """
    thickness, height = gripper.finger_thickness, gripper.jaw_size
    jaw_at = (grasp.opening + thickness) / 2
    length = max(FINGER_LENGTH, gripper.finger_depth + PALM_ROOM)
    finger = (length, thickness, height)
    palm = (PALM_DEPTH, grasp.opening + 2 * thickness, height)
    left, right, behind = (
        Box(grasp.position + grasp.rotation @ np.array([along - back, across, 0.0]),
            np.array(size))
        for (along, across), size in (((-length / 2, -jaw_at), finger),
                                      ((-length / 2, jaw_at), finger),
                                      ((-length - PALM_DEPTH / 2, 0.0), palm)))
    return left, right, behind


def approach_path(grasp: Grasp, distance: float = PRE_GRASP_DISTANCE) -> np.ndarray:
    """Return the way of the finger tips (2, 3), from ``distance`` before the grasp to it."""
    return np.stack([grasp.position - distance * grasp.approach, grasp.position])


def failure_cross(pose: np.ndarray) -> np.ndarray:
    """Pose (4, 4) of a grasp that failed -> two lines (2, 2, 3) that cross it out."""
    # Diagonals of the plane in which the jaws close, so that neither is taken for their direction.
    across = _CROSS * np.array([[0.0, 1.0, 1.0], [0.0, 1.0, -1.0]]) @ pose[:3, :3].T
    return pose[:3, 3] + np.stack([-across, across], axis=1)


def point_cloud(frame: RgbdFrame, maximum: int = 80_000) -> tuple[np.ndarray, np.ndarray]:
    """Return points (N, 3) float32 and colours (N, 3) uint8 of at most ``maximum`` pixels."""
    if frame.depth is None or frame.intrinsics is None:
        return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8)
    step = max(1, math.ceil(math.sqrt(frame.depth.size / maximum)))
    rows, columns = np.mgrid[0:frame.size[1]:step, 0:frame.size[0]:step]
    depth = frame.depth[rows, columns]
    valid = np.isfinite(depth)
    rays = frame.intrinsics.rays(np.stack([columns[valid], rows[valid]], axis=-1))
    points = (rays * depth[valid][:, None]).astype(np.float32)
    return points, frame.rgb[rows[valid], columns[valid]]

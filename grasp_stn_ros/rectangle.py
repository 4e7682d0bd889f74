"""
The grasp rectangle, its exact overlap, and the rectangle metric (Jiang 2011, Lenz 2015).

A rectangle is (x, y, theta, opening, jaw): the centre in pixels, the angle of the *opening
direction* (the axis along which the jaws close) in radians measured from the image's x axis
towards its y axis (so clockwise as seen on a screen, since y points down), the length along that
direction (opening) and across it (jaw size) in pixels. The gripper is symmetric: theta and
theta + pi are the same grasp, and theta is kept in [-pi/2, pi/2).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
import math

import numpy as np


def wrap_angle(theta):
    """Angle(s) in radians -> the same opening direction in [-pi/2, pi/2)."""
    return (np.asarray(theta) + np.pi / 2) % np.pi - np.pi / 2


def angle_distance(a, b):
    """Distance of two opening directions in radians, in [0, pi/2]."""
    return np.abs(wrap_angle(np.asarray(a) - np.asarray(b)))


def transform_rectangles(rectangles: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Map rectangles (N, 5) through a similarity (2, 3), reflections included -> (N, 5)."""
    linear, offset = np.asarray(matrix, np.float64)[:, :2].T, np.asarray(matrix)[:, 2]
    theta = rectangles[:, 2]
    along = np.stack([np.cos(theta), np.sin(theta)], axis=1) @ linear
    scale = np.hypot(along[:, 0], along[:, 1])
    return np.concatenate([rectangles[:, :2] @ linear + offset,
                           wrap_angle(np.arctan2(along[:, 1], along[:, 0]))[:, None],
                           rectangles[:, 3:] * scale[:, None]], axis=1)


@dataclass(frozen=True)
class GraspRectangle:
    """One grasp in the image plane; see the module for the conventions."""

    x: float
    y: float
    theta: float
    opening: float
    jaw: float

    def __post_init__(self):
        """Wrap the angle; refuse what is not a rectangle."""
        values = (self.x, self.y, self.theta, self.opening, self.jaw)
        if not all(math.isfinite(v) for v in values) or self.opening <= 0 or self.jaw <= 0:
            raise ValueError(f'not a grasp rectangle: x, y, theta, opening, jaw = {values}')
        object.__setattr__(self, 'theta', float(wrap_angle(self.theta)))

    @property
    def axes(self) -> np.ndarray:
        """Unit vectors in pixels (2, 2): row 0 along the opening, row 1 along the jaw plates."""
        c, s = math.cos(self.theta), math.sin(self.theta)
        return np.array([[c, s], [-s, c]])

    @property
    def corners(self) -> np.ndarray:
        """Corners (4, 2) in pixels; the first edge runs along the opening (Cornell's order)."""
        along, across = self.axes * [[self.opening / 2], [self.jaw / 2]]
        centre = np.array([self.x, self.y])
        return np.stack([centre - along - across, centre + along - across,
                         centre + along + across, centre - along + across])

    @property
    def area(self) -> float:
        """Area in square pixels."""
        return self.opening * self.jaw

    @classmethod
    def from_corners(cls, corners: np.ndarray) -> GraspRectangle:
        """
        Four corners (4, 2), first edge along the opening -> the rectangle.

        Labelled corners are clicked by hand and form a parallelogram at best: opposite edges are
        averaged, which is exact for a rectangle.
        """
        corners = np.asarray(corners, np.float64)
        if corners.shape != (4, 2):
            raise ValueError(f'expected 4 corners of (x, y), got shape {corners.shape}')
        centre = corners.mean(axis=0)
        along = (corners[1] - corners[0] + corners[2] - corners[3]) / 2
        across = (corners[2] - corners[1] + corners[3] - corners[0]) / 2
        return cls(centre[0], centre[1], math.atan2(along[1], along[0]),
                   float(np.hypot(*along)), float(np.hypot(*across)))

    def as_array(self) -> np.ndarray:
        """(x, y, theta, opening, jaw) as float64 (5,)."""
        return np.array([self.x, self.y, self.theta, self.opening, self.jaw])

    def transformed(self, matrix: np.ndarray) -> GraspRectangle:
        """Map through a similarity (2, 3), reflections included: target = A @ source + t."""
        return GraspRectangle(*transform_rectangles(self.as_array()[None], matrix)[0].tolist())


def _clip(polygon: list, start: np.ndarray, end: np.ndarray) -> list:
    """Sutherland-Hodgman: the part of ``polygon`` on the inner side of the edge start-end."""
    def side(p):
        return (end[0] - start[0]) * (p[1] - start[1]) - (end[1] - start[1]) * (p[0] - start[0])

    kept: list[np.ndarray] = []
    for i, current in enumerate(polygon):
        previous = polygon[i - 1]
        side_current, side_previous = side(current), side(previous)
        if (side_current >= 0) != (side_previous >= 0):
            t = side_previous / (side_previous - side_current)
            kept.append(previous + t * (current - previous))
        if side_current >= 0:
            kept.append(current)
    return kept


def intersection_area(a: GraspRectangle, b: GraspRectangle) -> float:
    """Exact area of the intersection in square pixels (polygon clipping, no raster)."""
    reach = (math.hypot(a.opening, a.jaw) + math.hypot(b.opening, b.jaw)) / 2
    if math.hypot(a.x - b.x, a.y - b.y) >= reach:
        return 0.0
    # Relative to one centre: keeps the shoelace sum free of cancellation far from the origin.
    origin = np.array([a.x, a.y])
    polygon = list(a.corners - origin)
    clip = b.corners - origin
    for i in range(4):
        polygon = _clip(polygon, clip[i], clip[(i + 1) % 4])
        if not polygon:
            return 0.0
    points = np.array(polygon)
    following = np.roll(points, -1, axis=0)
    return abs(float(np.sum(points[:, 0] * following[:, 1] - points[:, 1] * following[:, 0]))) / 2


def iou(a: GraspRectangle, b: GraspRectangle) -> float:
    """Intersection over union (Jaccard index) in [0, 1]; exact."""
    shared = intersection_area(a, b)
    return shared / (a.area + b.area - shared)


def is_correct(predicted: GraspRectangle, labels: Iterable[GraspRectangle],
               min_iou: float = 0.25, max_angle: float = math.radians(30)) -> bool:
    """
    Tell whether some label has IoU > ``min_iou`` and an angle within ``max_angle`` radians.

    The defaults are the rectangle metric of the paper (its section IV-A); both conditions must
    hold for the same label. No label: False.
    """
    return any(angle_distance(predicted.theta, label.theta) <= max_angle
               and iou(predicted, label) > min_iou for label in labels)

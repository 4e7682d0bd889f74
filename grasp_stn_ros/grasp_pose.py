"""
From a grasp rectangle to a grasp in space, and back.

The rectangle's five parameters become the seven of a grasp (position, orientation, opening) with
depth and an approach direction. One definition serves labels, detection and simulation:

* The *surface level* of a rectangle is the highest surface, seen against the approach direction,
  in the middle between the jaws (anywhere between them, where the middle is empty). The
  rectangle lies in the plane through that level whose normal is the approach direction.
* The ends of the opening, ``centre -+ opening / 2`` along theta, are the projections of the two
  jaws in that plane. This makes the map between opening and rectangle exactly invertible for every
  camera and approach direction.
* The finger tips go ``finger_depth`` below the surface level along the approach direction, but
  stop ``support_clearance`` above what lies lowest under the jaws.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
import math

import numpy as np

from .detection import Grasp
from .reasons import GraspError, Reason
from .rectangle import GraspRectangle
from .rgbd import CameraIntrinsics, RgbdFrame
from .support_plane import SupportPlane

APPROACHES = ('support_plane', 'optical_axis', 'surface_normal', 'direction')

# Half width in metres of "the middle between the jaws".
MIDDLE = 0.006
# The surface level is this percentile of the levels in the middle: the highest but for outliers.
_TOP_PERCENTILE, _FLOOR_PERCENTILE = 92.0, 10.0
_MIN_VALID_SHARE = 0.2
# What lands this much above the surface level under a jaw blocks it, metres.
_BLOCKED = 0.01
# A predicted opening up to this factor above what the gripper has is clamped, not refused: that
# is the precision of the network, not the size of the object.
_OPENING_SLACK = 1.15
_MIN_COSINE = 0.3
# Pixels to each side of the one whose surface normal is wanted, and of them the nearest ones.
_WINDOW, _MIDDLE = 12, 3
# Half a quantization step of a structured-light camera, metres: an object this thin is not seen.
_UNSEEN = 0.002


@dataclass(frozen=True)
class Gripper:
    """A parallel-jaw gripper; all lengths in metres."""

    maximum_opening: float = 0.085
    jaw_size: float = 0.020           # height of the jaw plates (across the opening)
    finger_depth: float = 0.040       # how far the tips reach below the surface level
    finger_thickness: float = 0.008   # of one jaw, along the opening
    support_clearance: float = 0.003  # kept between the tips and what is under them

    def __post_init__(self):
        """Refuse lengths that no gripper has."""
        for name in ('maximum_opening', 'jaw_size', 'finger_depth', 'finger_thickness'):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise ValueError(f'gripper {name} must lie between 0 and 1 m, got {value}')
        if not 0 <= self.support_clearance < 1:
            raise ValueError('gripper support_clearance must lie between 0 and 1 m, '
                             f'got {self.support_clearance}')


def grasp_axes(approach: np.ndarray, opening_direction: np.ndarray) -> np.ndarray:
    """Rotation (3, 3) with columns x = approach, y = opening direction, z = x cross y."""
    x = approach / math.sqrt(approach @ approach)
    y = opening_direction - (opening_direction @ x) * x
    y = y / math.sqrt(y @ y)
    z = (x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], x[0] * y[1] - x[1] * y[0])
    return np.array([x, y, z]).T


def _on_plane(rays: np.ndarray, approach: np.ndarray, level: float) -> np.ndarray:
    """Intersect rays (N, 3) with the plane {p: -p @ approach = level} -> points (N, 3)."""
    return rays * (-level / (rays @ approach))[:, None]


def _sample(frame: RgbdFrame, pixels: np.ndarray) -> np.ndarray:
    """Depth (N,) at the nearest of ``pixels`` (N, 2), NaN outside the image."""
    assert frame.depth is not None
    x, y = np.rint(pixels.T).astype(int)
    width, height = frame.size
    if x.min() >= 0 and y.min() >= 0 and x.max() < width and y.max() < height:
        return frame.depth[y, x].astype(np.float64)
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    depth = np.full(len(pixels), np.nan)
    depth[inside] = frame.depth[y[inside], x[inside]]
    return depth


def surface_normal(frame: RgbdFrame, pixel: tuple[float, float],
                   radius: float = 0.008) -> np.ndarray | None:
    """
    Unit normal (3,) towards the camera of the surface around ``pixel`` (x, y), or None.

    Fitted to the points within ``radius`` metres of the one at the pixel.
    """
    assert frame.depth is not None and frame.intrinsics is not None
    k, (width, height) = frame.intrinsics, frame.size
    column, row = int(np.rint(pixel[0])), int(np.rint(pixel[1]))
    left, top = max(0, column - _WINDOW), max(0, row - _WINDOW)
    window = frame.depth[top:min(height, row + _WINDOW + 1), left:min(width, column + _WINDOW + 1)]
    near = window[max(0, row - _MIDDLE - top):max(0, row + _MIDDLE + 1 - top),
                  max(0, column - _MIDDLE - left):max(0, column + _MIDDLE + 1 - left)]
    near = near[np.isfinite(near)]
    if len(near) < 5:
        return None
    level = _percentile(near, 50.0)
    x = (np.arange(left, left + window.shape[1]) - k.cx) / k.fx * window
    y = ((np.arange(top, top + window.shape[0]) - k.cy) / k.fy)[:, None] * window
    centre = np.array([(pixel[0] - k.cx) / k.fx * level, (pixel[1] - k.cy) / k.fy * level, level])
    squared = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (window - level) ** 2
    # A hole is NaN, and not nearer than anything.
    inside = squared < max(radius, 2.5 * level / k.fx) ** 2
    points = np.stack([x[inside], y[inside], window[inside]], axis=1)
    if len(points) < 6:
        return None
    centred = points - points.mean(axis=0)
    # The direction in which the points vary least; eigenvalues come in ascending order.
    normal = np.linalg.eigh(centred.T @ centred)[1][:, 0]
    return normal if normal @ centre < 0 else -normal


def approach_vector(approach: str, direction: tuple[float, float, float], frame: RgbdFrame,
                    rectangle: GraspRectangle, support: SupportPlane | None) -> np.ndarray:
    """
    Unit approach vector (3,) in the optical frame for one of :data:`APPROACHES`.

    Raises :class:`GraspError` (NO_SUPPORT_PLANE, DEPTH_HOLE, INVALID_REQUEST).
    """
    if approach == 'optical_axis':
        return np.array([0.0, 0.0, 1.0])
    if approach == 'support_plane':
        if support is None:
            raise GraspError(Reason.NO_SUPPORT_PLANE)
        return support.approach
    if approach == 'surface_normal':
        normal = surface_normal(frame, (rectangle.x, rectangle.y))
        if normal is None:
            raise GraspError(Reason.DEPTH_HOLE, 'no surface normal at the centre')
        return -normal
    if approach == 'direction':
        vector = np.asarray(direction, np.float64)
        length = float(np.linalg.norm(vector))
        if vector.shape != (3,) or not np.isfinite(length) or length < 1e-6:
            raise GraspError(Reason.INVALID_REQUEST, f'approach direction {direction}')
        return vector / length
    raise GraspError(Reason.INVALID_REQUEST,
                     f'approach {approach!r}, expected one of {", ".join(APPROACHES)}')


def rectangle_to_grasp(rectangle: GraspRectangle, frame: RgbdFrame, gripper: Gripper,
                       approach: np.ndarray, support: SupportPlane | None = None) -> Grasp:
    """
    Turn a rectangle (pixels of ``frame``) into a :class:`Grasp` in its optical frame.

    ``approach`` is a unit vector (3,). ``support``, where known, is what the finger tips must not
    touch even where shadows hide it. Raises :class:`GraspError` with a reason named in
    :class:`Reason` where depth does not allow a pose; the paper stops at the rectangle.
    """
    if frame.intrinsics is None:
        raise GraspError(Reason.INVALID_INTRINSICS, 'a pose needs the camera matrix')
    if frame.depth is None:
        raise GraspError(Reason.NO_DEPTH, 'a pose needs a depth image')
    width, height = frame.size
    if not (-0.5 <= rectangle.x <= width - 0.5 and -0.5 <= rectangle.y <= height - 0.5):
        raise GraspError(Reason.OUTSIDE_IMAGE, f'({rectangle.x:.1f}, {rectangle.y:.1f})')
    intrinsics = frame.intrinsics
    centre = np.array([rectangle.x, rectangle.y])
    centre_ray = intrinsics.rays(centre)
    if centre_ray @ approach < _MIN_COSINE * np.linalg.norm(centre_ray):
        raise GraspError(Reason.GRAZING)

    # A grid over the rectangle and over what the jaws cover beyond its ends. The scale for the
    # margins comes from a first guess of the distance; only the borders of zones depend on it.
    guess = _sample(frame, centre + _grid(8.0, 8.0, 9, 9) @ rectangle.axes)
    guess = guess[np.isfinite(guess)]
    if not len(guess):
        raise GraspError(Reason.DEPTH_HOLE, 'no depth at the centre')
    pixels_per_metre = intrinsics.fx / _percentile(guess, 50.0)
    jaw_end = rectangle.opening / 2 + gripper.finger_thickness * pixels_per_metre
    local = _grid(jaw_end, rectangle.jaw / 2, 65, 11)
    pixels = centre + local @ rectangle.axes
    # -(ray @ approach) * depth, without the rays: seven hundred of them for each candidate.
    slope_x, slope_y = approach[0] / intrinsics.fx, approach[1] / intrinsics.fy
    constant = approach[2] - slope_x * intrinsics.cx - slope_y * intrinsics.cy
    levels = -(pixels @ np.array([slope_x, slope_y]) + constant) * _sample(frame, pixels)

    plates = centre + np.array([[-0.5], [0.5]]) * rectangle.jaw * rectangle.axes[1]
    ends = centre + np.array([[-0.5], [0.5]]) * rectangle.opening * rectangle.axes[0]
    half_opening = rectangle.opening / 2
    middle = max(1.0, min(MIDDLE * pixels_per_metre, half_opening))
    # A ring has nothing in the middle: then whatever is highest between the jaws counts.
    for half_width in (middle, half_opening):
        level = _surface_level(levels[np.abs(local[:, 0]) <= half_width])
        end_points = _on_plane(intrinsics.rays(ends), approach, level)
        surface = end_points.mean(axis=0)
        floor = _floor_level(local, levels, half_opening, level, surface, approach, support)
        tips = max(level - gripper.finger_depth, floor + gripper.support_clearance)
        if tips <= level + _UNSEEN:
            break
    else:
        raise GraspError(Reason.TOO_FLAT, f'{(level - floor) * 1e3:.0f} mm above the support')
    opening = float(np.linalg.norm(end_points[1] - end_points[0]))
    if opening > gripper.maximum_opening * _OPENING_SLACK:
        raise GraspError(Reason.TOO_WIDE, f'{opening * 1e3:.0f} mm of '
                                          f'{gripper.maximum_opening * 1e3:.0f} mm')
    plate_points = _on_plane(intrinsics.rays(plates), approach, level)

    normal = surface_normal(frame, (rectangle.x, rectangle.y))
    return Grasp(
        position=surface + approach * (level - tips),
        rotation=grasp_axes(approach, end_points[1] - end_points[0]),
        opening=min(opening, gripper.maximum_opening),
        jaw_size=float(np.linalg.norm(plate_points[1] - plate_points[0])),
        surface=surface,
        normal=-approach if normal is None else normal)


def _surface_level(levels: np.ndarray) -> float:
    """Highest of ``levels`` (N,) but for outliers; raises :class:`GraspError` (DEPTH_HOLE)."""
    valid = levels[np.isfinite(levels)]
    if len(valid) < max(3, _MIN_VALID_SHARE * len(levels)):
        raise GraspError(Reason.DEPTH_HOLE,
                         f'{len(valid)} of {len(levels)} pixels between the jaws')
    return _percentile(valid, _TOP_PERCENTILE)


def _floor_level(local: np.ndarray, levels: np.ndarray, half_opening: float, level: float,
                 surface: np.ndarray, approach: np.ndarray,
                 support: SupportPlane | None) -> float:
    """
    Level of what lies lowest under the jaws.

    Low percentile over both jaws: next to an object a camera sees its side wall rather than the
    ground, on one side at least, and taking that for the ground would keep the fingers too high.
    """
    under_jaws: list[np.ndarray] = []
    for side in (-1, 1):
        under = levels[local[:, 0] * side >= half_opening]
        under = under[np.isfinite(under)]
        if len(under) >= 3:
            if _percentile(under, 50.0) > level + _BLOCKED:
                raise GraspError(Reason.JAWS_BLOCKED)
            under_jaws.append(under)
    candidates: list[float] = []
    if under_jaws:
        candidates.append(_percentile(np.concatenate(under_jaws), _FLOOR_PERCENTILE))
    if support is not None:
        # Level of the support straight below the surface point.
        slant = max(float(-approach @ support.normal), _MIN_COSINE)
        candidates.append(level - float(support.height(surface)) / slant)
    if not candidates:
        # Nothing known below: the shadow of the object hides it. What is lowest in the rectangle
        # is then the best lower bound there is.
        candidates.append(float(np.nanmin(levels)))
    return max(candidates)


def _grid(half_width: float, half_height: float, columns: int, rows: int) -> np.ndarray:
    """Points (columns * rows, 2) covering [-half_width, half_width] x [-half_height, ...]."""
    return _unit_grid(columns, rows) * [half_width, half_height]


@lru_cache
def _unit_grid(columns: int, rows: int) -> np.ndarray:
    u, v = np.meshgrid(np.linspace(-1, 1, columns), np.linspace(-1, 1, rows))
    return np.stack([u.ravel(), v.ravel()], axis=1)


def _percentile(values: np.ndarray, percent: float) -> float:
    """``numpy.percentile`` of values (N,) without NaN, at a tenth of its overhead."""
    place = (len(values) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(values) - 1)
    two = np.partition(values, (low, high))
    return float(two[low] + (two[high] - two[low]) * (place - low))


def grasp_to_rectangle(grasp: Grasp, intrinsics: CameraIntrinsics) -> GraspRectangle:
    """Project a grasp at its surface level: the inverse of :func:`rectangle_to_grasp`."""
    half_opening = grasp.rotation[:, 1] * grasp.opening / 2
    half_jaw = grasp.rotation[:, 2] * grasp.jaw_size / 2
    ends = intrinsics.project(np.stack([grasp.surface - half_opening,
                                        grasp.surface + half_opening]))
    plates = intrinsics.project(np.stack([grasp.surface - half_jaw, grasp.surface + half_jaw]))
    centre = ends.mean(axis=0)
    along = ends[1] - ends[0]
    return GraspRectangle(centre[0], centre[1], float(np.arctan2(along[1], along[0])),
                          float(np.hypot(*along)), float(np.hypot(*(plates[1] - plates[0]))))

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
* The finger tips go ``finger_depth`` below the surface level along the approach direction, or
  less where the grasp classifier says so, but stop ``support_clearance`` above what lies lowest
  under the jaws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
# Columns and rows of the grid over a rectangle and the jaws, and of that for a first guess.
_GRID = np.linspace(-1, 1, 65), np.linspace(-1, 1, 11)
_GUESS = np.linspace(-1, 1, 9), np.linspace(-1, 1, 9)
# Half a quantization step of a structured-light camera, metres: an object this thin is not seen.
_UNSEEN = 0.002


@dataclass(frozen=True)
class Gripper:
    """A parallel-jaw gripper; all lengths in metres."""

    maximum_opening: float = 0.085
    jaw_size: float = 0.020           # height of the jaw plates (across the opening)
    finger_depth: float = 0.040       # how far the tips may reach below the surface level
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
    """Rotations (..., 3, 3) with columns x = approach, y = opening direction, z = x cross y."""
    x = approach / np.linalg.norm(approach, axis=-1, keepdims=True)
    along = (opening_direction * x).sum(axis=-1, keepdims=True)
    y = opening_direction - along * x
    y = y / np.linalg.norm(y, axis=-1, keepdims=True)
    # numpy.cross takes ten times as long.
    after, before = [1, 2, 0], [2, 0, 1]
    z = x[..., after] * y[..., before] - x[..., before] * y[..., after]
    return np.stack([x, y, z], axis=-1)


def _on_plane(rays: np.ndarray, approach: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Intersect rays (N, M, 3) with the planes {p: -p @ approach = level} -> points (N, M, 3)."""
    return rays * (-level[:, None] / np.einsum('nmi,ni->nm', rays, approach))[..., None]


def _sample(frame: RgbdFrame, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Depth as float64 at the pixels nearest to (x, y), which broadcast; NaN outside the image."""
    assert frame.depth is not None
    x, y = np.rint(x).astype(np.intp), np.rint(y).astype(np.intp)
    width, height = frame.size
    if x.min() >= 0 and y.min() >= 0 and x.max() < width and y.max() < height:
        return frame.depth[y, x].astype(np.float64)
    depth = frame.depth[y.clip(0, height - 1), x.clip(0, width - 1)].astype(np.float64)
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    return np.where(inside, depth, np.nan)


def surface_normals(frame: RgbdFrame, pixels: np.ndarray, radius: float = 0.008) -> np.ndarray:
    """
    Unit normals (N, 3) towards the camera of the surface around ``pixels`` (N, 2).

    Each is fitted to the points within ``radius`` metres of the one at the pixel; NaN where there
    are too few.
    """
    assert frame.intrinsics is not None
    k = frame.intrinsics
    centres = np.rint(pixels)

    def window(reach: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coordinates (N, W) of the columns and rows around the pixels, and depth (N, W, W)."""
        x, y = (centres[:, i, None] + np.arange(-reach, reach + 1) for i in (0, 1))
        return x, y, _sample(frame, x[:, None, :], y[:, :, None])

    near = window(_MIDDLE)[2].reshape(len(pixels), -1)
    level = _percentile(near, 50.0)
    radii = np.maximum(radius, 2.5 * level / k.fx)
    # No point within the radius lies farther away in the image.
    reach = np.ceil(k.fx * radii / np.maximum(level - radii, 0.01)) + 1
    x, y, depth = window(min(_WINDOW, int(np.fmax.reduce(reach, initial=_MIDDLE))))
    centre = k.rays(pixels) * level[:, None]
    # From the centre, axis by axis: (N, 3, W * W).
    points = np.stack([((x - k.cx) / k.fx)[:, None, :] * depth,
                       ((y - k.cy) / k.fy)[:, :, None] * depth, depth], axis=1)
    points = points.reshape(len(pixels), 3, -1) - centre[:, :, None]
    # A hole is NaN, and not nearer than anything.
    inside = np.einsum('nij,nij->nj', points, points) < radii[:, None] ** 2
    count = inside.sum(axis=1)
    points = np.where(inside[:, None], points, 0.0)
    total = points.sum(axis=2)
    scatter = points @ points.swapaxes(1, 2) - (total[:, :, None] * total[:, None]
                                                / np.maximum(count, 1)[:, None, None])
    # The direction in which the points vary least; eigenvalues come in ascending order.
    normals = np.linalg.eigh(scatter)[1][..., 0]
    normals = np.where((normals * centre).sum(axis=-1, keepdims=True) < 0, normals, -normals)
    enough = (count >= 6) & (np.isfinite(near).sum(axis=1) >= 5)
    return np.where(enough[:, None], normals, np.nan)


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
        normal = surface_normals(frame, np.array([[rectangle.x, rectangle.y]]))[0]
        if np.isnan(normal[0]):
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
    grasp, = rectangles_to_grasps([rectangle], frame, gripper, approach[None], support)
    if isinstance(grasp, GraspError):
        raise grasp
    return grasp


def rectangles_to_grasps(rectangles: Sequence[GraspRectangle], frame: RgbdFrame,
                         gripper: Gripper, approaches: np.ndarray,
                         support: SupportPlane | None = None,
                         finger_depths: Sequence[float | None] = ()) -> list[Grasp | GraspError]:
    """
    :func:`rectangle_to_grasp` of many rectangles, with ``approaches`` (N, 3), at once.

    ``finger_depths`` says of each how far below the surface level its tips go, metres; None, and
    by default, the gripper's.

    Where one has no pose its place holds the reason; what concerns all of them is raised. Rows
    that were refused go on being computed, with NaN where depth is missing: the arrays are small,
    and it is the number of calls that takes the time.
    """
    if frame.intrinsics is None:
        raise GraspError(Reason.INVALID_INTRINSICS, 'a pose needs the camera matrix')
    if frame.depth is None:
        raise GraspError(Reason.NO_DEPTH, 'a pose needs a depth image')
    if not rectangles:
        return []
    with np.errstate(invalid='ignore', divide='ignore'):
        return _Poses(rectangles, frame, frame.intrinsics, gripper, approaches, support,
                      finger_depths).result()


class _Poses:
    """The rectangles of one frame on their way to grasps; arrays have a row for each."""

    def __init__(self, rectangles: Sequence[GraspRectangle], frame: RgbdFrame,
                 intrinsics: CameraIntrinsics, gripper: Gripper, approaches: np.ndarray,
                 support: SupportPlane | None, finger_depths: Sequence[float | None]):
        self.finger_depths = np.array(
            [gripper.finger_depth if depth is None else depth
             for depth in finger_depths or [None] * len(rectangles)])
        self.frame, self.intrinsics, self.gripper = frame, intrinsics, gripper
        self.approaches, self.support = approaches, support
        values = np.array([r.as_array() for r in rectangles])
        self.centres, self.openings, self.jaws = values[:, :2], values[:, 3], values[:, 4]
        self.axes = np.array([r.axes for r in rectangles])                          # (N, 2, 2)
        self.refused: dict[int, GraspError] = {}

    def refuse(self, rows: np.ndarray, reason: Reason,
               detail: Callable[[int], str] = lambda row: '') -> None:
        """Give the ``rows`` (N,) bool that have none yet a reason."""
        for row in map(int, np.flatnonzero(rows)):
            if row not in self.refused:
                self.refused[row] = GraspError(reason, detail(row))

    def result(self) -> list[Grasp | GraspError]:
        """Compute everything."""
        (width, height), gripper = self.frame.size, self.gripper
        x, y = self.centres.T
        self.refuse(~((x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)),
                    Reason.OUTSIDE_IMAGE, lambda i: f'({x[i]:.1f}, {y[i]:.1f})')
        rays = self.intrinsics.rays(self.centres)
        cosine = (rays * self.approaches).sum(axis=1) / np.linalg.norm(rays, axis=1)
        self.refuse(cosine < _MIN_COSINE, Reason.GRAZING)
        self._look()

        everywhere = np.ones(len(x), bool)
        level, floor, tips, ends = self._level(self.middle, everywhere)
        # A ring has nothing in the middle: then whatever is highest between the jaws counts.
        again = ~(tips <= level + _UNSEEN)
        if again.any():
            wider = self._level(self.openings / 2, again)
            level, floor, tips = (np.where(again, b, a) for a, b in
                                  zip((level, floor, tips), wider[:3], strict=True))
            ends = np.where(again[:, None, None], wider[3], ends)
            self.refuse(~(tips <= level + _UNSEEN), Reason.TOO_FLAT,
                        lambda i: f'{(level[i] - floor[i]) * 1e3:.0f} mm above the support')
        between = ends[:, 1] - ends[:, 0]
        openings = np.linalg.norm(between, axis=1)
        self.refuse(openings > gripper.maximum_opening * _OPENING_SLACK, Reason.TOO_WIDE,
                    lambda i: f'{openings[i] * 1e3:.0f} mm wide, the gripper opens '
                              f'{gripper.maximum_opening * 1e3:.0f} mm')

        plates = self._on_surface(self.jaws, 1, level)
        jaw_sizes = np.linalg.norm(plates[:, 1] - plates[:, 0], axis=1)
        surfaces = ends.mean(axis=1)
        positions = surfaces + self.approaches * (level - tips)[:, None]
        rotations = grasp_axes(self.approaches, between)
        normals = surface_normals(self.frame, self.centres)
        normals = np.where(np.isnan(normals), -self.approaches, normals)
        return [self.refused[i] if i in self.refused else Grasp(
            positions[i], rotations[i], min(float(openings[i]), gripper.maximum_opening),
            float(jaw_sizes[i]), surfaces[i], normals[i]) for i in range(len(x))]

    def _look(self) -> None:
        """
        Levels on a grid over each rectangle and over what the jaws cover beyond its ends.

        The scale for the margins comes from a first guess of the distance; only the borders of
        zones depend on it.
        """
        k, thickness = self.intrinsics, self.gripper.finger_thickness
        guess = _sample(self.frame, *self._grid(_GUESS, np.full((len(self.jaws), 2), 8.0)))
        guess = guess.reshape(len(guess), -1)
        self.refuse(~np.isfinite(guess).any(axis=1), Reason.DEPTH_HOLE,
                    lambda _: 'no depth at the centre')
        pixels_per_metre = k.fx / _percentile(guess, 50.0)
        # Where there is no guess there will be no pose; any number does.
        pixels_per_metre = np.where(np.isfinite(pixels_per_metre), pixels_per_metre, 1.0)
        half = np.stack([self.openings / 2 + thickness * pixels_per_metre, self.jaws / 2], axis=1)
        x, y = self._grid(_GRID, half)
        # -(ray @ approach) * depth, without the rays: seven hundred of them for each rectangle.
        slope_x, slope_y = (self.approaches[:, :2] / [k.fx, k.fy]).T[..., None, None]
        constant = self.approaches[:, 2, None, None] - slope_x * k.cx - slope_y * k.cy
        self.levels = -(slope_x * x + slope_y * y + constant) * _sample(self.frame, x, y)
        self.along = _GRID[0] * half[:, :1]                                         # (N, columns)
        self.middle = np.minimum(MIDDLE * pixels_per_metre, self.openings / 2).clip(1.0)

    def _grid(self, unit: tuple[np.ndarray, np.ndarray], half: np.ndarray) \
            -> tuple[np.ndarray, np.ndarray]:
        """
        Pixels x and y (N, rows, columns) of a grid over +- ``half`` (N, 2) along both axes.

        ``unit`` are its columns and rows in [-1, 1].
        """
        u, v = (line * half[:, i, None] for i, line in enumerate(unit))
        x, y = (self.centres[:, i, None, None] + u[:, None] * self.axes[:, 0, i, None, None]
                + v[:, :, None] * self.axes[:, 1, i, None, None] for i in (0, 1))
        return x, y

    def _where(self, columns: np.ndarray) -> np.ndarray:
        """Levels (N, M) in ``columns`` (N, columns) of the grid, NaN for those of other rows."""
        used = columns.any(axis=0)
        found = np.where(columns[:, None, used], self.levels[..., used], np.nan)
        return found.reshape(len(columns), -1)

    def _on_surface(self, lengths: np.ndarray, axis: int, level: np.ndarray) -> np.ndarray:
        """Both ends of ``lengths`` (N,) pixels along an axis, on the surface -> (N, 2, 3)."""
        offsets = (lengths[:, None] * self.axes[:, axis])[:, None] * [[-0.5], [0.5]]
        return _on_plane(self.intrinsics.rays(self.centres[:, None] + offsets), self.approaches,
                         level)

    def _level(self, half_width: np.ndarray, rows: np.ndarray) \
            -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """
        Highest surface within ``half_width`` (N,) but for outliers; refuses only ``rows``.

        Returns its level, that of the floor, that of the tips (N,) each, and the ends (N, 2, 3).
        """
        columns = np.abs(self.along) <= half_width[:, None]
        levels = self._where(columns)
        total, valid = len(_GRID[1]) * columns.sum(axis=1), np.isfinite(levels).sum(axis=1)
        self.refuse(rows & (valid < np.maximum(3, _MIN_VALID_SHARE * total)), Reason.DEPTH_HOLE,
                    lambda i: f'{valid[i]} of {total[i]} pixels between the jaws')
        level = _percentile(levels, _TOP_PERCENTILE)
        ends = self._on_surface(self.openings, 0, level)
        floor = self._floor(level, ends.mean(axis=1), rows)
        tips = np.maximum(level - self.finger_depths,
                          floor + self.gripper.support_clearance)
        return level, floor, tips, ends

    def _floor(self, level: np.ndarray, surface: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """
        Level (N,) of what lies lowest under the jaws.

        Low percentile over both jaws: next to an object a camera sees its side wall rather than
        the ground, on one side at least, and taking that for the ground would keep the fingers
        too high.
        """
        under_jaws = []
        for side in (-1, 1):
            under = self._where(side * self.along >= self.openings[:, None] / 2)
            enough = np.isfinite(under).sum(axis=1) >= 3
            self.refuse(rows & enough & (_percentile(under, 50.0) > level + _BLOCKED),
                        Reason.JAWS_BLOCKED)
            under_jaws.append(np.where(enough[:, None], under, np.nan))
        floor = _percentile(np.concatenate(under_jaws, axis=1), _FLOOR_PERCENTILE)
        if self.support is not None:
            # Level of the support straight below the surface point.
            slant = np.maximum(-self.approaches @ self.support.normal, _MIN_COSINE)
            floor = np.fmax(floor, level - self.support.height(surface) / slant)
        # Nothing known below: the shadow of the object hides it. What is lowest in the rectangle
        # is then the best lower bound there is.
        return np.where(np.isnan(floor), np.fmin.reduce(self.levels, axis=(1, 2)), floor)


def _percentile(values: np.ndarray, percent: float) -> np.ndarray:
    """Percentile (N,) of each row of ``values`` (N, M) without its NaN; NaN if nothing is left."""
    ascending = np.sort(values, axis=1)  # NaN come last
    count = np.isfinite(values).sum(axis=1)
    place = np.maximum(count - 1, 0) * percent / 100
    low = place.astype(np.intp)
    high = np.minimum(low + 1, np.maximum(count - 1, 0))
    rows = np.arange(len(values))
    below, above = ascending[rows, low], ascending[rows, high]
    return below + (above - below) * (place - low)


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

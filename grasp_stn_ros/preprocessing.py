"""
From an RGB-D frame of any size to the network's input (7, 400, 400), with the exact inverse.

The seven channels of the paper (section III-A): RGB, depth, three of surface normals.

0-2  red, green, blue in [-1, 1]
3    height above the support plane in units of 1/15 m, clipped to [-1.5, 3]; where no plane is
     found, relative to the median depth instead
4-6  surface normal, x right, y down, z towards the viewer, turned so that the support plane is
     (0, 0, 1)

What is not known is zero: colour outside the image, height and normal without depth. A hole gets
a height filled in from its surroundings, but a normal of zero length, which marks it as filled.

Depth enters relative to the support plane, because a network trained on absolute or
median-relative depth fails on a tilted camera.

Training and use share this code: an augmented image is the image of a virtual camera that is
rolled, mirrored or moved, which is what a general :class:`View` describes.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
import math
import threading

import cv2
import numpy as np

from .reasons import GraspError, Reason
from .rgbd import CameraIntrinsics, RgbdFrame
from .support_plane import SupportPlane, fit_support_plane

INPUT_SIZE = 400
# Of views of another size, see view_sizes; all are whole multiples of the trunk's coarsest
# stride.
SMALLEST_SIZE, LARGEST_SIZE, _SIZE_STEP = 304, 688, 48
# Metres: the jaws by which the scale of a view is told.
USUAL_JAW = 0.02
# Size of a view of which only the support plane is wanted: as many samples as of any other.
_COARSE_SIZE = 36
# Pixels of the longer side of a region that is looked at, at least.
MINIMUM_REGION = 32
CHANNELS = 7
HEIGHT_SCALE, HEIGHT_RANGE = 15.0, (-1.5, 3.0)
# Sigma and width of the kernel, in view pixels, of the smoothing before depth is differentiated.
NORMAL_SIGMA, NORMAL_KERNEL = 1.5, 13
# Columns of a matrix product that OpenBLAS computes in the calling thread. Its other threads would
# go on spinning for milliseconds, on the cores that the network is about to need.
_UNTHREADED = 20_000
# Bytes of an image -> [-1, 1].
_COLOUR_TABLE = (np.arange(256, dtype=np.float32) * np.float32(1 / 127.5) - np.float32(1))
# Only for images without a camera matrix: the focal length of common RGB-D cameras in units of
# the image width. It scales the normals; no pose is computed from it.
_DEFAULT_FOCAL_LENGTH = 0.82

# Stored with the weights: a model is refused by a package that prepares its input differently.
SIGNATURE = {
    'version': 1, 'input_size': INPUT_SIZE,
    'channels': ['red', 'green', 'blue', 'height', 'normal_x', 'normal_y', 'normal_z'],
    'height_scale': HEIGHT_SCALE, 'height_range': list(HEIGHT_RANGE),
    'normal_sigma': NORMAL_SIGMA,
}


@dataclass(frozen=True)
class View:
    """
    What the network sees of an image: a similarity, possibly mirrored, of pixel coordinates.

    ``matrix`` (2, 3): view = matrix[:, :2] @ image + matrix[:, 2]; both sides are pixels with
    integer coordinates at pixel centres. The view is ``size`` x ``size``.
    """

    matrix: np.ndarray
    size: int = INPUT_SIZE

    @classmethod
    def of_region(cls, x: float, y: float, width: float, height: float,
                  size: int = INPUT_SIZE) -> View:
        """Show the region (x, y, width, height) of an image, centred in the view, as a whole."""
        scale = size / max(width, height)
        # The region's border is half a pixel outside its first and last pixel centre.
        centre = np.array([x + width / 2 - 0.5, y + height / 2 - 0.5])
        offset = (size - 1) / 2 - scale * centre
        return cls(np.array([[scale, 0.0, offset[0]], [0.0, scale, offset[1]]]), size)

    @classmethod
    def square(cls, image_size: tuple[int, int], size: int = INPUT_SIZE) -> View:
        """Show the largest centred square of an image (width, height)."""
        side = min(image_size)
        return cls.of_region((image_size[0] - side) / 2, (image_size[1] - side) / 2, side, side,
                             size)

    @classmethod
    def similarity(cls, centre: tuple[float, float], scale: float, angle: float = 0.0,
                   mirror: bool = False, size: int = INPUT_SIZE) -> View:
        """Map ``centre`` to the middle of the view, mirrored in x, turned by ``angle`` rad."""
        c, s = scale * math.cos(angle), scale * math.sin(angle)
        linear = np.array([[c, -s], [s, c]])
        if mirror:
            linear = linear @ np.diag([-1.0, 1.0])
        offset = np.full(2, (size - 1) / 2) - linear @ centre
        return cls(np.concatenate([linear, offset[:, None]], axis=1), size)

    @property
    def scale(self) -> float:
        """View pixels per image pixel."""
        (a, b), (c, d) = self.matrix[:, :2].tolist()
        return math.sqrt(abs(a * d - b * c))

    @property
    def inverse(self) -> np.ndarray:
        """Matrix (2, 3) from view to image pixels."""
        linear = np.linalg.inv(self.matrix[:, :2])
        return np.concatenate([linear, -(linear @ self.matrix[:, 2:])], axis=1)

    def to_view(self, points: np.ndarray) -> np.ndarray:
        """Image pixels (..., 2) -> view pixels (..., 2)."""
        return np.asarray(points) @ self.matrix[:, :2].T + self.matrix[:, 2]

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """View pixels (..., 2) -> image pixels (..., 2)."""
        inverse = self.inverse
        return np.asarray(points) @ inverse[:, :2].T + inverse[:, 2]

    @property
    def region(self) -> tuple[float, float, float, float]:
        """Bounding box (x, y, width, height) of the view in the image, borders included."""
        edge = np.array([-0.5, self.size - 0.5])
        corners = self.to_image(np.stack(np.meshgrid(edge, edge), axis=-1).reshape(-1, 2))
        low, high = corners.min(axis=0), corners.max(axis=0)
        return (float(low[0] + 0.5), float(low[1] + 0.5),
                float(high[0] - low[0]), float(high[1] - low[1]))


def view_sizes(with_depth: bool) -> range:
    """
    Every size that a view may have, in pixels a side.

    Those of near cameras are smaller than INPUT_SIZE only where depth tells that they are near,
    not where somebody does: so the networks were trained.
    """
    return range(SMALLEST_SIZE if with_depth else INPUT_SIZE, LARGEST_SIZE + 1, _SIZE_STEP)


def size_for_jaw(jaw: float, wanted: float, with_depth: bool = False) -> int:
    """
    Size of a view in which jaws get ``wanted`` pixels that have ``jaw`` in one of INPUT_SIZE.

    A network sees how large things are only where all views have one scale. It is kept to some
    percent: a network is slow at first with a size that is new to it, so that there are few, those
    of :func:`view_sizes`.
    """
    if not (jaw > 0 and wanted > 0):
        return INPUT_SIZE
    steps = round((min(wanted / jaw, 10.0) - 1) * INPUT_SIZE / _SIZE_STEP)
    sizes = view_sizes(with_depth)
    return min(max(INPUT_SIZE + steps * _SIZE_STEP, sizes[0]), sizes[-1])


@dataclass(frozen=True)
class NetworkInput:
    """
    The prepared image and what was learned on the way.

    ``channels`` (7, S, S) float32; ``valid`` (S, S) bool where depth was measured; ``support``
    in the coordinates of the real camera, or None; ``pixels_per_metre`` in the view, on the
    support in its middle, None without depth.
    """

    channels: np.ndarray
    valid: np.ndarray
    view: View
    support: SupportPlane | None
    pixels_per_metre: float | None = None

    def jaw(self, size: float | None, pixels: float | None = None) -> float:
        """
        Height of jaw plates in view pixels, 0 where it is not known.

        ``pixels`` in the image wins over ``size`` in metres, which needs depth.
        """
        if pixels is not None:
            return pixels * self.view.scale
        if size is None or self.pixels_per_metre is None:
            return 0.0
        return size * self.pixels_per_metre


def fill_holes(values: np.ndarray, valid: np.ndarray,
               out: np.ndarray | None = None) -> np.ndarray:
    """
    Fill ``values`` (H, W) float32 where ``valid`` (H, W) is False, smoothly from the border.

    Push-pull: average the known pixels down a pyramid until there are no holes, then hand the
    averages back up. Known pixels keep their value; all False gives zeros. Holes are filled in
    ``out`` (H, W), which may be ``values``; without holes ``values`` is returned.
    """
    holes = np.flatnonzero(~valid)
    if not len(holes):
        return values
    weight: np.ndarray = valid.astype(np.float32)
    # The sum of the known values in a cell, and its share of known ones: weight * level.
    total = level = np.empty(values.shape, np.float32) if out is None else out
    if level is not values:
        np.copyto(level, values)
    level.ravel()[holes] = 0
    pyramid = []
    while len(holes) and min(level.shape) > 1:
        pyramid.append((level, holes))
        size = (max(1, (level.shape[1] + 1) // 2), max(1, (level.shape[0] + 1) // 2))
        total = cv2.resize(total, size, interpolation=cv2.INTER_AREA)
        weight = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
        level = total / np.maximum(weight, np.float32(1e-6))
        holes = np.flatnonzero(weight == 0)
    for finer, holes in reversed(pyramid):
        coarse = cv2.resize(level, finer.shape[::-1], interpolation=cv2.INTER_LINEAR,
                            dst=_workspace.array('coarse', *finer.shape))
        finer.ravel()[holes] = coarse.ravel()[holes]
        level = finer
    return level


def _virtual_camera(frame: RgbdFrame, view: View) -> CameraIntrinsics:
    """
    Intrinsics of the camera that would take the view itself.

    Turning or mirroring the image is turning or mirroring the world around the optical axis.
    """
    if frame.intrinsics is None:
        focal = _DEFAULT_FOCAL_LENGTH * frame.size[0]
        x, y = (frame.size[0] - 1) / 2, (frame.size[1] - 1) / 2
    else:
        focal = math.sqrt(frame.intrinsics.fx * frame.intrinsics.fy)
        x, y = frame.intrinsics.cx, frame.intrinsics.cy
    # Plain numbers, as in _whole_pixels.
    (a, b, c), (d, e, f) = view.matrix.tolist()
    scaled = focal * view.scale
    return CameraIntrinsics(scaled, scaled, a * x + b * y + c, d * x + e * y + f)


def preprocess(frame: RgbdFrame, view: View | None = None, use_rgb: bool = True,
               use_depth: bool = True, out: np.ndarray | None = None,
               helper: Executor | None = None, last: np.ndarray | None = None,
               known: ViewDepth | None = None) -> NetworkInput:
    """
    Prepare ``frame`` for the network; ``view`` defaults to the largest centred square.

    ``use_rgb`` and ``use_depth`` leave a modality out (all its channels zero), in training and to
    measure what it is worth. The channels go into ``out`` (7, S, S) float32 if there is one, and
    with channels last into ``last`` (S, S, 7) float32 as well; both contiguous. A ``helper`` of
    one thread prepares the colours and half of what follows from the depth. ``known`` is what
    :func:`at_scale` has found, if it was asked.
    Raises :class:`GraspError` (NO_DEPTH) if nothing is left to see.
    """
    view = view or View.square(frame.size)
    size = view.size
    channels = np.empty((CHANNELS, size, size), np.float32) if out is None else out
    if not channels.flags.c_contiguous:
        raise ValueError('the channels need an array that is contiguous')
    seen = view_depth(frame, view, _workspace.array('depth', size, size), known) \
        if use_depth else None
    if seen is not None and not seen.valid.any():
        seen = None
    if seen is None and not use_rgb:
        raise GraspError(Reason.NO_DEPTH, 'neither colour nor depth to work with')

    def colours() -> None:
        if use_rgb:
            _colour_channels(frame.rgb, view, channels[:3])
        else:
            channels[:3] = 0

    def others(surface: _Surface | None, rows: slice) -> None:
        if surface is None:
            channels[3:, rows] = 0
        else:
            surface.channels(rows, channels[3:])
        if last is not None:
            cv2.merge([*channels[:, rows]], last[rows])

    if seen is None or helper is None:
        colours()
        others(None if seen is None else _Surface(seen), slice(0, size))
    else:
        # Not earlier: the plane is fitted in many small steps, each of which would have to wait
        # for its turn in Python.
        jobs = [helper.submit(colours)]
        try:
            surface = _Surface(seen)
            jobs.append(helper.submit(others, surface, slice(0, size // 2)))
            jobs[0].result()
            others(surface, slice(size // 2, size))
        finally:
            for job in jobs:
                job.result()
    if seen is None:
        return NetworkInput(channels, np.zeros((size, size), bool), view, None)
    return NetworkInput(channels, seen.valid, view, seen.support, seen.density)


@dataclass(frozen=True)
class ViewDepth:
    """
    Depth of a view, and the virtual camera and support plane that belong to it.

    ``depth`` (S, S) float32 metres, NaN for holes; ``valid`` (S, S) bool; ``plane`` in the
    coordinates of ``camera``, ``support`` the same in those of the real camera, None where there
    is none; ``density`` view pixels per metre on the support.
    """

    depth: np.ndarray
    valid: np.ndarray
    camera: CameraIntrinsics
    plane: SupportPlane | None = None
    support: SupportPlane | None = None
    density: float | None = None


def view_depth(frame: RgbdFrame, view: View, out: np.ndarray | None = None,
               known: ViewDepth | None = None) -> ViewDepth | None:
    """
    Depth of ``frame`` in ``view``, in ``out`` if given; None where the frame has none.

    ``known`` is the same of a view of the same part of the image, of another size: a camera that
    only has other pixels sees the same plane.
    """
    if frame.depth is None:
        return None
    depth = cv2.warpAffine(frame.depth, view.matrix, (view.size, view.size), dst=out,
                           flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT,
                           borderValue=math.nan)
    valid = np.isfinite(depth)
    camera = _virtual_camera(frame, view)
    if not valid.any():
        return ViewDepth(depth, valid, camera)
    if known is not None and known.density is not None:
        return ViewDepth(depth, valid, camera, known.plane, known.support,
                         known.density * camera.fx / known.camera.fx)
    plane = fit_support_plane(depth, camera)
    return ViewDepth(depth, valid, camera, plane,
                     None if plane is None else _to_real_camera(plane, view, camera, frame),
                     _density(depth, camera, plane))


def at_scale(frame: RgbdFrame, view: View, wanted: float) -> tuple[View, ViewDepth | None]:
    """
    Show as much as ``view``, with so many pixels that jaws of 20 mm have ``wanted``.

    Also what depth was needed for that, which :func:`preprocess` may be told. Where there is none,
    and with 0, the view stays as it is. The jaws are those of the gripper that networks learn
    from: another one does not change how large the objects are.
    """
    if not wanted:
        return view, None
    known = view_depth(frame, View.of_region(*view.region, _COARSE_SIZE))
    if known is None or known.density is None:
        return view, None
    size = size_for_jaw(USUAL_JAW * known.density * INPUT_SIZE / _COARSE_SIZE, wanted,
                        with_depth=True)
    return View.of_region(*view.region, size), known


def pixels_per_metre(frame: RgbdFrame) -> float | None:
    """Image pixels per metre on the support, in the middle of ``frame``; None without depth."""
    view = View.square(frame.size)
    seen = view_depth(frame, view)
    return None if seen is None or seen.density is None else seen.density / view.scale


def _density(depth: np.ndarray, camera: CameraIntrinsics, plane: SupportPlane | None) -> float:
    """Pixels of ``depth`` (S, S) per metre on the support in the middle, or at median depth."""
    if plane is None:
        return camera.fx / float(np.nanmedian(depth))
    ray = camera.rays(np.full(2, (depth.shape[0] - 1) / 2))
    return camera.fx * max(float(-(ray @ plane.normal)), 0.1) / plane.offset


def _colour_channels(rgb: np.ndarray, view: View, out: np.ndarray) -> None:
    """Warp (H, W, 3) uint8 into the view -> out (3, S, S) in [-1, 1], 0 outside the image."""
    factor = int(1 / view.scale + 1e-6)
    if factor < 2 and (region := _whole_pixels(view, rgb)) is not None:
        # The same samples as below in a third of the time.
        warped = cv2.resize(region, (view.size, view.size), interpolation=cv2.INTER_LINEAR,
                            dst=_workspace.array('colours', view.size, view.size, 3,
                                                 dtype=np.uint8))
    else:
        warped = _warped(rgb, view, factor)
    planes = _workspace.array('planes', 3, view.size, view.size, dtype=np.uint8)
    cv2.split(warped, list(planes))
    # All three at once, as one tall image: each call has to wait for its turn in Python.
    cv2.LUT(planes.reshape(-1, view.size), _COLOUR_TABLE, dst=out.reshape(-1, view.size))


def _warped(rgb: np.ndarray, view: View, factor: int) -> np.ndarray:
    """Warp (H, W, 3) uint8 into the view, grey outside the image, shrunk by ``factor`` first."""
    matrix = view.matrix
    if factor >= 2:
        # Bilinear sampling alone would skip pixels; area averaging by an integer factor first.
        size = (math.ceil(rgb.shape[1] / factor), math.ceil(rgb.shape[0] / factor))
        padded = cv2.copyMakeBorder(rgb, 0, size[1] * factor - rgb.shape[0], 0,
                                    size[0] * factor - rgb.shape[1], cv2.BORDER_REPLICATE)
        rgb = cv2.resize(padded, size, interpolation=cv2.INTER_AREA)
        # Pixel centres: x_small = (x + 0.5) / factor - 0.5.
        shift = matrix[:, :2] @ np.full(2, (factor - 1) / 2)
        matrix = np.concatenate([matrix[:, :2] * factor, (matrix[:, 2] + shift)[:, None]], axis=1)
    return cv2.warpAffine(rgb, matrix, (view.size, view.size), flags=cv2.INTER_LINEAR,
                          borderMode=cv2.BORDER_CONSTANT, borderValue=(127, 127, 127))


def _whole_pixels(view: View, rgb: np.ndarray) -> np.ndarray | None:
    """Return the part of the image that an upright view shows, if it is one of whole pixels."""
    # Plain numbers: a dozen calls of numpy for four of them take as long as a channel.
    (a, b, c), (d, e, f) = view.matrix.tolist()
    if max(abs(b), abs(d), abs(a - e)) > 1e-12 or a <= 0:
        return None
    region = ((-0.5 - c) / a + 0.5, (-0.5 - f) / a + 0.5, view.size / a)
    x, y, side = (round(value) for value in region)
    if max(abs(value - whole) for value, whole in zip(region, (x, y, side), strict=True)) > 1e-6 \
            or x < 0 or y < 0 or x + side > rgb.shape[1] or y + side > rgb.shape[0]:
        return None
    return rgb[y:y + side, x:x + side]


class _Workspace(threading.local):
    """
    Arrays that every frame needs, kept from one frame to the next, for each thread its own.

    Fresh ones would come from the operating system page by page, which takes longer than the
    arithmetic.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, np.ndarray] = {}

    def array(self, name: str, *shape: int, dtype: type = np.float32) -> np.ndarray:
        """Return the array ``name``, with what is in its memory, whatever shape it had."""
        size = math.prod(shape)
        kept = self._arrays.get(name)
        if kept is None or kept.size < size:
            # One for all shapes: views have several sizes, and one each would be 20 MB a size.
            kept = self._arrays[name] = np.empty(size, dtype)
        return kept[:size].reshape(shape)


_workspace = _Workspace()


class _Surface:
    """What is seen of the depth of a view: heights, and normals by rows."""

    def __init__(self, seen: ViewDepth) -> None:
        """Take the heights above the plane of ``seen``, holes filled."""
        size = seen.depth.shape[0]
        plane = seen.plane
        if plane is None:
            # No support: relative to the median depth of a plane parallel to the image.
            plane = SupportPlane(np.array([0.0, 0.0, -1.0]), float(np.nanmedian(seen.depth)), 0.0)
        self._valid, self._plane, camera = seen.valid, plane, seen.camera
        # Of the rays (x, y, 1).
        self._x = ((np.arange(size) - camera.cx) / camera.fx).astype(np.float32)[None, :]
        self._y = ((np.arange(size) - camera.cy) / camera.fy).astype(np.float32)[:, None]
        self._focal = camera.fx, camera.fy
        n = plane.normal.astype(np.float32)
        # Height is linear in depth along a ray: h = (n . ray) z + offset.
        self._slope = np.add(n[0] * self._x + n[2], n[1] * self._y,
                             out=_workspace.array('slope', size, size))
        height = np.multiply(self._slope, seen.depth, out=_workspace.array('height', size, size))
        height += np.float32(plane.offset)
        self._height = fill_holes(height, seen.valid, out=height)

    def channels(self, rows: slice, out: np.ndarray) -> None:
        """Height and normals of ``rows`` -> those rows of ``out`` (4, S, S)."""
        size = out.shape[1]
        np.multiply(self._height[rows], np.float32(HEIGHT_SCALE), out=out[0, rows])
        np.clip(out[0, rows], *HEIGHT_RANGE, out=out[0, rows])
        # The derivatives see a row more on either side, the smoothing before them half its kernel.
        near, far = (slice(max(rows.start - reach, 0), min(rows.stop + reach, size))
                     for reach in (1, 1 + NORMAL_KERNEL // 2))
        z = cv2.GaussianBlur(self._height[far], (NORMAL_KERNEL, NORMAL_KERNEL), NORMAL_SIGMA,
                             dst=_workspace.array('z', far.stop - far.start, size))
        z = z[near.start - far.start:near.stop - far.start]
        z -= np.float32(self._plane.offset)
        # Grazing rays have no finite depth on the plane; far away is good enough for them.
        factor = _workspace.array('factor', *z.shape)
        np.divide(z, np.minimum(self._slope[near], np.float32(-0.05), out=factor), out=z)
        # Cross product of the derivatives of the point ray * z; the third axis is turned round,
        # so that z points towards the viewer.
        normal = _workspace.array('normal', 3, *z.shape)
        cv2.Sobel(z, cv2.CV_32F, 1, 0, dst=normal[0], scale=0.125 * self._focal[0])
        cv2.Sobel(z, cv2.CV_32F, 0, 1, dst=normal[1], scale=0.125 * self._focal[1])
        np.multiply(normal[0], self._x, out=normal[2])
        normal[2] += np.multiply(normal[1], self._y[near], out=factor)
        normal[2] += z
        cv2.magnitude(normal[0], normal[1], magnitude=factor)
        cv2.magnitude(factor, normal[2], magnitude=factor)
        factor += np.float32(1e-9)
        np.divide(self._valid[near].view(np.uint8), factor, out=factor, dtype=np.float32)
        for component in normal:  # one by one, which takes half as long as all three at once
            component *= factor
        turn = rotation_to_z(self._plane.normal * [1.0, 1.0, -1.0]).astype(np.float32)
        flat, turned = (array.reshape(3, -1)[:, (rows.start - start) * size:]
                        for array, start in ((normal, near.start), (out[1:], 0)))
        for first in range(0, (rows.stop - rows.start) * size, _UNTHREADED):
            last = min(first + _UNTHREADED, (rows.stop - rows.start) * size)
            np.matmul(turn, flat[:, first:last], out=turned[:, first:last])


def rotation_to_z(unit: np.ndarray) -> np.ndarray:
    """Shortest rotation (3, 3) that takes ``unit`` (3,), with positive z, to (0, 0, 1)."""
    x, y, z = unit
    k = 1.0 / (1.0 + z)
    return np.array([[1 - k * x * x, -k * x * y, -x], [-k * x * y, 1 - k * y * y, -y], [x, y, z]])


def _to_real_camera(plane: SupportPlane, view: View, camera: CameraIntrinsics,
                    frame: RgbdFrame) -> SupportPlane:
    """
    Undo the view's turning and mirroring: virtual camera -> real optical frame.

    Also where the pixels of the real one are not square, as those of ``camera`` are: a plane is
    1 / z = m . ray, rays of both are (A, 0; 0, 1) of one another, and depth is the same.
    """
    real = frame.intrinsics
    focal = np.full(2, camera.fx / view.scale) if real is None else np.array([real.fx, real.fy])
    linear = view.matrix[:, :2] * focal / camera.fx
    m = np.concatenate([linear.T @ plane.normal[:2], plane.normal[2:]]) / plane.offset
    norm = float(np.linalg.norm(m))
    return SupportPlane(m / norm, 1.0 / norm, plane.share)

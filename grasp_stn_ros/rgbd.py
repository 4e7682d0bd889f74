"""
One RGB-D frame and its camera: units, holes and checks, stated once.

Conventions for the whole package
---------------------------------
* Pixels are (x, y): x to the right, y down. Integer coordinates are pixel *centres*, so the image
  spans [-0.5, width - 0.5] (the convention of OpenCV and of ``sensor_msgs/CameraInfo``).
* Camera coordinates are those of a REP-103 optical frame: x right, y down, z forward, metres.
* Depth is z (not the distance along the ray), float32 metres; a missing measurement is NaN and
  nothing else. Encodings and their own markers for holes are translated where they enter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .reasons import GraspError, Reason

# Depth outside this range is treated as a hole: nearer is inside the blind zone of every RGB-D
# camera that we know, farther is not on a table that an arm can reach.
MIN_DEPTH, MAX_DEPTH = 0.1, 10.0
MILLIMETRE = 1e-3           # metres


@dataclass(frozen=True)
class CameraIntrinsics:
    """Pinhole camera without distortion: focal lengths and principal point in pixels."""

    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self):
        """Refuse what a driver sends for an uncalibrated camera."""
        values = (self.fx, self.fy, self.cx, self.cy)
        if not np.all(np.isfinite(values)) or self.fx <= 0 or self.fy <= 0:
            raise GraspError(Reason.INVALID_INTRINSICS, f'fx, fy, cx, cy = {values}')

    def project(self, points: np.ndarray) -> np.ndarray:
        """Camera coordinates (..., 3) in metres with z > 0 -> pixels (..., 2)."""
        points = np.asarray(points, np.float64)
        scale = np.array([self.fx, self.fy])
        return points[..., :2] / points[..., 2:] * scale + np.array([self.cx, self.cy])

    def rays(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) -> rays (..., 3) with z = 1; times depth z they are the points."""
        pixels = np.asarray(pixels, np.float64)
        rays = np.ones((*pixels.shape[:-1], 3))
        rays[..., 0] = (pixels[..., 0] - self.cx) / self.fx
        rays[..., 1] = (pixels[..., 1] - self.cy) / self.fy
        return rays


@dataclass(frozen=True)
class RgbdFrame:
    """
    A colour image with, where the camera has them, aligned depth and intrinsics.

    ``rgb`` is (H, W, 3) uint8 in RGB order; ``depth`` is (H, W) float32 in metres with NaN for
    holes, or None; ``intrinsics`` belong to both, or None. Raises :class:`GraspError`.
    """

    rgb: np.ndarray
    depth: np.ndarray | None = None
    intrinsics: CameraIntrinsics | None = None

    def __post_init__(self):
        """Check shapes and types once, so that nothing behind has to."""
        rgb = self.rgb
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
            raise GraspError(Reason.INVALID_IMAGE, f'shape {rgb.shape}, dtype {rgb.dtype}, '
                                                   'expected (H, W, 3) uint8')
        if min(rgb.shape[:2]) < 32:
            raise GraspError(Reason.INVALID_IMAGE, f'{rgb.shape[1]}x{rgb.shape[0]} is too small')
        if self.depth is None:
            return
        if self.depth.ndim != 2 or self.depth.dtype != np.float32:
            raise GraspError(Reason.INVALID_DEPTH, f'shape {self.depth.shape}, '
                             f'dtype {self.depth.dtype}, expected (H, W) float32 metres')
        if self.depth.shape != rgb.shape[:2]:
            raise GraspError(Reason.SIZE_MISMATCH, f'colour {rgb.shape[1]}x{rgb.shape[0]}, '
                             f'depth {self.depth.shape[1]}x{self.depth.shape[0]}')
        # NaN is neither.
        outside = (self.depth < MIN_DEPTH) | (self.depth > MAX_DEPTH)
        if outside.any():
            raise GraspError(Reason.INVALID_DEPTH,
                             f'{np.count_nonzero(outside)} pixels lie outside {MIN_DEPTH} to '
                             f'{MAX_DEPTH} m, such as {self.depth[outside][0]:g}: depth is in '
                             'metres, and holes are NaN (rgbd.clean_depth makes them so)')

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.rgb.shape[1], self.rgb.shape[0]

    def check_mask(self, mask: np.ndarray) -> None:
        """Raise :class:`GraspError` for a mask (H, W) that is not one of this image."""
        if mask.shape != self.rgb.shape[:2]:
            size = 'x'.join(map(str, mask.shape[::-1]))
            raise GraspError(Reason.SIZE_MISMATCH,
                             f'mask {size}, colour {self.size[0]}x{self.size[1]}')


def depth_from_millimetres(raw: np.ndarray) -> np.ndarray:
    """Depth as uint16 millimetres with 0 for holes (REP-118) -> float32 metres with NaN."""
    metres = raw.astype(np.float32) * np.float32(MILLIMETRE)
    return clean_depth(metres)


def clean_depth(metres: np.ndarray) -> np.ndarray:
    """Replace everything that is no measurement (0, Inf, out of range) by NaN; float32 metres."""
    metres = np.asarray(metres, np.float32)
    # Written so that NaN fails the comparison as well.
    inside = (metres >= MIN_DEPTH) & (metres <= MAX_DEPTH)
    return np.where(inside, metres, np.float32(np.nan))

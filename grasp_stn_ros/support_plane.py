"""The plane that the objects stand on, fitted robustly to a depth image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .rgbd import CameraIntrinsics

# A pixel belongs to the plane if its depth is within this share of the plane's depth there: about
# 10 mm at 0.85 m, four quantization steps of a structured-light camera.
_TOLERANCE = 0.012
_HYPOTHESES = 64
_SAMPLES = 1300
# Random numbers from which the triples of the hypotheses follow, the same for every image.
_DRAWS = np.random.default_rng(0).integers(2**32, size=(_HYPOTHESES, 3), dtype=np.uint64)
# A "support" seen steeper than this is a wall.
_MIN_COSINE = 0.4
_MIN_SHARE = 0.15


@dataclass(frozen=True)
class SupportPlane:
    """
    Points p (camera coordinates, metres) with ``normal @ p + offset = 0``.

    ``normal`` (3,) has unit length and points towards the camera, so that ``offset`` > 0 is the
    distance of the camera and ``normal @ p + offset`` the height of p above the support.
    ``share`` is the share of valid pixels on the plane.
    """

    normal: np.ndarray
    offset: float
    share: float

    @property
    def approach(self) -> np.ndarray:
        """Unit vector (3,) straight down onto the support."""
        return -self.normal

    def height(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) in metres -> signed heights (...) above the support in metres."""
        return points @ self.normal + self.offset


def fit_support_plane(depth: np.ndarray, intrinsics: CameraIntrinsics,
                      region: tuple[int, int, int, int] | None = None) -> SupportPlane | None:
    """
    Fit the plane with the most inliers to ``depth`` (H, W) float32 metres, NaN = hole.

    A plane m @ p = 1 is linear in inverse depth, 1 / z = m @ ray, where structured light and
    stereo have constant noise; hence a sample consensus and a least-squares refinement there.
    ``region`` (x, y, width, height) in pixels limits where to look. Deterministic. Returns None
    where no plane covers enough of the image.
    """
    x0, y0, width, height = region or (0, 0, depth.shape[1], depth.shape[0])
    step = max(1, int(np.sqrt(max(width * height, 1) / _SAMPLES)))
    first = np.array([x0, y0]) + step // 2
    sampled = depth[first[1]:y0 + height:step, first[0]:x0 + width:step]
    rows, columns = np.nonzero(np.isfinite(sampled))
    total = len(rows)
    if total < 50:
        return None
    rays = intrinsics.rays(first + step * np.stack([columns, rows], axis=-1))
    z = sampled[rows, columns].astype(np.float64)
    inverse = 1.0 / z

    picks = (_DRAWS * np.uint64(total) >> np.uint64(32)).astype(np.intp)
    # Normal equations with a tiny ridge instead of solve(): a degenerate triple then gives a
    # useless hypothesis and no exception.
    a = rays[picks]
    gram = np.einsum('hij,hik->hjk', a, a) + 1e-9 * np.eye(3)
    planes = np.linalg.solve(gram, np.einsum('hij,hi->hj', a, inverse[picks])[..., None])[..., 0]
    cosine = planes[:, 2] / np.maximum(np.linalg.norm(planes, axis=1), 1e-9)
    # |1/z - m @ ray| * z is the relative depth error. Single precision: half the memory to go
    # through, for what is only a vote.
    points = (rays * z[:, None]).astype(np.float32)
    error = planes.astype(np.float32) @ points.T
    error -= np.float32(1)
    np.abs(error, out=error)
    votes = np.where(cosine > _MIN_COSINE, (error < _TOLERANCE).sum(axis=1, dtype=np.int32), -1)
    plane = planes[int(np.argmax(votes))]
    for tolerance in (2 * _TOLERANCE, _TOLERANCE, _TOLERANCE):
        inliers = np.abs(1.0 - (rays @ plane) * z) < tolerance
        if inliers.sum() < 20:
            return None
        # Normal equations: three unknowns of similar size, nothing to lose by squaring.
        weighted = rays * inliers[:, None]
        plane = np.linalg.solve(weighted.T @ rays + 1e-9 * np.eye(3), weighted.T @ inverse)
    share = float((np.abs(1.0 - (rays @ plane) * z) < _TOLERANCE).mean())
    norm = float(np.linalg.norm(plane))
    if share < _MIN_SHARE or plane[2] < _MIN_COSINE * norm:
        return None
    return SupportPlane(-plane / norm, 1.0 / norm, share)

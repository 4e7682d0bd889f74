"""
The baseline without a network: grasp across the long axis at the centre of the object's mask.

It is given the true mask, which no real system has, and is hard to beat on single simple objects.
"""

from __future__ import annotations

import math

import numpy as np

from ..grasp_pose import Gripper
from ..reasons import GraspError, Reason
from ..rectangle import GraspRectangle
from ..rgbd import RgbdFrame

# The jaws open this much wider than the mask, on each side, metres.
MARGIN = 0.006


def long_axis_grasp(mask: np.ndarray, frame: RgbdFrame,
                    gripper: Gripper | None = None) -> GraspRectangle:
    """
    Rectangle at the centre of ``mask`` (H, W) bool, opening across its principal axis.

    The opening is the width of the mask under the jaws plus a margin, at most what the gripper
    has; the frame's depth gives the scale. Raises :class:`GraspError` (NO_CANDIDATE without a
    mask, NO_DEPTH, INVALID_INTRINSICS).
    """
    gripper = gripper or Gripper()
    if frame.intrinsics is None:
        raise GraspError(Reason.INVALID_INTRINSICS, 'the scale needs the camera matrix')
    mask = np.asarray(mask, bool)
    if mask.sum() < 3:
        raise GraspError(Reason.NO_CANDIDATE, 'the mask is empty')
    depth = np.full(1, np.nan) if frame.depth is None else frame.depth[mask]
    if not np.isfinite(depth).any():
        raise GraspError(Reason.NO_DEPTH, 'no depth on the object')
    pixels_per_metre = frame.intrinsics.fx / float(np.nanmedian(depth))

    rows, columns = np.nonzero(mask)
    pixels = np.stack([columns, rows], axis=1).astype(np.float64)
    centre = pixels.mean(axis=0)
    # Eigenvectors in ascending order of variance: the first one runs across the long axis.
    across, along = np.linalg.eigh(np.cov((pixels - centre).T))[1].T
    jaw = gripper.jaw_size * pixels_per_metre
    under_jaws = np.abs((pixels - centre) @ along) <= jaw / 2
    offsets = (pixels[under_jaws] - centre) @ across
    half = float(np.abs(offsets).max()) if under_jaws.any() else 0.0
    opening = min(2 * (half + MARGIN * pixels_per_metre),
                  gripper.maximum_opening * pixels_per_metre)
    return GraspRectangle(float(centre[0]), float(centre[1]),
                          math.atan2(across[1], across[0]), opening, jaw)

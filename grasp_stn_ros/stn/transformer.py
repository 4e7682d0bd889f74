"""
The spatial transformer (Jaderberg et al. 2015): parameters -> grid generator -> sampler.

Conventions of all spatial transformers here
--------------------------------------------
* A *pose* is an affine matrix (..., 2, 3) from patch coordinates to view pixels. Patch
  coordinates run from -1 to 1 over the patch, u to the right and v down; u is the opening
  direction once a patch has been rotated. View pixels have integer coordinates at pixel centres.
* Transformers compose: ``place`` (STN_crop), then ``rotate`` (STN_rotation), then ``fit``
  (STN_scale,crop). The composed pose maps the last patch straight to the view, so that each stage
  samples the features once and never a resampled patch, and every stage's result can be read off
  in view pixels.
* ``align_corners=False``: patch sample i of n lies at u = (2 i + 1) / n - 1, the centre of the
  i-th of n equal cells, and feature cell j of n covers its share of the view in the same way.
* Outside the view the sampler returns zeros.
* All geometry is elementwise: a matrix product would be rounded to eight bits by the autocast that
  the network runs under, which is a pixel.
"""

from __future__ import annotations

import torch
from torch import Tensor
import torch.nn.functional as F


def place(location: Tensor, half_extent: float) -> Tensor:
    """Axis-aligned patches around ``location`` (..., 2) in pixels -> poses (..., 2, 3)."""
    # Filled on the device: a tensor made from numbers would be copied there, and waited for.
    half = torch.full_like(location[..., 0], half_extent)
    zero = torch.zeros_like(half)
    return _pose(half, zero, zero, half, location)


def rotate(pose: Tensor, theta: Tensor) -> Tensor:
    """Turn patches of ``pose`` (..., 2, 3) by ``theta`` (...) radians, from u towards v."""
    c, s = torch.cos(theta)[..., None], torch.sin(theta)[..., None]
    u, v = pose[..., 0], pose[..., 1]
    return torch.stack([u * c + v * s, v * c - u * s, pose[..., 2]], dim=-1)


def fit(pose: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Move patches by ``shift`` (..., 2), then scale them by ``scale`` (..., 2); patch units."""
    u, v = pose[..., 0], pose[..., 1]
    centre = pose[..., 2] + u * shift[..., :1] + v * shift[..., 1:]
    return torch.stack([u * scale[..., :1], v * scale[..., 1:], centre], dim=-1)


def _pose(ux: Tensor, uy: Tensor, vx: Tensor, vy: Tensor, centre: Tensor) -> Tensor:
    """Pose (..., 2, 3) from the elements (...) of its columns u and v and its centre (..., 2)."""
    return torch.stack([torch.stack([ux, uy], -1), torch.stack([vx, vy], -1), centre], dim=-1)


def from_rectangles(rectangles: Tensor) -> Tensor:
    """Rectangles (..., 5) as (x, y, theta, opening, jaw) -> the poses that cover them exactly."""
    return rotate_then_scale(rectangles[..., :2], rectangles[..., 2], rectangles[..., 3:] / 2)


def rotate_then_scale(location: Tensor, theta: Tensor, half_extent: Tensor) -> Tensor:
    """Pose (..., 2, 3) of patches at ``location``, turned by ``theta``, of ``half_extent``."""
    c, s = torch.cos(theta), torch.sin(theta)
    along, across = half_extent[..., 0], half_extent[..., 1]
    return _pose(c * along, s * along, -s * across, c * across, location)


def to_rectangles(pose: Tensor) -> Tensor:
    """Poses (..., 2, 3) -> rectangles (..., 5) as (x, y, theta, opening, jaw) in pixels."""
    theta = torch.atan2(pose[..., 1, 0], pose[..., 0, 0])
    # Not norm(): its gradient is NaN at zero, and a degenerate pose must not poison a batch.
    extent = 2 * torch.sqrt((pose[..., :2] ** 2).sum(-2) + 1e-12)
    return torch.cat([pose[..., 2], theta[..., None], extent], dim=-1)


def sample(features: Tensor, pose: Tensor, patch_size: int, view_size: int) -> Tensor:
    """
    Grid generator and sampler: patches of ``features`` at ``pose``.

    ``features`` (B, C, H, W) cover a square view of ``view_size`` pixels, whatever their stride;
    ``pose`` (B, N, 2, 3). Returns (B * N, C, patch_size, patch_size), differentiable in both.
    """
    batch, count = pose.shape[:2]
    channels = features.shape[1]
    # View pixels -> the sampler's coordinates, which are -1 and 1 on the borders of the view.
    pose = pose.float() * (2.0 / view_size)
    line = torch.arange(patch_size, device=pose.device, dtype=pose.dtype)
    line = (2 * line + 1) / patch_size - 1
    u, v = line[None, :, None], line[:, None, None]
    columns = pose[:, :, None, None]                                    # (B, N, 1, 1, 2, 3)
    grid = columns[..., 0] * u + columns[..., 1] * v + (columns[..., 2] + (1.0 / view_size - 1.0))
    # All patches of an image in one tall grid: no copies of the features.
    grid = grid.reshape(batch, count * patch_size, patch_size, 2)
    patches = F.grid_sample(features.float(), grid, mode='bilinear', padding_mode='zeros',
                            align_corners=False)
    patches = patches.reshape(batch, channels, count, patch_size, patch_size)
    patches = patches.transpose(1, 2).reshape(batch * count, channels, patch_size, patch_size)
    # As the convolutions want them: otherwise each of those behind would reorder what it gets.
    return patches.contiguous(memory_format=torch.channels_last)

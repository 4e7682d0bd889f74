"""
Grasp rectangles as the numbers that a network regresses.

Locations are in units of a quarter of the view around its middle, so that they run from -2 to 2;
the *zero* of the paper's missing labels is the top left corner of the view, which is -2 here.
Angles are (cos 2 theta, sin 2 theta), which is the same for theta and theta + pi. Sizes are
logarithms of the ratio to a typical size.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Around the middle of what the labels of Cornell and of the simulator have, in view pixels. Only
# the zero point of the logarithms.
TYPICAL_OPENING, TYPICAL_JAW = 36.0, 18.0


def encode_locations(locations: Tensor, view_size: int) -> Tensor:
    """View pixels (..., 2) -> numbers (..., 2); the corners of the view are at -2 and 2."""
    return ((locations + 0.5) / view_size - 0.5) * 4


def decode_locations(numbers: Tensor, view_size: int) -> Tensor:
    """Inverse of :func:`encode_locations`."""
    return (numbers / 4 + 0.5) * view_size - 0.5


def encode_angles(theta: Tensor) -> Tensor:
    """Radians (...) -> (cos 2 theta, sin 2 theta) (..., 2)."""
    return torch.stack([torch.cos(2 * theta), torch.sin(2 * theta)], dim=-1)


def decode_angles(numbers: Tensor) -> Tensor:
    """(..., 2) of any length -> radians (...) in [-pi/2, pi/2]."""
    # At the origin, where the gradient of atan2 is NaN, any angle is as good.
    x, y = numbers[..., 0], numbers[..., 1]
    nowhere = (x.abs() + y.abs()) < 1e-6
    return torch.atan2(y, torch.where(nowhere, torch.ones_like(x), x)) / 2


def encode_sizes(sizes: Tensor) -> Tensor:
    """Opening and jaw size in view pixels (..., 2) -> numbers (..., 2)."""
    return torch.log(sizes / sizes.new_tensor([TYPICAL_OPENING, TYPICAL_JAW]))


def decode_sizes(numbers: Tensor) -> Tensor:
    """Inverse of :func:`encode_sizes` between a tenth and ten times the typical size."""
    return torch.exp(numbers.clamp(-2.3, 2.3)) * \
        numbers.new_tensor([TYPICAL_OPENING, TYPICAL_JAW])


def encode_rectangles(rectangles: Tensor, view_size: int) -> Tensor:
    """Rectangles (..., 5) -> x, y, cos 2 theta, sin 2 theta, opening, jaw size (..., 6)."""
    return torch.cat([encode_locations(rectangles[..., :2], view_size),
                      encode_angles(rectangles[..., 2]), encode_sizes(rectangles[..., 3:])], -1)


def decode_rectangles(numbers: Tensor, view_size: int) -> Tensor:
    """Six numbers (..., 6) -> rectangles (..., 5); inverse of :func:`encode_rectangles`."""
    return torch.cat([decode_locations(numbers[..., :2], view_size),
                      decode_angles(numbers[..., 2:4])[..., None],
                      decode_sizes(numbers[..., 4:])], dim=-1)

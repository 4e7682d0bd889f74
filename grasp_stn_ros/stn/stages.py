"""
The four blocks of the network, in the paper's words (section III).

Each block but the last is the localization network of a spatial transformer; the transformer
itself is in :mod:`transformer`, and :mod:`multi_stage` composes the blocks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
import torch.nn.functional as F

from .backbone import ConvBlock, Exact
from .trunk import Trunk

# Opening and jaw size in view pixels around which STN_scale,crop predicts: a 20 mm jaw and a
# typical 40 mm opening seen from 0.85 m. Only the zero point of the logarithms.
TYPICAL_OPENING, TYPICAL_JAW = 26.0, 11.0
# Scale in pixels of the predicted shift.
SHIFT_UNIT = 8.0


def encode_jaw(jaw: Tensor) -> Tensor:
    """Height of the jaw plates (N,) in view pixels, 0 = not known -> two numbers (N, 2)."""
    known = (jaw > 0).float()
    return torch.stack([known, known * torch.log(jaw.clamp_min(1.0) / TYPICAL_JAW)], dim=-1)


class PatchNetwork(nn.Module):
    """A small network from patches (N, inputs, 16, 16) to vectors (N, outputs)."""

    def __init__(self, inputs: int, outputs: int, extra: int = 0):
        """``extra`` numbers per patch join before the last hidden layer."""
        super().__init__()
        # Stride 2 at once: at full size the first convolution would take most of the time.
        self.convolutions = nn.Sequential(ConvBlock(inputs, 64, 3, 2), ConvBlock(64, 64),
                                          ConvBlock(64, 96, 3, 2))
        self.hidden = nn.Linear(96 * 16 + extra, 128)
        self.output = nn.Linear(128, outputs)

    def forward(self, patches: Tensor, extra: Tensor | None = None) -> Tensor:
        """Patches (N, inputs, 16, 16), extra (N, E) -> (N, outputs) float32."""
        return self.output(self.summary(patches, extra)).float()

    def summary(self, patches: Tensor, extra: Tensor | None = None) -> Tensor:
        """Return what the outputs are made of, (N, 128)."""
        x = self.convolutions(patches).flatten(1)
        if extra is not None:
            x = torch.cat([x, extra.to(x.dtype)], dim=1)
        return F.relu(self.hidden(x))


class STNCrop(Exact):
    """
    Propose K locations.

    The paper regresses 2 K coordinates. Here a map of stride 4 says how likely a grasp is centred
    in each cell and where in it; the K strongest local maxima are the locations, so that K is free
    at run time and the order of the labels does not matter.
    """

    def __init__(self, channels: int):
        """Features of ``channels`` at the stride of the trunk."""
        super().__init__()
        self.features = ConvBlock(channels, 32, 1)
        self.output = nn.Conv2d(32, 3, 1)
        assert self.output.bias is not None
        nn.init.constant_(self.output.bias[:1], -3.0)  # grasps are rare

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C, h, w) -> logit and offset in cells (B, 3, h, w) float32."""
        with self.exactly(features):
            return self.output(self.features(features.float()))

    @staticmethod
    def within(maps: Tensor, allowed: Tensor) -> Tensor:
        """Maps (B, 3, h, w) with no chance for locations outside of ``allowed`` (B, h, w) bool."""
        logits = maps[:, :1].masked_fill(~allowed[:, None], -1e4)
        return torch.cat([logits, maps[:, 1:]], dim=1)

    @staticmethod
    def propose(maps: Tensor, count: int, reach: int = 2) -> tuple[Tensor, Tensor]:
        """
        Maps (B, 3, h, w) -> the ``count`` strongest cells that are more than ``reach`` apart.

        Not only local maxima: along a handle the map is one ridge, and a robot wants to choose
        from several grasps there. Returns locations (B, K, 2) in view pixels, differentiable in
        the offsets, and logits (B, K). Where no cell is left, the logits are -1e4.
        """
        height, width = maps.shape[-2:]
        # With a border, so that the neighbours of a cell are at the same places everywhere.
        free = F.pad(maps[:, 0].detach(), (reach,) * 4, value=-1e4)
        padded = width + 2 * reach
        steps = torch.arange(-reach, reach + 1, device=maps.device)
        neighbours = (steps[:, None] * padded + steps).flatten()
        free = free.flatten(1)
        chosen, strengths = [], []
        for _ in range(count):
            strength, best = free.max(dim=1)
            chosen.append(best)
            strengths.append(strength)
            free.scatter_(1, (best[:, None] + neighbours).clamp(0, free.shape[1] - 1), -1e4)
        place = torch.stack(chosen, dim=1)                                    # (B, K)
        # Where no cell is left, the strongest one lies on the border.
        row = (torch.div(place, padded, rounding_mode='floor') - reach).clamp(0, height - 1)
        column = (place % padded - reach).clamp(0, width - 1)
        index = row * width + column
        offsets = maps[:, 1:].flatten(2).gather(2, index[:, None].expand(-1, 2, -1))
        cells = torch.stack([column, row], 1)
        locations = cells_to_pixels(cells + offsets.clamp(-1.5, 1.5))
        return locations.transpose(1, 2), torch.stack(strengths, dim=1)


def cells_to_pixels(cells: Tensor) -> Tensor:
    """Feature cells (cell centres at integers) -> view pixels (pixel centres at integers)."""
    return (cells + 0.5) * Trunk.STRIDE - 0.5


class STNRotation(nn.Module):
    """
    Give each location an angle.

    One logit per bin of 10 degrees, several of which may be right (a ball has no wrong angle);
    around the best bin, the mean direction in the double angle, where theta and theta + pi are
    the same.
    """

    BINS = 18

    def __init__(self, channels: int):
        """Patches of trunk features with ``channels``."""
        super().__init__()
        self.network = PatchNetwork(channels, self.BINS)

    @classmethod
    def bin_angles(cls, like: Tensor) -> Tensor:
        """Centre angle (BINS,) of each bin in radians, on the device of ``like``."""
        return torch.arange(cls.BINS, device=like.device) * (math.pi / cls.BINS)

    def forward(self, patches: Tensor) -> Tensor:
        """Upright patches (N, C, 16, 16) -> logits (N, BINS)."""
        return self.network(patches)

    @classmethod
    def decode(cls, logits: Tensor, angles: int = 1) -> Tensor:
        """Logits (..., BINS) -> the ``angles`` best, distinct angles (..., angles) in radians."""
        weights = torch.sigmoid(logits)
        bins = torch.arange(cls.BINS, device=logits.device)
        double = 2 * cls.bin_angles(logits)
        result = []
        for _ in range(angles):
            best = weights.argmax(-1, keepdim=True)
            distance = ((bins - best + cls.BINS // 2) % cls.BINS - cls.BINS // 2).abs()
            near = weights * (distance <= 1) + 1e-6 * (distance == 0)
            result.append(torch.atan2((near * torch.sin(double)).sum(-1),
                                      (near * torch.cos(double)).sum(-1)) / 2)
            weights = weights * (distance > 2)
        return torch.stack(result, -1)


class STNScaleCrop(nn.Module):
    """
    Fit each rotated patch: shift (dx, dy), opening, jaw size, and a last turn of the angle.

    What height the jaw plates of the gripper have cannot be seen in an image: it may be told.
    """

    TURN_UNIT = 0.3  # radians

    def __init__(self, channels: int, jaw: bool = False):
        """Patches with ``channels``; ``jaw``: the height of the gripper's plates joins them."""
        super().__init__()
        self.network = PatchNetwork(channels, 5, 2 * jaw)

    def forward(self, patches: Tensor, jaw: Tensor | None = None) -> Tensor:
        """
        Rotated patches (N, C, 16, 16) -> parameters (N, 5): dx, dy, opening, jaw, turn.

        ``jaw`` (N,) in view pixels, 0 = not known.
        """
        return self.network(patches, None if jaw is None else encode_jaw(jaw))

    @classmethod
    def encode(cls, location: Tensor, theta: Tensor, target: Tensor) -> Tensor:
        """Parameters (..., 5) that take (location, theta) to ``target`` rectangles (..., 5)."""
        delta = target[..., :2] - location
        c, s = torch.cos(theta), torch.sin(theta)
        turn = torch.remainder(target[..., 2] - theta + math.pi / 2, math.pi) - math.pi / 2
        return torch.stack([(c * delta[..., 0] + s * delta[..., 1]) / SHIFT_UNIT,
                            (c * delta[..., 1] - s * delta[..., 0]) / SHIFT_UNIT,
                            torch.log(target[..., 3] / TYPICAL_OPENING),
                            torch.log(target[..., 4] / TYPICAL_JAW),
                            turn / cls.TURN_UNIT], -1)

    @classmethod
    def decode(cls, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Parameters (..., 5) -> shift (..., 2) px, extent (..., 2) px, turn (...) rad."""
        extent = torch.exp(parameters[..., 2:4].clamp(-2, 2))
        extent = torch.stack([extent[..., 0] * TYPICAL_OPENING, extent[..., 1] * TYPICAL_JAW], -1)
        return parameters[..., :2] * SHIFT_UNIT, extent, parameters[..., 4] * cls.TURN_UNIT


class GraspClassifier(Exact):
    """
    Score each fitted patch.

    Two logits: does the rectangle fit a grasp (*match*), and does the grasp lift the object under
    unknown friction (*lift*). The score is the product of both probabilities. The extent of the
    rectangle joins the patch, whose resampling hides it.

    A rectangle does not say how far down the fingers go, and the paper leaves it open: the rim of
    a bowl slips from tips that are deep inside, a can from tips that hold its edge. With
    ``depths`` there are as many further logits, whether the grasp lifts with the tips so deep.
    """

    EXTRA = 2

    def __init__(self, channels: int, jaw: bool = False, depths: int = 0):
        """Patches with ``channels``; ``jaw``: the height of the gripper's plates joins them."""
        super().__init__()
        self.network = PatchNetwork(channels, 2, self.EXTRA + 2 * jaw)
        self.depths = (PatchNetwork(channels, depths, self.EXTRA + 2 * jaw) if depths else None)

    def forward(self, patches: Tensor, extent: Tensor, jaw: Tensor | None = None) -> Tensor:
        """
        Patches (N, C, 16, 16), extents (N, 2) in pixels -> logits (N, 2 + depths).

        They are match, lift, and lift for each of the depths. ``jaw`` (N,) in view pixels, 0 = not
        known.
        """
        with self.exactly(patches):
            patches, extra = patches.float(), self.beside(extent, jaw)
            logits = self.network(patches, extra)
            if self.depths is None:
                return logits
            return torch.cat([logits, self.depths(patches, extra)], dim=1)

    @staticmethod
    def beside(extent: Tensor, jaw: Tensor | None = None) -> Tensor:
        """Return what joins a patch: extents (N, 2) and jaws (N,) as (N, 2 or 4) numbers."""
        extra = torch.stack([extent[..., 0] / TYPICAL_OPENING, extent[..., 1] / TYPICAL_JAW],
                            -1) - 1.0
        return extra if jaw is None else torch.cat([extra, encode_jaw(jaw)], dim=1)

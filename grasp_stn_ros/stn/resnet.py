"""
Residual networks that end in a vector (He et al. 2016): the paper's localization networks.

Layers are counted as in that paper: the first convolution, two in each residual block and the
linear layer, so ``blocks`` (5, 5, 5) is a ResNet-32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
import torch.nn.functional as F

from .backbone import ConvBlock, ResidualBlock
from .network import NetworkConfig


@dataclass(frozen=True)
class ImageConfig(NetworkConfig):
    """Configuration of a network that sees the whole image with :func:`image_resnet`."""

    width: float = 1.0                           # factor of all channels
    blocks: tuple[int, ...] = (5, 5, 5)
    grid: int = 10
    dropout: float = 0.0


@dataclass(frozen=True)
class PatchConfig(ImageConfig):
    """
    A smaller one with :func:`patch_resnet` behind it; the number of candidates is fixed.

    Blocks (3, 3, 3) are a ResNet-20.
    """

    blocks: tuple[int, ...] = (3, 3, 3)
    patch_blocks: tuple[int, ...] = (1, 1, 1)
    margin: tuple[float, float] = (12.0, 12.0)   # pixels around a rectangle for the classifier
    patch: int = 32                              # samples


# Of the networks for whole images, behind the first convolution.
_IMAGE_CHANNELS = (32, 64, 64)
_IMAGE_STRIDES = (4, 2, 2, 1)


class StridedResidualBlock(nn.Module):
    """A residual block that changes the number of channels and the resolution."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        """Shortcut by averaging and a 1x1 convolution."""
        super().__init__()
        self.stride = stride
        self.first = ConvBlock(inputs, outputs, 3, stride)
        self.second = ConvBlock(outputs, outputs, activate=False)
        self.shortcut = ConvBlock(inputs, outputs, 1, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        # Not a 1x1 convolution with a stride: it skips three of four features, and its gradient
        # in channels-last memory writes outside its buffer (PyTorch 2.13, CPU, float32).
        fewer = x if self.stride == 1 else F.avg_pool2d(x, self.stride, ceil_mode=True)
        return F.relu(self.shortcut(fewer) + self.second(self.first(x)))


class ResNet(nn.Module):
    """
    Images to vectors: a convolution, groups of residual blocks, a linear layer.

    Features are averaged in ``grid`` x ``grid`` cells and not over the whole image, since the
    vector says where something is.
    """

    def __init__(self, inputs: int, outputs: int, blocks: tuple[int, ...],
                 channels: tuple[int, ...], strides: tuple[int, ...], grid: int,
                 extra: int = 0, dropout: float = 0.0):
        """
        Build a network whose answer is zero in the beginning.

        ``strides`` has that of the first convolution and of each group; ``extra`` numbers join
        before the linear layer.
        """
        super().__init__()
        if not len(blocks) == len(channels) == len(strides) - 1:
            raise ValueError(f'{len(blocks)} groups of blocks need as many channels and one '
                             f'stride more, got {channels} and {strides}')
        layers: list[nn.Module] = [ConvBlock(inputs, channels[0], 5 if strides[0] > 1 else 3,
                                             strides[0])]
        before = channels[0]
        for count, width, stride in zip(blocks, channels, strides[1:], strict=True):
            layers.append(StridedResidualBlock(before, width, stride))
            layers += [ResidualBlock(width) for _ in range(count - 1)]
            before = width
        self.features = nn.Sequential(*layers)
        self.width = before
        self.grid = grid
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(before * grid * grid + extra, outputs)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        """(B, inputs, H, W), extra (B, E) -> (B, outputs) float32."""
        cells = F.adaptive_avg_pool2d(self.features(x), self.grid).flatten(1).float()
        if extra is not None:
            cells = torch.cat([cells, extra.to(cells.dtype)], dim=1)
        return self.output(self.dropout(cells)).float()


def scaled(channels: tuple[int, ...], width: float) -> tuple[int, ...]:
    """Channels times ``width``, in multiples of eight."""
    return tuple(max(8, round(c * width / 8) * 8) for c in channels)


def image_resnet(inputs: int, outputs: int, width: float = 1.0,
                 blocks: tuple[int, ...] = (5, 5, 5), grid: int = 10,
                 dropout: float = 0.0) -> ResNet:
    """
    Build the ResNet, by default ResNet-32, for images of 400x400.

    Its features have stride 16, 25x25 cells.

    The original one is for images of 32x32. Here the first convolution has a stride of four, as
    the stem of the ResNets for photographs.
    """
    return ResNet(inputs, outputs, blocks, scaled(_IMAGE_CHANNELS, width), _IMAGE_STRIDES, grid,
                  dropout=dropout)


class LocationResNet(nn.Module):
    """
    A residual network that answers with coordinates: the centres of mass of K maps.

    A linear layer on all cells has to learn every position anew; a centre of mass moves with what
    it shows (integral regression, Sun et al. 2018), without which a few hundred images that are
    never moved do not teach where things are.
    """

    def __init__(self, inputs: int, locations: int, width: float = 1.0,
                 blocks: tuple[int, ...] = (5, 5, 5), dropout: float = 0.0):
        """``locations`` is K."""
        super().__init__()
        body = ResNet(inputs, 1, blocks, scaled(_IMAGE_CHANNELS, width), _IMAGE_STRIDES, 1)
        self.features = body.features
        self.dropout = nn.Dropout2d(dropout)
        self.maps = nn.Conv2d(body.width, locations, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, 2 K) float32; -2 and 2 are the borders of the view."""
        maps = self.maps(self.dropout(self.features(x))).float()
        weight = torch.softmax(maps.flatten(2), dim=2).unflatten(2, maps.shape[2:])

        def middle(cells: int) -> Tensor:
            # The outermost cells stand for the borders, so that both can be reached.
            return torch.linspace(-2, 2, cells, device=x.device)

        return torch.stack([(weight.sum(2) * middle(maps.shape[3])).sum(-1),
                            (weight.sum(3) * middle(maps.shape[2])).sum(-1)], -1).flatten(1)


def patch_resnet(inputs: int, outputs: int, width: float = 1.0,
                 blocks: tuple[int, ...] = (1, 1, 1), grid: int = 3, extra: int = 0,
                 dropout: float = 0.0) -> ResNet:
    """Build a ResNet for patches of 32x32; its features have stride 8, 4x4 cells."""
    return ResNet(inputs, outputs, blocks, scaled((32, 64, 96), width), (2, 1, 2, 2), grid, extra,
                  dropout)

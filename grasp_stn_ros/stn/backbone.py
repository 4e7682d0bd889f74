"""Convolutional building blocks: residual blocks and the feature pyramid shared by all stages."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
import torch.nn.functional as F

Network = TypeVar('Network', bound=nn.Module)


class ConvBlock(nn.Module):
    """Convolution, batch norm and, unless ``activate`` is False, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1,
                 activate: bool = True):
        """Pad so that outputs lie in the middle of the ``stride`` inputs that they stand for."""
        super().__init__()
        padding = kernel // 2 if kernel % 2 else (kernel - stride) // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        x = self.norm(self.conv(x))
        return F.relu(x, inplace=True) if self.activate else x


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016)."""

    def __init__(self, channels: int):
        """Start as the identity: the last batch norm's weight is zero."""
        super().__init__()
        self.first = ConvBlock(channels, channels)
        self.second = ConvBlock(channels, channels, activate=False)
        assert isinstance(self.second.norm, nn.BatchNorm2d)
        nn.init.zeros_(self.second.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return F.relu(x + self.second(self.first(x)))


class Trunk(nn.Module):
    """
    Residual network with a top-down pathway; its features have stride 4.

    The paper gives each localization network a ResNet of its own. Sharing one costs a third of
    the time at the same accuracy, since all stages look at the same edges.

    One convolution goes straight to stride 4, with a third of the multiplications of the two that
    led there before. What is finer than that the patches of stages 3 and 4 take from the image.
    """

    STRIDE = 4

    def __init__(self, inputs: int = 7, outputs: int = 32, width: float = 1.0,
                 blocks: tuple[int, int, int] = (0, 1, 2)):
        """``width`` scales the channels, ``blocks`` are residual blocks at stride 4, 8 and 16."""
        super().__init__()
        c4, c8, c16 = (max(8, round(c * width / 8) * 8) for c in (48, 80, 128))
        self.stage4 = nn.Sequential(ConvBlock(inputs, c4, 6, 4),
                                    *[ResidualBlock(c4) for _ in range(blocks[0])])
        self.stage8 = nn.Sequential(ConvBlock(c4, c8, 3, 2),
                                    *[ResidualBlock(c8) for _ in range(blocks[1])])
        self.stage16 = nn.Sequential(ConvBlock(c8, c16, 3, 2),
                                     *[ResidualBlock(c16) for _ in range(blocks[2])])
        self.lateral4 = nn.Conv2d(c4, outputs, 1)
        self.lateral8 = nn.Conv2d(c8, outputs, 1)
        self.lateral16 = nn.Conv2d(c16, outputs, 1)
        self.merge8 = ConvBlock(outputs, outputs)
        self.merge4 = ConvBlock(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, S, S) -> (B, outputs, S / 4, S / 4)."""
        x4 = self.stage4(x)
        x8 = self.stage8(x4)
        x16 = self.stage16(x8)
        y8 = self.lateral8(x8) + _upsample(self.lateral16(x16), x8)
        y8 = self.merge8(y8)
        return self.merge4(self.lateral4(x4) + _upsample(y8, x4))


def _upsample(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode='nearest')


def fold_batch_norm(module: Network) -> Network:
    """Fold every :class:`ConvBlock`'s batch norm into its convolution; in place, for inference."""
    for block in module.modules():
        if isinstance(block, ConvBlock) and isinstance(block.norm, nn.BatchNorm2d):
            block.conv = nn.utils.fuse_conv_bn_eval(block.conv.eval(), block.norm.eval())
            block.norm = nn.Identity()
    return module


class Exact(nn.Module):
    """
    A module that computes in single precision wherever it is used.

    Where candidates are compared, by the location map and by the classifier, the eight bits of
    bf16 let near equals change places.
    """

    def exactly(self, like: Tensor) -> torch.autocast:
        """Return the context to compute in, on the device of ``like``."""
        return torch.autocast(like.device.type, enabled=False)


def round_to_bf16(module: Network) -> Network:
    """
    Keep weights in bf16 as autocast would round them, in place, instead of in every frame.

    Those of :class:`Exact` modules stay what they are.
    """
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        module.to(torch.bfloat16)
    for child in module.children():
        if not isinstance(child, Exact):
            round_to_bf16(child)
    return module

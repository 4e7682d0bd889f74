"""The feature pyramid that all stages share."""

from __future__ import annotations

from torch import Tensor, nn
import torch.nn.functional as F

from .backbone import ConvBlock, ExactConv2d, ResidualBlock
from .efficientnet import PhotographFeatures


class Trunk(nn.Module):
    """
    Residual network with a top-down pathway; its features have stride 4.

    The paper gives each localization network a ResNet of its own. Sharing one costs a third of
    the time at the same accuracy, since all stages look at the same edges.

    One convolution goes straight to stride 4, with a third of the multiplications of the two that
    led there before. What is finer than that the patches of stages 3 and 4 take from the image.

    Where depth is missing, colours have to say everything: with ``photographs`` the features of
    :class:`PhotographFeatures` join those of strides 8 and 16 there. They would cost another
    third of the time; images with depth do without.
    """

    STRIDE = 4

    def __init__(self, inputs: int = 7, outputs: int = 32, width: float = 1.0,
                 blocks: tuple[int, int, int] = (0, 1, 2), photographs: bool = False):
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
        # What is added to one another; at stride 4 it would cost two milliseconds.
        self.lateral8 = ExactConv2d(c8, outputs, 1)
        self.lateral16 = ExactConv2d(c16, outputs, 1)
        self.merge8 = ConvBlock(outputs, outputs)
        self.merge4 = ConvBlock(outputs, outputs)
        self.photographs = PhotographFeatures() if photographs else None
        if photographs:
            self.photograph_laterals = nn.ModuleList(
                ExactConv2d(channels, outputs, 1) for channels in PhotographFeatures.CHANNELS)

    def forward(self, x: Tensor, without_depth: bool | Tensor = False) -> Tensor:
        """
        (B, inputs, S, S) -> (B, outputs, S / 4, S / 4).

        ``without_depth`` tells which images have none, of all or of each (B,) bool; of use with
        ``photographs`` only.
        """
        x4 = self.stage4(x)
        x8 = self.stage8(x4)
        x16 = self.stage16(x8)
        y8, y16 = self.lateral8(x8), self.lateral16(x16)
        if self.photographs is not None and without_depth is not False:
            y8, y16 = self._with_photographs(x[:, :3], y8, y16, without_depth)
        y8 = self.merge8(y8 + _upsample(y16, x8))
        return self.merge4(self.lateral4(x4) + _upsample(y8, x4))

    def _with_photographs(self, rgb: Tensor, y8: Tensor, y16: Tensor,
                          where: bool | Tensor) -> tuple[Tensor, Tensor]:
        """Add the features of photographs to those of strides 8 and 16."""
        assert self.photographs is not None
        more8, more16, more32 = (lateral(features) for lateral, features in zip(
            self.photograph_laterals, self.photographs(rgb), strict=True))
        more32 = F.interpolate(more32, size=y16.shape[-2:], mode='bilinear', align_corners=False)
        more8, more16 = _upsample(more8, y8), _upsample(more16, y16) + more32
        if isinstance(where, Tensor):
            mask = where[:, None, None, None]
            more8, more16 = more8 * mask, more16 * mask
        return y8 + more8, y16 + more16


def _upsample(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode='nearest')

"""
Regression: a ResNet-32 answers with one grasp, without looking twice.

After Redmon & Angelova (2015), with a ResNet in place of the AlexNet, as in Table I of the paper.
In training one of an image's labels is drawn anew in every step, so that the answer is their mean,
which on objects with several grasps lies between them: the known weakness of the method.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..stn.encoding import decode_rectangles
from ..stn.network import CERTAIN, GraspNetwork, StageOutputs
from ..stn.resnet import ImageConfig, image_resnet


@dataclass(frozen=True)
class RegressionConfig(ImageConfig):
    """Configuration of :class:`Regression`, which has one candidate."""

    candidates: int = 1


class Regression(GraspNetwork):
    """One grasp: x, y, cos 2 theta, sin 2 theta, opening and jaw size, directly."""

    ARCHITECTURE = 'regression'
    SUMMARY = 'A ResNet-32 that answers with one grasp'
    CONFIG = RegressionConfig
    TITLES = ('location', 'angle', 'rectangle', 'the one answer: no score')
    config: RegressionConfig

    def __init__(self, config: RegressionConfig | None = None):
        """Build an untrained network."""
        super().__init__()
        self.config = config = config or RegressionConfig()
        self.network = image_resnet(config.channels, 6, config.width, config.blocks, config.grid,
                                    config.dropout)

    def forward(self, image: Tensor, candidates: int = 0,
                lap: Callable[[str], None] = lambda name: None,
                jaw: Tensor | None = None) -> StageOutputs:
        """Image (B, 7, S, S) -> one candidate with score 1; ``candidates`` changes nothing."""
        rectangles = decode_rectangles(self.network(image)[:, None], image.shape[-1])
        lap('regression')
        certain = torch.full_like(rectangles[..., 0], CERTAIN)
        return StageOutputs(rectangles[..., :2], certain, rectangles[..., 2], rectangles,
                            torch.stack([certain, certain], dim=-1))

"""
Single-stage STN: one spatial transformer with all five parameters, then the classifier and max.

The localization network sees the whole image and answers with K complete grasps at once; the
sampler cuts each of them out of the image, and the classifier scores it. What the multi-stage STN
gains over it is what looking again from nearby is worth. The paper does not say how labels are
assigned to the K outputs; as in its multi-stage STN, the first slot is the top-right label and
slots without a label are zero.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..stn.encoding import decode_rectangles
from ..stn.network import CERTAIN, GraspNetwork, StageOutputs, one_logit
from ..stn.paper import classify
from ..stn.resnet import PatchConfig, image_resnet, patch_resnet


class SingleStageSTN(GraspNetwork):
    """K grasps at once, then the classifier and max."""

    ARCHITECTURE = 'single_stage_stn'
    SUMMARY = 'A single-stage spatial transformer network'
    CONFIG = PatchConfig
    TITLES = ('STN: locations', 'STN: angles', 'STN: rectangles', 'classifier: scores')
    config: PatchConfig

    def __init__(self, config: PatchConfig | None = None):
        """Build an untrained network."""
        super().__init__()
        self.config = config = config or PatchConfig()
        self.localization = image_resnet(config.channels, 6 * config.candidates, config.width,
                                         config.blocks, config.grid, config.dropout)
        self.classifier = patch_resnet(config.channels, 1, config.width, config.patch_blocks,
                                       extra=2, dropout=config.dropout)

    def grasp_numbers(self, image: Tensor) -> Tensor:
        """Localization network: image (B, 7, S, S) -> encoded rectangles (B, K, 6)."""
        return self.localization(image).unflatten(1, (self.config.candidates, 6))

    def score_numbers(self, image: Tensor, rectangles: Tensor) -> Tensor:
        """Grasp classifier on ``rectangles`` (B, N, 5) -> logits (B, N)."""
        return classify(self.classifier, image, rectangles, self.config.margin,
                        self.config.patch)

    def forward(self, image: Tensor, candidates: int = 0,
                lap: Callable[[str], None] = lambda name: None,
                jaw: Tensor | None = None) -> StageOutputs:
        """Image (B, 7, S, S) -> K candidates, or the best ``candidates`` of them."""
        rectangles = decode_rectangles(self.grasp_numbers(image), image.shape[-1])
        lap('stn')
        scores = self.score_numbers(image, rectangles)
        lap('classifier')
        outputs = StageOutputs(rectangles[..., :2], torch.full_like(scores, CERTAIN),
                               rectangles[..., 2], rectangles, one_logit(scores))
        return outputs.best(candidates or self.config.candidates)

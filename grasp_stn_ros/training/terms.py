"""What the answer of each block costs, whether labels or teachers say what is right."""

from __future__ import annotations

import torch
from torch import Tensor
import torch.nn.functional as F


def location(logits: Tensor, heat: Tensor) -> Tensor:
    """Location map (B, h, w), logits, against the probability (B, h, w) of a grasp there."""
    entropy = F.binary_cross_entropy_with_logits(logits, heat, reduction='none')
    # Normalized by the positives, as in focal losses: they are a thousandth of the cells.
    return 0.5 * (entropy * (1 + 2 * heat)).sum() / heat.sum().clamp_min(10.0)


def offset(offsets: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Offsets (B, 2, h, w) in cells against ``target``; ``counts`` (B, h, w) weighs the cells."""
    distance = (offsets - target).abs().sum(dim=1) * counts
    return 0.3 * distance.sum() / counts.sum().clamp_min(10.0)


def angle(logits: Tensor, bins: Tensor, weight: Tensor | float = 1.0) -> Tensor:
    """Bins (B, N, BINS), logits, against the probability of each; ``weight`` (B, N)."""
    entropy = F.binary_cross_entropy_with_logits(logits, bins, reduction='none').mean(-1)
    return 3.0 * (entropy * weight).mean()


def fit(parameters: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Parameters (B, N, 5) of a fit against those of a right one; ``weight`` (B, N)."""
    error = F.smooth_l1_loss(parameters, target, reduction='none', beta=0.3).mean(-1)
    return 4.0 * (error * weight).sum() / weight.sum().clamp_min(1.0)


def classifier(logits: Tensor, match: Tensor, lift: Tensor, weight: Tensor) -> Tensor:
    """
    Logits (B, N, 2) against the probabilities ``match`` and ``lift``, both (B, N).

    ``weight`` (B, N) says how much is known of ``lift``.
    """
    matching = F.binary_cross_entropy_with_logits(logits[..., 0], match)
    lifting = F.binary_cross_entropy_with_logits(logits[..., 1], lift, reduction='none')
    return 2.0 * matching + (lifting * weight).sum() / weight.sum().clamp_min(1.0)


def choice(scores: Tensor, right: Tensor) -> Tensor:
    """
    How unlikely a right candidate is chosen by ``scores`` (B, N), logits; ``right`` in [0, 1].

    Max pooling picks a single candidate; a softmax in its place has a gradient. It asks for what
    is judged in the end, where cross entropy asks as much of candidates that nobody would choose.
    Images none of whose candidates is right do not count.
    """
    counts = (right.amax(dim=-1) > 0.5).float()
    chosen = (torch.softmax(scores, dim=-1) * right).sum(dim=-1)
    return -(torch.log(chosen.clamp_min(1e-4)) * counts).sum() / counts.sum().clamp_min(1.0)

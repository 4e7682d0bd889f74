"""What a training is watched and chosen by: figures on images that are neither of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ..data.sample import Batch, Dataset, collate
from ..detector import GraspDetector
from ..evaluation.accuracy import judge, summarize
from ..stn.network import GraspNetwork
from .settings import TrainingSettings
from .systems import System

_SEED = 17
_BATCH = 10


def validator(system: System, settings: TrainingSettings, data: Dataset, device: str = 'cpu') \
        -> Callable[[GraspNetwork], dict[str, float]]:
    """
    Return the function that measures a network on ``data``.

    The rectangle metric, without depth where most training views have none; for sliding windows,
    whose search over all images would take longer than the training, how well windows that are
    drawn as in training, but always the same ones, are told apart ('windows', minus the loss).
    """
    if system.architecture.endswith('sliding_window'):
        return lambda model: {'windows': -_loss(model, system, settings, data, device)}
    modality = 'rgb' if settings.augmentation.no_depth > 0.5 else 'rgbd'
    return lambda model: summarize(judge(
        GraspDetector(model, device=device, modality=modality,
                      gripper=getattr(data, 'gripper', None)), data))


@torch.no_grad()
def _loss(model: GraspNetwork, system: System, settings: TrainingSettings, data: Dataset,
          device: str) -> float:
    """Mean loss of the last phase over ``data``, with the same random numbers every time."""
    model = model.to(device).eval()
    total = 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        for first in range(0, len(data), _BATCH):
            indices = range(first, min(first + _BATCH, len(data)))
            losses = system.objective(model, _batch(data, indices, settings).to(
                torch.device(device)), system.phases[-1], settings.losses)
            total += float(torch.stack(list(losses.values())).sum()) * len(indices)
    return total / max(1, len(data))


def _batch(data: Dataset, indices: range, settings: TrainingSettings) -> Batch:
    rng = np.random.default_rng(_SEED)
    views = [settings.augmentation(data[i], rng) for i in indices]
    return collate(*map(list, zip(*views, strict=True)))

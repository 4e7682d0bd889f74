"""Networks to start a training from that have features of photographs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ..stn.efficientnet import PretrainedError, load_pretrained
from ..stn.multi_stage import ModelConfig, MultiStageSTN
from ..stn.network import GraspNetwork, NetworkConfig

# The features join those of a trained network at this share of what a layer starts with.
_FIRST_SHARE = 0.3


def with_photographs(config: NetworkConfig, start: GraspNetwork | None,
                     path: str | Path) -> MultiStageSTN:
    """
    Return a network of ``config``, with the weights of ``start`` and features of photographs.

    ``path`` is that of :func:`load_pretrained`. Raises :class:`PretrainedError`, also for networks
    of another kind.
    """
    if not isinstance(config, ModelConfig):
        raise PretrainedError(f'only {MultiStageSTN.ARCHITECTURE} has features of photographs')
    if config.without_depth:
        raise PretrainedError('a network with a second one for images without depth has features '
                              'of photographs already')
    network = MultiStageSTN(replace(config, photographs=True))
    if isinstance(start, MultiStageSTN):
        network.load_state_dict(start.state_dict(), strict=False)
        if start.trunk.photographs is None:
            with torch.no_grad():
                for weight in network.trunk.photograph_laterals.parameters():
                    weight.mul_(_FIRST_SHARE)
    assert network.trunk.photographs is not None
    load_pretrained(network.trunk.photographs, path)
    return network

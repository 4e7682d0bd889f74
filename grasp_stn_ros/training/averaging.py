"""Model soups (Wortsman et al. 2022): the mean of the weights of one network trained further."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..stn import checkpoint
from ..stn.network import GraspNetwork


def average_weights(paths: Sequence[str | Path]) -> tuple[GraspNetwork, dict[str, Any]]:
    """
    Mean of the weights in ``paths``, and notes for its sidecar: the last one's training, of what.

    Of use for networks of which one goes on where another has stopped: those that were trained
    apart have nothing in between. The mean has no calibration. Raises
    :class:`checkpoint.CheckpointError`, also where the networks differ in more than their weights.
    """
    if len(paths) < 2:
        raise checkpoint.CheckpointError('a mean needs at least two files of weights')
    networks: list[GraspNetwork] = []
    digests: list[str] = []
    for path in paths:
        network, sidecar = checkpoint.load(path)
        network.config = replace(network.config, calibration=(1.0, 0.0))
        first = networks[0] if networks else network
        if (network.ARCHITECTURE, network.config) != (first.ARCHITECTURE, first.config):
            raise checkpoint.CheckpointError(
                f'{path} holds another network than {paths[0]}: {network.ARCHITECTURE} '
                f'{network.config}, not {first.ARCHITECTURE} {first.config}')
        networks.append(network)
        digests.append(str(sidecar['sha256']))
    mean = networks[0]
    states = [network.state_dict() for network in networks]
    mean.load_state_dict({
        # Counters of batches, which nobody reads, stay those of the first.
        name: torch.stack([state[name] for state in states]).mean(dim=0)
        if value.is_floating_point() else value for name, value in states[0].items()})
    return mean, {'training': {**sidecar.get('training', {}), 'mean_of': digests}}

"""
Two ways to make one network of several that were trained.

Model soups (Wortsman et al. 2022) are the mean of the weights of one network trained further. Two
specialists, one for images with and one for images without depth, are joined as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..stn import checkpoint
from ..stn.multi_stage import ModelConfig, MultiStageSTN
from ..stn.network import GraspNetwork


def write_new(out: Path, make: Callable[[], tuple[GraspNetwork, dict[str, Any]]]) -> None:
    """
    Write the network and notes that ``make`` returns to ``out``, where there are no weights yet.

    Raises :class:`checkpoint.CheckpointError` where there are, before anything is made.
    """
    checkpoint.require_new(out)
    network, notes = make()
    checkpoint.save(out, network, notes)


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
        # Of the last: it is about what is shown to the network, not about its weights.
        first.config = replace(first.config, told_jaw=network.config.told_jaw,
                               seen_jaw=network.config.seen_jaw)
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


def join_networks(with_depth: str | Path, without_depth: str | Path, *,
                  seen_jaw: float | None = None) -> tuple[MultiStageSTN, dict[str, Any]]:
    """
    One network of two: images with depth go to the first, images without to the second.

    Where the first has been joined before, the second takes the place of the one for images
    without depth. Features of photographs stay with the second, and the larger views where it is
    told the size of the jaws. ``seen_jaw`` is the scale at which the first is shown its images, by
    default that of its training: a little less is faster. Returns the network and the notes of the
    first's sidecar, to whose training that of the second is added. The calibration is that of the
    first. Raises :class:`checkpoint.CheckpointError`, also where the two are not of one kind.
    """
    first, sidecar = _load(with_depth)
    second, other = _load(without_depth)
    if second.without_depth is not None:
        raise checkpoint.CheckpointError(f'{without_depth} does not hold a single '
                                         f'{MultiStageSTN.ARCHITECTURE}')
    alike = [_alone(network) for network in (first, second)]
    if alike[0] != alike[1]:
        raise checkpoint.CheckpointError(
            f'{without_depth} holds another network than {with_depth}: {alike[1]}, not {alike[0]}')
    config = replace(first.config, **_without_depth(second.config), without_depth=True)
    if seen_jaw is not None:
        config = replace(config, seen_jaw=seen_jaw)
    joined = MultiStageSTN(config)
    assert joined.without_depth is not None
    kept = joined.state_dict().keys()
    joined.load_state_dict({
        **{name: value for name, value in first.state_dict().items() if name in kept},
        **{f'without_depth.{name}': value for name, value in second.state_dict().items()}})
    return joined.eval(), {
        **_notes(sidecar),
        'training': {**sidecar.get('training', {}), 'without_depth': other.get('training', {})}}


def split_networks(joined: str | Path) -> list[tuple[MultiStageSTN, dict[str, Any]]]:
    """
    Undo :func:`join_networks`: the network for images with depth, the one for those without.

    For further training of one of them, and as teachers; without a calibration and without what
    was learned about finger depths. Each comes with the notes of its training. Raises
    :class:`checkpoint.CheckpointError`.
    """
    network, sidecar = _load(joined)
    if network.without_depth is None:
        raise checkpoint.CheckpointError(f'{joined} holds one network, not two')
    training = dict(sidecar.get('training', {}))
    trainings = training, training.pop('without_depth', {})
    training.pop('finger_depths', None)
    parts = []
    for part, own, config in (
            (network, trainings[0], replace(_alone(network), seen_jaw=network.config.seen_jaw)),
            (network.without_depth, trainings[1],
             replace(_alone(network), **_without_depth(network.config)))):
        alone = MultiStageSTN(config)
        state = part.state_dict()
        alone.load_state_dict({name: state[name] for name in alone.state_dict()})
        parts.append((alone.eval(), {**_notes(sidecar), 'training': own}))
    return parts


def answers_alike_with_depth(a: str | Path, b: str | Path) -> bool:
    """
    Tell whether two files differ at most in their networks for images without depth.

    What was measured with depth for the one holds for the other then. Raises
    :class:`checkpoint.CheckpointError`.
    """
    first, second = _load(a)[0], _load(b)[0]
    if None in (first.without_depth, second.without_depth) or \
            replace(first.config, **_without_depth(second.config)) != second.config:
        return False
    states = first.state_dict(), second.state_dict()
    return all(torch.equal(value, states[1][name]) for name, value in states[0].items()
               if not name.startswith('without_depth.'))


def _load(path: str | Path) -> tuple[MultiStageSTN, dict[str, Any]]:
    network, sidecar = checkpoint.load(path)
    if not isinstance(network, MultiStageSTN):
        raise checkpoint.CheckpointError(f'{path} holds {network.ARCHITECTURE}, not '
                                         f'{MultiStageSTN.ARCHITECTURE}')
    return network, sidecar


def _notes(sidecar: dict[str, Any]) -> dict[str, Any]:
    """Return the notes of a sidecar without figures, which are of its weights as a whole."""
    return {name: note for name, note in checkpoint.notes(sidecar).items() if name != 'metrics'}


def _alone(network: MultiStageSTN) -> ModelConfig:
    """What two networks have in common that can be joined."""
    return replace(network.config, calibration=(1.0, 0.0), photographs=False, told_jaw=0.0,
                   seen_jaw=0.0, without_depth=False, finger_depths=())


def _without_depth(config: ModelConfig) -> dict[str, Any]:
    """What in the configuration of two joined networks is of that for images without depth."""
    return {'photographs': config.photographs, 'told_jaw': config.told_jaw}

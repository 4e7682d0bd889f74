"""Options and types that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .names import SYSTEMS, TABLES, table_weights

if TYPE_CHECKING:
    from .detector import GraspDetector


class Shard(click.ParamType):
    """Part I of N, as (I, N)."""

    name = 'I/N'

    def convert(self, value: Any, param, ctx) -> tuple[int, int]:
        """Read 'I/N'; fails with what is wrong with it."""
        if isinstance(value, tuple):
            return value
        try:
            part, parts = (int(v) for v in value.split('/'))
        except ValueError:
            self.fail(f'{value!r} is not of the form I/N', param, ctx)
        if not 0 <= part < parts:
            self.fail(f'{value!r}: I must lie between 0 and N - 1', param, ctx)
        return part, parts


def model_options(command):
    """Give a command the options of :func:`make_detector`: which model, and how it runs."""
    for option in reversed((
            click.option('--model', default='default', show_default=True,
                         help='A .safetensors file; default is the one that comes with the '
                              'package.'),
            click.option('--system', type=click.Choice(SYSTEMS),
                         help='Instead of --model: this row of Table I.'),
            click.option('--trained-on', type=click.Choice(TABLES), default=TABLES[0],
                         show_default=True, help='Which weights of --system.'),
            click.option('--device', default='auto', show_default=True,
                         help='auto, cpu, cuda or cuda:N'),
            click.option('--threads', type=click.IntRange(0), default=0, show_default=True,
                         help='CPU threads of the network; 0 = all cores.'),
            click.option('--candidates', type=click.IntRange(0, 256), default=0,
                         show_default=True, help='K, the locations to propose; 0 = the '
                                                 "model's own number."))):
        command = option(command)
    return command


def make_detector(model: str, device: str, threads: int, candidates: int = 0,
                  system: str | None = None, trained_on: str = TABLES[0],
                  modality: str = 'rgbd', turns: int = 1) -> GraspDetector:
    """Build the detector that :func:`model_options` describe, or fail with a usage error."""
    from .detector import GraspDetector, find_weights
    from .stn.checkpoint import CheckpointError
    if system and model != 'default':
        raise click.UsageError('give --system or --model, not both')
    try:
        if system:
            # Not the shipped multi-stage network, but the one in the paper's own setting.
            try:
                model = str(find_weights(table_weights(trained_on, system)))
            except CheckpointError:
                raise click.ClickException(
                    f'there are no weights of {system} trained on {trained_on} images; make some '
                    f'with: grasp_stn train --system {system}, and name them with --model'
                    ) from None
        return GraspDetector(model, device=device, threads=threads, candidates=candidates,
                             modality=modality, turns=turns)
    except (CheckpointError, ValueError) as error:
        raise click.ClickException(str(error)) from None

#!/usr/bin/env python3
"""
Teach trained weights how far down the finger tips go.

First the candidates of the network are executed in simulated scenes, each with the tips at several
depths; interrupted or in parallel shards, it goes on where it stopped. Then the network learns
from them, and stays what it was otherwise. Calibrate it afterwards:

    python scripts/learn_finger_depths.py try --model runs/joined.safetensors --scenes 3000 \
        --seed 3002 --data data/depths
    python scripts/learn_finger_depths.py fit --model runs/joined.safetensors \
        --data data/depths --out runs/deep.safetensors
    grasp_stn calibrate --scenes 500 --model runs/deep.safetensors --out runs/final.safetensors

What the choice of a depth is worth, cross-validated over those scenes:

    python scripts/learn_finger_depths.py compare --model runs/joined.safetensors \
        --data data/depths --json results/finger_depths.json
"""

from __future__ import annotations

from pathlib import Path
import sys

import click
from rich.progress import track
import torch

from grasp_stn_ros.cli_common import Shard
from grasp_stn_ros.evaluation.report import write_json
from grasp_stn_ros.stn import checkpoint
from grasp_stn_ros.training.finger_depths import (
    compare_depths,
    learn_depths,
    load_multi_stage,
    try_depths,
)
from grasp_stn_ros.training.joining import write_new

_EXISTING = click.Path(exists=True, path_type=Path)
_trials = click.option('--data', type=click.Path(exists=True, file_okay=False, path_type=Path),
                       required=True, multiple=True,
                       help='Folder with the trials; may be repeated.')


@click.group(help=__doc__.split('\n\n')[0])
def main() -> None:
    """Gather the two steps."""


@main.command('try')
@click.option('--model', type=_EXISTING, required=True, help='Weights whose candidates to try.')
@click.option('--scenes', type=click.IntRange(1), default=3000, show_default=True)
@click.option('--seed', type=click.IntRange(0), default=3002, show_default=True)
@click.option('--shard', type=Shard(), default='0/1', show_default=True,
              help='Make part I of N, for several processes at once.')
@click.option('--data', type=click.Path(file_okay=False, path_type=Path), required=True,
              help='Folder to which the trials are written.')
@click.option('--crowded', is_flag=True,
              help='All scenes have two to five objects, not a fifth of them.')
def try_out(model: Path, scenes: int, seed: int, shard: tuple[int, int], data: Path,
            crowded: bool) -> None:
    """Execute candidates with the finger tips at several depths."""
    torch.set_num_threads(1)
    try:
        network, _ = load_multi_stage(model)
        made = try_depths(network, seed, range(shard[0], scenes, shard[1]), data,
                          lambda sequence: track(sequence, 'scenes',
                                                 disable=not sys.stderr.isatty()), crowded)
    except checkpoint.CheckpointError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f'{made} scenes tried out: {data}')


@main.command()
@click.option('--model', type=_EXISTING, required=True, help='Weights that made the trials.')
@_trials
@click.option('--seed', type=click.IntRange(0), default=0, show_default=True)
@click.option('--out', type=click.Path(path_type=Path), required=True,
              help='Where to write the weights; they are not calibrated.')
def fit(model: Path, data: tuple[Path, ...], seed: int, out: Path) -> None:
    """Learn from the trials how deep to grasp."""
    try:
        write_new(out, lambda: learn_depths(model, data, seed))
    except checkpoint.CheckpointError as error:
        raise click.ClickException(str(error)) from None
    learned = checkpoint.read_sidecar(out)['training']['finger_depths']
    click.echo(f'{learned["scenes"]} scenes, {learned["candidates"]} candidates; cross entropy '
               f'{learned["cross_entropy"]["trained"]:.3f}, in scenes held out '
               f'{learned["cross_entropy"]["held_out"]:.3f}; {out}')


@main.command()
@click.option('--model', type=_EXISTING, required=True, help='Weights that made the trials.')
@_trials
@click.option('--seed', type=click.IntRange(0), default=0, show_default=True)
@click.option('--json', 'json_file', type=click.Path(dir_okay=False, path_type=Path),
              help='Write the figures to this file.')
def compare(model: Path, data: tuple[Path, ...], seed: int, json_file: Path | None) -> None:
    """Lifts with the depth that the classifier chooses against the gripper's, cross-validated."""
    try:
        figures = compare_depths(model, data, seed)
    except checkpoint.CheckpointError as error:
        raise click.ClickException(str(error)) from None
    for gripper in figures['grippers']:
        click.echo(f'fingers that reach {1000 * gripper["longest"]:.0f} mm: '
                   f'{gripper["without"]} of {figures["n"]} scenes lifted at that depth, '
                   f'{gripper["chosen"]} at the chosen one ({gripper["only_chosen"]} more, '
                   f'{gripper["only_without"]} fewer)')
    if json_file is not None:
        write_json(json_file, figures)


if __name__ == '__main__':
    main()

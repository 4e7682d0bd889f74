#!/usr/bin/env python3
"""
Average the weights of a network and of what became of it in further training.

    python scripts/average_weights.py runs/e/model.safetensors runs/g/model.safetensors \
        --out runs/eg.safetensors
"""

from __future__ import annotations

from pathlib import Path

import click

from grasp_stn_ros.stn import checkpoint
from grasp_stn_ros.training.joining import average_weights, write_new


@click.command()
@click.argument('weights', nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option('--out', required=True, type=click.Path(path_type=Path))
def main(weights: tuple[Path, ...], out: Path) -> None:
    """Write the mean of WEIGHTS, at least two files of one architecture, to OUT."""
    try:
        write_new(out, lambda: average_weights(weights))
    except checkpoint.CheckpointError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f'mean of {len(weights)}: {out}')


if __name__ == '__main__':
    main()

#!/usr/bin/env python3
"""
Take the network for images with depth and the one for images without out of a file with both.

    python scripts/split_networks.py models/multi_stage_stn.safetensors --out runs/parts

writes with_depth.safetensors and without_depth.safetensors, to be trained further or to teach;
join_networks.py makes one file of them again.
"""

from __future__ import annotations

from pathlib import Path

import click

from grasp_stn_ros.stn import checkpoint
from grasp_stn_ros.training.joining import split_networks

NAMES = ('with_depth.safetensors', 'without_depth.safetensors')


@click.command()
@click.argument('joined', type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option('--out', required=True, type=click.Path(file_okay=False, path_type=Path),
              help='Folder for both files.')
def main(joined: Path, out: Path) -> None:
    """Write the two networks in JOINED to OUT."""
    try:
        parts = split_networks(joined)
        for name in NAMES:
            checkpoint.require_new(out / name)
        for name, (network, notes) in zip(NAMES, parts, strict=True):
            checkpoint.save(out / name, network, notes)
            click.echo(out / name)
    except checkpoint.CheckpointError as error:
        raise click.ClickException(str(error)) from None


if __name__ == '__main__':
    main()

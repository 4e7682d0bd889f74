#!/usr/bin/env python3
"""
Join a network for images with depth and one for images without to one file of weights.

    python scripts/join_networks.py runs/depth.safetensors runs/colours.safetensors \
        --out runs/joined.safetensors

Where the first file holds two networks already, the second takes the place of the one for images
without depth.
"""

from __future__ import annotations

from pathlib import Path

import click

from grasp_stn_ros.stn import checkpoint
from grasp_stn_ros.training.joining import join_networks, write_new


@click.command()
@click.argument('with_depth', type=click.Path(exists=True, path_type=Path))
@click.argument('without_depth', type=click.Path(exists=True, path_type=Path))
@click.option('--out', required=True, type=click.Path(path_type=Path))
@click.option('--seen-jaw', type=click.FloatRange(min=0), default=None, show_default='as trained',
              help='Pixels that jaws of 20 mm get in images with depth; 0 shows each image at '
                   '400 x 400.')
def main(with_depth: Path, without_depth: Path, out: Path, seen_jaw: float | None) -> None:
    """Write a network that asks WITH_DEPTH or WITHOUT_DEPTH, as an image has it, to OUT."""
    try:
        write_new(out, lambda: join_networks(with_depth, without_depth, seen_jaw=seen_jaw))
    except checkpoint.CheckpointError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f'images with depth: {with_depth}, without: {without_depth}; {out}')


if __name__ == '__main__':
    main()

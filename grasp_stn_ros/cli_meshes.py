"""What the commands with ``--meshes`` share: which meshes can be used, and what came out."""

from __future__ import annotations

from pathlib import Path
import sys
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from .simulation.mesh_data import MeshObjects


def mesh_objects(folder: Path) -> MeshObjects:
    """Check the meshes in ``folder``, print what cannot be used and why, return the others."""
    from rich.progress import track

    from .simulation.mesh_data import MeshObjects, check_meshes
    from .simulation.meshes import MeshError, default_cache, list_meshes
    try:
        paths = list_meshes(folder)
    except MeshError as error:
        raise click.ClickException(str(error)) from None
    good, bad = check_meshes(track(paths, 'convex parts', disable=not sys.stderr.isatty()))
    for path, reason in bad:
        click.echo(f'not used: {path.name}: {reason}', err=True)
    if not good:
        raise click.ClickException(f'none of the {len(paths)} meshes in {folder} can be used')
    click.echo(f'{len(good)} of {len(paths)} meshes can be used; their convex parts are kept in '
               f'{default_cache()}', err=True)
    return MeshObjects(good)


def print_outcomes(out: Path, maker: MeshObjects) -> None:
    """Print a table of the trials with each mesh."""
    from .simulation.mesh_data import outcomes
    table = Table(title='images with one object', title_justify='left')
    for name in ('mesh', 'images', 'grasps tried', 'lifted', ''):
        table.add_column(name, justify='left' if name in ('mesh', '') else 'right')
    for row in outcomes(out, maker):
        share = f'{row.lifted / row.tried:.0%}' if row.tried else '-'
        table.add_row(row.name, str(row.images), str(row.tried), share, row.remark)
    Console().print(table)

"""``grasp_stn evaluate stability``: how often the chosen grasp jumps while nothing moves."""

from __future__ import annotations

from pathlib import Path

import click


@click.command('stability')
@click.option('--scenes', type=click.IntRange(1), default=40, show_default=True)
@click.option('--frames', type=click.IntRange(2), default=25, show_default=True,
              help='Frames of each scene; only their noise differs.')
@click.option('--objects', type=click.IntRange(1, 8), default=3, show_default=True,
              help='Objects on the table: several good grasps compete.')
@click.option('--seed', type=click.IntRange(0), default=77, show_default=True)
@click.option('--model', default='default', show_default=True, help='Weights (.safetensors).')
@click.option('--threads', type=click.IntRange(0), default=0, show_default=True)
@click.option('--json', 'json_path', type=click.Path(path_type=Path, dir_okay=False),
              help='Write the figures with their provenance.')
def stability(scenes: int, frames: int, objects: int, seed: int, model: str, threads: int,
              json_path: Path | None) -> None:
    """Jump rate of the best grasp on noisy static scenes, with and without the tracker."""
    from .detector import GraspDetector
    from .evaluation.report import write_json
    from .evaluation.stability import evaluate
    try:
        detector = GraspDetector(weights=model, device='cpu', threads=threads)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    with click.progressbar(length=scenes, label='scenes') as bar:
        result = evaluate(detector, scenes, seed, objects, frames, lambda done: bar.update(1))
    for name in ('without', 'with'):
        row = result[name]
        rate = '-' if row['jump_rate'] is None else f'{row["jump_rate"]:.1%}'
        click.echo(f'{name:8} tracker: {rate} of {row["pairs"]} pairs of frames jump '
                   f'({row["scenes_with_jumps"]} of {scenes} scenes), mean score '
                   f'{row["mean_score"] or 0:.3f}')
    if json_path is not None:
        write_json(json_path, result, threads or None)
        click.echo(f'written: {json_path}')

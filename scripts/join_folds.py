#!/usr/bin/env python3
"""
Mean of the results of several folds, each by its number of images.

    python scripts/join_folds.py results/cornell_fold[0-9].json --json results/cornell_folds.json
"""

from __future__ import annotations

import json
from pathlib import Path
import statistics

import click

from grasp_stn_ros.evaluation.report import write_json

_FIGURES = ('plain', 'strict', 'any_plain', 'plain_rgbd')


@click.command()
@click.argument('results', nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option('--kind', type=click.Choice(['image-wise', 'object-wise']), default='image-wise',
              show_default=True, help='How the folds were split.')
@click.option('--seed', type=click.IntRange(0), default=0, show_default=True,
              help='The --split-seed of the folds.')
@click.option('--json', 'output', required=True, type=click.Path(path_type=Path))
def main(results: tuple[Path, ...], kind: str, seed: int, output: Path) -> None:
    """Join RESULTS of `grasp_stn evaluate accuracy --split`, one a fold."""
    folds = [json.loads(path.read_text()) for path in results]
    for path, fold in zip(results, folds, strict=True):
        if 'folds' in fold:
            raise click.UsageError(f'{path} is itself a mean of folds')
    joined: dict = {}
    for key in _FIGURES:
        count = 'n_rgbd' if key.endswith('rgbd') else 'n'
        some = [fold for fold in folds if key in fold]
        if some:
            joined[count] = sum(fold[count] for fold in some)
            joined[key] = sum(fold[key] * fold[count] for fold in some) / joined[count]
    plain = [fold['plain'] for fold in folds]
    write_json(output, {**joined, 'folds': plain, 'deviation': statistics.pstdev(plain),
                        'seed': seed, 'split': f'cornell, {len(folds)} folds, {kind}',
                        'candidates': folds[0].get('candidates')})


if __name__ == '__main__':
    main()

#!/usr/bin/env python3
"""
What it costs to show a network with depth all its images at one scale (`model.seen_jaw`).

In turns with the same network at 400 x 400 pixels, image by image, for each size of a view that
the images of ``--data`` come to.

    python scripts/compare_scale.py --data data/test --json results/scale.json
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from grasp_stn_ros.data.open import open_dataset
from grasp_stn_ros.detector import GraspDetector, default_weights
from grasp_stn_ros.evaluation.benchmark import interleaved
from grasp_stn_ros.evaluation.report import write_json
from grasp_stn_ros.preprocessing import View, at_scale
from grasp_stn_ros.rgbd import RgbdFrame
from grasp_stn_ros.stn import checkpoint


def by_size(images: list[RgbdFrame], wanted: float) -> dict[int, list[RgbdFrame]]:
    """``images`` by the pixels a side of their view."""
    found: dict[int, list[RgbdFrame]] = {}
    for frame in images:
        view, _ = at_scale(frame, View.square(frame.size), wanted)
        found.setdefault(view.size, []).append(frame)
    return dict(sorted(found.items()))


@click.command()
@click.option('--data', required=True, type=click.Path(exists=True, path_type=Path))
@click.option('--model', type=click.Path(path_type=Path), help='Default: the shipped one.')
@click.option('--images', type=click.IntRange(1), default=100, show_default=True)
@click.option('--rounds', type=click.IntRange(1), default=3, show_default=True)
@click.option('--threads', type=click.IntRange(1), default=2, show_default=True)
@click.option('--precision', type=click.Choice(['auto', 'fp32', 'bf16']), default='auto',
              show_default=True)
@click.option('--json', 'output', type=click.Path(path_type=Path))
def main(data: Path, model: Path | None, images: int, rounds: int, threads: int, precision: str,
         output: Path | None) -> None:
    """Measure both in turns."""
    weights = model or default_weights()
    (network, _), (plain, _) = checkpoint.load(weights), checkpoint.load(weights)
    wanted = network.config.seen_jaw
    if not wanted:
        raise click.ClickException(f'{weights} is shown every image at 400 x 400 (seen_jaw is 0)')
    plain.config = replace(plain.config, seen_jaw=0.0)
    scaled, fixed = (GraspDetector(n, threads=threads, precision=precision)
                     for n in (network, plain))
    labelled = open_dataset(data)
    frames = [labelled[i].frame for i in range(min(images, len(labelled)))]
    rows = {}
    for size, seen in by_size(frames, wanted).items():
        both = interleaved({'fixed': fixed, 'scaled': scaled}, seen, rounds * len(seen))
        ms, ms_at_400 = (both[name]['median_ms'] for name in ('scaled', 'fixed'))
        rows[str(size)] = {'images': len(seen), 'ms': ms, 'ms_at_400': ms_at_400,
                           'ratio': both['scaled']['ratio']}
    means = {key: sum(row[key] * row['images'] for row in rows.values()) / len(frames)
             for key in ('ms', 'ms_at_400')}
    result = {'n': rounds * len(frames), 'split': data.name,
              'seed': getattr(labelled, 'seed', None), 'precision': scaled.precision,
              'threads': threads, 'seen_jaw': wanted, **means,
              'ratio_of_means': means['ms'] / means['ms_at_400'], 'sizes': rows}
    table = Table(title=f'{len(frames)} images, {scaled.precision}, {threads} threads')
    for column in ('view', 'images', 'ms', 'ms at 400', 'ratio'):
        table.add_column(column, justify='right')
    for pixels, row in rows.items():
        table.add_row(pixels, str(row['images']), f'{row["ms"]:.1f}', f'{row["ms_at_400"]:.1f}',
                      f'{row["ratio"]:.2f}')
    table.add_row('all', str(len(frames)), f'{result["ms"]:.1f}', f'{result["ms_at_400"]:.1f}',
                  f'{result["ratio_of_means"]:.2f}')
    Console().print(table)
    if output:
        write_json(output, result)


if __name__ == '__main__':
    main()

#!/usr/bin/env python3
"""
How often the best grasp of a faster precision is that of single precision, image by image.

The same means: both give a grasp, and the rectangle metric with its strict thresholds (IoU > 50 %,
15 degrees) calls them one, or neither gives any.

    python scripts/compare_precision.py --data data/test --json results/precision.json
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from grasp_stn_ros.data.open import open_dataset
from grasp_stn_ros.detection import Candidate
from grasp_stn_ros.detector import GraspDetector
from grasp_stn_ros.evaluation.accuracy import TIED, same_grasp
from grasp_stn_ros.evaluation.report import write_json


def same(a: Candidate | None, b: Candidate | None) -> bool:
    """Tell whether two answers are one grasp."""
    if a is None or b is None:
        return a is b
    return same_grasp(a.rectangle, b.rectangle)


@click.command()
@click.option('--data', required=True, type=click.Path(exists=True, path_type=Path))
@click.option('--model', default='default', show_default=True)
@click.option('--precision', default='bf16', show_default=True)
@click.option('--images', type=int, help='Only the first so many.')
@click.option('--threads', default=1, show_default=True)
@click.option('--json', 'output', type=click.Path(path_type=Path))
def main(data: Path, model: str, precision: str, images: int | None, threads: int,
         output: Path | None) -> None:
    """Compare the best grasps."""
    frames = open_dataset(data)
    exact, fast = (GraspDetector(model, threads=threads, precision=p)
                   for p in ('fp32', precision))
    agree, equal_score = [], []
    for index in range(min(images or len(frames), len(frames))):
        frame = frames[index].frame
        a, b = exact.detect(frame), fast.detect(frame)
        agree.append(same(a.best, b.best))
        equal_score.append(agree[-1] or any(
            c.score > a.best.score - TIED and same(c, b.best)
            for c in a.candidates) if a.best is not None else agree[-1])
    result = {'precision': precision, 'same_best': float(np.mean(agree)),
              'same_best_or_tied': float(np.mean(equal_score)), 'n': len(agree),
              'split': data.name, 'seed': getattr(frames, 'seed', None)}
    click.echo(f'{precision} against fp32, n = {len(agree)}: the same best grasp in '
               f'{result["same_best"]:.1%}, or one within 0.02 of its score in '
               f'{result["same_best_or_tied"]:.1%}')
    if output:
        write_json(output, result)


if __name__ == '__main__':
    main()

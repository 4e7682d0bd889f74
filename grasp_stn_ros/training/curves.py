"""Learning curves from a training's log."""

from __future__ import annotations

import json
from pathlib import Path


def plot_curves(log: Path, picture: Path) -> None:
    """Draw losses and validation figures of ``log`` (.jsonl) into ``picture`` (.png)."""
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    records = [json.loads(line) for line in log.read_text().splitlines()]
    losses = [r for r in records if 'loss' in r]
    measured = [r for r in records if 'validation' in r]
    # Without validation there is nothing for a second panel.
    panels = 2 if measured else 1
    figure, axes = plt.subplots(1, panels, figsize=(5.5 * panels, 4), squeeze=False)
    left = axes[0, 0]
    for name in sorted({k for r in losses for k in r['loss']}):
        points = [(r['images'], r['loss'][name]) for r in losses if name in r['loss']]
        left.plot(*zip(*points, strict=True), label=name)
    left.set(xlabel='images seen', ylabel='loss (smoothed)', yscale='log')
    if losses:
        left.legend()
    if measured:
        right = axes[0, 1]
        for name in ('plain', 'strict', 'any_plain', 'located'):
            points = [(r['images'], 100 * r['validation'][name]) for r in measured
                      if name in r['validation']]
            if points:
                right.plot(*zip(*points, strict=True), marker='o', label=name)
        right.set(xlabel='images seen', ylabel='% of validation images')
        right.legend()
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
    plt.close(figure)

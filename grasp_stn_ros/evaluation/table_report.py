"""Table I as Markdown, and all systems on the same images, as in the paper's Figs. 9 and 10."""

from __future__ import annotations

from collections.abc import Sequence
import math
from typing import Any

import cv2
import numpy as np

from ..data.sample import LabelledFrame
from ..preprocessing import View
from ..rectangle import GraspRectangle
from ..visualization import draw_rectangle, write_text
from .accuracy import DEGREES, IOUS, metric_name
from .table import PAPER

TITLES = {
    'sae_sliding_window': 'Classification, SAE',
    'cnn_sliding_window': 'Classification, CNN',
    'regression': 'Regression, ResNet-32',
    'single_stage_stn': 'Single-stage STN',
    'multi_stage_stn': 'Multi-stage STN',
}
_DRAWN_LABELS = 12  # simulated images have up to 60, which would hide the object
_LABEL, _RIGHT, _WRONG, _WHITE = (150, 150, 150), (30, 210, 80), (255, 70, 60), (255, 255, 255)


def _percent(value: float | None) -> str:
    return '' if value is None else f'{100 * value:.1f}'


def _ratio(value: float | None) -> str:
    return '' if value is None else f'{value:.2f}' if value < 10 else f'{value:.0f}'


def markdown(result: dict[str, Any]) -> str:
    """The table of a result that ``grasp_stn table`` wrote, with n, split and command."""
    rows = result['rows']
    lifted = any(row.get('lift') is not None for row in rows)
    head = ['System', 'Accuracy %', '95 % interval', 'any candidate %', *(['Lift %'] * lifted),
            'ms an image', 'times the multi-stage STN', 'Paper %', 'Paper ms']
    lines = [f'| {" | ".join(head)} |', '|---' + '|---:' * (len(head) - 1) + '|']
    for row in rows:
        low, high = row['accuracy_interval']
        paper = PAPER[row['system']]
        cells = [TITLES[row['system']], _percent(row['accuracy']),
                 f'{100 * low:.1f} to {100 * high:.1f}', _percent(row['any_candidate']),
                 *([_percent(row.get('lift'))] * lifted), f'{row["milliseconds"]:.0f}',
                 _ratio(row['time_ratio']), f'{100 * paper[0]:.2f}', f'{paper[1]:g}']
        lines.append(f'| {" | ".join(cells)} |')
    machine = result['machine']
    lines += ['', f'n = {result["n"]} test images, seed {result["seed"]}, '
              f'{result["split"]["kind"]}, {machine["cpu"]}, {machine["threads"]} threads, '
              f'commit {result["commit"]}; written by `{result["command"]}`.']
    before = [row for row in rows if row.get('before_end_to_end') is not None]
    if before:
        lines += ['', 'Accuracy before the end-to-end step: ' + ', '.join(
            f'{TITLES[row["system"]]} {_percent(row["before_end_to_end"])} % (after: '
            f'{_percent(row["accuracy"])} %)' for row in before) + '.']
    folds = result.get('folds')
    if folds:
        lines += ['', f'{TITLES[folds["system"]]} in all {len(folds["accuracy"])} folds: '
                  f'{100 * folds["mean"]:.1f} % with a standard deviation of '
                  f'{100 * folds["standard_deviation"]:.1f} ('
                  + ', '.join(_percent(a) for a in folds['accuracy'])
                  + ('; before the end-to-end step: '
                     + ', '.join(_percent(a) for a in folds['before_end_to_end'])
                     if folds.get('before_end_to_end') else '') + ').']
    lines += ['', 'Accuracy in % by thresholds of the rectangle metric (IoU above, angle within):',
              '']
    metrics = [(least, most) for least in IOUS for most in DEGREES]
    head = [f'{round(100 * least)} %, {most} deg' for least, most in metrics]
    lines += [f'| System | {" | ".join(head)} |', '|---' + '|---:' * len(metrics) + '|']
    for row in rows:
        cells = [_percent(row['accuracy_at'][metric_name(*metric)]) for metric in metrics]
        lines.append(f'| {TITLES[row["system"]]} | {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def comparison(samples: Sequence[LabelledFrame], given: dict[str, Sequence[dict[str, Any]]],
               region: tuple[float, float, float, float] | None,
               outcomes: dict[str, Sequence[str]] | None = None, size: int = 220) -> np.ndarray:
    """
    Draw a row for each sample and a column for each system -> (H, W, 3) uint8 RGB.

    Labels (12 or fewer, evenly drawn from all) are thin and grey, the answer is green where the
    rectangle metric calls it correct and red where not; ``given`` and ``outcomes`` (of the lifts)
    are by system, in the order of the samples.
    """
    header = np.full((26, size * (len(given)), 3), 40, np.uint8)
    for column, system in enumerate(given):
        write_text(header, TITLES[system], (size * column + 6, 18), _WHITE)
    rows = [header]
    for index, sample in enumerate(samples):
        view = _around_labels(sample, region, size)
        image = cv2.warpAffine(sample.frame.rgb, view.matrix, (size, size),
                               flags=cv2.INTER_AREA if view.scale < 1 else cv2.INTER_CUBIC)
        labels = sample.graspable()
        labels = [g.transformed(view.matrix)
                  for g in labels[::math.ceil(len(labels) / _DRAWN_LABELS) or 1]]
        cells = []
        for system in given:
            cell = image.copy()
            for label in labels:
                draw_rectangle(cell, label, _LABEL)
            answer = given[system][index]
            right = answer['correct'].get(metric_name(0.25, 30), False)
            text = 'correct' if right else 'wrong'
            if answer['rectangle'] is None:
                text = 'no answer'
            else:
                draw_rectangle(cell, GraspRectangle(*answer['rectangle']).transformed(view.matrix),
                               _RIGHT if right else _WRONG, 2)
            if outcomes:
                lifted = outcomes[system][index] == 'lifted'
                text += ', lifted' if lifted else ', not lifted'
            write_text(cell, text, (6, size - 8), _RIGHT if right else _WRONG)
            cells.append(cell)
        rows.append(np.hstack(cells))
    return np.ascontiguousarray(np.vstack(rows))


def _around_labels(sample: LabelledFrame, region: tuple[float, float, float, float] | None,
                   size: int) -> View:
    """What the systems looked at, at the size of a cell; enlarged around the labels' middle."""
    width, height = sample.frame.size
    x, y, side, _ = region or ((width - min(width, height)) / 2, (height - min(width, height)) / 2,
                               min(width, height), min(width, height))
    near = 0.6 * side
    centre = np.median([[g.x, g.y] for g in sample.graspable()], axis=0)
    corner = np.clip(centre - near / 2, [x, y], [x + side - near, y + side - near])
    return View.of_region(float(corner[0]), float(corner[1]), near, near, size=size)

"""
Is a score of 0.8 a success in 8 of 10 trials? Calibration error, diagram, and Platt's scaling.

A calibrated score is a probability of lifting, which a robot can weigh against the cost of a
failure. The two numbers of the scaling are fitted to trials of the network's own candidates on
validation scenes; they keep the order of the scores.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.optimize import minimize

BINS = 10


def expected_calibration_error(scores: np.ndarray, lifted: np.ndarray, bins: int = BINS) -> float:
    """
    Mean gap between score and success over bins of equal width (Guo et al. 2017).

    ``scores`` (N,) in [0, 1], ``lifted`` (N,) of 0 and 1; NaN for nothing.
    """
    return sum(abs(row['score'] - row['lifted']) * row['share']
               for row in reliability(scores, lifted, bins)) if len(scores) else float('nan')


def reliability(scores: np.ndarray, lifted: np.ndarray, bins: int = BINS) -> list[dict]:
    """Mean score, mean success, n and share of each bin that is not empty."""
    scores, lifted = np.asarray(scores, float), np.asarray(lifted, float)
    index = np.minimum((scores * bins).astype(int), bins - 1)
    return [{'score': float(scores[index == i].mean()), 'lifted': float(lifted[index == i].mean()),
             'n': int((index == i).sum()), 'share': float((index == i).mean())}
            for i in range(bins) if (index == i).any()]


def _logit(scores: np.ndarray) -> np.ndarray:
    clipped = np.clip(np.asarray(scores, float), 1e-6, 1 - 1e-6)
    return np.log(clipped / (1 - clipped))


def apply_platt(scores: np.ndarray, calibration: tuple[float, float]) -> np.ndarray:
    """Scale ``scores`` (N,) by (slope, offset) of their logits."""
    return 1 / (1 + np.exp(-(_logit(scores) * calibration[0] + calibration[1])))


def fit_platt(scores: np.ndarray, lifted: np.ndarray) -> tuple[float, float]:
    """Slope and offset (Platt 1999) that make the trials most likely; raises ValueError."""
    lifted = np.asarray(lifted, float)
    if len(lifted) < 20 or lifted.min() == lifted.max():
        raise ValueError(f'{len(lifted)} trials, of which {int(lifted.sum())} lifted, are too few '
                         'to calibrate on')
    logits = _logit(scores)
    # Platt's smoothed targets: no trial is certain.
    good, bad = lifted.sum(), len(lifted) - lifted.sum()
    target = np.where(lifted > 0.5, (good + 1) / (good + 2), 1 / (bad + 2))

    def loss(values: np.ndarray) -> float:
        z = logits * values[0] + values[1]
        return float((np.logaddexp(0, z) - target * z).mean())

    slope, offset = minimize(loss, [1.0, 0.0], method='Nelder-Mead').x
    if slope <= 0:
        raise ValueError('the scores do not rise with success: nothing to calibrate')
    return float(slope), float(offset)


def plot_reliability(path: str | Path, before: list[dict], after: list[dict]) -> None:
    """Write the reliability diagram to ``path`` (.png)."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    figure, axes = plt.subplots(figsize=(4.2, 4.0), layout='constrained')
    axes.plot([0, 1], [0, 1], color='0.7', linewidth=1)
    for rows, name, colour in ((before, 'before scaling', '0.6'), (after, 'calibrated', 'C0')):
        axes.plot([r['score'] for r in rows], [r['lifted'] for r in rows], 'o-', label=name,
                  color=colour, markersize=4)
    axes.set_xlabel('score')
    axes.set_ylabel('share of grasps that lift')
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)

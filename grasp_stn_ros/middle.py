"""
How far a grasp is from the middle of what it holds.

Held by a light end, an object turns in the jaws or slides out of them. What a camera sees of its
mass is its volume above the support: the middle here is the mean of its pixels, each by its
height. An object is what hangs together above the support; several that touch are one.
"""

from __future__ import annotations

import cv2
import numpy as np

# Above the support, metres, something stands there; lower is noise of the depth.
_ABOVE = 0.006
# Every so many-th pixel is looked at: a middle needs no more, and it takes a quarter of the time.
_STEP = 2
# Of these pixels around a grasp, in which its object is looked for: a rim is held beside itself.
_REACH = 3


def weight_of(parameter: float) -> float | None:
    """Parameter ``middle_weight`` of a node -> that of its detector: below 0 None, the model's."""
    return None if parameter < 0 else parameter


def distances_from_middle(heights: np.ndarray, points: np.ndarray, pixels_per_metre: float,
                          scale: float = 1.0) -> np.ndarray:
    """
    Distance (N,) in metres of each of ``points`` (N, 2) from the middle of the object there.

    ``heights`` (S, S) float32 above the support, ``scale`` of them are a metre; points (x, y) in
    its pixels. NaN where nothing stands, and for points that are not finite.
    """
    heights = heights[::_STEP, ::_STEP] / np.float32(scale)
    points = points / _STEP
    count, labels = cv2.connectedComponents((heights > _ABOVE).astype(np.uint8), connectivity=8)
    rows, columns = np.nonzero(labels)
    parts, weights = labels[rows, columns], heights[rows, columns]
    mass = np.bincount(parts, weights, count)
    with np.errstate(invalid='ignore', divide='ignore'):
        middles = np.stack([np.bincount(parts, weights * line, count) / mass
                            for line in (columns, rows)], axis=1)
    distances = np.full(len(points), np.nan)
    for i in np.flatnonzero(np.isfinite(points).all(axis=1)):
        x, y = np.rint(points[i]).astype(int)
        near = labels[max(0, y - _REACH):max(0, y + _REACH + 1),
                      max(0, x - _REACH):max(0, x + _REACH + 1)]
        there = np.bincount(near[near > 0])
        if len(there):
            distances[i] = np.hypot(*(points[i] - middles[there.argmax()]))
    return distances * _STEP / pixels_per_metre


def prefer_middle(scores: np.ndarray, distances: np.ndarray, weight: float) -> np.ndarray:
    """
    Lower the logit of ``scores`` (N,) by ``weight`` (1/m) times ``distances`` (N,) in metres.

    Where the distance is NaN the score stays. Scores of 0 and 1 stay as well.
    """
    odds = np.exp(-weight * np.where(np.isfinite(distances), distances, 0.0))
    return scores * odds / (scores * odds + (1 - scores))

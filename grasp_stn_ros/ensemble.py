"""
Test-time ensemble: the same image seen turned, and candidates that vote for each other.

One network answers differently when the image is turned, although a grasp does not change. What
most of the turned views find as well is more likely right than what a single one is sure of. Each
view costs as much as a detection without an ensemble.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
import math

import numpy as np

from .detection import Candidate
from .preprocessing import View
from .rectangle import angle_distance, iou

# A candidate of another view supports one that it overlaps so much at so similar an angle.
_IOU, _ANGLE = 0.25, math.radians(30)


def turned(view: View, turns: int) -> list[View]:
    """Return ``view`` and ``turns`` - 1 more, each turned on around its middle by pi / turns."""
    middle = np.full(2, (view.size - 1) / 2)
    views = []
    for i in range(turns):
        c, s = math.cos(math.pi * i / turns), math.sin(math.pi * i / turns)
        turn = np.array([[c, -s], [s, c]])
        linear = turn @ view.matrix[:, :2]
        offset = turn @ (view.matrix[:, 2] - middle) + middle
        views.append(View(np.concatenate([linear, offset[:, None]], axis=1), view.size))
    return views


def vote(views: Sequence[Sequence[Candidate]]) -> list[Candidate]:
    """
    Candidates of all ``views``, each with the mean support that the views give it.

    The support of a view is the best score among its candidates that the rectangle metric calls
    the same grasp, 0 where there is none. Descending by score.
    """
    result = []
    for candidates in views:
        for candidate in candidates:
            support = [max((other.score for other in others if _alike(candidate, other)),
                           default=0.0) for others in views]
            result.append(replace(candidate, score=float(np.mean(support))))
    return sorted(result, key=lambda c: -c.score)


def _alike(a: Candidate, b: Candidate) -> bool:
    if a is b:
        return True
    return angle_distance(a.rectangle.theta, b.rectangle.theta) <= _ANGLE and \
        iou(a.rectangle, b.rectangle) > _IOU

"""
What grasps that have failed say of the next ones.

Asked again about a table on which nothing has changed, a detector answers as before, and a robot
that obeys fails as before: friction and mass cannot be seen. What has failed can be known, though.
Each failure divides the odds of the grasps near it: those that would repeat it by more, those of
the same object elsewhere by less, so that another object comes first and a second look at the
stubborn one later. What counts as the same object is a matter of distance alone, since what was
hit may have moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
import math

import numpy as np

from .detection import Candidate, Detection, Grasp
from .limits import alike, chosen

# A grasp this near to a failed one repeats it: metres, and radians of the opening direction.
_NEAR, _ALIKE = 0.03, math.radians(30)
# Metres in which a grasp is likely to hold the object that has slipped.
_AROUND = 0.08
# What is left of the odds of a grasp that repeats a failed one, and of another one around it;
# chosen on validation (docs/experiments.md).
_REPEATED, _BESIDE = 0.03, 0.1


def after_failures(detection: Detection, failed: Sequence[np.ndarray],
                   minimum_score: float) -> Detection:
    """
    Choose again, knowing that the grasps ``failed`` (4, 4) have not lifted anything.

    Their poses are in the camera's frame as it is now. Candidates are put in the order of the odds
    that the failures leave them; their scores remain those of the classifier, and the best is the
    first executable one whose score reaches ``minimum_score``. When to give up is for the robot to
    say.
    """
    if not failed:
        return detection
    candidates = tuple(sorted(detection.candidates, key=lambda c: -_odds(c, failed)))
    changed = replace(detection, candidates=candidates, failed=tuple(failed))
    if detection.best is None:
        return changed
    return chosen(changed, next((c for c in candidates
                                 if c.executable and c.score >= minimum_score), None))


def _odds(candidate: Candidate, failed: Sequence[np.ndarray]) -> float:
    """Return the odds that the failures leave the candidate."""
    # Certainty has no odds.
    odds = candidate.score / max(1 - candidate.score, 1e-9)
    grasp = candidate.grasp
    return odds if grasp is None else odds * math.prod(_share(grasp, pose) for pose in failed)


def _share(grasp: Grasp, failed: np.ndarray) -> float:
    """What the failed pose (4, 4) leaves of the odds of ``grasp``."""
    distance = float(np.linalg.norm(grasp.position - failed[:3, 3]))
    if distance < _NEAR and alike(grasp, failed[:3, :3], _ALIKE):
        return _REPEATED
    return _BESIDE if distance < _AROUND else 1.0

"""
Keeps the chosen grasp from flickering between candidates of nearly the same score.

Noise reorders candidates that are about equally good, and a robot that follows the best of each
frame alone never arrives. The tracker recognizes candidates from frame to frame, averages their
scores, and changes its choice only for a clearly better one. It never moves or invents a grasp:
what it returns is a candidate of the present frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .detection import Candidate, Detection, Grasp
from .limits import alike, chosen, transformed

# Share of its score that a grasp is trusted with when it is seen for the first time. Many that
# noise brings are gone with the next frame.
_NEWCOMER = 0.5


@dataclass(frozen=True)
class Stability:
    """
    When two grasps are the same, and when to change one's mind.

    Candidates of two frames are the same within ``distance`` metres and ``angle`` radians of the
    opening direction (modulo pi). The choice changes when another one's average score is higher
    by ``margin``, or when the chosen one is not seen. One that is missing is remembered, with a
    falling score, for ``patience`` frames. ``weight`` of the present frame in the average.
    """

    distance: float = 0.02
    angle: float = 0.35
    margin: float = 0.15
    patience: int = 3
    weight: float = 0.25

    def same(self, a: Grasp, b: Grasp) -> bool:
        """Whether two grasps, in the same frame, count as one."""
        return (float(np.linalg.norm(a.position - b.position)) <= self.distance
                and alike(a, b.rotation, self.angle))


@dataclass(eq=False)
class _Track:
    """A grasp over time; ``missed`` frames since it was seen last."""

    grasp: Grasp
    score: float
    candidate: Candidate | None = None
    missed: int = 0


class Tracker:
    """Chooses among the executable candidates of each frame; one thread."""

    def __init__(self, settings: Stability | None = None):
        """Start without a past."""
        self.settings = settings or Stability()
        self._tracks: list[_Track] = []
        self._current: _Track | None = None

    def reset(self) -> None:
        """Forget everything: another scene, another camera, another clock."""
        self._tracks, self._current = [], None

    def choose(self, detection: Detection, minimum_score: float,
               transform: np.ndarray | None = None) -> Detection:
        """
        Return ``detection`` with the steadiest good candidate as its best.

        ``transform`` (4, 4) takes points from the camera's frame to one in which the scene stands
        still; None where the camera itself does.
        """
        candidates = [c for c in detection.candidates
                      if c.executable and c.score >= minimum_score]
        self._follow(candidates, transform)
        seen = [t for t in self._tracks if t.candidate is not None]
        if not seen:
            return detection
        leader = max(seen, key=lambda t: t.score)
        current = self._current
        # One that is not there cannot be held. Its stand-in is then held in turn: going back and
        # forth would be two jumps for one.
        if current is None or current.candidate is None \
                or leader.score > current.score + self.settings.margin:
            self._current = current = leader
        return chosen(detection, current.candidate)

    def _follow(self, candidates: list[Candidate], transform: np.ndarray | None) -> None:
        """Match the candidates, best first, with the tracks."""
        for track in self._tracks:
            track.candidate = None
        weight = self.settings.weight
        for candidate in candidates:
            assert candidate.grasp is not None
            grasp = candidate.grasp if transform is None else transformed(candidate.grasp,
                                                                          transform)
            free = [t for t in self._tracks
                    if t.candidate is None and self.settings.same(t.grasp, grasp)]
            if free:
                track = min(free, key=lambda t: float(
                    np.linalg.norm(t.grasp.position - grasp.position)))
                track.score += weight * (candidate.score - track.score)
                track.grasp, track.missed = grasp, 0
            else:
                track = _Track(grasp, _NEWCOMER * candidate.score)
                self._tracks.append(track)
            track.candidate = candidate
        for track in self._tracks:
            if track.candidate is None:
                track.missed += 1
                track.score *= 1 - weight
        self._tracks = [t for t in self._tracks if t.missed <= self.settings.patience]

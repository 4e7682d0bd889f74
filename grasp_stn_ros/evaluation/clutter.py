"""
Clearing a table: several objects, one grasp after the other, until it is empty.

A scene ends when nothing is left or after :data:`FAILURES` failures in a row. What is counted is
objects removed per attempt, and how many tables were cleared. A failed grasp leaves the scene as
it left it: what was pushed over lies where it fell.

What has just failed is not tried again as it was: of the candidates in the order of their scores,
the first one counts that is no repetition of a failure since the last success. That is what the
ranked alternatives of the service are for, and how a robot gets on that cannot see friction.
"""

from __future__ import annotations

from collections.abc import Callable
import math
from typing import Any

import numpy as np

from ..detection import MINIMUM_SCORE, Candidate, Detection
from ..detector import GraspDetector
from ..rgbd import RgbdFrame
from ..simulation.gripper import FRICTION, GraspTrial
from ..simulation.labels import open_scene
from ..simulation.scene import TableScene
from .report import wilson_interval

OBJECTS, FAILURES = 5, 3
# Is told of a failed grasp: what was seen, what was tried, and how it ended.
Watch = Callable[[RgbdFrame, Candidate, str], None]
# A grasp this near to a failed one repeats it: metres, and radians of the opening direction.
_NEAR, _ALIKE = 0.03, math.radians(30)


def untried(detection: Detection, scene: TableScene, failed: list[np.ndarray]) \
        -> Candidate | None:
    """
    Return the best executable candidate that repeats none of the ``failed`` poses (4, 4).

    In the world. Where all of them do, the best one; None where there is none.
    """
    if detection.best is None:
        return None
    for candidate in (detection.best, *detection.alternatives):
        if candidate.grasp is None or candidate.score < MINIMUM_SCORE:
            continue
        pose = scene.world_pose(candidate.grasp)
        if not any(_repeats(pose, other) for other in failed):
            return candidate
    return detection.best


def _repeats(pose: np.ndarray, other: np.ndarray) -> bool:
    distance = float(np.linalg.norm(pose[:3, 3] - other[:3, 3]))
    # Half a turn about the approach is the same grasp.
    cosine = abs(float(pose[:3, 1] @ other[:3, 1]))
    return distance < _NEAR and math.acos(min(1.0, cosine)) < _ALIKE


def run_scene(detector: GraspDetector, seed: int, index: int, objects: int = OBJECTS,
              watch: Watch = lambda frame, candidate, outcome: None) -> dict[str, Any]:
    """Clear scene ``index`` of ``seed``; JSON-serializable."""
    scene = open_scene(seed, index, objects=objects)
    rng = np.random.default_rng([seed, index, 2])
    outcomes: list[str] = []
    failures = 0
    failed: list[np.ndarray] = []
    try:
        trial = GraspTrial(scene)
        while scene.present and failures < FAILURES:
            frame, _ = scene.observe(rng)
            friction = float(rng.uniform(*FRICTION))
            detection = detector.detect(frame)
            best = untried(detection, scene, failed)
            if best is None or best.grasp is None:
                # Nothing moves: with other noise the next look may show more.
                outcomes.append(f'no grasp: {detection.reason.name}')
                failures += 1
                continue
            pose = scene.world_pose(best.grasp)
            result = trial.execute(pose, best.grasp.opening, friction, commit=True)
            outcomes.append(result.outcome)
            if not result.lifted:
                watch(frame, best, result.outcome)
            failures = 0 if result.lifted else failures + 1
            failed = [] if result.lifted else [*failed, pose]
            scene.accept(result.object_index)
        return {'scene': index, 'families': [thing.family for thing in scene.objects],
                'attempts': len(outcomes), 'removed': objects - len(scene.present),
                'objects': objects, 'outcomes': outcomes}
    finally:
        scene.close()


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Removed objects per attempt, share of objects removed and of tables cleared."""
    attempts = sum(r['attempts'] for r in rows)
    removed = sum(r['removed'] for r in rows)
    objects = sum(r['objects'] for r in rows)
    cleared = sum(r['removed'] == r['objects'] for r in rows)
    return {'n': len(rows), 'attempts': attempts, 'removed': removed, 'objects': objects,
            'removed_per_attempt': removed / attempts if attempts else 0.0,
            'removed_per_attempt_interval': wilson_interval(removed, attempts),
            'removed_share': removed / objects if objects else 0.0,
            'cleared': cleared / len(rows) if rows else 0.0}

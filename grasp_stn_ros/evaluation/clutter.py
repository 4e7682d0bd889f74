"""
Clearing a table: several objects, one grasp after the other, until it is empty.

A scene ends when nothing is left or after :data:`FAILURES` failures in a row. What is counted is
objects removed per attempt, and how many tables were cleared. A failed grasp leaves the scene as
it left it: what was pushed over lies where it fell.

What has failed is remembered, as by a robot that sends it along with its next request (see
:mod:`grasp_stn_ros.retry`): other objects come first. Without memory the best grasp is tried each
time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import retry
from ..detection import MINIMUM_SCORE, Candidate
from ..detector import GraspDetector
from ..rgbd import RgbdFrame
from ..simulation.domain import BASIC, Domain
from ..simulation.gripper import FRICTION, GraspTrial
from ..simulation.labels import open_scene
from .report import wilson_interval

OBJECTS, FAILURES = 5, 3
# Is told of a failed grasp: what was seen, what was tried, and how it ended.
Watch = Callable[[RgbdFrame, Candidate, str], None]


def run_scene(detector: GraspDetector, seed: int, index: int, objects: int = OBJECTS,
              watch: Watch = lambda frame, candidate, outcome: None,
              memory: bool = True, domain: Domain = BASIC) -> dict[str, Any]:
    """Clear scene ``index`` of ``seed``; JSON-serializable."""
    scene = open_scene(seed, index, objects=objects, domain=domain)
    rng = np.random.default_rng([seed, index, 2])
    outcomes: list[str] = []
    failures = 0
    failed: list[np.ndarray] = []   # in the world
    try:
        trial = GraspTrial(scene)
        while scene.present and failures < FAILURES:
            frame, _ = scene.observe(rng)
            friction = float(rng.uniform(*FRICTION))
            detection = detector.detect(frame)
            # A detector that is content with less decides for itself.
            enough = MINIMUM_SCORE if detection.best is None else min(MINIMUM_SCORE,
                                                                      detection.best.score)
            to_camera = np.linalg.inv(scene.camera_pose)
            detection = retry.after_failures(detection, [to_camera @ pose for pose in failed],
                                             enough)
            best = detection.best
            if best is None or best.grasp is None:
                # Nothing moves: with other noise the next look may show more.
                outcomes.append(f'no grasp: {detection.reason.name}')
                failures += 1
                continue
            pose = scene.world_pose(best.grasp)
            result = trial.execute(pose, best.grasp.opening, friction, commit=True)
            outcomes.append(result.outcome)
            failures = 0 if result.lifted else failures + 1
            if not result.lifted:
                watch(frame, best, result.outcome)
                if memory:
                    failed.append(pose)
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

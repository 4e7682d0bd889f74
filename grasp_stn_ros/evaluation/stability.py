"""
How often the chosen grasp jumps on a static scene, with and without the tracker.

Nothing moves: only the noise of depth and colour is drawn anew for every frame, so every
jump of the choice is flicker. What the tracker pays for calm is the score of what it chose, which
is reported as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
import math
from typing import Any

import numpy as np

from ..detection import MINIMUM_SCORE, Detection, Grasp
from ..detector import GraspDetector
from ..rgbd import RgbdFrame
from ..simulation.depth_noise import structured_light
from ..simulation.labels import open_scene
from ..simulation.scene import TableScene
from ..stability import Stability, Tracker
from .report import wilson_interval

# A robot that follows the grasp notices a change of more than this, metres and radians.
JUMP_DISTANCE, JUMP_ANGLE = 0.01, math.radians(15)
# Standard deviation of the noise of a colour image, grey levels.
_COLOR_NOISE = 2.0


def is_jump(before: Grasp, after: Grasp) -> bool:
    """Whether two grasps differ by more than :data:`JUMP_DISTANCE` or :data:`JUMP_ANGLE`."""
    return not Stability(distance=JUMP_DISTANCE, angle=JUMP_ANGLE).same(before, after)


def noisy_frames(scene: TableScene, count: int, rng: np.random.Generator):
    """Yield ``count`` frames of a scene that stands still."""
    view = scene.render()
    for _ in range(count):
        rgb = view.rgb + rng.normal(0, _COLOR_NOISE, view.rgb.shape)
        yield RgbdFrame(np.clip(np.rint(rgb), 0, 255).astype(np.uint8),
                        structured_light(view.depth, scene.intrinsics, rng), scene.intrinsics)


class _Series:
    """The best grasps of consecutive frames."""

    def __init__(self) -> None:
        self.pairs = self.jumps = 0
        self.scores: list[float] = []
        self._last: Grasp | None = None

    def add(self, detection: Detection) -> None:
        """Count a pair where this frame and the one before have a grasp."""
        grasp = detection.best.grasp if detection.best is not None else None
        if detection.best is not None:
            self.scores.append(detection.best.score)
        if grasp is not None and self._last is not None:
            self.pairs += 1
            self.jumps += is_jump(self._last, grasp)
        self._last = grasp


def run_scene(detector: GraspDetector, seed: int, index: int, objects: int,
              frames: int) -> dict[str, Any]:
    """Jumps in one scene without and with the tracker, on the same frames."""
    scene = open_scene(seed, index, objects=objects)
    try:
        raw, tracked, tracker = _Series(), _Series(), Tracker()
        for frame in noisy_frames(scene, frames, np.random.default_rng([seed, index, 7])):
            detection = detector.detect(frame)
            raw.add(detection)
            tracked.add(tracker.choose(detection, MINIMUM_SCORE))
    finally:
        scene.close()
    return {'index': index, 'pairs': raw.pairs, 'jumps': raw.jumps, 'pairs_tracked': tracked.pairs,
            'jumps_tracked': tracked.jumps,
            'score': float(np.mean(raw.scores)) if raw.scores else None,
            'score_tracked': float(np.mean(tracked.scores)) if tracked.scores else None}


def evaluate(detector: GraspDetector, scenes: int, seed: int, objects: int, frames: int,
             report: Callable[[int], None] = lambda done: None) -> dict[str, Any]:
    """Run ``scenes`` scenes of ``frames`` frames; JSON-serializable."""
    rows = []
    for index in range(scenes):
        rows.append(run_scene(detector, seed, index, objects, frames))
        report(index + 1)

    def summary(suffix: str) -> dict[str, Any]:
        pairs = sum(row[f'pairs{suffix}'] for row in rows)
        jumps = sum(row[f'jumps{suffix}'] for row in rows)
        scores = [row[f'score{suffix}'] for row in rows if row[f'score{suffix}'] is not None]
        return {'pairs': pairs, 'jumps': jumps, 'jump_rate': jumps / pairs if pairs else None,
                'interval': wilson_interval(jumps, pairs),
                'scenes_with_jumps': sum(row[f'jumps{suffix}'] > 0 for row in rows),
                'mean_score': float(np.mean(scores)) if scores else None}

    return {'what': 'share of consecutive frames of a static scene, fresh noise in each, in which '
                    'the best grasp moved',
            'model': detector.model_name, 'scenes': scenes, 'frames': frames, 'objects': objects,
            'seed': seed, 'jump_distance_m': JUMP_DISTANCE,
            'jump_angle_deg': math.degrees(JUMP_ANGLE), 'tracker': asdict(Stability()),
            'without': summary(''), 'with': summary('_tracked'), 'rows': rows}

"""
Lift success: whether the detector's first grasp lifts the object in the simulator.

The second judge, because a rectangle that the rectangle metric calls correct often does not lift.
Detector and baseline get the same scenes, the same noisy frame, the same way from a rectangle to
a pose and the same draw of friction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..baselines.long_axis import long_axis_grasp
from ..detection import Grasp
from ..detector import GraspDetector
from ..grasp_pose import rectangle_to_grasp
from ..reasons import GraspError
from ..simulation.domain import BASIC, Domain
from ..simulation.gripper import FRICTION, GraspTrial
from ..simulation.labels import open_scene
from ..simulation.objects import SimObject
from ..simulation.scene import TableScene
from ..support_plane import SupportPlane
from .calibration import expected_calibration_error
from .report import wilson_interval


def _execute(trial: GraspTrial, scene: TableScene, grasp: Grasp, friction: float) -> str:
    return trial.execute(scene.world_pose(grasp), grasp.opening, friction).outcome


def _baseline_grasp(scene: TableScene, detector: GraspDetector) -> Grasp:
    """Grasp across the long axis of the true mask, towards the true support."""
    assert scene.frame is not None
    mask = scene.render().segmentation
    rectangle = long_axis_grasp(mask == 1, scene.frame, detector.gripper)
    rotation = scene.camera_pose[:3, :3]
    normal = rotation.T @ scene.support_normal_world
    camera_height = float(scene.camera_pose[2, 3])
    support = SupportPlane(normal, camera_height, 1.0)
    return rectangle_to_grasp(rectangle, scene.frame, detector.gripper, support.approach, support)


def open_single(seed: int, index: int,
                make: Callable[[np.random.Generator], SimObject] | None = None,
                domain: Domain = BASIC) -> TableScene:
    """
    Scene ``index`` of ``seed`` with one object, seen by the first of its cameras.

    ``make`` draws the object, None = a procedural one of the domain.
    """
    return open_scene(seed, index * domain.views, objects=1, domain=domain, make=make)


def run_scene(detector: GraspDetector, seed: int, index: int,
              make: Callable[[np.random.Generator], SimObject] | None = None,
              domain: Domain = BASIC) -> dict[str, Any]:
    """Detect and execute in a scene of :func:`open_single`; JSON-serializable."""
    scene = open_single(seed, index, make, domain)
    try:
        assert scene.frame is not None
        friction = float(np.random.default_rng([seed, index, 1]).uniform(*FRICTION))
        trial = GraspTrial(scene)
        detection = detector.detect(scene.frame)
        best = detection.best
        if best is not None and best.grasp is not None:
            outcome = _execute(trial, scene, best.grasp, friction)
        else:
            outcome = f'no grasp: {detection.reason.name}'
        any_lifts = outcome == 'lifted'
        # Also those that are not good enough to be the best.
        for candidate in detection.candidates:
            if not any_lifts and candidate is not best and candidate.executable:
                assert candidate.grasp is not None
                any_lifts = _execute(trial, scene, candidate.grasp, friction) == 'lifted'
        try:
            baseline = _execute(trial, scene, _baseline_grasp(scene, detector), friction)
        except GraspError as error:
            baseline = f'no grasp: {error.reason.name}'
        return {'scene': index, 'family': scene.objects[0].family, 'friction': friction,
                'score': best.score if best else None, 'outcome': outcome,
                'any_candidate_lifts': any_lifts, 'baseline_outcome': baseline}
    finally:
        scene.close()


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """
    Shares in [0, 1] with 95 % intervals, the difference, and lifts per object family.

    ``of_liftable`` is the share of the scenes in which any candidate, or the baseline, lifts;
    ``ece`` the expected calibration error of the score of the first grasp.
    """
    n = len(rows)
    lifted = sum(r['outcome'] == 'lifted' for r in rows)
    baseline = sum(r['baseline_outcome'] == 'lifted' for r in rows)
    tried = [r for r in rows if r['score'] is not None]
    families: dict[str, list[int]] = {}
    for row in rows:
        counts = families.setdefault(row['family'], [0, 0])
        counts[0] += row['outcome'] == 'lifted'
        counts[1] += 1
    return {'n': n, 'lift': lifted / n, 'lift_interval': wilson_interval(lifted, n),
            'any_candidate': sum(r['any_candidate_lifts'] for r in rows) / n,
            'baseline': baseline / n, 'baseline_interval': wilson_interval(baseline, n),
            'gain': (lifted - baseline) / n,
            'of_liftable': lifted / max(1, sum(r['any_candidate_lifts'] or
                                               r['baseline_outcome'] == 'lifted' for r in rows)),
            'ece': expected_calibration_error(
                np.array([r['score'] for r in tried]),
                np.array([r['outcome'] == 'lifted' for r in tried])) if tried else None,
            'families': {k: {'lifted': v[0], 'n': v[1]} for k, v in sorted(families.items())}}

"""Fit a score's calibration on trials in validation scenes; see :mod:`evaluation.calibration`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..architectures import build
from ..detector import GraspDetector
from ..evaluation.calibration import (
    apply_platt,
    expected_calibration_error,
    fit_platt,
    plot_reliability,
    reliability,
)
from ..simulation.domain import BASIC, WIDE
from ..simulation.gripper import GraspTrial
from ..simulation.labels import open_scene
from ..stn import checkpoint

# Of each scene so many of the best candidates are tried out: a robot executes no others.
_TRIED = 4


def measure(model: str | Path, seed: int, scenes: range, threads: int = 0,
            progress: Callable[[range], Iterable[int]] = iter,
            middle_weight: float | None = None) -> list[dict[str, Any]]:
    """
    Try out the best candidates of ``model`` in ``scenes`` of ``seed``.

    Half of the scenes are of the wide domain, one camera each. ``middle_weight``, where given,
    takes the place of the model's. Returns rows of scene, uncalibrated score and whether the grasp
    lifted.
    """
    network, _ = checkpoint.load(model)
    network.config = replace(network.config, calibration=(1.0, 0.0))
    detector = GraspDetector(network, threads=threads, middle_weight=middle_weight)
    rows = []
    for index in progress(scenes):
        domain = WIDE if index % 2 else BASIC
        scene = open_scene(seed, index * domain.views, domain=domain)
        try:
            assert scene.frame is not None
            rng = np.random.default_rng([seed, index, 8])
            trial = GraspTrial(scene)
            executable = [(c.score, c.grasp)
                          for c in detector.detect(scene.frame, minimum_score=0.0).candidates
                          if c.grasp is not None]
            for score, grasp in executable[:_TRIED]:
                result = trial.execute(scene.world_pose(grasp), grasp.opening, rng=rng)
                rows.append({'scene': index, 'score': score, 'lifted': bool(result.lifted)})
        finally:
            scene.close()
    return rows


def calibrated_copy(model: str | Path, rows: list[dict[str, Any]], out: str | Path,
                    middle_weight: float | None = None) -> dict[str, Any]:
    """
    Write ``model`` with a calibration fitted to half of ``rows`` to ``out``.

    ``middle_weight`` is that of the rows, None = the model's. Returns the error before and after
    on the other half, by scene. A diagram is written beside ``out``. Raises ValueError where there
    are too few trials.
    """
    out = Path(out)
    scores = np.array([r['score'] for r in rows])
    lifted = np.array([float(r['lifted']) for r in rows])
    # By scenes, and of both domains: those of one scene are alike.
    fitted = np.array([r['scene'] // 2 % 2 == 0 for r in rows])
    calibration = fit_platt(scores[fitted], lifted[fitted])
    network, sidecar = checkpoint.load(model)
    after = apply_platt(scores, calibration)[~fitted]
    changes: dict[str, Any] = {'calibration': calibration}
    if middle_weight is not None:
        changes['middle_weight'] = middle_weight
    network = _changed(network, changes)
    checkpoint.save(out, network, checkpoint.notes(sidecar))
    before, held = scores[~fitted], lifted[~fitted]
    plot_reliability(out.with_name(out.stem + '_reliability.png'), reliability(before, held),
                     reliability(after, held))
    return {'calibration': list(calibration),
            'ece_before': expected_calibration_error(before, held),
            'ece': expected_calibration_error(after, held), 'n': int((~fitted).sum()),
            'reliability': reliability(after, held)}


def _changed(network, changes: dict[str, Any]):
    """Return the network with another configuration."""
    config = replace(network.config, **changes)
    again = build(network.ARCHITECTURE, config.to_dict())
    again.load_state_dict(network.state_dict())
    return again.eval()

"""
Hard negatives: what a network proposes in the scenes of a data set, tried out.

The trials of a data set are drawn around good grasps and at random. What a trained network gets
wrong are other grasps, which look good to it; their trials teach its classifier the most. They
are written beside the labels of each image, which stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
import json
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import write_atomically
from ..data.sample import DataError
from ..data.simulated import SimulatedDataset, own_path
from ..detector import GraspDetector
from ..grasp_pose import Gripper
from .domain import DOMAINS, Domain
from .gripper import GraspTrial
from .labels import open_scene


def dataset_domain(folder: Path) -> Domain:
    """Domain that the data set in ``folder`` was drawn from; raises :class:`DataError`."""
    try:
        settings = json.loads((folder / 'dataset.json').read_text())
    except (OSError, ValueError) as error:
        raise DataError(f'{folder} is no simulated data set: {error}') from None
    if 'meshes' in settings:
        raise DataError(f'{folder} shows meshes of its own, and only scenes of procedural objects '
                        'can be opened again')
    named = settings.get('domain', {'name': 'basic'})
    domain = DOMAINS.get(named['name'])
    if domain is not None and 'views' in named:
        # What `grasp_stn simulate` lets choose.
        try:
            domain = replace(domain, views=int(named['views']),
                             gripper=Gripper(**named['gripper']))
        except (LookupError, TypeError, ValueError) as error:
            raise DataError(f'{folder}/dataset.json is broken: {error!r}') from None
    if domain is None or (len(named) > 1 and json.loads(json.dumps(domain.to_dict())) != named):
        raise DataError(f'{folder} was made by another version of the domain {named["name"]!r}, '
                        'its scenes cannot be opened again')
    return domain


def try_own(detector: GraspDetector, folder: str | Path, indices: range, trials: int = 1,
            progress: Callable[[range], Any] = iter) -> int:
    """
    Try out ``detector``'s candidates in the images ``indices`` of the data set in ``folder``.

    ``trials`` of each candidate, each with another friction. Images that have theirs already are
    left alone. Returns how many were added; raises :class:`DataError`.
    """
    folder = Path(folder)
    data, domain = SimulatedDataset(folder), dataset_domain(folder)
    made = 0
    for position in progress(indices):
        path = folder / f'{data.names[position]}.json'
        if own_path(path).exists():
            continue
        index = data.index_of(position)
        scene = open_scene(data.seed, index, domain=domain)
        try:
            assert scene.frame is not None
            rng = np.random.default_rng([data.seed, index, 7])
            trial = GraspTrial(scene)
            grasps = []
            for candidate in detector.detect(scene.frame, minimum_score=0.0).candidates:
                if candidate.grasp is None:
                    continue
                pose = scene.world_pose(candidate.grasp)
                outcomes = [trial.execute(pose, candidate.grasp.opening, rng=rng).outcome
                            for _ in range(trials)]
                grasps.append({
                    'rectangle': [round(float(v), 4) for v in candidate.rectangle.as_array()],
                    'score': round(candidate.score, 4), 'trials': len(outcomes),
                    'successes': outcomes.count('lifted'), 'outcomes': outcomes})
        finally:
            scene.close()
        write_atomically(own_path(path), json.dumps({'model': detector.model_name,
                                                     'grasps': grasps}).encode(), sync=False)
        made += 1
    return made

"""
Table I: several systems on the same test images, by accuracy, time and lifts.

Every answer is kept in a file as soon as it is there, under the hash of the weights that gave it:
an interrupted measurement goes on where it stopped, and no figure outlives its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
import json
import math
from pathlib import Path
import statistics
import time
from typing import Any

import numpy as np

from ..data.cornell import PUBLIC_IMAGES, CornellDataset
from ..data.sample import DataError, Dataset, LabelledFrame, identities, in_both
from ..data.simulated import SimulatedDataset
from ..data.splits import Subset, k_folds
from ..detection import Detection, Grasp
from ..detector import GraspDetector
from ..simulation.domain import BASIC, Domain
from ..simulation.gripper import FRICTION, GraspTrial
from ..simulation.labels import open_scene
from ..simulation.own_trials import dataset_domain
from .accuracy import correct_at, correct_by, metric_name
from .report import wilson_interval

# What the paper reports on Cornell (its Table I, image-wise, 4:1, GTX 1080 Ti).
PAPER: dict[str, tuple[float, float]] = {
    'sae_sliding_window': (0.7600, 13_000.0),
    'cnn_sliding_window': (0.8253, 13_000.0),
    'regression': (0.7067, 11.3),
    'single_stage_stn': (0.7130, 13.6),
    'multi_stage_stn': (0.8960, 23.0),
}


@dataclass(frozen=True)
class TableData:
    """
    What one table is made of.

    Training and choices use ``train`` and ``validation``; ``test`` is looked at once. ``names``
    are those of the test images, ``split`` says which image is where, ``scene_seed`` is that of
    the simulated test scenes and ``domain`` what they were drawn from; without a seed grasps
    cannot be tried out.
    """

    name: str
    train: Dataset
    validation: Dataset
    test: Dataset
    names: tuple[str, ...]
    split: dict[str, Any] = field(repr=False)
    scene_seed: int | None = None
    domain: Domain = BASIC

    @property
    def region(self) -> tuple[float, float, float, float] | None:
        """Part of every image that is looked at; None is the largest centred square."""
        return getattr(self.test, 'region', None)


def cornell(folder: Path, fold: int = 0, seed: int = 0, object_wise: bool = False) -> TableData:
    """One of five folds of the Cornell images; fold 0 is the paper's split of 4:1."""
    data = CornellDataset(folder, cache=True)
    split = k_folds(data.names, 5, seed=seed,
                    objects=data.object_ids if object_wise else None)[fold]
    record = split.to_json()
    depth = data.has_depth
    record['channels'] = {
        part: {'rgb': len(indices) - sum(depth[i] for i in indices),
               'rgb, depth and normals': sum(depth[i] for i in indices)}
        for part, indices in (('train', split.train), ('validation', split.validation),
                              ('test', split.test))}
    record['images'] = f'{len(data)} of the {PUBLIC_IMAGES} public ones'
    return TableData('cornell', Subset(data, split.train), Subset(data, split.validation),
                     Subset(data, split.test), tuple(data.names[i] for i in split.test), record)


def simulated(train: Sequence[Path], validation: Path, test: Path, limit: int = 300) -> TableData:
    """
    Simulated images from folders with different seeds.

    Tested are the first ``limit`` scenes in which some trial was a graspable label: in the others
    no rectangle is correct. Raises :class:`DataError`, also where the test scenes cannot be opened
    again to try grasps out in them.
    """
    domain = dataset_domain(test)
    learned, held, tested = (SimulatedDataset(*train), SimulatedDataset(validation),
                             SimulatedDataset(test))
    seeds = {'train': learned.seeds, 'validation': held.seeds, 'test': tested.seeds}
    if in_both(learned, held):
        raise DataError(f'scenes of {validation} are trained on too; simulate a validation set '
                        'with another --seed')
    shared = (set(seeds['train']) | set(seeds['validation'])) & set(seeds['test'])
    if shared:
        raise DataError(f'test scenes with the seed {shared.pop()} were trained on or chosen by; '
                        'simulate a test set with another --seed')
    graspable = [i for i in range(len(tested)) if tested[i].graspable()][:limit]
    if not graspable:
        raise DataError(f'{test} has no image with a graspable label')
    full = {'rgb, depth and normals': len(learned)}
    record = {'kind': 'unseen scenes of other seeds', 'seed': tested.seed, 'seeds': seeds,
              'n': {'train': len(learned), 'validation': len(held), 'test': len(graspable)},
              'test': [tested.names[i] for i in graspable],
              'channels': {'train': full,
                           'validation': {'rgb, depth and normals': len(held)},
                           'test': {'rgb, depth and normals': len(graspable)}}}
    return TableData('simulated', learned, held, Subset(tested, graspable),
                     tuple(tested.names[i] for i in graspable), record, tested.seed, domain)


# -- answers --------------------------------------------------------------------------------


class Ledger:
    """
    A file of JSON lines by key, such as those of :func:`sample.identities`.

    Only the lines of one set of weights count. A line that an interruption cut off is dropped.
    """

    def __init__(self, path: Path, weights: str):
        """``weights`` is the SHA-256 of those that the entries are about."""
        self.path, self.weights = path, weights
        self.entries: dict[str, dict[str, Any]] = {}
        if not path.exists():
            return
        for line in path.read_text().splitlines():
            try:
                entry = json.loads(line)
                if entry['weights'] == weights:
                    self.entries[entry['key']] = entry['value']
            except (json.JSONDecodeError, KeyError, TypeError):
                continue

    def add(self, key: str, value: dict[str, Any]) -> None:
        """Remember ``value`` and append it to the file."""
        self.entries[key] = value
        self.path.parent.mkdir(parents=True, exist_ok=True)
        cut_off = self.path.exists() and not self.path.read_bytes().endswith(b'\n')
        with open(self.path, 'a') as file:
            file.write(('\n' if cut_off else '') + json.dumps(
                {'weights': self.weights, 'key': key, 'value': value}) + '\n')


def answer(detector: GraspDetector, sample: LabelledFrame,
           region: tuple[float, float, float, float] | None) -> dict[str, Any]:
    """
    What ``detector`` says of one labelled frame, and how right it is; JSON-serializable.

    The best rectangle is judged by the metric at all thresholds. ``grasp`` is the best candidate
    that has a pose, which is what a robot would be given.
    """
    detection = detector.detect(sample.frame, region=region, minimum_score=0.0, need_pose=False)
    labels = sample.graspable()
    best = detection.best
    return {
        'rectangle': None if best is None else best.rectangle.as_array().tolist(),
        'score': None if best is None else best.score,
        'correct': {} if best is None else correct_at(best.rectangle, labels),
        'any_candidate': any(correct_by(c.rectangle, labels) for c in detection.candidates),
        'grasp': _executable(detection), 'reason': detection.reason.name,
    }


def _executable(detection: Detection) -> dict[str, Any] | None:
    for candidate in detection.candidates:
        if candidate.grasp is not None:
            grasp = candidate.grasp
            return {key: np.asarray(getattr(grasp, key)).tolist()
                    for key in ('position', 'rotation', 'opening', 'jaw_size', 'surface',
                                'normal')}
    return None


def answers(detector: GraspDetector, data: TableData, ledger: Ledger,
            tracked: Callable[[Iterable], Iterable] = iter) -> list[dict[str, Any]]:
    """Answers for all test images in their order, new ones written to ``ledger``."""
    keys = identities(data.test)
    for index in tracked(range(len(keys))):
        if keys[index] not in ledger.entries:
            ledger.add(keys[index], answer(detector, data.test[index], data.region))
    return [ledger.entries[key] for key in keys]


def lifts(given: Sequence[dict[str, Any]], data: TableData, ledger: Ledger,
          tracked: Callable[[Iterable], Iterable] = iter) -> list[str]:
    """
    Execute the grasp of every answer in the scene of its image, under strict physics.

    Returns an outcome for each, 'lifted' or why not. The friction is drawn from the scene: the
    same for all systems.
    """
    assert data.scene_seed is not None
    keys = identities(data.test)
    for index in tracked(range(len(keys))):
        key, name = keys[index], data.names[index]
        if key in ledger.entries:
            continue
        record = given[index]['grasp']
        outcome = f'no grasp: {given[index]["reason"]}'
        if record is not None:
            values: dict[str, Any] = {k: np.asarray(v) if isinstance(v, list) else v
                                      for k, v in record.items()}
            grasp = Grasp(**values)
            scene = open_scene(data.scene_seed, int(name), domain=data.domain)
            try:
                friction = float(np.random.default_rng(
                    [data.scene_seed, int(name), 1]).uniform(*FRICTION))
                outcome = GraspTrial(scene).execute(scene.world_pose(grasp), grasp.opening,
                                                    friction).outcome
            finally:
                scene.close()
        ledger.add(key, {'outcome': outcome})
    return [ledger.entries[key]['outcome'] for key in keys]


# -- figures --------------------------------------------------------------------------------


def summarize(given: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Shares in [0, 1] of a system's answers: the metric at all thresholds, any candidate, n."""
    n = len(given)

    def share(key: str) -> float:
        return sum(bool(a['correct'].get(key)) for a in given) / n

    plain = metric_name(0.25, 30)
    keys = list(correct_at(None, []))
    return {'accuracy': share(plain),
            'accuracy_interval': wilson_interval(
                sum(bool(a['correct'].get(plain)) for a in given), n),
            'accuracy_at': {key: share(key) for key in keys},
            'any_candidate': sum(a['any_candidate'] for a in given) / n, 'n': n}


def lift_share(outcomes: Sequence[str]) -> dict[str, Any]:
    """Share of outcomes that are 'lifted', with its interval."""
    lifted = sum(o == 'lifted' for o in outcomes)
    return {'lift': lifted / len(outcomes),
            'lift_interval': wilson_interval(lifted, len(outcomes))}


def interleaved_times(detectors: dict[str, GraspDetector], data: TableData, rounds: int = 10,
                      repeats: int = 3,
                      tracked: Callable[[Iterable], Iterable] = iter) \
        -> dict[str, dict[str, float]]:
    """
    Wall time from an image in memory to the grasp, batch 1: milliseconds by system.

    Each of ``rounds`` test images is given to one system after the other, so that whatever else
    the machine does hits all of them; of ``repeats`` calls in a row the median counts, of the
    rounds the median again. Systems that take more than half a second are called once.
    """
    for detector in detectors.values():
        detector.warm_up()
    times: dict[str, list[float]] = {name: [] for name in detectors}
    for index in tracked(range(min(rounds, len(data.names)))):
        frame = data.test[index].frame
        for name, detector in detectors.items():
            values: list[float] = []
            while len(values) < (1 if sum(values) > 0.5 else repeats):
                start = time.perf_counter()
                detector.detect(frame, region=data.region, minimum_score=0.0, need_pose=False)
                values.append(time.perf_counter() - start)
            times[name].append(1e3 * statistics.median(values))
    return {name: {'milliseconds': statistics.median(values),
                   'milliseconds_p95': float(np.percentile(values, 95)), 'rounds': len(values)}
            for name, values in times.items()}


def mean_and_spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and standard deviation (of a sample, n - 1) of the folds."""
    return {'mean': statistics.fmean(values),
            'standard_deviation': statistics.stdev(values) if len(values) > 1 else math.nan}

#!/usr/bin/env python3
"""
Which of the answers that the rectangle metric calls wrong would have lifted the object.

    python scripts/try_wrong_answers.py --data data/test --json results/wrong_answers.json

The labels of a simulated image are the grasps that happened to be tried there; a grasp where none
was tried is wrong by the metric, whatever it would do. Here the best grasp of each image is
executed in the scene that the image shows, twenty times with a friction of its own, as the labels
were. It counts as one of them would, where it lifts in half of the trials or more. For comparison
the same is done with answers that the metric calls right, as many as are wrong, evenly spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from grasp_stn_ros.data.sample import DataError
from grasp_stn_ros.data.simulated import SimulatedDataset
from grasp_stn_ros.detector import GraspDetector
from grasp_stn_ros.evaluation.accuracy import Outcome, judge, summarize
from grasp_stn_ros.evaluation.report import write_json
from grasp_stn_ros.simulation.domain import Domain
from grasp_stn_ros.simulation.gripper import GraspTrial
from grasp_stn_ros.simulation.labels import open_scene
from grasp_stn_ros.simulation.own_trials import dataset_domain
from grasp_stn_ros.stn.checkpoint import CheckpointError

_TRIALS, _LIFTS = 20, 0.5


def _spread(rows: Sequence[Outcome], count: int) -> list[Outcome]:
    """Return ``count`` of the rows, evenly spread."""
    return [rows[i] for i in np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]


def _tried(detector: GraspDetector, data: SimulatedDataset, domain: Domain,
           outcomes: Sequence[Outcome], what: str) -> list[dict[str, Any]]:
    """Execute the best grasp of each; a row for each, with its share of lifts."""
    rows = []
    for outcome in track(outcomes, what):
        sample, index = data[outcome.index], data.index_of(outcome.index)
        scene = open_scene(data.seed, index, domain=domain)
        try:
            assert scene.frame is not None
            best = detector.detect(scene.frame, minimum_score=0.0, need_pose=False,
                                   jaw_pixels=sample.jaw_pixels).best
            row: dict[str, Any] = {'image': sample.name, 'score': round(outcome.score, 4),
                                   'objects': list(sample.objects)}
            if best is None or best.grasp is None:
                row |= {'lifts': 0.0, 'outcomes': ['no pose']}
            else:
                trial, pose = GraspTrial(scene), scene.world_pose(best.grasp)
                rng = np.random.default_rng([data.seed, index, 11])
                done = [trial.execute(pose, best.grasp.opening, rng=rng).outcome
                        for _ in range(_TRIALS)]
                row |= {'lifts': done.count('lifted') / len(done), 'outcomes': sorted(set(done))}
        finally:
            scene.close()
        rows.append(row)
    return rows


@click.command()
@click.option('--data', 'folder', required=True,
              type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option('--images', default=500, type=click.IntRange(1), show_default=True)
@click.option('--model', default='default', show_default=True)
@click.option('--threads', default=1, type=click.IntRange(1), show_default=True)
@click.option('--json', 'output', type=click.Path(path_type=Path))
def main(folder: Path, images: int, model: str, threads: int, output: Path | None) -> None:
    """Execute what the rectangle metric calls wrong."""
    try:
        detector = GraspDetector(model, device='cpu', threads=threads)
        data, domain = SimulatedDataset(folder), dataset_domain(folder)
    except (CheckpointError, DataError) as error:
        raise click.ClickException(str(error)) from None
    outcomes = judge(detector, data, images)
    if not outcomes:
        raise click.ClickException(f'{folder} has no image with a grasp that lifts; simulate more')
    found = summarize(outcomes)
    groups = {'wrong by the plain metric': [o for o in outcomes if not o.plain],
              'right by the plain metric only': [o for o in outcomes if o.plain and not o.strict]}
    groups['right by both'] = _spread([o for o in outcomes if o.strict],
                                      max(map(len, groups.values())))
    table = Table('answers', 'n', 'lift in half of the trials or more', 'mean share of lifts')
    result = {}
    for name, group in groups.items():
        rows = _tried(detector, data, domain, group, name)
        lifting = sum(row['lifts'] >= _LIFTS for row in rows)
        share = float(np.mean([row['lifts'] for row in rows])) if rows else 0.0
        result[name] = {'n': len(rows), 'lifting': lifting, 'share_of_lifts': share, 'rows': rows}
        table.add_row(name, str(len(rows)), str(lifting), f'{100 * share:.1f} %')
    Console().print(table)
    if output is not None:
        write_json(output, {'n': found['n'], 'seed': data.seed, 'trials': _TRIALS,
                            'plain': found['plain'], 'strict': found['strict'],
                            'answers': result}, threads)


if __name__ == '__main__':
    main()

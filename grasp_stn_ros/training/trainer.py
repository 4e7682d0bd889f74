"""
The training loop: resumable, deterministic by seed, chosen on a validation part.

Everything random in step n comes from (seed, n), so that a resumed training sees the same batches
as one that ran through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import copy
from dataclasses import asdict, dataclass, field
import json
import math
import os
from pathlib import Path
import queue
import threading
import time

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

from ..data.augmentation import Augmentation
from ..data.sample import Batch, Dataset, collate
from ..detector import cpu_has_bf16
from ..stn import checkpoint
from ..stn.multi_stage import ModelConfig, MultiStageSTN
from .losses import LossSettings, stage_losses
from .schedule import Phase, paper_schedule, phase_at


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that decides the result, apart from the data."""

    images: int = 24_000          # seen in total, with repetition
    batch: int = 12
    learning_rate: float = 2e-3
    weight_decay: float = 0.03
    warm_up: int = 100            # steps
    average: float = 0.995        # decay of the exponential moving average of the weights
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)
    losses: LossSettings = field(default_factory=LossSettings)


class TrainingError(RuntimeError):
    """The training cannot go on; the message says why."""


class Trainer:
    """Train a :class:`MultiStageSTN`; ``run`` returns the averaged network."""

    def __init__(self, data: Dataset, out: str | Path, settings: TrainingSettings,
                 config: ModelConfig | None = None, phases: tuple[Phase, ...] | None = None,
                 validate: Callable[[MultiStageSTN], dict[str, float]] | None = None,
                 device: str = 'cpu', threads: int = 1):
        """``validate`` measures a network on data that is neither training nor test."""
        self.data, self.settings = data, settings
        self.out = Path(out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.phases = phases or paper_schedule()
        self.validate = validate
        self.device = torch.device(device)
        torch.set_num_threads(threads)
        torch.set_flush_denormal(True)
        cv2.setNumThreads(1)
        torch.manual_seed(settings.seed)
        self.model = MultiStageSTN(config).to(self.device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        free = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{'params': decayed, 'weight_decay': settings.weight_decay},
             {'params': free, 'weight_decay': 0.0}], lr=settings.learning_rate)
        self.steps = math.ceil(settings.images / settings.batch)
        self.step = 0
        self.smooth: dict[str, float] = {}
        self._bf16 = self.device.type == 'cuda' or cpu_has_bf16()

    # -- resuming ---------------------------------------------------------------------------

    @property
    def _state_path(self) -> Path:
        return self.out / 'training.pt'

    def _fingerprint(self) -> str:
        settings = asdict(self.settings)
        return json.dumps([settings, self.model.config.to_dict(), len(self.data),
                           [p.name for p in self.phases]], sort_keys=True)

    def save_state(self) -> None:
        """Write everything needed to go on, atomically."""
        state = {'fingerprint': self._fingerprint(), 'step': self.step,
                 'model': self.model.state_dict(), 'average': self.average.state_dict(),
                 'optimizer': self.optimizer.state_dict(), 'smooth': self.smooth}
        temporary = self._state_path.with_suffix('.tmp')
        torch.save(state, temporary)
        os.replace(temporary, self._state_path)

    def resume(self) -> bool:
        """Go on where an interrupted training stopped; False if there is none."""
        if not self._state_path.exists():
            return False
        state = torch.load(self._state_path, map_location=self.device, weights_only=True)
        if state['fingerprint'] != self._fingerprint():
            raise TrainingError(f'{self._state_path} belongs to a training with other settings or '
                                'data; choose another --out, or remove it')
        self.model.load_state_dict(state['model'])
        self.average.load_state_dict(state['average'])
        self.optimizer.load_state_dict(state['optimizer'])
        self.step, self.smooth = state['step'], state['smooth']
        return True

    # -- data -------------------------------------------------------------------------------

    def _make_batch(self, step: int) -> Batch:
        rng = np.random.default_rng([self.settings.seed, step])
        batch, count = self.settings.batch, len(self.data)
        # A new order every epoch, cut into batches: position p of the whole training.
        indices = []
        for position in range(step * batch, (step + 1) * batch):
            epoch, place = divmod(position, count)
            indices.append(int(self._order(epoch)[place]))
        views = [self.settings.augmentation(self.data[i], rng) for i in indices]
        images, rectangles, success = map(list, zip(*views, strict=True))
        return collate(images, rectangles, success)

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
        progress = self.step / self.steps
        warm = min(1.0, (self.step + 1) / self.settings.warm_up)
        return self.settings.learning_rate * warm * \
            (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))

    def _train_step(self, batch: Batch, phase: Phase) -> None:
        for group in self.optimizer.param_groups:
            group['lr'] = self._learning_rate()
        torch.manual_seed(self.settings.seed * 1_000_003 + self.step)
        self.model.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            losses = stage_losses(self.model, batch.to(self.device), phase.stages, phase.own,
                                  self.settings.losses)
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            raise TrainingError(f'the loss is not finite in step {self.step}: '
                                f'{ {k: float(v) for k, v in losses.items()} }')
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
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
        with open(self.out / 'log.jsonl', 'a') as file:
            file.write(json.dumps(record) + '\n')

    def _record(self, phase: Phase, start: float, progress: Progress) -> None:
        record = {'step': self.step, 'images': self.step * self.settings.batch,
                  'phase': phase.name, 'seconds': round(time.time() - start, 1),
                  'learning_rate': self._learning_rate(),
                  'loss': {k: round(v, 4) for k, v in self.smooth.items()}}
        self._log(record)
        if not progress.console.is_terminal:
            print(json.dumps(record), flush=True)

    def _measure(self, label: str, progress: Progress) -> None:
        if self.validate is None:
            return
        figures = self.validate(copy.deepcopy(self.average))
        record = {'step': self.step, 'images': self.step * self.settings.batch,
                  'after': label, 'validation': figures}
        self._log(record)
        progress.console.print(f'after {label}: ' + ', '.join(
            f'{k} {v:.3f}' for k, v in figures.items()), highlight=False, soft_wrap=True)

    def run(self, save_every: float = 120.0) -> MultiStageSTN:
        """Train to the end, saving the state every ``save_every`` seconds."""
        stop = threading.Event()
        start = saved = time.time()
        columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
                   TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, refresh_per_second=1) as progress:
            task = progress.add_task('training', total=self.steps, completed=self.step)
            index = phase_at(self.phases, self.step / self.steps)
            try:
                for batch in self._batches(stop):
                    now = phase_at(self.phases, self.step / self.steps)
                    if now != index:
                        self._measure(self.phases[index].name, progress)
                        index = now
                    phase = self.phases[index]
                    self._train_step(batch, phase)
                    self.step += 1
                    progress.update(task, completed=self.step, description=phase.name)
                    if self.step % 50 == 0:
                        self._record(phase, start, progress)
                    if time.time() - saved > save_every:
                        self.save_state()
                        saved = time.time()
            finally:
                stop.set()
            self._measure(self.phases[index].name, progress)
        self.save_state()
        checkpoint.save(self.out / 'model.safetensors', self.average,
                        {'training': {**asdict(self.settings),
                                      'phases': [asdict_phase(p) for p in self.phases]}})
        return self.average


def asdict_phase(phase: Phase) -> dict:
    """JSON-serializable form of a phase."""
    return {'name': phase.name, 'share': phase.share, 'stages': sorted(phase.stages),
            'own': sorted(phase.own)}

"""
What a training is: kept in its state and beside its weights, compared before either is used again.

Two trainings with equal records saw the same batches in the same order. Their weights are as alike
as sums are that other processors or numbers of threads add up in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
import json
from typing import Any

from .schedule import Phase
from .settings import TrainingSettings

# What is no setting, and how it is called.
_NAMES = {
    'architecture': 'system', 'config': 'network', 'phases': 'phases', 'teachers': 'teachers',
    'data_sha256': 'training images (those of --data, --own-trials, --limit, --share, --fold, '
                   '--object-wise, --split-seed and --hold-back)',
    'start_sha256': 'weights to start from'}


def settings_record(settings: TrainingSettings) -> dict[str, Any]:
    """Return the settings as JSON gives them back."""
    return json.loads(json.dumps(asdict(settings)))


def training_record(settings: TrainingSettings, phases: Sequence[Phase], teachers: Sequence[str],
                    data_sha256: str, start_sha256: str | None) -> dict[str, Any]:
    """
    Return what belongs beside the weights of a training; JSON-serializable.

    ``teachers`` are the SHA-256 of their weights; ``data_sha256`` is that of
    :func:`data.sample.digest`, ``start_sha256`` that of the weights that were gone on from.
    """
    return {**settings_record(settings), 'phases': [phase_record(p) for p in phases],
            'teachers': list(teachers), 'data_sha256': data_sha256,
            'start_sha256': start_sha256}


def phase_record(phase: Phase) -> dict[str, Any]:
    """JSON-serializable form of a phase."""
    return {'name': phase.name, 'share': phase.share, 'stages': sorted(phase.stages),
            'own': sorted(phase.own), 'rate': phase.rate}


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """
    Name what is not the same in two records, for people.

    What only one of them has was not recorded by the version that wrote the other, and is let be.
    """
    unlike = [key for key in wanted if key in found and not _alike(found[key], wanted[key])]
    settings = [key for key in unlike if key not in _NAMES]
    return ([f'settings ({", ".join(settings)})'] if settings else []) + \
        [_NAMES[key] for key in unlike if key in _NAMES]


def _alike(found: Any, wanted: Any) -> bool:
    if isinstance(found, dict) and isinstance(wanted, dict):
        return all(_alike(found[key], wanted[key]) for key in wanted if key in found)
    return bool(found == wanted)

"""
Weights on disk: safetensors with a JSON sidecar of the same name.

The sidecar holds what the tensors do not: the network's configuration, how the input has to be
prepared, the SHA-256 of the weights, and for people the data, the licence and the measured
figures. Nothing that is loaded can execute code.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
import torch

from .. import preprocessing
from ..architectures import ARCHITECTURES, build
from ..atomic import write_together
from ..confined_paths import PathRefusedError, read_regular
from .network import GraspNetwork

FORMAT = 'grasp_stn_ros/1'
# What of a sidecar :func:`save` writes itself; the rest are notes.
_OWN = ('format', 'architecture', 'config', 'preprocessing', 'sha256')
# Of files that are read, bytes. The weights that come with the package have up to 20 MB.
_LARGEST_SIDECAR, _LARGEST_WEIGHTS = 16_000_000, 2_000_000_000
# In a configuration: numbers, those in a list of numbers of blocks, and lengths of lists. Without
# bounds, a sidecar of a few bytes would ask for more memory or time than there is.
_LARGEST_NUMBER, _MOST_BLOCKS, _LONGEST_LIST = 4096, 64, 64


class CheckpointError(ValueError):
    """Weights that cannot be used; the message says why and what to do."""


def save(path: str | Path, model: GraspNetwork, notes: dict[str, Any] | None = None) -> None:
    """Write ``path`` (.safetensors) and its sidecar (.json); ``notes`` join the sidecar."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = _content(model)
    sidecar = {'format': FORMAT, 'architecture': model.ARCHITECTURE,
               'config': model.config.to_dict(), 'preprocessing': preprocessing.SIGNATURE,
               'sha256': hashlib.sha256(content).hexdigest(), **(notes or {})}
    write_together({path: content, path.with_suffix('.json'):
                    (json.dumps(sidecar, indent=2) + '\n').encode()})


def require_new(path: str | Path, same: GraspNetwork | None = None) -> None:
    """
    Raise :class:`CheckpointError` where :func:`save` would replace weights or a sidecar.

    Weights of a network like ``same`` may be there, with other notes.
    """
    path = Path(path)
    found = [file for file in (path, path.with_suffix('.json')) if file.exists()]
    if not found:
        return
    if same is not None:
        try:
            there, _ = load(path)
            if (there.ARCHITECTURE, there.config, digest(there)) == (
                    same.ARCHITECTURE, same.config, digest(same)):
                return
        except CheckpointError:
            pass
    raise CheckpointError(f'{found[0]} exists; choose another --out, or remove it')


def _content(model: GraspNetwork) -> bytes:
    return dump_tensors({name: value.detach().cpu().contiguous()
                         for name, value in model.state_dict().items()})


def digest(model: GraspNetwork) -> str:
    """SHA-256 of the weights, as in the sidecar of a file of them."""
    return hashlib.sha256(_content(model)).hexdigest()


def notes(sidecar: dict[str, Any]) -> dict[str, Any]:
    """Return what a sidecar holds for people, as :func:`save` was given it."""
    return {name: value for name, value in sidecar.items() if name not in _OWN}


def read_sidecar(path: str | Path) -> dict[str, Any]:
    """Read and check the sidecar of ``path`` (.safetensors); raises :class:`CheckpointError`."""
    sidecar_path = Path(path).with_suffix('.json')
    try:
        sidecar = json.loads(read_regular(sidecar_path, _LARGEST_SIDECAR))
    except FileNotFoundError:
        raise CheckpointError(f'{sidecar_path} is missing; the weights are of no use without it, '
                              'copy both files') from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f'{sidecar_path} cannot be read: {error}') from None
    if not isinstance(sidecar, dict) or sidecar.get('format') != FORMAT:
        found = sidecar.get('format') if isinstance(sidecar, dict) else type(sidecar).__name__
        raise CheckpointError(f'{sidecar_path} has format {found!r}, this version reads '
                              f'{FORMAT!r}')
    for key in _OWN:
        if key not in sidecar:
            raise CheckpointError(f'{sidecar_path} has no {key!r}')
    if str(sidecar['architecture']) not in ARCHITECTURES:
        raise CheckpointError(f'{sidecar_path} names the architecture '
                              f'{sidecar["architecture"]!r}, this version has '
                              f'{", ".join(ARCHITECTURES)}')
    return sidecar


def load(path: str | Path) -> tuple[GraspNetwork, dict[str, Any]]:
    """Weights and sidecar -> network in evaluation mode, sidecar; all or :class:`CheckpointError`.

    Checks the hash, that this package prepares the input as the weights expect, and that no
    tensor is missing, left over, of another shape or not finite.
    """
    path = Path(path)
    if path.suffix != '.safetensors':
        raise CheckpointError(f'{path} is no .safetensors file; pickled weights are not loaded, '
                              'since they can run code')
    if not os.path.lexists(path):
        raise CheckpointError(f'{path} is missing; name a file of weights, or default for those '
                              'that come with the package')
    sidecar = read_sidecar(path)
    if sidecar['preprocessing'] != preprocessing.SIGNATURE:
        raise CheckpointError(f'{path} expects another preprocessing than this version has: '
                              f'{sidecar["preprocessing"]} against {preprocessing.SIGNATURE}')
    try:
        content = read_regular(path, _LARGEST_WEIGHTS)
    except OSError as error:
        raise CheckpointError(f'{path} cannot be read: {error.strerror or error}') from None
    except PathRefusedError as error:
        raise CheckpointError(str(error)) from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != sidecar['sha256']:
        raise CheckpointError(f'{path} is corrupt or does not belong to its sidecar: SHA-256 is '
                              f'{digest[:12]}..., expected {str(sidecar["sha256"])[:12]}...; copy '
                              'both files again or, if writing them was interrupted, write them '
                              'again')
    try:
        tensors = load_tensors(content)
        model = _build_for(tensors, sidecar)
        model.load_state_dict(tensors, strict=True)
    except (SafetensorError, TypeError, ValueError, RuntimeError, ArithmeticError, LookupError,
            AttributeError, MemoryError) as error:
        raise CheckpointError(f'{path} does not fit the network: {error}') from None
    bad = [name for name, value in model.state_dict().items() if not torch.isfinite(value).all()]
    if bad:
        raise CheckpointError(f'{path} has values that are not finite in {", ".join(bad)}')
    return model.eval(), sidecar


def _build_for(tensors: dict[str, torch.Tensor], sidecar: dict[str, Any]) -> GraspNetwork:
    """
    Build the network of the sidecar; raises ValueError and others where it is none.

    First without memory, so that one that is larger than its weights is never there.
    """
    config = sidecar['config']
    if not isinstance(config, dict):
        raise ValueError(f'the configuration is {type(config).__name__}, expected an object')
    for name, value in config.items():
        _check_number(name, value, _LARGEST_NUMBER)
    with torch.device('meta'):
        shapes = {k: v.shape for k, v in build(sidecar['architecture'],
                                               config).state_dict().items()}
    for name, shape in shapes.items():
        if name not in tensors:
            raise ValueError(f'{name} is missing')
        if tensors[name].shape != shape:
            raise ValueError(f'{name} has shape {tuple(tensors[name].shape)}, expected '
                             f'{tuple(shape)}')
    return build(sidecar['architecture'], config)


def _check_number(name: str, value: Any, largest: float) -> None:
    """Raise ValueError where a number of the configuration, or in a list of it, is absurd."""
    if isinstance(value, list):
        if len(value) > _LONGEST_LIST:
            raise ValueError(f'{name} has {len(value)} elements')
        for element in value:
            _check_number(name, element, _MOST_BLOCKS if 'blocks' in name else largest)
    elif isinstance(value, (int, float)):
        # The offset of a calibration is the only number with a sign.
        least = -largest if name == 'calibration' else 0
        if not math.isfinite(value) or not least <= value <= largest:
            raise ValueError(f'{name} is {value}, expected {least} to {largest}')
    elif not isinstance(value, str):
        raise ValueError(f'{name} is {type(value).__name__}')

"""
Corrupt, truncated and hostile files: weights, sidecars and labels.

Each number of a seed is one attempt: good files are written into a folder of their own, one of
them is spoilt, and the reader that it is for must refuse it by name or read it, execute nothing
and change nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
import hashlib
import json
import os
from pathlib import Path
import pickle
import shutil
import struct
from typing import Any

import cv2
import numpy as np
import torch

from ..data.cornell import CornellDataset
from ..data.jacquard import JacquardDataset
from ..data.sample import DataError
from ..data.simulated import SimulatedDataset, encode_depth
from ..stn import checkpoint
from ..stn.multi_stage import ModelConfig, MultiStageSTN

_MARKER = 'executed'


class _Payload:
    """What a hostile pickle does: it makes a file."""

    def __init__(self, marker: str):
        self._marker = marker

    def __reduce__(self):
        return os.mkdir, (self._marker,)


@cache
def _network() -> MultiStageSTN:
    torch.manual_seed(0)
    return MultiStageSTN(ModelConfig(width=0.25, features=8, fine_channels=4)).eval()


# Good files: each function fills a folder and returns those that may be spoilt.

def _weights(folder: Path) -> list[Path]:
    path = folder / 'net.safetensors'
    checkpoint.save(path, _network())
    return [path, path, path.with_suffix('.json')]


def _picture(path: Path, size: tuple[int, int]) -> None:
    cv2.imwrite(str(path), np.full((size[1], size[0], 3), 120, np.uint8))


def _cornell(folder: Path) -> list[Path]:
    (folder / '01').mkdir()
    stem = folder / '01' / 'pcd0100'
    _picture(stem.with_name('pcd0100r.png'), (640, 480))
    labels = stem.with_name('pcd0100cpos.txt')
    labels.write_text('300 200\n340 200\n340 220\n300 220\n' * 3)
    objects = folder / 'objects.csv'
    objects.write_text('image,object_id,object_name\n0100,7,mug\n')
    return [labels, labels, objects, stem.with_name('pcd0100r.png')]


def _jacquard(folder: Path) -> list[Path]:
    (folder / 'mug').mkdir()
    _picture(folder / 'mug' / '0_mug_RGB.png', (128, 128))
    labels = folder / 'mug' / '0_mug_grasps.txt'
    labels.write_text('60;60;30;20;10\n60;60;30;20;15\n')
    return [labels, labels, folder / 'mug' / '0_mug_RGB.png']


def _simulated(folder: Path) -> list[Path]:
    _picture(folder / '000001_rgb.png', (64, 48))
    depth = encode_depth(np.full((48, 64), 0.8, np.float32))
    cv2.imwrite(str(folder / '000001_depth.png'), depth)
    labels = folder / '000001.json'
    labels.write_text(json.dumps({
        'intrinsics': {'fx': 55.0, 'fy': 55.0, 'cx': 31.5, 'cy': 23.5},
        'grasps': [{'rectangle': [30, 20, 0.1, 10, 5], 'successes': 3, 'trials': 4}],
        'objects': [{'family': 'box'}]}))
    described = folder / 'dataset.json'
    described.write_text(json.dumps({'seed': 1}))
    return [labels, labels, described, folder / '000001_depth.png']


# Readers: each opens everything there is.

def _read_all(dataset: Any) -> None:
    for index in range(len(dataset)):
        dataset[index]


_KINDS: dict[str, tuple[Callable[[Path], list[Path]], Callable[[Path], Any],
                        type[Exception]]] = {
    'weights': (_weights, lambda f: checkpoint.load(f / 'net.safetensors'),
                checkpoint.CheckpointError),
    'cornell': (_cornell, lambda f: _read_all(CornellDataset(f)), DataError),
    'jacquard': (_jacquard, lambda f: _read_all(JacquardDataset(f, depth=None)), DataError),
    'simulated': (_simulated, lambda f: _read_all(SimulatedDataset(f)), DataError),
}


# Ways to spoil the content of a file.

def _truncate(rng: np.random.Generator, content: bytes, marker: str) -> bytes:
    return content[:int(rng.integers(len(content) + 1))]


def _flip(rng: np.random.Generator, content: bytes, marker: str) -> bytes:
    changed = bytearray(content)
    for _ in range(1 + int(rng.integers(8))):
        if changed:
            changed[int(rng.integers(len(changed)))] = int(rng.integers(256))
    return bytes(changed)


def _insert(rng: np.random.Generator, content: bytes, marker: str) -> bytes:
    at = int(rng.integers(len(content) + 1))
    values = (b'nan', b'inf', b'-1e309', b'\0\0\0', b'\xff\xfe', b'9' * 5000, b'"', b'{', b';;;',
              b'\n\n', b'null', b'__import__("os")')
    return content[:at] + values[int(rng.integers(len(values)))] + content[at:]


def _number(rng: np.random.Generator, content: bytes, marker: str) -> bytes:
    """Replace digits, which lets JSON and label lines stay well-formed."""
    text = content.replace(b'2', (b'-2', b'1e308', b'0', b'2e6', b'NaN')[int(rng.integers(5))])
    return text if rng.random() < 0.7 else content.replace(b'0', b'0e999')


def _nested(rng: np.random.Generator, content: bytes, marker: str) -> bytes:
    """JSON that is deeper than a parser's stack."""
    return b'[' * 200_000 if rng.random() < 0.5 else b'{"format":' * 100_000


def _large_header(rng: np.random.Generator, content: bytes, marker: str) -> bytes:
    """A safetensors header that says it is huge."""
    length = (2**63, 2**40, 2**31, 99_000_000, len(content))[int(rng.integers(5))]
    return struct.pack('<Q', length) + content[8:]


def _large_tensor(rng: np.random.Generator, content: bytes, marker: str) -> bytes:
    """A safetensors file with a tensor that is larger than the file, or of a foreign type."""
    kind = ('F32', 'F8_E4M3', 'BOOL', 'I64', 'X9')[int(rng.integers(5))]
    header = json.dumps({'a': {'dtype': kind, 'shape': [2**30, 2**10],
                               'data_offsets': [0, 2**42]}}).encode()
    return struct.pack('<Q', len(header)) + header


def _pickled(rng: np.random.Generator, content: bytes, marker: str) -> bytes:
    """A pickle under a name that promises something else."""
    return pickle.dumps(_Payload(marker))


def _empty(rng: np.random.Generator, content: bytes, marker: str) -> bytes:
    return b''


_WAYS = (_truncate, _flip, _insert, _number, _nested, _large_header, _large_tensor, _pickled,
         _empty)


def _config(rng: np.random.Generator, folder: Path) -> None:
    """Change the configuration in the sidecar, well-formed and absurd."""
    path = folder / 'net.json'
    sidecar = json.loads(path.read_text())
    values: tuple[Any, ...] = (10**9, -1, 0, 1e308, None, 'x', [], {}, [10**9] * 3, [64, 64, 64],
                               True, 0.5, [[1]], '__class__')
    key = list(sidecar['config'])[int(rng.integers(len(sidecar['config'])))]
    sidecar['config'][key] = values[int(rng.integers(len(values)))]
    path.write_text(json.dumps(sidecar))


def _rehash(folder: Path) -> None:
    """Let the sidecar name the hash of the spoilt weights: who spoils one can change both."""
    path = folder / 'net.json'
    sidecar = json.loads(path.read_text())
    sidecar['sha256'] = hashlib.sha256((folder / 'net.safetensors').read_bytes()).hexdigest()
    path.write_text(json.dumps(sidecar))


def _state(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
            if p.is_file() else 'folder' for p in sorted(folder.rglob('*'))}


def try_number(seed: int, number: int, where: str) -> list[str]:
    """
    Spoil and read one set of files in a folder below ``where`` -> what came of it.

    Raises AssertionError where an error names no file, or anything was executed or changed, and
    whatever else a reader raises that it has not promised.
    """
    rng = np.random.default_rng([seed, number])
    kind = list(_KINDS)[number % len(_KINDS)]
    write, read, promised = _KINDS[kind]
    folder = Path(where) / f'{number:06d}'
    folder.mkdir()
    try:
        targets = write(folder)
        if kind == 'weights' and rng.random() < 0.3:
            _config(rng, folder)
        else:
            target = targets[int(rng.integers(len(targets)))]
            way = _WAYS[int(rng.integers(len(_WAYS)))]
            target.write_bytes(way(rng, target.read_bytes(), str(folder / _MARKER)))
            if target.suffix == '.safetensors' and rng.random() < 0.7:
                _rehash(folder)
        before = _state(folder)
        try:
            read(folder)
            outcome = 'read'
        except promised as error:
            assert str(folder) in str(error) or folder.name in str(error) or any(
                Path(name).stem in str(error) for name in before), f'names no file: {error}'
            outcome = f'refused: {type(error).__name__}'
        assert not (folder / _MARKER).exists(), 'something was executed'
        assert _state(folder) == before, 'something was changed'
    finally:
        shutil.rmtree(folder)
    return [f'{kind} {outcome}']

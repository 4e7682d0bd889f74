"""What the readers of public data sets share: files that are whole, and problems with names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..image_files import read_depth, read_rgb
from ..reasons import GraspError
from ..rgbd import CameraIntrinsics, RgbdFrame
from .sample import DataError

_S = TypeVar('_S')
_T = TypeVar('_T')

# The decoders fill what is missing of a cut file with grey and say nothing.
_ENDS = {'.png': b'IEND\xaeB`\x82', '.jpg': b'\xff\xd9', '.jpeg': b'\xff\xd9'}


def checked_rgb(path: Path) -> np.ndarray:
    """Colour image (H, W, 3) uint8 RGB; raises :class:`DataError`, for cut files as well."""
    _check_end(path)
    try:
        return read_rgb(path)
    except GraspError as error:
        raise DataError(error.detail) from None


def checked_depth(path: Path) -> np.ndarray:
    """Depth image (H, W) float32 metres, NaN = hole; raises :class:`DataError`."""
    _check_end(path)
    try:
        return read_depth(path)
    except GraspError as error:
        raise DataError(error.detail) from None


def checked_frame(name: str, rgb: np.ndarray, depth: np.ndarray | None,
                  intrinsics: CameraIntrinsics | None) -> RgbdFrame:
    """Put a frame together; raises :class:`DataError` that carries ``name``."""
    try:
        return RgbdFrame(rgb, depth, intrinsics)
    except GraspError as error:
        raise DataError(f'{name}: {error}') from None


def list_entries(sources: Iterable[_S], parse: Callable[[_S], _T], read: Callable[[_T], object],
                 strict: bool, nothing_left: str) -> tuple[list[_T], list[str]]:
    """
    Turn ``sources`` into the entries of a data set -> entries, and what is wrong with the others.

    ``strict`` lets the first :class:`DataError` of ``parse`` pass and reads nothing. Otherwise
    every entry is read once; where none is left, a DataError says ``nothing_left`` and why.
    """
    if strict:
        return [parse(source) for source in sources], []
    entries, problems = [], []
    for source in sources:
        try:
            entry = parse(source)
            read(entry)
        except DataError as error:
            problems.append(str(error))
        else:
            entries.append(entry)
    if not entries:
        raise DataError(f'{nothing_left}: {problems[0]}')
    return entries, problems


def _check_end(path: Path) -> None:
    end = _ENDS.get(path.suffix.lower())
    if end is None or not path.is_file():
        return
    with path.open('rb') as file:
        size = file.seek(0, 2)
        # A few bytes behind the end are harmless, and cameras leave them.
        file.seek(max(0, size - 64))
        if end not in file.read():
            raise DataError(f'{path} is cut off: it has {size} bytes and no end mark')

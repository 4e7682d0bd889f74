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


def keep_readable(entries: Iterable[_T], read: Callable[[_T], object]) \
        -> tuple[list[_T], list[str]]:
    """Try to read every entry -> those that can be read, and what is wrong with the others."""
    kept, problems = [], []
    for entry in entries:
        try:
            read(entry)
        except DataError as error:
            problems.append(str(error))
        else:
            kept.append(entry)
    return kept, problems


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

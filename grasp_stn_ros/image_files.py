"""
RGB-D frames from image files: one way for the command line and the readers of data sets.

Pixels are read as they are stored. An EXIF orientation, by which viewers turn a photograph, is
ignored: depth, the camera matrix and labels belong to the pixels of the sensor.
"""

from __future__ import annotations

from dataclasses import dataclass
import json
import os
from pathlib import Path
import shlex

import cv2
import numpy as np

from .reasons import GraspError, Reason
from .rgbd import MILLIMETRE, CameraIntrinsics, RgbdFrame, clean_depth

# Mode of OpenCV for colours without EXIF's orientation.
STORED_COLOR = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


def read_rgb(path: str | Path) -> np.ndarray:
    """Colour or grey image file -> (H, W, 3) uint8 RGB as stored; raises :class:`GraspError`."""
    image = cv2.imread(str(path), STORED_COLOR) if os.path.isfile(path) else None
    if image is None:
        raise GraspError(Reason.INVALID_IMAGE, f'{path} is missing or no image file')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def is_turned(path: str | Path) -> bool:
    """Whether viewers show the image otherwise than it is stored, by its EXIF orientation."""
    shown = cv2.imread(str(path), cv2.IMREAD_COLOR)
    return shown is not None and not np.array_equal(
        shown[..., ::-1], read_rgb(path))


def read_depth(path: str | Path) -> np.ndarray:
    """
    Depth image file -> (H, W) float32 metres with NaN for holes; raises :class:`GraspError`.

    16-bit files hold millimetres with 0 for holes, but where they lie in simulated data, whose
    dataset.json names another unit; float files metres.
    """
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if os.path.isfile(path) else None
    if image is None:
        raise GraspError(Reason.INVALID_DEPTH, f'{path} is missing or no image file')
    if image.ndim == 2 and image.dtype == np.uint16:
        return clean_depth(image.astype(np.float32) * np.float32(depth_unit(Path(path))))
    if image.ndim == 2 and image.dtype in (np.float32, np.float64):
        return clean_depth(image)
    raise GraspError(Reason.INVALID_DEPTH, f'{path} has shape {image.shape} and type '
                     f'{image.dtype}; expected 16-bit millimetres or float metres, one channel')


def depth_unit(path: Path) -> float:
    """Return what one step of the 16-bit depth file at ``path`` is, metres."""
    try:
        unit = json.loads((path.parent / 'dataset.json').read_text())['units']['depth_png']
    except (OSError, ValueError, LookupError, TypeError):
        return MILLIMETRE
    return unit if isinstance(unit, float) and 0 < unit < 1 else MILLIMETRE


def read_mask(path: str | Path) -> np.ndarray:
    """Grey 8-bit image file -> mask (H, W) uint8, not 0 = allowed; raises :class:`GraspError`."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if os.path.isfile(path) else None
    if image is None:
        raise GraspError(Reason.INVALID_IMAGE, f'{path} is missing or no image file')
    if image.ndim != 2 or image.dtype != np.uint8:
        raise GraspError(Reason.INVALID_IMAGE, f'{path} has shape {image.shape} and type '
                         f'{image.dtype}; a mask has one channel of 8 bits')
    return image


def read_frame(rgb: str | Path, depth: str | Path | None = None,
               intrinsics: CameraIntrinsics | None = None) -> RgbdFrame:
    """Read one frame; raises :class:`GraspError`."""
    return RgbdFrame(read_rgb(rgb), read_depth(depth) if depth else None, intrinsics)


@dataclass(frozen=True)
class ListedImage:
    """One line of a list file."""

    rgb: Path
    depth: Path | None = None
    intrinsics: CameraIntrinsics | None = None


def parse_list_line(line: str, folder: Path) -> ListedImage:
    """
    Parse ``RGB [DEPTH] [FX FY CX CY]``; white space or commas between, quotes around names.

    Relative paths are looked up in the working directory first, then in ``folder`` (that of the
    list). Raises ValueError.
    """
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace += ','
    lexer.whitespace_split = True
    lexer.commenters = ''
    fields = list(lexer)
    names, numbers = fields, None
    if len(fields) in (5, 6):
        names, numbers = fields[:-4], fields[-4:]
    if len(names) not in (1, 2):
        raise ValueError(f'expected "RGB [DEPTH] [FX FY CX CY]", got {len(fields)} fields')
    intrinsics = None
    if numbers is not None:
        intrinsics = CameraIntrinsics(*(float(v) for v in numbers))
    paths = [Path(n) if Path(n).is_absolute() or Path(n).exists() else folder / n for n in names]
    return ListedImage(paths[0], paths[1] if len(paths) == 2 else None, intrinsics)

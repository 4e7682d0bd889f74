"""
``sensor_msgs/CompressedImage`` as image_transport's plugins publish it -> numpy.

``compressed`` is a JPEG or PNG file of the colour image; an EXIF orientation is ignored, because
depth and calibration belong to the pixels as they are stored. ``compressedDepth`` is a PNG file of
16 bit behind a header of 12 bytes: an int32 and two float32 (a, b), with which 32FC1 images are
quantized, depth = a / (value - b); for 16UC1 they are not used and the values are millimetres. Any
object with the fields ``format`` and ``data`` will do. Bad input raises :class:`GraspError`,
nothing else.
"""

from __future__ import annotations

import re
import struct
from typing import Any

import cv2
import numpy as np

from .image_files import STORED_COLOR
from .reasons import GraspError, Reason
from .rgbd import clean_depth, depth_from_millimetres

_DEPTH_HEADER = struct.Struct('<iff')
_PNG = b'\x89PNG\r\n\x1a\n'
_JPEG = b'\xff\xd8'
# As decoders find them: stuffed zeros and what lies between segments are skipped.
_MARKER = re.compile(rb'\xff+([^\x00\xff])', re.DOTALL)
# Start of a frame of any kind; C4, C8 and CC mean something else.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Larger than any camera that we know; a file of a few bytes can claim gigabytes.
_MAXIMUM_PIXELS = 64_000_000


def is_compressed(message: Any) -> bool:
    """Whether a message is a ``CompressedImage`` and no ``Image``."""
    return hasattr(message, 'format') and not hasattr(message, 'encoding')


def rgb_from_compressed(message: Any) -> np.ndarray:
    """JPEG or PNG -> (H, W, 3) uint8 RGB."""
    data = np.frombuffer(message.data, np.uint8)
    _check_size(data.tobytes(), message.format, Reason.INVALID_IMAGE)
    return cv2.cvtColor(_decoded(data, STORED_COLOR, message.format, Reason.INVALID_IMAGE),
                        cv2.COLOR_BGR2RGB)


def depth_from_compressed(message: Any) -> np.ndarray:
    """Image of ``compressedDepth`` with PNG inside -> (H, W) float32 metres, NaN for holes."""
    data = np.frombuffer(message.data, np.uint8)
    kind = message.format.split(';')[0].strip()
    file = bytes(data[_DEPTH_HEADER.size:_DEPTH_HEADER.size + 32])
    if kind not in ('16UC1', '32FC1') or 'compressedDepth' not in message.format:
        raise GraspError(Reason.INVALID_DEPTH, f'format {message.format!r}, expected 16UC1 or '
                         '32FC1; compressedDepth png')
    if not file.startswith(_PNG):
        raise GraspError(Reason.INVALID_DEPTH, f'format {message.format!r} holds no PNG; set the '
                         "publisher's parameter compressedDepth.format to png")
    _check_size(file, message.format, Reason.INVALID_DEPTH)
    raw = _decoded(data[_DEPTH_HEADER.size:], cv2.IMREAD_UNCHANGED, message.format,
                   Reason.INVALID_DEPTH)
    if raw.dtype != np.uint16 or raw.ndim != 2:
        raise GraspError(Reason.INVALID_DEPTH, f'the PNG has {raw.dtype} and shape {raw.shape}, '
                                               'expected 16 bit and one channel')
    if kind == '16UC1':
        return depth_from_millimetres(raw)
    _, a, b = _DEPTH_HEADER.unpack(bytes(data[:_DEPTH_HEADER.size]))
    with np.errstate(divide='ignore', invalid='ignore', over='ignore'):
        metres = np.float32(a) / (raw.astype(np.float32) - np.float32(b))
    return clean_depth(np.where(raw == 0, np.float32(np.nan), metres))


def _check_size(file: bytes, label: str, reason: Reason) -> None:
    """Refuse what says that it is huge, or does not say, before memory is taken for it."""
    size = _png_size(file) or _jpeg_size(file)
    if size is None:
        raise GraspError(reason, f'format {label!r} cannot be decoded: neither a JPEG nor a PNG '
                                 'that says its size')
    if size[0] * size[1] > _MAXIMUM_PIXELS:
        raise GraspError(reason, f'format {label!r}: the file claims {size[0]}x{size[1]} pixels')


def _png_size(file: bytes) -> tuple[int, int] | None:
    """Width and height that the header of a PNG says."""
    return struct.unpack('>II', file[16:24]) if file.startswith(_PNG) and len(file) >= 24 \
        else None


def _jpeg_size(file: bytes) -> tuple[int, int] | None:
    """Width and height of the frame of a JPEG: of the first SOF, which has to be the only one."""
    if not file.startswith(_JPEG):
        return None
    marker = _MARKER.search(file, len(_JPEG))
    while marker is not None and marker.end() + 7 <= len(file):
        kind, start = marker[1][0], marker.end()
        if kind in _FRAMES:
            height, width = struct.unpack('>HH', file[start + 3:start + 7])
            return width, height
        # Restarts and TEM stand alone, all others say how long they are.
        alone = 0xD0 <= kind <= 0xD7 or kind == 0x01
        length = 0 if alone else int.from_bytes(file[start:start + 2], 'big')
        marker = _MARKER.search(file, start + length)
    return None


def _decoded(data: np.ndarray, mode: int, label: str, reason: Reason) -> np.ndarray:
    try:
        image = cv2.imdecode(data, mode) if data.size else None
    except cv2.error as error:
        raise GraspError(reason, f'format {label!r}: {error.err}') from None
    if image is None:
        raise GraspError(reason, f'{data.size} bytes of format {label!r} cannot be decoded')
    return image

"""Random and mutated camera messages, each from one seed and number."""

from __future__ import annotations

import array
from collections.abc import Callable
import copy
import math
from typing import Any

from builtin_interfaces.msg import Time
import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from ..rgbd import CameraIntrinsics
from . import conversions

_ENCODINGS = ('rgb8', 'bgr8', 'rgba8', 'bgra8', 'mono8', '16UC1', '32FC1', 'mono16', '8UC1',
              '8UC3', '64FC1', '16SC1', 'bayer_rggb8', 'yuv422', '', ' ', 'RGB8', '32FC1; png',
              'a' * 5000, '\u00e9\U0001f916', "'; drop", '%s%n')
_INTEGERS = (0, 1, 2, 3, 31, 32, 47, 63, 64, 65, 127, 255, 640, 65535, 2**16, 2**31 - 1, 2**31,
             2**32 - 1)
_FLOATS = (0.0, -0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e-300, 5e-324, 1e300, -1e300,
           1e38, 1e39, 0.1, 10.0, 525.0)
_SIZE = (64, 48)

Messages = dict[str, Any]


def whole(rng: np.random.Generator, stamp: Time | None = None) -> Messages:
    """Return a small triple (64x48) with nothing wrong: ``color``, ``depth`` and ``info``."""
    header = Header(stamp=stamp or Time(sec=1), frame_id='camera')
    rgb = rng.integers(0, 256, (_SIZE[1], _SIZE[0], 3), np.uint8)
    depth = rng.uniform(0.3, 1.5, (_SIZE[1], _SIZE[0])).astype(np.float32)
    encoding = '16UC1' if rng.random() < 0.5 else '32FC1'
    return {'color': conversions.image_message(rgb, 'rgb8', header),
            'depth': conversions.depth_message(depth, encoding, header),
            'info': conversions.camera_info_message(
                CameraIntrinsics(55.0, 55.0, 31.5, 23.5), _SIZE, header)}


def mutated(seed: int, number: int, stamp: Time | None = None) -> Messages:
    """Return triple ``number`` of ``seed``: one or more of its messages are not as they should."""
    rng = np.random.default_rng([seed, number])
    messages = whole(rng, stamp)
    # Mostly one fault: of several, only the first that is looked at would be seen.
    for _ in range(1 + int(rng.integers(3)) * (rng.random() < 0.4)):
        change = _CHANGES[int(rng.integers(len(_CHANGES)))]
        change(rng, messages)
    return messages


def compressed(seed: int, number: int) -> tuple[CompressedImage, CompressedImage]:
    """Return colour and depth ``number`` as corrupt files of image_transport's plugins."""
    import cv2
    rng = np.random.default_rng([seed, number, 1])
    messages = whole(rng)
    rgb = np.frombuffer(messages['color'].data, np.uint8).reshape(_SIZE[1], _SIZE[0], 3)
    ending = ('.jpg', '.png')[int(rng.integers(2))]
    color = bytearray(cv2.imencode(ending, rgb)[1].tobytes())
    raw = rng.integers(0, 2000, _SIZE[::-1]).astype(np.uint16)
    depth = bytearray(bytes(rng.bytes(12)) + cv2.imencode('.png', raw)[1].tobytes())
    kinds = ('16UC1; compressedDepth png', '32FC1; compressedDepth png', 'jpeg', '',
             '16UC1; compressedDepth rvl', ';;;')
    for data in (color, depth):
        for _ in range(int(rng.integers(4))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        if rng.random() < 0.3:
            del data[int(rng.integers(len(data))):]
    return (CompressedImage(format='rgb8; jpeg compressed bgr8', data=bytes(color)),
            CompressedImage(format=kinds[int(rng.integers(len(kinds)))], data=bytes(depth)))


def _pick(rng: np.random.Generator, values: tuple) -> Any:
    return values[int(rng.integers(len(values)))]


def _image(rng: np.random.Generator, messages: Messages) -> Image:
    """Return a copy of colour or depth that is now part of ``messages``."""
    name = ('color', 'depth')[int(rng.integers(2))]
    messages[name] = copy.copy(messages[name])
    return messages[name]


def _encoding(rng: np.random.Generator, messages: Messages) -> None:
    _image(rng, messages).encoding = _pick(rng, _ENCODINGS)


def _integer(rng: np.random.Generator, messages: Messages) -> None:
    setattr(_image(rng, messages), _pick(rng, ('width', 'height', 'step')), _pick(rng, _INTEGERS))


def _big_endian(rng: np.random.Generator, messages: Messages) -> None:
    _image(rng, messages).is_bigendian = _pick(rng, (0, 1, 2, 255))


def _length(rng: np.random.Generator, messages: Messages) -> None:
    image = _image(rng, messages)
    length = int(rng.integers(0, 2 * len(image.data) + 1)) if rng.random() < 0.7 else 0
    image.data = array.array('B', (bytes(image.data) + bytes(length))[:length])


def _noise(rng: np.random.Generator, messages: Messages) -> None:
    image = _image(rng, messages)
    image.data = array.array('B', rng.bytes(len(image.data)))


def _floats(rng: np.random.Generator, messages: Messages) -> None:
    """Depth of NaN, infinities, denormals and huge numbers."""
    with np.errstate(over='ignore'):
        values = np.array(_FLOATS).astype(np.float32)
    depth = values[rng.integers(0, len(values), (_SIZE[1], _SIZE[0]))]
    messages['depth'] = conversions.image_message(depth, '32FC1', messages['depth'].header)


def _empty(rng: np.random.Generator, messages: Messages) -> None:
    name = ('color', 'depth', 'info')[int(rng.integers(3))]
    messages[name] = type(messages[name])(header=messages[name].header)


def _random(rng: np.random.Generator, messages: Messages) -> None:
    """Everything of one image drawn anew."""
    image = _image(rng, messages)
    image.width, image.height = (int(v) for v in rng.integers(0, 200, 2))
    image.step = int(rng.integers(0, 1000))
    image.encoding = _pick(rng, _ENCODINGS)
    image.data = array.array('B', rng.bytes(int(rng.integers(0, 40_000))))


def _matrix(rng: np.random.Generator, messages: Messages) -> None:
    info = messages['info'] = copy.deepcopy(messages['info'])
    name = _pick(rng, ('k', 'p', 'r'))
    matrix = list(getattr(info, name))
    used = np.flatnonzero(matrix)
    for _ in range(1 + int(rng.integers(4))):
        index = rng.choice(used) if used.size and rng.random() < 0.8 else rng.integers(len(matrix))
        matrix[int(index)] = _pick(rng, _FLOATS)
    setattr(info, name, matrix)


def _distortion(rng: np.random.Generator, messages: Messages) -> None:
    info = messages['info'] = copy.deepcopy(messages['info'])
    info.d = [_pick(rng, _FLOATS) for _ in range(int(rng.integers(0, 20)))]
    info.distortion_model = _pick(rng, _ENCODINGS)


def _geometry(rng: np.random.Generator, messages: Messages) -> None:
    info: CameraInfo = copy.deepcopy(messages['info'])
    messages['info'] = info
    for name in ('width', 'height', 'binning_x', 'binning_y'):
        if rng.random() < 0.4:
            setattr(info, name, _pick(rng, _INTEGERS))
    if rng.random() < 0.5:
        info.roi = RegionOfInterest(x_offset=_pick(rng, _INTEGERS), y_offset=_pick(rng, _INTEGERS),
                                    width=_pick(rng, _INTEGERS), height=_pick(rng, _INTEGERS))


def _frame(rng: np.random.Generator, messages: Messages) -> None:
    image = _image(rng, messages)
    image.header = Header(stamp=image.header.stamp, frame_id=_pick(rng, _ENCODINGS))


_CHANGES: tuple[Callable[[np.random.Generator, Messages], None], ...] = (
    _encoding, _integer, _big_endian, _length, _noise, _floats, _empty, _random, _matrix,
    _matrix, _matrix, _distortion, _geometry, _frame)

"""
Stand-in for the compiled part of ``cv_bridge``: image encodings and conversions between them.

Only installed where the real package is missing. Failures are RuntimeErrors, as they are when they
come out of the original's extension module; ``core`` turns them into CvBridgeErrors.
"""

import re
from typing import NamedTuple

import cv2
import numpy as np

#: OpenCV's name of each depth -> its NumPy type.
DEPTH_TO_DTYPE = {
    '8U': 'uint8', '8S': 'int8', '16U': 'uint16', '16S': 'int16', '32S': 'int32',
    '32F': 'float32', '64F': 'float64'}

# An OpenCV type is depth + ((channels - 1) << shift); the shift is 3 up to OpenCV 4, 5 in 5.
_CHANNEL_STEP = cv2.CV_8UC2 - cv2.CV_8UC1


class Encoding(NamedTuple):
    """What an encoding string means."""

    layout: str | None  # meaning of the channels, in OpenCV's words; None for '16UC1' and the like
    depth: str          # a key of DEPTH_TO_DTYPE
    channels: int

    @property
    def dtype(self):
        """NumPy type of a channel, in native byte order."""
        return np.dtype(DEPTH_TO_DTYPE[self.depth])

    @property
    def cv_type(self):
        """OpenCV's number for depth and channels, as in ``cv2.CV_8UC3``."""
        return getattr(cv2, f'CV_{self.depth}') + (self.channels - 1) * _CHANNEL_STEP


def _named_encodings():
    """Return the encodings of sensor_msgs whose channels have a meaning."""
    table = {}
    for bits in (8, 16):
        depth = f'{bits}U'
        table[f'mono{bits}'] = Encoding('GRAY', depth, 1)
        for layout in ('RGB', 'BGR', 'RGBA', 'BGRA'):
            table[f'{layout.lower()}{bits}'] = Encoding(layout, depth, len(layout))
        for pattern in ('rggb', 'bggr', 'gbrg', 'grbg'):
            table[f'bayer_{pattern}{bits}'] = Encoding(f'BAYER_{pattern}', depth, 1)
    table['yuv422'] = Encoding('YUV_UYVY', '8U', 2)
    table['yuv422_yuy2'] = Encoding('YUV_YUY2', '8U', 2)
    return table


_NAMED = _named_encodings()
_GENERIC = re.compile(f'({"|".join(DEPTH_TO_DTYPE)})(?:C([0-9]+))?')

# ROS names a Bayer pattern by its first row, OpenCV by the second and third pixel of its second.
_BAYER_IN_OPENCV = {
    'BAYER_rggb': 'BayerBG', 'BAYER_bggr': 'BayerRG', 'BAYER_gbrg': 'BayerGR',
    'BAYER_grbg': 'BayerGB'}


def parse(encoding):
    """Return the Encoding of a string; RuntimeError if there is none."""
    if encoding in _NAMED:
        return _NAMED[encoding]
    match = _GENERIC.fullmatch(encoding)
    channels = int(match[2] or 1) if match else 0
    if channels < 1:
        raise RuntimeError(f'unknown image encoding [{encoding}]')
    return Encoding(None, match[1], channels)


def getCvType(encoding):
    """Return OpenCV's number for the type of an encoding's pixels, such as ``cv2.CV_8UC3``."""
    return parse(encoding).cv_type


def split_cv_type(cv_type):
    """Return (depth number, channels) of an OpenCV type number."""
    return cv_type % _CHANNEL_STEP, cv_type // _CHANNEL_STEP + 1


def _change_layout(image, source, target):
    """Convert between two layouts at the source's depth."""
    if source.startswith('BAYER'):
        code = f'COLOR_{_BAYER_IN_OPENCV[source]}2{target}'
        # OpenCV could give an alpha channel here; the original does not.
        possible = target in ('GRAY', 'RGB', 'BGR')
    elif source.startswith('YUV'):
        code = f'COLOR_YUV2{target}_{source[-4:]}'
        possible = True
    else:
        code = f'COLOR_{source}2{target}'
        possible = True
    if not possible or target.startswith(('BAYER', 'YUV')):
        raise RuntimeError(f'no conversion from {source} to {target}')
    return cv2.cvtColor(image, getattr(cv2, code))


def _change_depth(image, dtype):
    """
    Convert to another pixel type, saturating and rounding to the nearest.

    Between 8 and 16 bits the full range maps to the full range; other types keep their values.
    Not-a-number and infinity become the least value of an integer type.
    """
    bits = image.dtype.itemsize * 8, dtype.itemsize * 8
    if bits == (8, 16):
        image = image * np.float32(65535 / 255)
    elif bits == (16, 8):
        image = image * np.float32(255 / 65535)
    if dtype.kind == 'f':
        return image.astype(dtype)
    limits = np.iinfo(dtype)
    if image.dtype.kind == 'f':
        # In double precision, which holds every 32-bit limit exactly.
        image = np.where(np.isfinite(image), np.rint(image.astype(np.float64)), limits.min)
    return np.clip(image, limits.min, limits.max).astype(dtype)


def cvtColor2(image, encoding_in, encoding_out):
    """
    Return a copy of ``image``, converted from one encoding to the other.

    Encodings without a meaning of their channels ('8UC3') only convert among themselves and from
    named ones, and only if the number of channels stays: '8UC1' to 'mono8' is an error.
    """
    if not encoding_out or encoding_out == encoding_in:
        return image.copy()
    source, target = parse(encoding_in), parse(encoding_out)
    if source.layout is None and target.layout is not None:
        raise RuntimeError(
            f'[{encoding_in}] does not say what its channels mean, [{encoding_out}] does: '
            'the conversion makes no sense')
    if target.layout is None:
        if source.channels != target.channels:
            raise RuntimeError(
                f'[{encoding_in}] and [{encoding_out}] differ in their number of channels')
        image = image.copy()
    elif source.layout != target.layout:
        image = _change_layout(image, source.layout, target.layout)
    elif source.layout.startswith(('BAYER', 'YUV')):
        raise RuntimeError(f'no conversion from [{encoding_in}] to [{encoding_out}]')
    else:
        image = image.copy()
    return image if source.depth == target.depth else _change_depth(image, target.dtype)

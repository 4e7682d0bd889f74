"""Checks of what a camera sends: any object with the fields of the ROS messages will do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..compressed import is_compressed
from ..messages import (
    depth_from_message,
    intrinsics_from_message,
    is_distorted,
    rgb_from_message,
    stamp_nanoseconds,
    why_no_depth,
)
from ..reasons import GraspError
from .findings import Finding, error, note, ok, warning

_LOWEST_RATE = 2.0          # Hz; slower cameras exist, but usually something is wrong
_LEAST_VALID_DEPTH = 0.4    # share of pixels
_LARGEST_LAG = 2.0          # seconds from stamp to arrival
# What drivers call depth that is registered to the colour image.
_ALIGN = 'let the driver register depth to colour (realsense2_camera: align_depth.enable:=true; ' \
         'azure_kinect: the depth_to_rgb topics) and set depth_topic to that stream'


@dataclass
class Heard:
    """What came on one topic: the stamps (ns), the arrivals (ns), and the last message."""

    role: str
    topic: str
    stamps: list[int] = field(default_factory=list)
    arrivals: list[int] = field(default_factory=list)
    last: Any = None

    def add(self, message: Any, arrival: int) -> None:
        """Take notice of one more message."""
        self.stamps.append(stamp_nanoseconds(message))
        self.arrivals.append(arrival)
        self.last = message

    @property
    def rate(self) -> float:
        """Messages a second, by their arrival; 0 with fewer than two."""
        if len(self.arrivals) < 2:
            return 0.0
        span = (self.arrivals[-1] - self.arrivals[0]) / 1e9
        return (len(self.arrivals) - 1) / span if span > 0 else 0.0


def check_rates(heard: Sequence[Heard], seconds: float) -> Iterator[Finding]:
    """Whether messages come, and as often on every topic."""
    for each in heard:
        name = f'rate.{each.role}'
        if not each.stamps:
            continue        # said with the publishers
        if len(each.stamps) == 1:
            yield warning(name, f'{each.topic}: one message in {seconds:.0f} s',
                          'a camera sends many; is the driver hanging, or is it latched?')
        elif each.rate < _LOWEST_RATE:
            yield warning(name, f'{each.topic}: {each.rate:.1f} Hz',
                          'raise the rate in the driver; over USB 2 or Wi-Fi send less')
        else:
            yield ok(name, f'{each.topic}: {each.rate:.1f} Hz')
    images = [h for h in heard if h.role in ('color', 'depth') and h.rate > 0]
    if len(images) == 2:
        slow, fast = sorted(images, key=lambda h: h.rate)
        if slow.rate < 0.6 * fast.rate:
            yield warning('rate.balance', f'{slow.topic} has {slow.rate:.1f} Hz and {fast.topic} '
                          f'{fast.rate:.1f} Hz: images are lost, or the streams differ',
                          'see dds.profile; set the same rate for both streams in the driver')


def check_images(color: Heard, depth: Heard) -> Iterator[Finding]:
    """Encodings, sizes and frames, and how much of the depth is valid."""
    if color.last is not None:
        yield _decoded('encoding.color', color, rgb_from_message)
    if depth.last is not None:
        yield _decoded('encoding.depth', depth, depth_from_message)
        yield from _depth_quality(depth)
    if color.last is None or depth.last is None:
        return
    sizes = (_size(color.last, rgb_from_message), _size(depth.last, depth_from_message))
    if sizes[0] is None or sizes[1] is None:
        pass            # said with the encodings
    elif sizes[0] != sizes[1]:
        yield error('size', f'colour is {sizes[0][0]}x{sizes[0][1]}, depth {sizes[1][0]}x'
                    f'{sizes[1][1]}: depth is not aligned to colour', _ALIGN)
    else:
        yield ok('size', f'colour and depth are {sizes[0][0]}x{sizes[0][1]}')
    frames = [h.last.header.frame_id for h in (color, depth)]
    if not frames[0]:
        yield error('frame', f'{color.topic} has an empty frame_id: no grasp could be transformed',
                    'set the frame in the driver, or the parameter frame_id of the node')
    elif frames[0] != frames[1]:
        yield warning('frame', f'depth is in frame {frames[1]!r}, colour in {frames[0]!r}: is '
                      'this depth aligned to colour?', _ALIGN)
    elif 'optical' not in frames[0]:
        yield note('frame', f'frame {frames[0]!r} is not called *_optical_frame',
                   'poses are in optical axes (x right, y down, z forward, REP-103); check that '
                   'this frame has them')
    else:
        yield ok('frame', f'colour and depth are in {frames[0]!r}')


def _decoded(name: str, heard: Heard, decode: Callable[[Any], np.ndarray]) -> Finding:
    message = heard.last
    try:
        height, width = decode(message).shape[:2]
    except GraspError as problem:
        return error(name, f'{heard.topic}: {problem.detail or problem}',
                     problem.reason.sentence)
    kind = message.format if is_compressed(message) else message.encoding
    return ok(name, f'{heard.topic}: {kind}, {width}x{height}')


def _size(message: Any, decode: Callable[[Any], np.ndarray]) -> tuple[int, int] | None:
    """Width and height of an image; None for a compressed one that cannot be decoded."""
    if not is_compressed(message):
        return message.width, message.height
    try:
        height, width = decode(message).shape[:2]
    except GraspError:
        return None
    return width, height


def _depth_quality(depth: Heard) -> Iterator[Finding]:
    try:
        metres = depth_from_message(depth.last)
    except GraspError:
        return
    valid = np.isfinite(metres)
    share = float(valid.mean())
    if share == 0.0:
        yield error('depth.valid', f'{depth.topic}: {why_no_depth(depth.last)}', 'is the lens '
                    'covered, the emitter off, the unit another one, or the scene nearer than '
                    '0.1 m or farther than 10 m?')
    elif share < _LEAST_VALID_DEPTH:
        yield warning('depth.valid', f'{share:.0%} of the depth pixels are valid',
                      "check distance and lighting; a driver's hole filling and high-density "
                      'preset help')
    else:
        low, high = np.percentile(metres[valid], [5, 95])
        yield ok('depth.valid', f'{share:.0%} of the depth pixels are valid, {low:.2f} to '
                                f'{high:.2f} m')


def check_camera_info(info: Heard, color: Heard, matrix: str) -> Iterator[Finding]:
    """Whether the calibration is one, and belongs to the colour image."""
    if info.last is None:
        return
    size = (_size(color.last, rgb_from_message) if color.last is not None else None) or \
        (info.last.width, info.last.height)
    try:
        camera = intrinsics_from_message(info.last, size, matrix)
    except GraspError as problem:
        yield error('camera_info', f'{info.topic}: {problem.detail or problem}',
                    f'{problem.reason.sentence} camera_info must be that of the colour stream')
        return
    yield ok('camera_info', f'{matrix}: fx {camera.fx:.1f}, fy {camera.fy:.1f}, cx '
                            f'{camera.cx:.1f}, cy {camera.cy:.1f}')
    if matrix == 'K' and is_distorted(info.last):
        yield warning('camera_info.distortion', 'the lens has distortion, which is not corrected: '
                      'grasps are off towards the image border',
                      'rectify colour and depth (image_proc) and set the parameter intrinsics to '
                      'P; with most depth cameras the error is below a pixel, and this can stay')
    off = abs(camera.cx - size[0] / 2) / size[0], abs(camera.cy - size[1] / 2) / size[1]
    if max(off) > 0.2:
        yield warning('camera_info.centre', 'the principal point is far from the middle of the '
                      'image', 'is camera_info that of another resolution or of a cropped image?')


def check_stamps(color: Heard, depth: Heard, slop: float) -> Iterator[Finding]:
    """Whether stamps are times, agree between the streams, and fit this machine's clock."""
    for each in (color, depth):
        if each.stamps and not any(each.stamps):
            yield error(f'stamp.{each.role}', f'{each.topic}: all stamps are zero',
                        'the driver must stamp its messages with the time of capture')
    if not any(color.stamps) or not any(depth.stamps):
        return
    gaps = [min(abs(a - b) for b in depth.stamps) / 1e9 for a in color.stamps]
    gap = float(np.median(gaps))
    if gap > slop:
        yield error('stamp.pairs', f'stamps of colour and depth differ by {gap:.3f} s, more than '
                    f'sync_slop = {slop} s: there are no pairs',
                    'let the driver synchronize the streams, or raise the parameter sync_slop')
    else:
        yield ok('stamp.pairs', f'stamps of colour and depth differ by {gap * 1e3:.1f} ms')
    lags = [a - s for a, s in zip(color.arrivals, color.stamps, strict=True)]
    lag = float(np.median(lags)) / 1e9
    if not -0.1 <= lag <= _LARGEST_LAG:
        yield warning('stamp.clock', f'images arrive {lag:+.1f} s after their stamp: they are '
                      'old, or have the time of another clock',
                      'synchronize the clocks (chrony) or let the driver use system time; with a '
                      'bag, play it with --clock and set use_sim_time')
    else:
        yield ok('stamp.clock', f'images arrive {lag * 1e3:.0f} ms after their stamp')

"""
Reading ROS messages without ROS: encodings, byte order, padding and units, stated once.

The functions take anything that has the fields of the message: one of rclpy, or one decoded from a
recording. The unit of depth comes from the encoding and nothing else: ``16UC1`` is millimetres
with 0 for holes (REP-118), ``32FC1`` is metres with NaN for holes (REP-117). Whatever a message
holds, the functions either return or raise :class:`GraspError`; nothing else.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from .compressed import depth_from_compressed, is_compressed, rgb_from_compressed
from .detection import Candidate, Detection, Grasp
from .reasons import GraspError, Reason
from .rectangle import GraspRectangle
from .rgbd import (
    MAX_DEPTH,
    MIN_DEPTH,
    CameraIntrinsics,
    RgbdFrame,
    clean_depth,
    depth_from_millimetres,
)

# Encoding -> channels and the OpenCV conversion to RGB (None: is RGB).
_COLOR = {
    'rgb8': (3, None),
    'bgr8': (3, cv2.COLOR_BGR2RGB),
    'rgba8': (4, cv2.COLOR_RGBA2RGB),
    'bgra8': (4, cv2.COLOR_BGRA2RGB),
    'mono8': (1, cv2.COLOR_GRAY2RGB),
}
_DEPTH = {'16UC1': 'u2', '32FC1': 'f4'}
_HINTS = {
    'mono16': 'mono16 has no unit; let the driver publish 16UC1 (millimetres)',
    '8UC3': '8UC3 does not say the order of the channels; let the driver publish rgb8 or bgr8',
    '8UC4': '8UC4 does not say the order of the channels; let the driver publish rgba8 or bgra8',
    '8UC1': '8UC1 has no meaning as a colour image; let the driver publish mono8',
}


def pixel_view(image: Any, dtype: str, channels: int, reason: Reason) -> np.ndarray:
    """Return the pixels of ``image`` without a copy: (H, W) or (H, W, channels)."""
    item = np.dtype(dtype).itemsize
    width, height, step = image.width, image.height, image.step
    row = width * channels * item
    if width == 0 or height == 0:
        raise GraspError(reason, f'{image.encoding} of size {width}x{height}')
    if step < row:
        raise GraspError(reason, f'step is {step} bytes, but {width} pixels of {image.encoding} '
                                 f'are {row}')
    # The padding behind the last row may be missing.
    needed = (height - 1) * step + row
    if len(image.data) < needed:
        raise GraspError(reason, f'{len(image.data)} bytes of data, but {width}x{height} '
                                 f'{image.encoding} with step {step} are {needed}')
    shape: tuple[int, ...] = (height, width)
    strides: tuple[int, ...] = (step, channels * item)
    if channels > 1:
        shape, strides = (*shape, channels), (*strides, item)
    flat = np.frombuffer(image.data, np.uint8)
    return np.ndarray(shape, np.dtype(dtype), flat, 0, strides)


def rgb_from_message(image: Any) -> np.ndarray:
    """
    Colour image, raw or compressed -> (H, W, 3) uint8 RGB.

    A read-only view of the message where it is rgb8.
    """
    if is_compressed(image):
        return rgb_from_compressed(image)
    if image.encoding not in _COLOR:
        hint = _HINTS.get(image.encoding, f'encoding is {image.encoding!r}')
        raise GraspError(Reason.INVALID_IMAGE, hint)
    channels, conversion = _COLOR[image.encoding]
    pixels = pixel_view(image, 'u1', channels, Reason.INVALID_IMAGE)
    if conversion is None:
        pixels = pixels.view()
        pixels.flags.writeable = False
        return pixels
    return cv2.cvtColor(np.ascontiguousarray(pixels), conversion)


def depth_from_message(image: Any) -> np.ndarray:
    """Depth image, raw (either byte order) or compressed -> (H, W) float32 metres, NaN = hole."""
    if is_compressed(image):
        return depth_from_compressed(image)
    if image.encoding not in _DEPTH:
        hint = _HINTS.get(image.encoding, f'encoding is {image.encoding!r}')
        raise GraspError(Reason.INVALID_DEPTH, hint)
    order = '>' if image.is_bigendian else '<'
    pixels = pixel_view(image, order + _DEPTH[image.encoding], 1, Reason.INVALID_DEPTH)
    if image.encoding == '16UC1':
        return depth_from_millimetres(pixels)
    return clean_depth(pixels)


def why_no_depth(image: Any) -> str:
    """Say why not one pixel of a depth image is valid, as far as its values tell."""
    text = 'not one pixel of the depth image is valid'
    if is_compressed(image):
        return text
    order = '>' if image.is_bigendian else '<'
    pixels = pixel_view(image, order + _DEPTH[image.encoding], 1, Reason.INVALID_DEPTH)
    values = pixels[np.isfinite(pixels) & (pixels > 0)]
    if values.size == 0:
        return text
    unit, scale = ('millimetres', 1000) if image.encoding == '16UC1' else ('metres', 1)
    text += (f': its values are {values.min():g} to {values.max():g}, {image.encoding} is {unit}, '
             f'and from {MIN_DEPTH * scale:g} to {MAX_DEPTH * scale:g} can be used')
    if image.encoding == '32FC1' and MIN_DEPTH <= np.median(values) / 1000 <= MAX_DEPTH:
        text += '; these look like millimetres: let the driver publish 16UC1, or divide by 1000'
    return text


def intrinsics_from_message(info: Any, size: tuple[int, int],
                            matrix: str = 'K') -> CameraIntrinsics:
    """
    camera_info -> intrinsics of an image of ``size`` (width, height).

    ``matrix`` is 'K' for raw images and 'P' for rectified ones. Binning and region of interest,
    which camera_info states relative to the full sensor, are applied. Distortion is not: see
    :func:`is_distorted`.
    """
    binning_x, binning_y = max(info.binning_x, 1), max(info.binning_y, 1)
    roi = info.roi
    full = roi.width == 0 and roi.height == 0
    width = (info.width if full else roi.width) // binning_x
    height = (info.height if full else roi.height) // binning_y
    if (width, height) != tuple(size):
        raise GraspError(Reason.SIZE_MISMATCH, f'camera_info is for {width}x{height}, '
                                               f'the image is {size[0]}x{size[1]}')
    values = (info.p[0], info.p[5], info.p[2], info.p[6]) if matrix == 'P' else (
        info.k[0], info.k[4], info.k[2], info.k[5])
    fx, fy, cx, cy = map(float, values)
    if fx == 0 and fy == 0:
        raise GraspError(Reason.INVALID_INTRINSICS, f'{matrix} is zero: uncalibrated')
    # Integer coordinates are pixel centres, so borders are at -0.5 before and after binning.
    offset_x, offset_y = (0, 0) if full else (roi.x_offset, roi.y_offset)
    return CameraIntrinsics(fx / binning_x, fy / binning_y,
                            (cx - offset_x + 0.5) / binning_x - 0.5,
                            (cy - offset_y + 0.5) / binning_y - 0.5)


def is_distorted(info: Any) -> bool:
    """Whether the lens displaces pixels, so that K alone misplaces them."""
    return any(abs(d) > 1e-6 for d in info.d)


def frame_from_messages(color: Any, depth: Any, info: Any,
                        matrix: str = 'K') -> RgbdFrame:
    """
    Return a synchronized triple as one checked frame; raises :class:`GraspError`.

    ``color`` and ``depth`` are Image or CompressedImage, each as it comes.
    """
    raw = not is_compressed(color) and not is_compressed(depth)
    if raw and (depth.width, depth.height) != (color.width, color.height):
        # Before anything is converted.
        raise GraspError(Reason.SIZE_MISMATCH, f'colour {color.width}x{color.height}, '
                                               f'depth {depth.width}x{depth.height}')
    rgb = rgb_from_message(color)
    return RgbdFrame(rgb, depth_from_message(depth),
                     intrinsics_from_message(info, (rgb.shape[1], rgb.shape[0]), matrix))


def stamp_nanoseconds(message: Any) -> int:
    """Stamp of a message with a header, in nanoseconds."""
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


def rotation_from_quaternion(x: float, y: float, z: float, w: float) -> np.ndarray:
    """Quaternion of any length but zero -> rotation (3, 3)."""
    norm = float(np.linalg.norm([x, y, z, w]))
    v, w = np.array([x, y, z]) / norm, w / norm
    cross = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return (w * w - v @ v) * np.eye(3) + 2 * np.outer(v, v) + 2 * w * cross


def pose_numbers(pose: Any) -> tuple[float, ...]:
    """
    ``geometry_msgs/Pose`` -> x, y, z in metres and the quaternion x, y, z, w.

    Raises ValueError where that is no pose: numbers that are not finite, a quaternion of zeros.
    """
    p, q = pose.position, pose.orientation
    numbers = (p.x, p.y, p.z, q.x, q.y, q.z, q.w)
    if not np.isfinite(numbers).all() or not any(numbers[3:]):
        raise ValueError(f'the grasp at {numbers[:3]} with orientation {numbers[3:]} has no pose')
    return numbers


def pose_matrix(x: float, y: float, z: float, *quaternion: float) -> np.ndarray:
    """Position in metres and quaternion (x, y, z, w) -> rigid transform (4, 4)."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_from_quaternion(*quaternion)
    matrix[:3, 3] = x, y, z
    return matrix


def detection_from_message(stages: Any, intrinsics: CameraIntrinsics | None = None) -> Detection:
    """
    ``grasp_stn_interfaces/GraspStages`` -> the detection again.

    The grasps in space need ``intrinsics``: the message has their poses, and the surface that a
    rectangle lies in is where the ray through its centre passes the line of approach. Raises
    :class:`GraspError` for what no detection is: a reason that is not known, a rectangle without
    area, stages without times.
    """
    try:
        candidates = tuple(
            Candidate((c.x, c.y), c.location_score, c.theta,
                      GraspRectangle(c.rectangle.x, c.rectangle.y, c.rectangle.theta,
                                     c.rectangle.opening, c.rectangle.jaw),
                      c.score, _grasp(c, intrinsics) if intrinsics is not None else None,
                      Reason(c.reason)) for c in stages.candidates)
        best = candidates[stages.best] if 0 <= stages.best < len(candidates) else None
        return Detection(candidates, best, Reason(stages.reason), stages.message,
                         dict(zip(stages.stage_names, stages.stage_milliseconds, strict=True)),
                         failed=_failed(stages))
    except ValueError as error:
        raise GraspError(Reason.INTERNAL_ERROR, f'GraspStages cannot be read: {error}; is the '
                         'node of another version?') from None


def _failed(stages: Any) -> tuple[np.ndarray, ...]:
    """Poses (4, 4) of the failed grasps in a ``GraspStages``; ValueError for what is none."""
    # Older recordings do not have the field.
    return tuple(pose_matrix(*pose_numbers(pose)) for pose in getattr(stages, 'failed', ()))


def _grasp(candidate: Any, intrinsics: CameraIntrinsics) -> Grasp | None:
    """Return the grasp of a ``GraspCandidate``, None where it has none."""
    p, q = candidate.pose.position, candidate.pose.orientation
    position = np.array([p.x, p.y, p.z])
    quaternion = (q.x, q.y, q.z, q.w)
    # An opening of 0 means that depth allows no pose.
    if not candidate.opening > 0 or not np.isfinite([*position, *quaternion]).all() \
            or np.linalg.norm(quaternion) < 0.5:
        return None
    rotation = rotation_from_quaternion(*quaternion)
    approach = rotation[:, 0]
    ray = intrinsics.rays(np.array([candidate.rectangle.x, candidate.rectangle.y]))
    # The point of {position - t * approach} that is nearest to the ray.
    (back, _), *_ = np.linalg.lstsq(np.stack([approach, ray], axis=1), position, rcond=None)
    return Grasp(position, rotation, float(candidate.opening), float(candidate.jaw_size),
                 position - back * approach, -approach)

"""Writing a recording: messages of ROS as they came, or made here without ROS."""

from __future__ import annotations

from collections.abc import Callable
import json
from pathlib import Path
from typing import Any

from mcap.writer import CompressionType, Writer
from mcap_ros2._dynamic import serialize_dynamic
import numpy as np

from .. import __version__
from ..detection import Candidate, Detection, quaternion_from_rotation
from ..reasons import Reason
from ..rgbd import RgbdFrame
from . import definitions
from .reader import METADATA, RecordingError

TOPICS = {'color': '/color/image_raw', 'depth': '/depth/image_rect_raw',
          'camera_info': '/color/camera_info', 'stages': '/grasp_node/stages',
          'grasp': '/grasp_node/grasp'}
IMAGE, CAMERA_INFO, STAGES, POSE = (
    'sensor_msgs/msg/Image', 'sensor_msgs/msg/CameraInfo', 'grasp_stn_interfaces/msg/GraspStages',
    'geometry_msgs/msg/PoseStamped')
_OPTICAL_FRAME = 'camera_color_optical_frame'


class RecordingWriter:
    """An MCAP file that ``ros2 bag``, Foxglove and `grasp_stn replay` read."""

    def __init__(self, path: Path, topics: dict[str, str] | None = None,
                 parameters: dict[str, Any] | None = None,
                 look_up: Callable[[str], str | None] = definitions.known):
        """
        Open a new file; raises :class:`RecordingError` where it cannot be made.

        ``topics`` says which topic is what (see :data:`TOPICS`), ``parameters`` are those of the
        node, ``look_up`` finds definitions of messages.
        """
        if path.suffix != '.mcap':
            raise RecordingError(f'BAD_NAME: recordings end in .mcap, {path} does not')
        if path.exists():
            raise RecordingError(f'FILE_EXISTS: {path} is there already; remove it or give '
                                 'another name')
        try:
            self._file = open(path, 'xb')  # noqa: SIM115 (as long as the recording)
        except OSError as error:
            raise RecordingError(f'CANNOT_WRITE: {path}: {error.strerror}') from None
        self.path, self.messages = path, 0
        self._writer = Writer(self._file, compression=CompressionType.ZSTD)
        self._writer.start(profile='ros2', library=f'grasp_stn_ros {__version__}')
        self._look_up = look_up
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, int] = {}
        self._encoders: dict[str, Callable[[Any], bytes]] = {}
        self._writer.add_metadata(METADATA, {
            'version': __version__, 'topics': json.dumps(topics or TOPICS),
            'parameters': json.dumps(parameters or {})})

    def __enter__(self) -> RecordingWriter:
        """Return the open recording."""
        return self

    def __exit__(self, *_exception) -> None:
        """Complete the file."""
        self.close()

    def close(self) -> None:
        """Write the index and close; may be called twice."""
        if not self._file.closed:
            self._writer.finish()
            self._file.close()

    def raw(self, topic: str, kind: str, data: bytes, time: int) -> None:
        """Add a message of type ``package/msg/Name`` as CDR; ``time`` in nanoseconds."""
        if topic not in self._channels:
            if kind not in self._schemas:
                self._schemas[kind] = self._writer.register_schema(
                    kind, 'ros2msg', definitions.schema(kind, self._look_up).encode())
            self._channels[topic] = self._writer.register_channel(
                topic, 'cdr', self._schemas[kind], {'offered_qos_profiles': ''})
        self._writer.add_message(self._channels[topic], time, data, time, self.messages)
        self.messages += 1

    def message(self, topic: str, kind: str, content: dict[str, Any], time: int) -> None:
        """Add a message given as a dictionary of its fields."""
        if kind not in self._encoders:
            text = definitions.schema(kind, self._look_up)
            self._encoders[kind] = serialize_dynamic(kind, text)[kind]
        self.raw(topic, kind, self._encoders[kind](content), time)

    def frame(self, frame: RgbdFrame, detection: Detection | None, time: int) -> None:
        """Add what a camera and the node would have published at ``time`` (nanoseconds)."""
        header = header_fields(time)
        self.message(TOPICS['color'], IMAGE, image_fields(frame.rgb, 'rgb8', header), time)
        if frame.depth is not None:
            # Metres: detection in millimetres would not be the same again.
            self.message(TOPICS['depth'], IMAGE,
                         image_fields(frame.depth.astype('<f4'), '32FC1', header), time)
        if frame.intrinsics is not None:
            self.message(TOPICS['camera_info'], CAMERA_INFO, camera_info_fields(frame, header),
                         time)
        if detection is None:
            return
        self.message(TOPICS['stages'], STAGES, stages_fields(detection, header), time)
        grasp = detection.best.grasp if detection.best is not None else None
        if grasp is not None:
            self.message(TOPICS['grasp'], POSE,
                         {'header': header, 'pose': _pose_fields(grasp.position, grasp.rotation)},
                         time)


def header_fields(time: int, frame_id: str = _OPTICAL_FRAME) -> dict[str, Any]:
    """Return a ``std_msgs/Header`` with the stamp ``time`` in nanoseconds."""
    return {'stamp': {'sec': time // 10**9, 'nanosec': time % 10**9}, 'frame_id': frame_id}


def image_fields(pixels: np.ndarray, encoding: str, header: dict[str, Any]) -> dict[str, Any]:
    """(H, W) or (H, W, C) array -> the fields of a ``sensor_msgs/Image``."""
    pixels = np.ascontiguousarray(pixels)
    return {'header': header, 'height': pixels.shape[0], 'width': pixels.shape[1],
            'encoding': encoding, 'is_bigendian': 0, 'step': pixels.strides[0],
            'data': pixels.tobytes()}


def camera_info_fields(frame: RgbdFrame, header: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of the ``sensor_msgs/CameraInfo`` of an ideal pinhole camera."""
    assert frame.intrinsics is not None
    fx, fy, cx, cy = (frame.intrinsics.fx, frame.intrinsics.fy, frame.intrinsics.cx,
                      frame.intrinsics.cy)
    return {'header': header, 'width': frame.size[0], 'height': frame.size[1],
            'distortion_model': 'plumb_bob', 'd': [0.0] * 5,
            'k': [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0],
            'r': [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
            'p': [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
            'binning_x': 0, 'binning_y': 0,
            'roi': {'x_offset': 0, 'y_offset': 0, 'height': 0, 'width': 0, 'do_rectify': False}}


_NO_POSE = {'position': dict.fromkeys('xyz', 0.0),
            'orientation': {'x': 0.0, 'y': 0.0, 'z': 0.0, 'w': 1.0}}


def _pose_fields(position: np.ndarray, rotation: np.ndarray) -> dict[str, Any]:
    return {'position': dict(zip('xyz', position.tolist(), strict=True)),
            'orientation': dict(zip('xyzw', quaternion_from_rotation(rotation), strict=True))}


def _candidate_fields(candidate: Candidate) -> dict[str, Any]:
    r, grasp = candidate.rectangle, candidate.grasp
    return {'x': float(candidate.location[0]), 'y': float(candidate.location[1]),
            'location_score': candidate.location_score, 'theta': candidate.theta,
            'rectangle': {'x': float(r.x), 'y': float(r.y), 'theta': float(r.theta),
                          'opening': float(r.opening), 'jaw': float(r.jaw)},
            'score': candidate.score, 'reason': int(candidate.reason),
            'pose': _pose_fields(grasp.position, grasp.rotation) if grasp else _NO_POSE,
            'opening': grasp.opening if grasp else 0.0,
            'jaw_size': grasp.jaw_size if grasp else 0.0}


def stages_fields(detection: Detection, header: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a ``grasp_stn_interfaces/GraspStages``."""
    best = next((i for i, c in enumerate(detection.candidates) if c is detection.best), -1)
    return {'header': header, 'best': best, 'reason': int(Reason(detection.reason)),
            'candidates': [_candidate_fields(c) for c in detection.candidates],
            'message': detection.message,
            'failed': [_pose_fields(pose[:3, 3], pose[:3, :3]) for pose in detection.failed],
            'stage_names': list(detection.milliseconds),
            'stage_milliseconds': [float(t) for t in detection.milliseconds.values()]}

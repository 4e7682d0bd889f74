"""Messages as they come on the wire into a recording, without decoding them."""

from __future__ import annotations

from collections.abc import Callable
import importlib
from pathlib import Path
import time

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from rclpy.qos import QoSProfile, ReliabilityPolicy

from ..recording import definitions
from ..recording.reader import RecordingError
from ..recording.writer import IMAGE, POSE, STAGES, RecordingWriter
from . import graph

_MARKERS = 'visualization_msgs/msg/MarkerArray'
_DIAGNOSTICS = 'diagnostic_msgs/msg/DiagnosticArray'
_RESULTS = {'stages': STAGES, 'grasp': POSE}
_MORE = {'markers': _MARKERS, 'debug_image': IMAGE, 'diagnostics': _DIAGNOSTICS}


def definition(name: str) -> str | None:
    """Return the text of ``package/Name.msg`` as installed, or as this package knows it."""
    package, _, kind = name.partition('/')
    try:
        return (Path(get_package_share_directory(package)) / 'msg' / f'{kind}.msg').read_text()
    except (PackageNotFoundError, OSError):
        return definitions.known(name)


def message_class(kind: str) -> type:
    """Return the class of ``package/msg/Name``."""
    package, _, name = kind.split('/')
    return getattr(importlib.import_module(f'{package}.msg'), name)


def record(path: Path, name: str, seconds: float | None, all_topics: bool,
           say: Callable[[str], None]) -> int:
    """
    Record the node ``name`` until ``seconds`` have passed or SIGINT; return how many messages.

    Raises :class:`RecordingError` (bad file, no such node, nothing came).
    """
    with graph.following(name, 'grasp_stn_record', RecordingError) as followed:
        topics = followed.topics
        inputs = {role: f'sensor_msgs/msg/{kind.__name__}'
                  for role, kind in graph.input_types(followed.parameters).items()}
        kinds = {topics[role]: kind for role, kind in
                 (inputs | _RESULTS | (_MORE if all_topics else {})).items()}
        with RecordingWriter(path, topics, followed.parameters, definition) as writer:
            for topic, kind in kinds.items():
                followed.node.create_subscription(
                    message_class(kind), topic,
                    lambda data, t=topic, k=kind: writer.raw(t, k, data, time.time_ns()),
                    # Best effort hears publishers of either kind.
                    QoSProfile(depth=30, reliability=ReliabilityPolicy.BEST_EFFORT), raw=True)
            say(f'recording {", ".join(sorted(kinds))}')
            end = time.monotonic() + (seconds or float('inf'))
            while not followed.stop.is_set() and time.monotonic() < end:
                followed.executor.spin_once(timeout_sec=0.1)
            count = writer.messages
    if count == 0:
        path.unlink()
        raise RecordingError(f'NOTHING_CAME: no message on any of {", ".join(sorted(kinds))}; '
                             'is the camera running? `grasp_stn doctor` says more')
    return count

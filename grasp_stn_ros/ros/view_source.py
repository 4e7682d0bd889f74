"""What a running node sees and finds, live, for the viewer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
import time

from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from grasp_stn_interfaces.msg import GraspStages

from ..messages import detection_from_message, frame_from_messages, stamp_nanoseconds
from ..node_settings import gripper_from
from ..reasons import GraspError
from ..viewing.scene import Scene, Shown
from ..viewing.sources import SourceError
from . import graph

# Images that wait for what was found in them: seconds of a camera at 30 Hz.
_KEPT = 60
_PATIENCE = 5.0     # seconds without anything to show before that is said


class _Watch:
    """Collects images and stages until they belong together."""

    def __init__(self, node, topics: dict[str, str], values: dict):
        self._images: dict[str, OrderedDict[int, Image | CompressedImage]] = {
            'color': OrderedDict(), 'depth': OrderedDict()}
        self._info: CameraInfo | None = None
        self._stages: OrderedDict[int, GraspStages] = OrderedDict()
        self._matrix = values.get('intrinsics', 'K')
        self._refused = ''      # why the last image cannot be shown
        kinds = graph.input_types(values)
        for role in ('color', 'depth'):
            node.create_subscription(kinds[role], topics[role],
                                     lambda m, r=role: self._keep(r, m), qos_profile_sensor_data)
        node.create_subscription(CameraInfo, topics['camera_info'], self._keep_info,
                                 qos_profile_sensor_data)
        node.create_subscription(GraspStages, topics['stages'], self._keep_stages,
                                 QoSProfile(depth=10))

    def _keep(self, role: str, message: Image | CompressedImage) -> None:
        kept = self._images[role]
        kept[stamp_nanoseconds(message)] = message
        while len(kept) > _KEPT:
            kept.popitem(last=False)

    def _keep_info(self, message: CameraInfo) -> None:
        self._info = message

    def _keep_stages(self, message: GraspStages) -> None:
        self._stages[stamp_nanoseconds(message)] = message
        while len(self._stages) > _KEPT:
            self._stages.popitem(last=False)

    def ready(self) -> list[Shown]:
        """Return what is complete, in order; images without readable stages are left out."""
        shown = []
        for stamp in list(self._stages):
            color = self._images['color'].get(stamp)
            depth = min(self._images['depth'].items(), key=lambda item: abs(item[0] - stamp),
                        default=(0, None))[1]
            if color is None or depth is None or self._info is None:
                continue
            stages = self._stages.pop(stamp)
            try:
                frame = frame_from_messages(color, depth, self._info, self._matrix)
                detection = detection_from_message(stages, frame.intrinsics)
            except GraspError as error:
                self._refused = str(error)
                continue
            shown.append(Shown(f'{stamp / 1e9:.3f}', frame, detection, stamp / 1e9))
        return shown

    def missing(self, values: dict) -> str:
        """Say what has not come, or cannot be shown."""
        if self._refused:
            return f'nothing to show yet: {self._refused}'
        here = {'colour': self._images['color'], 'depth': self._images['depth'],
                'camera_info': self._info, 'stages': self._stages}
        absent = [name for name, content in here.items() if not content]
        hint = '; the node is in mode on_demand and detects when ~/detect_grasp is called' \
            if absent == ['stages'] and values.get('mode') == 'on_demand' else \
            '; `grasp_stn doctor` says more'
        return f'nothing to show yet: no {", ".join(absent) or "matching stamps"}{hint}'


def watch(name: str, scene: Scene, say: Callable[[str], None]) -> Iterator[Shown]:
    """
    Show what the node ``name`` sees and finds, until SIGINT or SIGTERM.

    Sets gripper and pre-grasp of ``scene`` to those of the node; ``say`` is told when nothing
    comes. Raises :class:`SourceError`.
    """
    with graph.following(name, 'grasp_stn_view', SourceError) as followed:
        values = followed.parameters
        scene.gripper = gripper_from(values)
        scene.approach_offset = values.get('approach_offset', scene.approach_offset)
        watching = _Watch(followed.node, followed.topics, values)
        silent_since = time.monotonic()
        while not followed.stop.is_set():
            followed.executor.spin_once(timeout_sec=0.1)
            for shown in watching.ready():
                silent_since = float('inf')
                yield shown
            if time.monotonic() - silent_since > _PATIENCE:
                silent_since = float('inf')
                say(watching.missing(values))

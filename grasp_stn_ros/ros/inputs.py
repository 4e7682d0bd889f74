"""
The three inputs of the node: subscriptions, synchronizer, and the newest pair.

The synchronizer's callback only stores the newest pair and wakes whoever waits: message_filters
calls back while it holds its lock, so anything slow or raising there would stall every input. For
the same reason a gate in front of it lets nothing through that it cannot digest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
import threading
import time

import message_filters
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image

from ..messages import stamp_nanoseconds

# Stamps that lie at most this far behind their arrival are taken for the node's own clock,
# seconds: exposure, processing in the driver and transport of a slow camera.
MAXIMUM_LATENCY = 2.0
# Stamps that go back by more than this mean that the clock was set or a recording starts over.
_JUMP_BACK = 1.0


class CaptureClock:
    """
    Estimate in the node's clock when an image was taken.

    Normally that is its stamp. Where the stamps come from another clock (a camera with a counter
    of its own, a recording played without ``use_sim_time``, a clock that runs ahead), the
    smallest lag between stamp and arrival seen lately is the offset of the two clocks.
    """

    def __init__(self, window: int = 15):
        """Remember the lag of the last ``window`` pairs."""
        self._lags: deque[int] = deque(maxlen=window)

    def reset(self) -> None:
        """Forget everything: the clock of the images was set."""
        self._lags.clear()

    def taken(self, stamp: int, arrived: int) -> int:
        """Stamp and arrival of a pair -> when it was taken; all in nanoseconds."""
        self._lags.append(arrived - stamp)
        smallest = min(self._lags)
        foreign = not 0 <= smallest <= MAXIMUM_LATENCY * 1e9
        return stamp + smallest if foreign else stamp


@dataclass(frozen=True)
class Pair:
    """
    Synchronized colour, depth and camera_info, numbered from 1.

    ``taken`` and ``arrived`` are nanoseconds of the node's clock; see :class:`CaptureClock`.
    """

    color: Image
    depth: Image
    info: CameraInfo
    number: int
    taken: int
    arrived: int

    @property
    def age(self) -> float:
        """Seconds from the stamp to the arrival, by the node's clock."""
        return (self.arrived - stamp_nanoseconds(self.color)) / 1e9


class _Gate(message_filters.SimpleFilter):
    """Counts the messages of one input and passes on those that the synchronizer can handle."""

    def __init__(self, topic: str, on_jump: Callable[[float], None]):
        super().__init__()
        self.topic = topic
        self.count = 0
        self.refused = 0
        self.last_arrival = float('-inf')  # time.monotonic()
        self.stamps: deque[int] = deque(maxlen=20)
        self._on_jump = on_jump

    def receive(self, message) -> None:
        self.count += 1
        self.last_arrival = time.monotonic()
        if message.header.stamp.sec < 0:
            # rclpy's Time raises on it, inside the synchronizer and with its lock held.
            self.refused += 1
            return
        stamp = stamp_nanoseconds(message)
        if self.stamps and stamp < self.stamps[-1] - _JUMP_BACK * 1e9:
            self._on_jump((self.stamps[-1] - stamp) / 1e9)
            self.stamps.clear()
        self.stamps.append(stamp)
        self.signalMessage(message)


class PairInput:
    """
    Subscribes to the three topics and keeps the newest synchronized pair.

    ``condition`` guards :attr:`newest` and is notified with every new pair. ``on_pair(pair)``,
    where given, is called with the condition held and must neither block nor raise.
    """

    def __init__(self, node, values: dict, on_pair: Callable[[Pair], None] | None = None):
        """Subscribe on ``node`` as the parameter ``values`` say."""
        self.condition = threading.Condition()
        self.newest: Pair | None = None
        self.pairs = 0
        self._node = node
        self._on_pair = on_pair
        self._clock = CaptureClock()
        self._slop = values['sync_slop'] if values['sync'] == 'approximate' else 0.0
        group = MutuallyExclusiveCallbackGroup()
        self._subscribers, self._gates = [], []
        for kind, name in ((Image, 'color'), (Image, 'depth'), (CameraInfo, 'camera_info')):
            gate = _Gate(node.resolve_topic_name(values[f'{name}_topic']), self._jumped)
            subscriber = message_filters.Subscriber(
                node, kind, values[f'{name}_topic'],
                qos_profile=_qos(values[f'{name}_qos'], values['sync_queue_size']),
                callback_group=group)
            subscriber.registerCallback(gate.receive)
            self._subscribers.append(subscriber)
            self._gates.append(gate)
        self._queue_size = values['sync_queue_size']
        self._synchronize()

    @property
    def counts(self) -> dict[str, int]:
        """Messages received so far, by topic."""
        return {gate.topic: gate.count for gate in self._gates}

    def _synchronize(self) -> None:
        """Connect a new synchronizer, with empty queues, to the gates."""
        for gate in self._gates:
            gate.callbacks.clear()
        if self._slop:
            synchronizer = message_filters.ApproximateTimeSynchronizer(
                self._gates, self._queue_size, self._slop)
        else:
            synchronizer = message_filters.TimeSynchronizer(self._gates, self._queue_size)
        synchronizer.registerCallback(self._store)

    def _store(self, color: Image, depth: Image, info: CameraInfo) -> None:
        try:
            arrived = self._node.get_clock().now().nanoseconds
            with self.condition:
                self.pairs += 1
                self.newest = Pair(color, depth, info, self.pairs, self._clock.taken(
                    stamp_nanoseconds(color), arrived), arrived)
                if self._on_pair is not None:
                    self._on_pair(self.newest)
                self.condition.notify_all()
        except Exception as error:  # raising here would leave the synchronizer locked for good
            self._node.get_logger().error(f'pair lost: {error!r}', throttle_duration_sec=5.0)

    def _jumped(self, seconds: float) -> None:
        """
        Start afresh after stamps went back.

        A synchronizer drops the oldest stamps when its queues are full (or those older than its
        last pair); after a jump that would be every new message.
        """
        self._node.get_logger().warning(
            f'stamps went back by {seconds:.1f} s (recording restarted or clock set); '
            'waiting messages are dropped', throttle_duration_sec=5.0)
        self._synchronize()
        with self.condition:
            self._clock.reset()

    def silent_topics(self, seconds: float) -> list[str]:
        """Topics that brought nothing during the last ``seconds``."""
        now = time.monotonic()
        return [g.topic for g in self._gates if now - g.last_arrival > seconds]

    def diagnosis(self, seconds: float) -> str:
        """Say why there was no pair for ``seconds``, topic by topic, as one sentence."""
        silent = self.silent_topics(seconds)
        if silent:
            return 'nothing arrived on ' + ', '.join(
                f'{topic} ({self._publishers(topic)})' for topic in silent)
        if any(gate.refused for gate in self._gates):
            return 'negative stamps on ' + ', '.join(g.topic for g in self._gates if g.refused)
        color, *others = self._gates
        gaps = []
        for gate in others:
            difference = min((abs(a - b) for a in tuple(color.stamps) for b in tuple(gate.stamps)),
                             default=None)
            if difference is not None and difference > self._slop * 1e9:
                gaps.append(f'{gate.topic} by {difference / 1e9:.3f} s')
        if gaps:
            allowed = f'sync_slop allows {self._slop} s' if self._slop else 'sync is exact'
            return (f'messages arrive on all topics but do not pair: stamps differ from '
                    f'{color.topic} at least on {" and ".join(gaps)}, {allowed}')
        return 'messages arrive on all topics, but too few pairs come in time'

    def _publishers(self, topic: str) -> str:
        """Who publishes ``topic``, and whether its QoS fits."""
        offers = self._node.get_publishers_info_by_topic(topic)
        if not offers:
            return 'no publisher'
        for gate, subscriber in zip(self._gates, self._subscribers, strict=True):
            if gate.topic == topic and any(
                    o.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
                    for o in offers) and (
                    subscriber.sub.qos_profile.reliability == ReliabilityPolicy.RELIABLE):
                return 'its publisher is best effort, this node asks for reliable'
        return f'{len(offers)} publisher{"s" if len(offers) > 1 else ""}, but silent'


def _qos(name: str, depth: int) -> QoSProfile:
    """Return the profile of that name; the queue is as deep as the synchronizer's."""
    reliability = (ReliabilityPolicy.RELIABLE if name == 'reliable'
                   else qos_profile_sensor_data.reliability)
    return QoSProfile(depth=depth, reliability=reliability)

"""
The inputs of the node: subscriptions, synchronizer, the newest pair and the newest mask.

The synchronizer's callback only stores the newest pair and wakes whoever waits: message_filters
calls back while it holds its lock, so anything slow or raising there would stall every input. For
the same reason a gate in front of it lets nothing through that it cannot digest.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
import math
import operator
import statistics
import threading
import time
from typing import Any

import message_filters
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import ClockChange, JumpThreshold
from rclpy.duration import Duration
from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from ..messages import stamp_nanoseconds

# Stamps that lie at most this far behind their arrival are taken for the node's own clock,
# seconds: exposure, processing in the driver and transport of a slow camera.
MAXIMUM_LATENCY = 2.0
# Stamps that go back by more than this mean that the clock was set or a recording starts over.
_JUMP_BACK = 1.0
# A clock that leaps forward by more than this in one step was set, seconds.
_JUMP_FORWARD = 10.0
# What a middleware without sequence numbers gives for one (the largest 64-bit integer), or more.
_NO_SEQUENCE = 2**63
# Rates are those of the last this many seconds.
RATE_WINDOW = 3.0
# Stamps of a pair differ by less than this share of the time between two images. The synchronizer
# takes what comes first: with a whole period allowed, one lost image would pair every later one
# with the depth before its own. Half a period is what cameras without synchronization need.
_SHARE_OF_PERIOD = 0.6
_FEWEST_STAMPS = 5


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

    ``taken`` and ``arrived`` are nanoseconds of the node's clock; see :class:`CaptureClock`. What
    came with a request instead of from the camera is ``given``: neither new nor old.
    """

    color: Image | CompressedImage
    depth: Image | CompressedImage
    info: CameraInfo
    number: int
    taken: int
    arrived: int
    mask: Image | None = None
    given: bool = False

    @property
    def age(self) -> float:
        """Seconds from the stamp to the arrival, by the node's clock."""
        return (self.arrived - stamp_nanoseconds(self.color)) / 1e9


class Arrivals:
    """When messages arrived lately, by ``time.monotonic()``."""

    def __init__(self) -> None:
        """Start with none."""
        self.last = float('-inf')
        self._times: deque[float] = deque(maxlen=1000)

    def add(self) -> None:
        """Note an arrival now."""
        self.last = time.monotonic()
        self._times.append(self.last)

    @property
    def age(self) -> float:
        """Seconds since the last one; infinite if there was none."""
        return time.monotonic() - self.last

    @property
    def period(self) -> float:
        """Seconds from one to the next: the median of the last ten; 0 with fewer than two."""
        times = tuple(self._times)[-10:]
        return statistics.median(map(operator.sub, times[1:], times)) if len(times) > 1 else 0.0

    @property
    def rate(self) -> float:
        """Messages a second over the last :data:`RATE_WINDOW` seconds."""
        since = time.monotonic() - RATE_WINDOW
        return sum(t > since for t in tuple(self._times)) / RATE_WINDOW


class _Gate(message_filters.SimpleFilter):
    """Counts the messages of one input and passes on those that the synchronizer can handle."""

    def __init__(self, topic: str, on_message: Callable[[], None],
                 on_jump: Callable[[float], None], on_stamp: Callable[[], None]):
        super().__init__()
        self.topic = topic
        self.count = 0
        self.refused = 0
        self.reported_lost = 0
        self.skipped = 0
        self.arrivals = Arrivals()
        self.stamps: deque[int] = deque(maxlen=20)
        self._on_message, self._on_jump, self._on_stamp = on_message, on_jump, on_stamp
        self._sequence = 0
        self._publisher: dict | None = None

    @property
    def period(self) -> float:
        """Seconds between two stamps: the median of the last ones; infinite for too few."""
        stamps = tuple(self.stamps)
        steps = [b - a for a, b in zip(stamps, stamps[1:], strict=False) if b > a]
        return statistics.median(steps) / 1e9 if len(steps) >= _FEWEST_STAMPS - 1 else math.inf

    @property
    def lost(self) -> int:
        """Messages that were sent and never came here."""
        # The middleware reports what was lost on the way, but not what a newer message pushed out
        # of a full queue; numbers that are missing say both.
        return max(self.reported_lost, self.skipped)

    def watch(self, info: dict) -> None:
        """Count the messages that are missing before the one that ``info`` is about."""
        sequence = info.get('publication_sequence_number') or 0
        publisher = info.get('publisher_gid')
        if publisher == self._publisher and 0 < self._sequence < sequence < _NO_SEQUENCE:
            self.skipped += sequence - self._sequence - 1
        self._sequence, self._publisher = sequence, publisher

    def receive(self, message) -> None:
        self._on_message()
        self.count += 1
        self.arrivals.add()
        if message.header.stamp.sec < 0:
            # rclpy's Time raises on it, inside the synchronizer and with its lock held.
            self.refused += 1
            return
        stamp = stamp_nanoseconds(message)
        if self.stamps and stamp < self.stamps[-1] - _JUMP_BACK * 1e9:
            self._on_jump((self.stamps[-1] - stamp) / 1e9)
            self.stamps.clear()
        self.stamps.append(stamp)
        self._on_stamp()
        self.signalMessage(message)


class PairInput:
    """
    Subscribes to the topics and keeps the newest synchronized pair, until :meth:`close`.

    ``condition`` guards :attr:`newest` and is notified with every new pair. ``on_pair(pair)``,
    where given, is called with the condition held and must neither block nor raise;
    ``on_jump()`` is called, likewise, when stamps or the node's clock jumped, and
    ``on_calibration()`` when the camera's calibration changed.
    """

    def __init__(self, node, values: dict, condition: threading.Condition,
                 on_pair: Callable[[Pair], None] | None = None,
                 on_jump: Callable[[], None] | None = None,
                 on_calibration: Callable[[], None] | None = None):
        """Subscribe on ``node`` as the parameter ``values`` say."""
        self.condition = condition
        self.newest: Pair | None = None
        self.pairs = 0
        self.pair_arrivals = Arrivals()
        self.info_changes = 0
        self.clock_jumps = 0
        self.mask_topic = ''
        self.camera_frame: str | None = None   # as the newest colour image names it
        self._node = node
        self._on_pair, self._on_jump = on_pair, on_jump
        self._on_calibration = on_calibration
        self._clock = CaptureClock()
        self._calibration: tuple | None = None
        self._mask: Image | None = None
        self._latched = values['mask_qos'] == 'transient_local'
        self._restart_due = False
        self._slop = values['sync_slop'] if values['sync'] == 'approximate' else 0.0
        self._allowed = self._slop
        self._queue_size = values['sync_queue_size']
        self._synchronizer: Any = None
        self._subscribers: list[message_filters.Subscriber] = []
        self._gates: list[_Gate] = []
        group = MutuallyExclusiveCallbackGroup()
        for name in ('color', 'depth', 'camera_info'):
            self._subscribe(name, values, group)
        self._mask_subscription = self._subscribe_mask(values, group)
        self._synchronize()
        self._jump_handle = node.get_clock().create_jump_callback(
            JumpThreshold(min_forward=Duration(seconds=_JUMP_FORWARD),
                          min_backward=Duration(seconds=-_JUMP_BACK), on_clock_change=True),
            post_callback=self._clock_jumped)

    def _subscribe(self, name: str, values: dict, group) -> None:
        kind, _ = source(name, values)
        topic = full_name(self._node, name, values)
        gate = _Gate(topic, self._restart_if_due, self._jumped, self._fit_slop)

        def lost(info) -> None:
            gate.reported_lost += info.total_count_change

        arguments = {'qos_profile': _qos(values[f'{name}_qos'], self._queue_size),
                     'callback_group': group}
        try:
            subscriber = message_filters.Subscriber(
                self._node, kind, topic,
                event_callbacks=SubscriptionEventCallbacks(message_lost=lost), **arguments)
        except UnsupportedEventTypeError:  # this middleware does not know what it lost
            subscriber = message_filters.Subscriber(self._node, kind, topic, **arguments)
        self._watch_sequence(gate, subscriber.sub)
        subscriber.registerCallback(gate.receive)
        self._subscribers.append(subscriber)
        self._gates.append(gate)

    def _watch_sequence(self, gate: _Gate, subscription) -> None:
        """Show ``gate`` the numbers of the messages, which message_filters does not pass on."""
        deliver = subscription.callback

        def received(message, info) -> None:
            gate.watch(info)
            deliver(message)

        subscription.callback = received

    def _subscribe_mask(self, values: dict, group):
        if not values['mask_topic']:
            return None
        self.mask_topic = self._node.resolve_topic_name(values['mask_topic'])
        return self._node.create_subscription(Image, values['mask_topic'], self._store_mask,
                                              _qos(values['mask_qos'], 1), callback_group=group)

    @property
    def why_no_mask(self) -> str:
        """Say that none has come, and what to do where it came before the node did."""
        text = f'no mask has come on {self.mask_topic}'
        offers = self._node.get_publishers_info_by_topic(self.mask_topic)
        if not self._latched and any(
                offer.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
                for offer in offers):
            text += '; it is published once for all who come later: set mask_qos to ' \
                    'transient_local'
        return text

    def close(self) -> None:
        """Unsubscribe; what arrives from now on is ignored."""
        self._jump_handle.unregister()
        for gate in self._gates:
            gate.callbacks.clear()
        for subscriber in self._subscribers:
            self._node.destroy_subscription(subscriber.sub)
        if self._mask_subscription is not None:
            self._node.destroy_subscription(self._mask_subscription)
        with self.condition:
            self.newest = None

    @property
    def counts(self) -> dict[str, int]:
        """Messages received so far, by topic."""
        return {gate.topic: gate.count for gate in self._gates}

    @property
    def arrivals(self) -> dict[str, Arrivals]:
        """Rate and age of each topic."""
        return {gate.topic: gate.arrivals for gate in self._gates}

    @property
    def drops(self) -> Counter[str]:
        """Messages that came to nothing here, by cause."""
        return Counter({
            'negative stamp': sum(gate.refused for gate in self._gates),
            'lost in the middleware': sum(gate.lost for gate in self._gates),
            # Colour images that found no partner; those that still wait are not lost yet.
            'no partner': max(0, self._gates[0].count - self._gates[0].refused - self.pairs
                              - len(self._synchronizer.queues[0]))})

    def _synchronize(self) -> None:
        """Connect a new synchronizer, with empty queues, to the gates."""
        for gate in self._gates:
            gate.callbacks.clear()
        synchronizer: Any
        if self._slop:
            synchronizer = message_filters.ApproximateTimeSynchronizer(
                self._gates, self._queue_size, self._allowed)
        else:
            synchronizer = message_filters.TimeSynchronizer(self._gates, self._queue_size)
        synchronizer.registerCallback(self._store)
        self._synchronizer = synchronizer

    def _fit_slop(self) -> None:
        """Allow stamps of a pair to differ by so little that only the nearest ones pair."""
        if self._slop:
            # Images may come while the other inputs are still being subscribed to.
            period = min((gate.period for gate in self._gates[:2]), default=math.inf)
            self._allowed = min(self._slop, _SHARE_OF_PERIOD * period)
            if self._synchronizer is not None:
                self._synchronizer.slop = Duration(seconds=self._allowed)

    def _store(self, color, depth, info: CameraInfo) -> None:
        try:
            self._watch_calibration(info)
            arrived = self._node.get_clock().now().nanoseconds
            with self.condition:
                self.pairs += 1
                self.pair_arrivals.add()
                self.camera_frame = color.header.frame_id
                self.newest = Pair(color, depth, info, self.pairs, self._clock.taken(
                    stamp_nanoseconds(color), arrived), arrived, self._mask)
                if self._on_pair is not None:
                    self._on_pair(self.newest)
                self.condition.notify_all()
        except Exception as error:  # raising here would leave the synchronizer locked for good
            self._node.get_logger().error(f'pair lost: {error!r}', throttle_duration_sec=5.0)

    def _store_mask(self, mask: Image) -> None:
        self._mask = mask

    def _watch_calibration(self, info: CameraInfo) -> None:
        """Each pair is computed with its own calibration; that it changes is worth a line."""
        calibration = (info.width, info.height, info.distortion_model, tuple(info.d),
                       tuple(info.k), tuple(info.p), info.binning_x, info.binning_y,
                       info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height)
        # NaN differs from itself: compare what is printed.
        if self._calibration is not None and repr(calibration) != repr(self._calibration):
            self.info_changes += 1
            matrix = ', '.join(f'{value:.6g}' for value in info.k)
            self._node.get_logger().warning(
                f'camera_info changed: {info.width}x{info.height}, K [{matrix}]; if that was no '
                'change of the resolution, check the calibration', throttle_duration_sec=10.0)
            with self.condition:
                if self._on_calibration is not None:
                    self._on_calibration()
        self._calibration = calibration

    def _clock_jumped(self, jump) -> None:
        """Forget what was measured with the clock before (set, or simulation time restarted)."""
        if jump.clock_change == ClockChange.ROS_TIME_NO_CHANGE and \
                self._node.get_clock().now().nanoseconds <= jump.delta.nanoseconds:
            return  # from zero: simulated time has come, and there was none before
        self._node.get_logger().warning(
            f'the clock jumped by {jump.delta.nanoseconds / 1e9:.1f} s or changed its source; '
            'waiting messages are dropped', throttle_duration_sec=5.0)
        # Not here: the thread of /clock must not take the synchronizer from under the inputs.
        self._restart_due = True
        self._forget()

    def _restart_if_due(self) -> None:
        if self._restart_due:
            self._restart_due = False
            self._synchronize()
            for gate in self._gates:
                gate.stamps.clear()

    def _forget(self) -> None:
        with self.condition:
            self.clock_jumps += 1
            self._clock.reset()
            if self._on_jump is not None:
                self._on_jump()

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
        self._forget()

    def silent_topics(self, seconds: float) -> list[str]:
        """Topics that brought nothing during the last ``seconds``."""
        return [g.topic for g in self._gates if g.arrivals.age > seconds]

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
            if difference is not None and difference > self._allowed * 1e9:
                gaps.append(f'{gate.topic} by {difference / 1e9:.3f} s')
        if gaps:
            allowed = 'sync is exact' if not self._slop else (
                f'sync_slop allows {self._slop} s' if self._allowed == self._slop else
                f'less than {self._allowed:.3f} s are allowed where images come that often')
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


def source(name: str, values: dict) -> tuple[type, str]:
    """
    Return type and topic of the input ``name``: color, depth or camera_info.

    ``values`` are the parameters of the node. Compressed inputs are named as image_transport
    names them.
    """
    topic = values[f'{name}_topic']
    transport = values.get(f'{name}_transport', 'raw')
    if name == 'camera_info':
        return CameraInfo, topic
    if transport == 'raw':
        return Image, topic
    return CompressedImage, f'{topic}/{transport}'


def full_name(node, name: str, values: dict) -> str:
    """
    Full name, remapped by ``node``, of the topic of the input ``name``.

    What is remapped is the base name, as with image_transport: its transports go with it.
    """
    base = values[f'{name}_topic']
    transport = source(name, values)[1][len(base):]
    return node.resolve_topic_name(node.resolve_topic_name(base) + transport)


def _qos(name: str, depth: int) -> QoSProfile:
    """Return the profile of that name; the queue is as deep as the synchronizer's."""
    reliability = (qos_profile_sensor_data.reliability if name == 'sensor_data'
                   else ReliabilityPolicy.RELIABLE)
    durability = (DurabilityPolicy.TRANSIENT_LOCAL if name == 'transient_local'
                  else DurabilityPolicy.VOLATILE)
    return QoSProfile(depth=depth, reliability=reliability, durability=durability)

"""What the node says about itself on /diagnostics, once a second, in every state."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
import threading
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType

from ..detection import Detection
from ..reasons import Reason
from .inputs import MAXIMUM_LATENCY, PairInput

_SILENT_AFTER = 2.0
# What was wrong with the last request may be mended; only the next one will tell.
_PAST_AFTER = 5.0
# The log tells it later, when the camera has had time to start, and then again and again.
_LOGGED_AFTER, _LOGGED_EVERY = 5.0, 10.0
# Detections that the median and the 95th percentile are taken over.
_WINDOW = 200
# Reasons that lie in the set-up and not in the scene: somebody has to do something.
_ERRORS = {Reason.INVALID_IMAGE, Reason.INVALID_DEPTH, Reason.SIZE_MISMATCH,
           Reason.INVALID_INTRINSICS, Reason.INTERNAL_ERROR, Reason.FRAME_MISMATCH,
           Reason.NO_TRANSFORM, Reason.OUT_OF_MEMORY}
_LOST = ('{} messages were lost in the middleware during the last second; start the camera driver '
         'with FASTDDS_DEFAULT_PROFILES_FILE set to config/fastdds_shm.xml, and see that the node '
         'gets the CPU (a full queue drops the oldest)')
_CLOCKS = ('stamps differ by {:.1f} s from the clock of the node; synchronize the clocks, or set '
           'use_sim_time when a bag is played with --clock')


class Diagnostics:
    """Publishes the state of node, inputs and detections."""

    def __init__(self, node) -> None:
        """Start the timer on ``node``."""
        self._node = node
        self._lock = threading.Lock()
        self._pairs: PairInput | None = None
        self._drops: Counter[str] = Counter()
        self._since = 0.0
        self._detector: Any = None
        self._times: deque[float] = deque(maxlen=_WINDOW)
        self._detections = 0
        self._outcomes: Counter[str] = Counter()
        self._last: tuple[Reason, str] | None = None
        self._last_time = 0.0
        self._last_failure = ''
        self._age: float | None = None
        self._lost_before = 0
        self.failure = ''
        self.nameless = ''   # what to say about images without a frame
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        # A steady clock: with simulated time that stands still, silence is what must be told.
        # A group of its own: a transition may occupy the default one for seconds.
        self._timer = node.create_timer(1.0, self._publish,
                                        callback_group=MutuallyExclusiveCallbackGroup(),
                                        clock=Clock(clock_type=ClockType.STEADY_TIME))

    def configured(self, detector: Any) -> None:
        """Tell about ``detector`` from now on; None: it is gone."""
        with self._lock:
            self._detector = detector

    def activated(self, pairs: PairInput, drops: Counter[str]) -> None:
        """Watch ``pairs`` and the counter ``drops`` of the worker."""
        with self._lock:
            self._pairs, self._drops = pairs, drops
            self._since = time.monotonic()
            self._last, self._age, self._lost_before = None, None, 0
            self.nameless = ''

    def deactivated(self) -> None:
        """Watch nothing."""
        with self._lock:
            self._pairs = None

    def detected(self, detection: Detection, age: float | None) -> None:
        """
        Remember the outcome for one pair that was ``age`` seconds old when it arrived.

        None for images whose age says nothing about the camera: they came with a request.
        """
        with self._lock:
            self._detections += 1
            if age is not None:  # the assessment is of the camera
                self._age = age
                self._last = detection.reason, detection.message
                self._last_time = time.monotonic()
            self._outcomes[detection.reason.name] += 1
            if detection.reason != Reason.OK:
                self._last_failure = f'{detection.reason.name}: ' + (
                    detection.message or detection.reason.sentence)
            if len(detection.milliseconds) > 1:  # more than the decoding
                self._times.append(sum(detection.milliseconds.values()))

    def status(self) -> DiagnosticStatus:
        """Return the present state: ERROR and WARN say what to do."""
        with self._lock:
            level, message = self._assessment()
            values = self._values()
        return DiagnosticStatus(
            level=level, message=message, hardware_id='',
            name=f'{self._node.get_fully_qualified_name().lstrip("/")}: grasp detection',
            values=[KeyValue(key=k, value=v) for k, v in values.items()])

    def _assessment(self) -> tuple[bytes, str]:
        """Return level and message: the worst that is to be said."""
        pairs = self._pairs
        lost = 0 if pairs is None else self._lost_since_last(pairs)
        if self.failure:
            return DiagnosticStatus.ERROR, self.failure
        if pairs is None:
            return DiagnosticStatus.OK, f'{self._node.state}: not detecting'
        if silence := self._silence(pairs, _SILENT_AFTER):
            return DiagnosticStatus.ERROR, silence
        reason, message = self._last or (Reason.OK, '')
        if reason != Reason.OK and self._is_past():
            reason = Reason.OK
        if reason in _ERRORS:
            return DiagnosticStatus.ERROR, message or reason.sentence
        for warning in self._warnings(lost):
            return DiagnosticStatus.WARN, warning
        if reason != Reason.OK:
            return DiagnosticStatus.WARN, message or reason.sentence
        return DiagnosticStatus.OK, 'running' if self._last else 'waiting for the first pair'

    def _is_past(self) -> bool:
        """Whether the last outcome says nothing about now: nobody has asked for a while."""
        return (self._node.get_parameter('mode').value == 'on_demand'
                and time.monotonic() - self._last_time > _PAST_AFTER)

    def _silence(self, pairs: PairInput, seconds: float) -> str:
        """Say why a topic or the pairs have been silent for ``seconds``, '' if they have not."""
        if time.monotonic() - self._since <= seconds or not (
                pairs.silent_topics(seconds) or pairs.pair_arrivals.age > seconds):
            return ''
        return pairs.diagnosis(seconds)

    def _log_silence(self) -> None:
        """Whoever only looks at the terminal is told as well."""
        with self._lock:
            silence = self._silence(self._pairs, _LOGGED_AFTER) if self._pairs else ''
        if silence:
            self._node.get_logger().warning(f'no images to work on: {silence}',
                                            throttle_duration_sec=_LOGGED_EVERY)

    def _lost_since_last(self, pairs: PairInput) -> int:
        """Messages lost since the last status, which is a second ago whatever that one said."""
        lost = pairs.drops['lost in the middleware']
        recent, self._lost_before = lost - self._lost_before, lost
        return recent

    def _warnings(self, lost: int) -> Iterator[str]:
        if lost > 0:
            yield _LOST.format(lost)
        fallback = getattr(self._detector, 'fallback', '')
        if fallback:
            yield fallback
        if self.nameless:
            yield self.nameless
        if self._age is not None and not -0.1 < self._age < MAXIMUM_LATENCY:
            yield _CLOCKS.format(abs(self._age))

    def _values(self) -> dict[str, str]:
        values = {'state': self._node.state}
        if self._detector is not None:
            values['model'] = str(self._detector.model_name)
            values['device'] = str(self._detector.device)
            values['threads'] = str(self._detector.threads)
        if self._pairs is not None:
            values |= self._input_values(self._pairs)
        values['detections'] = str(self._detections)
        if self._last is not None:
            values['last reason'] = self._last[0].name
        values['last reason for no grasp'] = self._last_failure or 'none so far'
        values |= {f'outcome {name}': str(n) for name, n in sorted(self._outcomes.items())}
        if self._age is not None:
            values['input age (s)'] = f'{self._age:.3f}'
        if self._times:
            values['inference median (ms)'] = f'{np.median(self._times):.1f}'
            values['inference p95 (ms)'] = f'{np.percentile(self._times, 95):.1f}'
        return values

    def _input_values(self, pairs: PairInput) -> dict[str, str]:
        values = {}
        for topic, arrivals in pairs.arrivals.items():
            values[f'messages {topic}'] = str(pairs.counts[topic])
            values[f'rate {topic} (Hz)'] = f'{arrivals.rate:.1f}'
            values[f'age {topic} (s)'] = f'{arrivals.age:.2f}'
        values['pairs'] = str(pairs.pairs)
        values['pair rate (Hz)'] = f'{pairs.pair_arrivals.rate:.1f}'
        drops = pairs.drops + Counter(self._drops)
        values['dropped pairs'] = str(self._drops['busy'])
        values |= {f'dropped: {cause}': str(drops[cause]) for cause in (
            'busy', 'stale', 'late', 'no partner', 'negative stamp', 'lost in the middleware')}
        values['camera_info changes'] = str(pairs.info_changes)
        values['clock jumps'] = str(pairs.clock_jumps)
        return values

    def _publish(self) -> None:
        array = DiagnosticArray(status=[self.status()])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)
        self._log_silence()

"""What the node says about itself on /diagnostics, once a second."""

from __future__ import annotations

import threading

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from ..detection import Detection
from ..reasons import Reason
from .inputs import Pair, PairInput

_SILENT_AFTER = 2.0


class Diagnostics:
    """Publishes the state of the inputs and of the last detection."""

    def __init__(self, node, pairs: PairInput):
        """Start the timer on ``node``."""
        self._node = node
        self._pairs = pairs
        self._lock = threading.Lock()
        self._values: dict[str, str] = {}
        self._detections = 0
        self._reason = Reason.OK
        self._message = ''
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._timer = node.create_timer(1.0, self._publish)

    def detected(self, detection: Detection, pair: Pair, dropped: int) -> None:
        """Remember the outcome for one pair."""
        with self._lock:
            self._detections += 1
            self._reason, self._message = detection.reason, detection.message
            self._values = {
                'detections': str(self._detections), 'dropped pairs': str(dropped),
                'last reason': detection.reason.name,
                'input age (s)': f'{pair.age:.3f}',
                'processing (ms)': f'{sum(detection.milliseconds.values()):.1f}'}

    def status(self) -> DiagnosticStatus:
        """Return the present state: ERROR without input, WARN while there is no grasp."""
        silent = self._pairs.silent_topics(_SILENT_AFTER)
        with self._lock:
            if silent:
                level, message = DiagnosticStatus.ERROR, f'silent: {", ".join(silent)}'
            elif self._reason != Reason.OK:
                level, message = DiagnosticStatus.WARN, self._message or self._reason.sentence
            else:
                level, message = DiagnosticStatus.OK, 'running'
            values = {**{f'messages {t}': str(n) for t, n in self._pairs.counts.items()},
                      'pairs': str(self._pairs.pairs), **self._values}
        return DiagnosticStatus(
            level=level, message=message, name=f'{self._node.get_name()}: grasp detection',
            hardware_id='', values=[KeyValue(key=k, value=v) for k, v in values.items()])

    def _publish(self) -> None:
        array = DiagnosticArray(status=[self.status()])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)

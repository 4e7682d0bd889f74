"""Load: ten minutes of RGB-D at 30 Hz, and a thousand calls while the camera comes and goes."""

from __future__ import annotations

from collections import Counter
import threading
import time

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor

from ..reasons import Reason
from .spinning import Spinner
from .stress_rig import (
    ALLOWANCE,
    STEP,
    Caller,
    NodeProcess,
    Station,
    StressError,
    running,
    wait_until,
)
from .stress_settings import Row, Settings, new_namespace

RATE = 30.0
# What has to be reached: share of pairs, age at publication in seconds, growth of memory.
SHARE, AGE, GROWTH = 0.99, 0.150, 0.05
# The limit that the node is given: a little less, since publishing takes a moment as well; and the
# share of the detections that may fall victim to it.
_LIMIT, _LATE = 0.145, 0.05
# Of the stream, before memory is compared; buffers of DDS and of PyTorch's allocator fill once.
_WARM_UP, _LONGEST_WARM_UP = 0.2, 60.0
_COUNTED = ('dropped: no partner', 'dropped: lost in the middleware', 'dropped: negative stamp')
# Seconds that the camera is there and gone, and the timeouts of calls.
_HERE, _GONE = 2.0, 1.0
_TIMEOUTS = (0.3, 0.6, 1.2, 2.5, 5.0)


def stream(settings: Settings) -> Row:
    """Continuous detection at 30 Hz: pairs, age of the published grasps, memory, drops."""
    row = Row('stream', f'at least {SHARE:.0%} of the pairs reach the node, grasps are of frames '
              f'not older than {1e3 * AGE:.0f} ms at publication, memory grows by less than '
              f'{GROWTH:.0%}, nothing is lost uncounted')
    with running(new_namespace(), settings.seed, **settings.parameters()) as (station, process):
        # Up to a state in which everything has been used once; then the counters begin.
        station.right_grasp()
        station.camera.stop()
        # Not before: the first detections on a busy machine are slower.
        row.check(station.set(maximum_frame_age=_LIMIT)[0].successful, 'the limit was refused')
        before = dict(_settled(station))
        station.ages.clear()
        station.camera.sent = station.camera.late = 0
        memory, seconds = _stream_and_watch(station, process, settings)
        after = _settled(station)
    delta = {k: int(after[k]) - int(before.get(k, 0)) for k in after
             if k in ('pairs', 'detections', 'dropped: busy', 'dropped: stale', 'dropped: late',
                      *_COUNTED)}
    sent, received = station.camera.sent, delta['pairs']
    uncounted = max(0, sent - received - sum(delta[k] for k in _COUNTED)) + abs(
        received - delta['detections'] - delta['dropped: busy'])
    ages = np.array(station.ages or [np.nan])
    growth = memory['end'] / memory['after warm-up'] - 1
    row.figures = {
        'pairs_sent': sent, 'pairs_received': received, 'seconds': round(seconds, 2),
        'share': received / sent, 'rate_sent': sent / seconds,
        'sent_late': station.camera.late, 'detections': delta['detections'],
        'grasps': len(station.ages), 'dropped': {k.split(': ')[-1]: delta[k] for k in delta
                                                if k.startswith('dropped')},
        'uncounted': uncounted,
        'age_median_ms': 1e3 * float(np.median(ages)),
        'age_p95_ms': 1e3 * float(np.percentile(ages, 95)), 'age_max_ms': 1e3 * float(ages.max()),
        'grasps_within_150_ms': float((ages <= AGE).mean()),
        'memory_after_warm_up_mib': memory['after warm-up'], 'memory_end_mib': memory['end'],
        'memory_growth': growth,
        'inference_median_ms': float(after.get('inference median (ms)', 'nan')),
        'inference_p95_ms': float(after.get('inference p95 (ms)', 'nan'))}
    row.check(received >= SHARE * sent, f'{received} of {sent} pairs reached the node')
    late = delta['dropped: stale'] + delta['dropped: late']
    row.check(bool(station.ages), 'no grasp was published')
    row.check(late <= _LATE * delta['detections'], f'{late} of {delta["detections"]} detections '
              'came too late to be published')
    row.check(not (ages > AGE).any(), f'{int((ages > AGE).sum())} of {len(ages)} grasps were of '
              f'older frames, up to {1e3 * ages.max():.0f} ms')
    row.check(growth <= GROWTH, f'memory grew by {growth:.1%}')
    row.check(uncounted == 0, f'{uncounted} pairs are not accounted for')
    return row


def _settled(station: Station) -> dict[str, str]:
    """Return the diagnostics once nothing is on its way any more."""
    last = station.fresh_diagnostics(2)
    deadline = time.monotonic() + STEP
    while time.monotonic() < deadline:
        now = station.fresh_diagnostics(1)
        if (now['pairs'], now['detections']) == (last['pairs'], last['detections']):
            return now
        last = now
    raise StressError('the counters of grasp_node never come to rest')


def _stream_and_watch(station: Station, process: NodeProcess,
                      settings: Settings) -> tuple[dict[str, float], float]:
    """Send everything -> memory in MiB (medians of a few samples), seconds."""
    count = max(1, round(60 * settings.minutes * RATE))
    warm_up = min(_WARM_UP * count / RATE, _LONGEST_WARM_UP)
    began = time.monotonic()
    station.camera.stream(RATE, count)
    samples: list[tuple[float, float]] = []
    while station.camera.streaming:
        samples.append((time.monotonic() - began, process.memory()))
        time.sleep(min(1.0, count / RATE / 20))
    seconds = time.monotonic() - began
    warm = [mib for at, mib in samples if at >= warm_up] or [samples[-1][1]]
    few = max(1, len(warm) // 10)
    return {'after warm-up': float(np.median(warm[:few])),
            'end': float(np.median(warm[-few:]))}, seconds


class _Callers:
    """Clients, each in a thread and with a ROS node of its own, that call until all is done."""

    def __init__(self, namespace: str, settings: Settings, judge):
        self.lock = threading.Lock()
        self.outcomes: Counter[str] = Counter()
        self.late: list[float] = []
        self.wrong: list[str] = []
        self._left = settings.calls
        self._judge = judge
        self._executor = SingleThreadedExecutor()
        self._nodes = [rclpy.create_node(f'client_{i}', namespace=namespace)
                       for i in range(settings.clients)]
        self.callers = [Caller(node) for node in self._nodes]
        for node in self._nodes:
            self._executor.add_node(node)
        self._spinner = Spinner(self._executor)
        self.threads = [threading.Thread(target=self._run, args=(caller, index), daemon=True)
                        for index, caller in enumerate(self.callers)]

    def _run(self, caller: Caller, index: int) -> None:
        turn = index
        while True:
            with self.lock:
                if self._left == 0:
                    return
                self._left -= 1
            timeout = _TIMEOUTS[turn % len(_TIMEOUTS)]
            turn += 1
            called = time.time()
            response, seconds = caller.call(timeout)
            with self.lock:
                if response is None:
                    self.outcomes['no answer'] += 1
                    continue
                self.late.append(seconds - timeout)
                self.outcomes[_named(response)] += 1
                fault = self._judge(response, called)
                if fault:
                    self.wrong.append(fault)

    def close(self) -> None:
        self._spinner.stop()
        for node in self._nodes:
            node.destroy_node()


def _named(response) -> str:
    """Return the reason of an answer by name, or what is wrong with it."""
    try:
        return Reason(response.reason).name
    except ValueError:
        return f'unknown reason {response.reason}'


def service(settings: Settings) -> Row:
    """Clients call at once while the camera disappears, comes back and shows another scene."""
    row = Row('service', 'each call is answered within its timeout, exactly once, with a right '
              'grasp or a named reason')
    namespace = new_namespace()
    with running(namespace, settings.seed,
                 **settings.parameters(mode='on_demand')) as (station, _):
        station.right_grasp()
        shown = [(0.0, station.camera.scene.number)]  # since when, which scene
        callers = _Callers(namespace, settings,
                           lambda response, called: _fault(response, called, station, shown))
        try:
            wait_until(lambda: all(c.client.service_is_ready() for c in callers.callers),
                       'the service, for every client')
            began = time.monotonic()
            for thread in callers.threads:
                thread.start()
            restarts = _come_and_go(station, callers.threads, shown)
            seconds = time.monotonic() - began
        finally:
            callers.close()
    counts = [n for caller in callers.callers for n in caller.responses.values()]
    late = np.array(callers.late or [np.nan])
    answered = settings.calls - callers.outcomes['no answer']
    row.figures = {
        'calls': settings.calls, 'answered': answered, 'clients': settings.clients,
        'seconds': round(seconds, 2), 'camera_restarts': restarts,
        'outcomes': dict(sorted(callers.outcomes.items())),
        'answered_more_than_once': sum(n > 1 for n in counts),
        'wrong': len(callers.wrong),
        'latest_after_timeout_ms': 1e3 * float(late.max()),
        'late': int((late > ALLOWANCE).sum())}
    row.check(answered == settings.calls, f'{settings.calls - answered} calls have no answer')
    row.check(sum(n > 1 for n in counts) == 0, 'calls were answered more than once')
    row.check(not callers.wrong, '; '.join(callers.wrong[:3]))
    row.check(not (late > ALLOWANCE).any(), f'{int((late > ALLOWANCE).sum())} answers came more '
              f'than {1e3 * ALLOWANCE:.0f} ms after the timeout of their call')
    row.check(callers.outcomes['OK'] > 0, 'not one call was answered with a grasp')
    return row


def _fault(response, called: float, station: Station, shown: list[tuple[float, int]]) -> str:
    """Say what is wrong with an answer, empty if nothing is."""
    if not response.success:
        if response.reason == Reason.OK or not response.message.startswith(_named(response)):
            return f'no grasp and no name: {response.reason}, {response.message!r}'
        return 'INTERNAL_ERROR' if response.reason == Reason.INTERNAL_ERROR else ''
    stamp = response.grasp.header.stamp
    taken = stamp.sec + stamp.nanosec / 1e9
    if taken < called:
        return f'a grasp of a frame {called - taken:.3f} s older than the call'
    # The scene is changed only while there is no camera, so the stamp says which one it was.
    number = [n for since, n in shown if since <= taken][-1]
    return station.scenes[number].fault(response.grasp)


def _come_and_go(station: Station, threads: list[threading.Thread],
                 shown: list[tuple[float, int]]) -> int:
    """Take the camera away and bring it back with another scene until all threads have ended."""
    camera, restarts = station.camera, 0
    while any(thread.is_alive() for thread in threads):
        time.sleep(_HERE)
        if not any(thread.is_alive() for thread in threads):
            break
        camera.disconnect()
        restarts += 1
        time.sleep(_GONE)
        camera.scene = station.scenes[restarts % len(station.scenes)]
        shown.append((time.time(), camera.scene.number))
        camera.connect()
        camera.stream()
    return restarts

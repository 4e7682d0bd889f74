"""
Faults around a node that goes on: images, calibration, clocks, parameters, transitions.

Each row breaks something, checks that what the node says has a name, and that a right grasp comes
once it is whole again.
"""

from __future__ import annotations

from collections.abc import Callable
import copy
import itertools
import math
import threading
import time
from typing import Any

from lifecycle_msgs.msg import Transition
import numpy as np
from rosgraph_msgs.msg import Clock

from ..reasons import Reason
from . import conversions
from .stress_rig import Station, running, wait_until
from .stress_scenes import FRAME, SIZE, TOP, now
from .stress_settings import Row, Settings, new_namespace

# Waits for answers that cannot come, seconds.
_SHORT = 1.0

Break = Callable[[dict], dict]


def _refused(station: Station, row: Row, what: str, change: Break, *expected: Reason) -> None:
    """Stream changed triples: a call must be answered with one of the ``expected`` reasons."""
    station.camera.change = change
    if not station.camera.streaming:
        station.camera.stream()
    # What was taken before the change may still be on its way.
    deadline = time.monotonic() + 10.0
    reason = None
    while time.monotonic() < deadline:
        response, seconds = station.caller.call(timeout=_SHORT)
        if response is None:
            break
        reason = Reason(response.reason)
        if reason in expected:
            break
    row.figures.setdefault('answers', {})[what] = 'no answer' if reason is None else reason.name
    row.check(reason in expected, f'{what}: {row.figures["answers"][what]}, expected '
              f'{" or ".join(r.name for r in expected)}')
    station.camera.change = lambda messages: messages
    station.right_grasp()


def _with(name: str, **fields: Any) -> Break:
    """Return a change that sets fields of the message ``name``."""
    def change(messages: dict) -> dict:
        message = copy.copy(messages[name])
        for field, value in fields.items():
            setattr(message, field, value)
        return {**messages, name: message}
    return change


def _without(name: str) -> Break:
    return lambda messages: {k: v for k, v in messages.items() if k != name}


def _all_nan(messages: dict) -> dict:
    depth = np.full(SIZE[::-1], np.nan, np.float32)
    return {**messages, 'depth': conversions.depth_message(depth, '32FC1',
                                                           messages['depth'].header)}


def calibration(settings: Settings) -> Row:
    """camera_info missing, zero, not finite, of another size; then another, valid one."""
    row = Row('camera_info', 'missing, zero or foreign calibration is named, a new one is used')
    with running(new_namespace(), settings.seed, **settings.parameters()) as (station, process):
        station.right_grasp()
        zeros, nans = [0.0] * 9, [math.nan] * 9
        for what, change, reason in (
                ('missing', _without('info'), Reason.TIMEOUT),
                ('zero', _with('info', k=zeros), Reason.INVALID_INTRINSICS),
                ('not finite', _with('info', k=nans), Reason.INVALID_INTRINSICS),
                ('of another size', _with('info', width=320, height=240), Reason.SIZE_MISMATCH)):
            _refused(station, row, what, change, reason)
        # The same pixels through a shorter lens are farther from the optical axis.
        station.camera.change = _with('info', k=[420.0, 0.0, 319.5, 0.0, 420.0, 239.5, 0.0, 0.0,
                                                 1.0])
        wait_until(lambda: _computed_with(station, 420.0), 'the new calibration')
        station.camera.change = lambda messages: messages
        station.right_grasp()
        row.figures['changes_counted'] = int(
            station.fresh_diagnostics().get('camera_info changes', 0))
        row.check(row.figures['changes_counted'] > 0, 'changes were not counted')
        row.check(process.alive, 'grasp_node ended')
    return row


def _computed_with(station: Station, focal_length: float) -> bool:
    """Call, and tell whether the grasp was computed with ``focal_length`` (pixels)."""
    response, _ = station.caller.call(timeout=5.0)
    if response is None or not response.success:
        return False
    expected = (response.grasp.rectangle.x - 319.5) / focal_length * TOP
    return abs(response.grasp.pose.position.x - expected) < 0.006


def images(settings: Settings) -> Row:
    """Depth of NaN only, sizes and frames that differ, encodings without a meaning."""
    row = Row('images', 'each kind of unusable image is named, and nothing stays behind')
    small = conversions.depth_message(np.ones((240, 320), np.float32), '16UC1',
                                      _header_of(FRAME))

    def shrunk(messages: dict) -> dict:
        return _with('depth', height=small.height, width=small.width, step=small.step,
                     data=small.data)(messages)

    with running(new_namespace(), settings.seed, **settings.parameters()) as (station, process):
        station.right_grasp()
        for what, change, reason in (
                ('depth of NaN only', _all_nan, Reason.NO_DEPTH),
                ('sizes differ', shrunk, Reason.SIZE_MISMATCH),
                ('frames differ', lambda m: _with('depth', header=_header_of(
                    'camera_depth_optical_frame', m['depth'].header.stamp))(m),
                 Reason.FRAME_MISMATCH),
                ('encoding', _with('color', encoding='yuv422'), Reason.INVALID_IMAGE),
                ('data is missing', _with('color', data=b''), Reason.INVALID_IMAGE),
                ('step is too small', _with('depth', step=3), Reason.INVALID_DEPTH)):
            _refused(station, row, what, change, reason)
        row.check(process.alive, 'grasp_node ended')
    return row


def _header_of(frame: str, stamp=None):
    from std_msgs.msg import Header
    return Header(stamp=stamp or now(), frame_id=frame)


def clock(settings: Settings) -> Row:
    """Stamps that jump, and a simulated clock that starts over or stands still."""
    row = Row('clock_jump', 'after each jump of stamps or clock right grasps go on, the jumps are '
              'counted')
    with running(new_namespace(), settings.seed, **settings.parameters()) as (station, process):
        station.right_grasp()
        for offset in (-1000.0, 1000.0, 0.0):
            station.camera.offset = offset
            time.sleep(_SHORT)
            station.right_grasp()
        publisher = station.node.create_publisher(Clock, '/clock', 10)
        wait_until(lambda: station.set(use_sim_time=True)[0].successful, 'simulated time')
        wait_until(publisher.get_subscription_count, 'a subscription of /clock')
        for start in (1000, 10):
            _play(station, publisher, start)
        # Simulated time that stands still from now on.
        station.camera.offset = 10 - time.time()
        response, seconds = station.caller.call(timeout=_SHORT)
        row.check(response is not None, 'no answer while simulated time stands still')
        station.set(use_sim_time=False)
        station.camera.offset = 0.0
        station.right_grasp()
        row.figures['jumps_counted'] = int(station.fresh_diagnostics().get('clock jumps', 0))
        row.check(row.figures['jumps_counted'] >= 3, 'jumps were not counted')
        row.check(process.alive, 'grasp_node ended')
    return row


def _play(station: Station, publisher, start: int) -> None:
    """Play a recording that begins ``start`` seconds after 1970, until a right grasp comes."""
    stop = threading.Event()
    began = time.time()
    station.camera.offset = start - began

    def tick() -> None:
        while not stop.wait(0.02):
            publisher.publish(Clock(clock=now(start - began)))

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        station.right_grasp()
    finally:
        stop.set()
        thread.join()


def publisher_restart(settings: Settings) -> Row:
    """The camera's publishers go away in order and come back, five times."""
    row = Row('publisher_restart', 'calls in between end by name, afterwards right grasps come')
    outcomes: dict[str, int] = {}
    with running(new_namespace(), settings.seed, **settings.parameters()) as (station, process):
        station.right_grasp()
        for turn in range(5):
            station.camera.disconnect()
            time.sleep(0.2)
            response, _ = station.caller.call(timeout=_SHORT)
            name = 'no answer' if response is None else Reason(response.reason).name
            outcomes[name] = outcomes.get(name, 0) + 1
            station.camera.scene = station.scenes[turn % len(station.scenes)]
            station.camera.connect()
            station.right_grasp()
        row.check(process.alive, 'grasp_node ended')
    row.figures = {'restarts': 5, 'answers_without_camera': outcomes}
    row.check(set(outcomes) == {'TIMEOUT'}, f'answers without a camera: {outcomes}')
    return row


def parameters(settings: Settings) -> Row:
    """Good and bad values as fast as they are answered, while the node detects."""
    row = Row('parameter_storm', 'each set is answered, bad ones refused with a reason, the last '
              'good value holds, detection goes on')
    good: list[tuple[str, Any]] = [
        ('minimum_score', 0.1), ('mode', 'on_demand'), ('region', [100, 40, 400, 400]),
        ('gripper.maximum_opening', 0.1), ('maximum_rate', 5.0), ('stability.enabled', True),
        ('mode', 'continuous'), ('region', [0, 0, 0, 0]), ('maximum_rate', 0.0),
        ('stability.enabled', False), ('gripper.maximum_opening', 0.085), ('minimum_score', 0.02)]
    bad: list[tuple[str, Any]] = [
        ('minimum_score', 2.0), ('minimum_score', 'high'), ('mode', 'sometimes'),
        ('region', [1, 2]), ('model', '/etc/passwd'), ('color_topic', 'elsewhere'),
        ('gripper.maximum_opening', math.nan), ('maximum_rate', math.inf), ('minimum_score', -1.0)]
    refused = wrong = unexplained = 0
    with running(new_namespace(), settings.seed, **settings.parameters()) as (station, process):
        station.right_grasp()
        before = station.grasps
        began = time.monotonic()
        for index, ((name, value), (bad_name, bad_value)) in enumerate(
                zip(itertools.cycle(good), itertools.cycle(bad), strict=False)):
            if index >= settings.sets:
                break
            if index % 2:
                result = station.set(**{bad_name: bad_value})[0]
                refused += not result.successful
                wrong += result.successful
                unexplained += not result.successful and not result.reason
            else:
                result = station.set(**{name: value})[0]
                wrong += not result.successful
        seconds = time.monotonic() - began
        for name, value in good[6:]:
            row.check(station.set(**{name: value})[0].successful, f'{name} was refused')
        row.check(station.get('minimum_score').double_value == 0.02, 'the last value is lost')
        station.right_grasp()
        row.check(process.alive, 'grasp_node ended')
        row.figures = {'sets': settings.sets, 'refused': refused, 'seconds': round(seconds, 2),
                       'grasps_meanwhile': station.grasps - before}
    row.check(wrong == 0, f'{wrong} sets with the wrong answer')
    row.check(unexplained == 0, f'{unexplained} refused without a reason')
    return row


def reconfigure(settings: Settings) -> Row:
    """Deactivate, cleanup, configure, activate, while a client calls without pause."""
    row = Row('reconfigure', 'every transition succeeds, calls meanwhile are answered once, with '
              'a right grasp or a named reason')
    outcomes: dict[str, int] = {}
    with running(new_namespace(), settings.seed, **settings.parameters()) as (station, process):
        station.right_grasp()
        stop = threading.Event()

        def call() -> None:
            while not stop.is_set():
                response, _ = station.caller.call(timeout=2.0)
                fault = '' if response is None or not response.success else \
                    station.camera.scene.fault(response.grasp)
                name = fault or ('no answer' if response is None
                                 else Reason(response.reason).name)
                outcomes[name] = outcomes.get(name, 0) + 1

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        try:
            for _ in range(settings.reconfigurations):
                for transition in (Transition.TRANSITION_DEACTIVATE,
                                   Transition.TRANSITION_CLEANUP,
                                   Transition.TRANSITION_CONFIGURE,
                                   Transition.TRANSITION_ACTIVATE):
                    row.check(station.change_state(transition), f'transition {transition} failed')
        finally:
            stop.set()
            thread.join()
        station.right_grasp()
        row.check(process.alive, 'grasp_node ended')
    row.figures = {'reconfigurations': settings.reconfigurations,
                   'calls': sum(outcomes.values()), 'outcomes': outcomes}
    row.check(set(outcomes) <= {'OK', 'NOT_ACTIVE', 'TIMEOUT'}, f'answers: {outcomes}')
    row.check(not any(n > 1 for n in station.caller.responses.values()), 'answered twice')
    return row


ROWS: dict[str, Callable[[Settings], Row]] = {
    'camera_info': calibration, 'images': images, 'clock_jump': clock,
    'publisher_restart': publisher_restart, 'parameter_storm': parameters,
    'reconfigure': reconfigure}

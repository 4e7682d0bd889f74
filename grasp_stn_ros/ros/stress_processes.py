"""Faults of whole processes: killed, stopped, interrupted at any moment, on a full disk."""

from __future__ import annotations

from collections.abc import Callable
import os
from pathlib import Path
import resource
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

import cv2
import numpy as np

from ..reasons import Reason
from .node_process import child_environment
from .stress_rig import NodeProcess, Station, running, wait_until
from .stress_scenes import make_scene
from .stress_settings import Row, Settings, new_namespace

# A clean exit is faster than this, seconds.
STOP = 2.0
_CAMERA = """
import sys, rclpy
from grasp_stn_ros.ros.stress_rig import Camera
from grasp_stn_ros.ros.stress_scenes import make_scene
rclpy.init()
camera = Camera(rclpy.create_node('camera', namespace=sys.argv[1]), make_scene(0))
camera.stream(30.0)
print('streams', flush=True)
camera._thread.join()
"""
# A subscriber that prints a line when it is there and then takes everything, or is stopped.
_SUBSCRIBER = """
import sys, rclpy
from sensor_msgs.msg import Image
from visualization_msgs.msg import MarkerArray
from grasp_stn_interfaces.msg import GraspStages
rclpy.init()
node = rclpy.create_node('slow', namespace=sys.argv[1])
got = []
def on_image(message):
    if not got:
        got.append(print('first', flush=True))
node.create_subscription(Image, 'grasp_node/debug_image', on_image, 10)
node.create_subscription(GraspStages, 'grasp_node/stages', lambda m: None, 10)
node.create_subscription(MarkerArray, 'grasp_node/markers', lambda m: None, 10)
rclpy.spin(node)
"""
# The largest file on a full disk, bytes.
_LITTLE = 4096


def camera_killed(settings: Settings) -> Row:
    """The process of the camera is killed while it publishes; another one takes its place."""
    row = Row('camera_killed', 'calls end with a TIMEOUT that names the topics, diagnostics with '
              'an ERROR; a new camera is used at once')
    namespace = new_namespace()
    with running(namespace, settings.seed, **settings.parameters()) as (station, process):
        station.camera.disconnect()
        camera = subprocess.Popen([sys.executable, '-c', _CAMERA, namespace],
                                  env=child_environment(), stdout=subprocess.PIPE, text=True)
        try:
            assert camera.stdout is not None
            row.check(camera.stdout.readline() == 'streams\n', 'the camera did not start')
            wait_until(lambda: station.caller.call(timeout=2.0)[0].success, 'a grasp')
        finally:
            camera.kill()
            camera.wait()
        station.caller.call(timeout=0.2)  # may still get what was on its way
        response, _ = station.caller.call(timeout=1.0)
        row.check(response is not None and response.reason == Reason.TIMEOUT
                  and 'color/image_raw' in response.message,
                  f'answer without a camera: {response and response.message}')
        wait_until(lambda: station.level == 2, 'an ERROR in the diagnostics')
        row.figures = {'diagnostics': station.message.replace(namespace, '')}
        began = time.monotonic()
        station.camera.connect()
        station.right_grasp()
        row.figures['seconds_until_a_right_grasp'] = round(time.monotonic() - began, 2)
        row.check(process.alive, 'grasp_node ended')
    return row


def slow_subscriber(settings: Settings) -> Row:
    """A subscriber of everything that takes nothing: its process is stopped."""
    row = Row('slow_subscriber', 'grasps and answers go on while a subscriber takes nothing')
    namespace = new_namespace()
    with running(namespace, settings.seed, **settings.parameters()) as (station, process):
        station.right_grasp()
        alone = _rate(station)
        subscriber = subprocess.Popen([sys.executable, '-c', _SUBSCRIBER, namespace],
                                      env=child_environment(), stdout=subprocess.PIPE, text=True)
        try:
            assert subscriber.stdout is not None
            row.check(subscriber.stdout.readline() == 'first\n', 'the subscriber saw nothing')
            subscriber.send_signal(signal.SIGSTOP)
            stopped = _rate(station)
            station.right_grasp()
        finally:
            subscriber.kill()
            subscriber.wait()
        station.right_grasp()
        row.figures = {'grasps_a_second_alone': alone, 'grasps_a_second_beside': stopped}
        row.check(stopped > 0.2 * alone, f'{stopped:.1f} instead of {alone:.1f} grasps a second')
        row.check(process.alive, 'grasp_node ended')
    return row


def _rate(station: Station, seconds: float = 3.0) -> float:
    """Grasps that are published a second."""
    before, began = station.grasps, time.monotonic()
    time.sleep(seconds)
    return (station.grasps - before) / (time.monotonic() - began)


def node_killed(settings: Settings) -> Row:
    """The node is killed while clients wait, and another one takes its place."""
    row = Row('node_killed', 'a node that is started anew serves the same clients and camera')
    namespace = new_namespace()
    with running(namespace, settings.seed, **settings.parameters()) as (station, process):
        station.right_grasp()
        process.process.kill()
        process.process.wait()
        response, _ = station.caller.call(timeout=0.5, patience=0.5)
        row.check(response is None, 'somebody answered for a dead node')
        began = time.monotonic()
        again = NodeProcess(namespace, **settings.parameters())
        try:
            again.wait_for_output('ready')
            station.right_grasp()
            row.figures = {'seconds_until_a_right_grasp': round(time.monotonic() - began, 2)}
            code, seconds = again.end()
            row.check(code == 0, f'exit code {code}')
        finally:
            again.close()
    return row


def signals(settings: Settings) -> Row:
    """SIGINT and SIGTERM while it imports, loads, waits, detects and serves; exit code, time."""
    row = Row('signals', f'exit code 0 within {STOP:g} s, no traceback, at every moment')
    codes: dict[str, int] = {}
    longest: dict[str, float] = {}
    moments = list(_MOMENTS)
    for index in range(settings.signals):
        number = (signal.SIGINT, signal.SIGTERM)[index // len(moments) % 2]
        moment = moments[index % len(moments)]
        process = NodeProcess(new_namespace(), **settings.parameters())
        try:
            _MOMENTS[moment](process, settings)
            code, seconds = process.end(number)
            codes[str(code)] = codes.get(str(code), 0) + 1
            longest[moment] = max(longest.get(moment, 0.0), round(seconds, 2))
            row.check(code == 0, f'{moment}, {number.name}: exit code {code}')
            row.check('Traceback' not in process.output,
                      f'{moment}, {number.name}: {process.output[-500:]}')
            row.check(seconds < STOP, f'{moment}, {number.name}: {seconds:.1f} s')
        finally:
            process.close()
    row.figures = {'signals': settings.signals, 'exit_codes': codes, 'longest_seconds': longest}
    return row


def _importing(process: NodeProcess, settings: Settings) -> None:
    """Wait until Python has begun to load ROS."""
    maps = Path(f'/proc/{process.process.pid}/maps')
    wait_until(lambda: 'rclpy' in maps.read_text(), 'the import of rclpy')


def _loading(process: NodeProcess, settings: Settings) -> None:
    """Wait until PyTorch is being loaded, in configure."""
    maps = Path(f'/proc/{process.process.pid}/maps')
    wait_until(lambda: 'torch' in maps.read_text(), 'the import of PyTorch')


def _ready(process: NodeProcess, settings: Settings) -> None:
    process.wait_for_output('ready')


def _at_work(process: NodeProcess, settings: Settings) -> None:
    station = Station(process.namespace, settings.seed)
    try:
        station.wait_for_node()
        station.right_grasp()
    finally:
        station.close()


def _serving(process: NodeProcess, settings: Settings) -> None:
    """Leave calls behind that wait for images."""
    station = Station(process.namespace, settings.seed)
    try:
        station.wait_for_node()
        for _ in range(4):
            station.caller.call(timeout=60.0, patience=-59.9)
    finally:
        station.close()


# The first moment is the import of ROS: before, Python itself starts, for some milliseconds, and
# nobody can install a handler.
_MOMENTS: dict[str, Callable[[NodeProcess, Settings], None]] = {
    'importing': _importing, 'loading': _loading, 'ready': _ready, 'detecting': _at_work,
    'serving': _serving}


def full_disk(settings: Settings) -> Row:
    """No byte can be written: pictures and results are refused by name, the node goes on."""
    row = Row('full_disk', 'pictures: a named error, exit code 1, what was there is unchanged and '
              'nothing half-written is left; the node detects and answers')
    with tempfile.TemporaryDirectory(prefix='stress_') as folder:
        row.figures.update(_picture_on_full_disk(Path(folder), row))
    with tempfile.TemporaryDirectory(prefix='stress_') as logs, \
            running(new_namespace(), settings.seed,
                    environment={'ROS_LOG_DIR': logs}, **settings.parameters()) as (
                        station, process):
        station.right_grasp()
        # What is open stays open, but grows no more: log file and output.
        resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (0, 0))
        # Something to log: no grasp, and a request that ends.
        station.camera.stop()
        for _ in range(3):
            station.caller.call(timeout=0.2)
        station.right_grasp()
        row.check(process.alive, 'grasp_node ended')
        code, _ = process.end()
        row.check(code == 0, f'exit code {code}')
    return row


def _picture_on_full_disk(folder: Path, row: Row) -> dict[str, Any]:
    """Run ``grasp_stn detect --stages`` where at most a few kilobytes fit into a file."""
    color, depth = make_scene(0).frames[0]
    rgb = np.frombuffer(color.data, np.uint8).reshape(480, 640, 3)
    cv2.imwrite(str(folder / 'rgb.png'), rgb[..., ::-1])
    raw = np.frombuffer(depth.data, np.uint16).reshape(480, 640)
    cv2.imwrite(str(folder / 'depth.png'), raw)
    target = folder / 'stages.png'
    target.write_bytes(b'an earlier picture')
    there = set(os.listdir(folder))
    done = subprocess.run(
        [sys.executable, '-c', 'import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, '
         f'({_LITTLE}, {_LITTLE})); from grasp_stn_ros.cli import main; main(sys.argv[1:])',
         'detect', 'rgb.png', 'depth.png', '--stages', 'stages.png'],
        check=False, cwd=folder, env=child_environment(), capture_output=True, text=True,
        timeout=600)
    row.check(done.returncode == 1, f'exit code {done.returncode}')
    row.check('stages.png' in done.stderr and 'Traceback' not in done.stderr,
              f'the error is {done.stderr[-300:]!r}')
    row.check(target.read_bytes() == b'an earlier picture', 'the earlier picture is gone')
    left = sorted(set(os.listdir(folder)) - there)
    row.check(not left, f'left behind: {left}')
    return {'picture': (done.stderr.strip().splitlines() or [''])[-1]}


ROWS: dict[str, Callable[[Settings], Row]] = {
    'camera_killed': camera_killed, 'node_killed': node_killed,
    'slow_subscriber': slow_subscriber, 'signals': signals, 'full_disk': full_disk}

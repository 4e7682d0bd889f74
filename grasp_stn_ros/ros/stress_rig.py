"""
The parts of a stress test: ``grasp_node`` as a process, a camera, and whoever watches.

Everything waits for conditions with a deadline; what does not come in time is a
:class:`StressError` that ends the row, not the report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
import threading
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import GetParameters, SetParameters
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image

from grasp_stn_interfaces.msg import GraspStages
from grasp_stn_interfaces.srv import DetectGrasp

from . import node_process
from .spinning import Spinner
from .stress_scenes import Scene, make_scene, now, triple

# Seconds: for a start with PyTorch on a busy machine, for any other step, and for an answer to
# come back after its timeout.
START, STEP, ALLOWANCE = 180.0, 30.0, 0.25


class StressError(RuntimeError):
    """Something that has to happen did not happen in time."""


def wait_until(condition: Callable[[], Any], what: str, seconds: float = STEP) -> Any:
    """Return the first true value of ``condition()``; raises :class:`StressError`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.005)
    raise StressError(f'waited {seconds:g} s in vain for {what}')


class NodeProcess(node_process.NodeProcess):
    """``grasp_node`` in a process of its own that is watched."""

    def memory(self) -> float:
        """
        Resident memory of its own in MiB (VmRSS less RssShmem).

        The segments that it shares with publishers have a size that DDS sets, and are touched page
        by page in the course of minutes.
        """
        sizes = {}
        for line in Path(f'/proc/{self.process.pid}/status').read_text().splitlines():
            name, _, rest = line.partition(':')
            if name in ('VmRSS', 'RssShmem'):
                sizes[name] = int(rest.split()[0]) / 1024
        if len(sizes) < 2:
            raise StressError('grasp_node is gone')
        return sizes['VmRSS'] - sizes['RssShmem']

    def wait_for_output(self, text: str) -> None:
        """Wait until it has printed ``text``."""
        wait_until(lambda: text in self.output or not self.alive, f'{text!r} from grasp_node',
                   START)
        if text not in self.output:
            raise StressError(f'grasp_node ended with exit code {self.process.returncode}: '
                              f'{self.output[-1000:]}')


class Camera:
    """Publishes scenes from a thread of its own at a fixed rate; can be changed and replaced."""

    def __init__(self, node, scene: Scene):
        """Create the publishers on ``node``."""
        self._node = node
        self.publishers: dict[str, Any] = {}
        self.scene = scene
        self.sent = 0
        self.late = 0
        self.change: Callable[[dict], dict] = lambda messages: messages
        self.offset = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.connect()

    def connect(self) -> None:
        """Appear in the graph."""
        # Reliable publishers fit subscribers of either kind, as most camera drivers do it.
        for name, kind, topic in (('color', Image, 'color/image_raw'),
                                  ('depth', Image, 'depth/image_rect_raw'),
                                  ('info', CameraInfo, 'color/camera_info')):
            self.publishers[name] = self._node.create_publisher(kind, topic, 10)

    def disconnect(self) -> None:
        """Stop and disappear from the graph, as a driver that ends."""
        self.stop()
        for publisher in self.publishers.values():
            self._node.destroy_publisher(publisher)
        self.publishers.clear()

    def wait_for_node(self) -> None:
        """Wait until somebody subscribes to everything."""
        wait_until(lambda: all(p.get_subscription_count() for p in self.publishers.values()),
                   'the subscriptions of grasp_node', START)

    def publish(self) -> dict:
        """Publish one changed triple; return it."""
        messages = self.change(triple(self.scene, now(self.offset), self.sent))
        for name, message in messages.items():
            self.publishers[name].publish(message)
        self.sent += 1
        return messages

    def stream(self, rate: float = 15.0, count: int | None = None) -> None:
        """Publish ``count`` triples (None: until :meth:`stop`) at ``rate`` in the background."""
        self.stop()
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, args=(rate, count), daemon=True)
        self._thread.start()

    def _run(self, rate: float, count: int | None) -> None:
        begin, number = time.monotonic(), 0
        while not self._stop.is_set() and (count is None or number < count):
            due = begin + number / rate
            self._stop.wait(max(0.0, due - time.monotonic()))
            if self._stop.is_set():
                return
            self.late += time.monotonic() - due > 1 / rate
            self.publish()
            number += 1

    @property
    def streaming(self) -> bool:
        """Whether the stream goes on."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """End the stream."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None


class Caller:
    """A client of ``~/detect_grasp`` that counts how often each call is answered."""

    def __init__(self, node):
        """Create the client on ``node``."""
        self.client = node.create_client(DetectGrasp, 'grasp_node/detect_grasp',
                                         qos_profile=QoSProfile(depth=100))
        self.responses: Counter[int] = Counter()
        pending = self.client.get_pending_request

        def counted(sequence: int):
            self.responses[sequence] += 1  # the executor asks once for each response that comes
            return pending(sequence)

        self.client.get_pending_request = counted

    def call(self, timeout: float = 10.0, patience: float = STEP):
        """Call and wait -> response (None: no answer) and seconds that it took."""
        began = time.monotonic()
        future = self.client.call_async(DetectGrasp.Request(timeout=timeout))
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        done.wait(timeout + patience)
        return future.result() if future.done() else None, time.monotonic() - began


class Station:
    """This side: a ROS node with camera and caller that watches what ``grasp_node`` says."""

    def __init__(self, namespace: str, seed: int = 0):
        """Join DDS; rclpy must be initialised."""
        self.scenes = [make_scene(number, seed) for number in range(4)]
        self.node = rclpy.create_node('stress', namespace=namespace)
        self.camera = Camera(self.node, self.scenes[0])
        self.caller = Caller(self.node)
        self.diagnostics: dict[str, str] = {}
        self.level, self.message, self.reports = 0, '', 0
        self.stages: dict[tuple[int, int], Any] = {}
        self.ages: list[float] = []
        self.grasps = 0
        self._prefix = f'{namespace.lstrip("/")}/grasp_node'
        self._clients: dict[str, Any] = {}
        self.node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        self.node.create_subscription(PoseStamped, 'grasp_node/grasp', self._on_grasp, 100)
        self.node.create_subscription(GraspStages, 'grasp_node/stages', self._on_stages, 100)
        executor = SingleThreadedExecutor()
        executor.add_node(self.node)
        self._spinner = Spinner(executor)

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:
            if status.name.startswith(self._prefix):
                self.diagnostics = {v.key: v.value for v in status.values}
                self.level, self.message = status.level[0], status.message
                self.reports += 1

    def _on_grasp(self, grasp: PoseStamped, info: Any) -> None:
        stamp = grasp.header.stamp
        self.grasps += 1
        # By the time at which DDS published it, not at which it arrived here.
        self.ages.append(info['source_timestamp'] / 1e9 - stamp.sec - stamp.nanosec / 1e9)

    def _on_stages(self, stages: GraspStages) -> None:
        self.stages[stages.header.stamp.sec, stages.header.stamp.nanosec] = stages

    def fresh_diagnostics(self, reports: int = 2) -> dict[str, str]:
        """Wait for diagnostics that were put together from now on."""
        before = self.reports
        wait_until(lambda: self.reports >= before + reports, 'diagnostics')
        return self.diagnostics

    def count(self, key: str) -> int:
        """Return a number of the last diagnostics."""
        return int(self.diagnostics.get(key, 0))

    def wait_for_node(self) -> None:
        """Wait until ``grasp_node`` is ready and everybody has found everybody."""
        wait_until(self.caller.client.service_is_ready, 'the service of grasp_node', START)
        self.camera.wait_for_node()
        wait_until(lambda: self.node.count_publishers('grasp_node/grasp') and self.reports,
                   'grasp_node in the graph')

    def right_grasp(self, seconds: float = STEP) -> None:
        """Stream and call until a right grasp of the present scene comes."""
        deadline, fault = time.monotonic() + seconds, ''
        if not self.camera.streaming:
            self.camera.stream()
        while time.monotonic() < deadline:
            response, _ = self.caller.call(timeout=5.0)
            fault = ('no answer' if response is None else response.message
                     if not response.success else self.camera.scene.fault(response.grasp))
            if not fault:
                return
        raise StressError(f'no right grasp within {seconds:g} s, the last one: {fault}')

    def request(self, kind: Any, name: str, request: Any, seconds: float = STEP):
        """Call another service of ``grasp_node`` and wait for the response."""
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, f'grasp_node/{name}')
        client = self._clients[name]
        wait_until(client.service_is_ready, f'the service {name}')
        future = client.call_async(request)
        wait_until(future.done, f'an answer of {name}', seconds)
        return future.result()

    def set(self, **values: Any) -> list:
        """Set parameters -> results, each with ``successful`` and ``reason``."""
        return self.request(SetParameters, 'set_parameters', SetParameters.Request(parameters=[
            Parameter(name.replace('__', '.'), value=value).to_parameter_msg()
            for name, value in values.items()])).results

    def get(self, name: str):
        """Return the ParameterValue of ``name``."""
        return self.request(GetParameters, 'get_parameters',
                            GetParameters.Request(names=[name])).values[0]

    def change_state(self, transition: int) -> bool:
        """Trigger a lifecycle transition."""
        return self.request(ChangeState, 'change_state', ChangeState.Request(
            transition=Transition(id=transition)), START).success

    def close(self) -> None:
        """Leave DDS."""
        self.camera.stop()
        self._spinner.stop()
        self.node.destroy_node()


@contextmanager
def running(namespace: str, seed: int = 0, environment: dict[str, str] | None = None,
            **values: Any) -> Iterator[tuple[Station, NodeProcess]]:
    """Give a station and a ready node with the parameter ``values``; both end afterwards."""
    process = NodeProcess(namespace, environment, **values)
    try:
        station = Station(namespace, seed)
        try:
            station.wait_for_node()
            yield station, process
        except StressError as error:
            if not process.alive:
                raise StressError(f'{error}; grasp_node ended with exit code '
                                  f'{process.process.returncode}') from None
            raise
        finally:
            station.close()
    finally:
        process.close()

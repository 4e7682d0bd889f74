"""
What the ROS tests share: a node under test on real DDS, a camera, and a detector of two lines.

Everything waits for conditions with a deadline. conftest.py isolates the middleware; every node
gets a namespace of its own.
"""

from collections.abc import Iterator
import itertools
import threading
import time

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='rclpy is missing: source a ROS 2 installation or run '
                                    '`make setup`')
pytest.importorskip('grasp_stn_interfaces', reason='grasp_stn_interfaces is not built: run '
                                                   '`make setup` or colcon build')

from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseArray, PoseStamped
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from grasp_stn_interfaces.msg import GraspStages
from grasp_stn_interfaces.srv import DetectGrasp
from grasp_stn_ros.detection import Candidate, Detection
from grasp_stn_ros.grasp_pose import Gripper, rectangle_to_grasp
from grasp_stn_ros.reasons import GraspError, Reason
from grasp_stn_ros.rectangle import GraspRectangle
from grasp_stn_ros.rgbd import CameraIntrinsics
from grasp_stn_ros.ros import conversions
from grasp_stn_ros.ros.grasp_node import GraspNode
from grasp_stn_ros.ros.spinning import ServingExecutor, Spinner

DEADLINE = 60.0  # s; only reached when something is broken
SIZE = (320, 240)
INTRINSICS = CameraIntrinsics(250.0, 250.0, 160.0, 120.0)
# A box with its top 0.75 m away on a table 0.80 m away; its centre is pixel (185, 110).
BOX_DEPTH, TABLE_DEPTH = 0.75, 0.80
RECTANGLE = GraspRectangle(185.0, 110.0, 0.0, 20.0, 8.0)
# Not the defaults: the poses in the tests are worked out for these.
GRIPPER = Gripper(finger_depth=0.022, support_clearance=0.004)
_numbers = itertools.count()


def wait_until(condition, what: str, seconds: float = DEADLINE):
    """Return the first true value of ``condition()``, or fail with ``what`` was waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        threading.Event().wait(0.01)
    raise AssertionError(f'waited {seconds} s in vain for {what}')


def box_scene() -> tuple[np.ndarray, np.ndarray]:
    """Colour (H, W, 3) uint8 and depth (H, W) float32 metres of the box on the table."""
    rgb = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
    depth = np.full((SIZE[1], SIZE[0]), TABLE_DEPTH, np.float32)
    rgb[98:123, 177:194] = (200, 40, 40)
    depth[98:123, 177:194] = BOX_DEPTH
    return rgb, depth


class StubDetector:
    """The detector's interface without a network: returns the rectangles it was given."""

    model_name, device, threads = 'stub', 'cpu', 1

    def __init__(self, rectangles=(RECTANGLE,), scores=(0.9,), error: Exception | None = None):
        """Return ``rectangles`` with ``scores`` for every frame, or raise ``error``."""
        self.rectangles, self.scores, self.error = rectangles, scores, error
        self.calls: list[dict] = []
        self.called_from: set[str] = set()
        self.warm = False
        self.warm_everywhere: list[int] = []
        self.suspended = True
        self.gate = threading.Event()
        self.gate.set()

    def warm_up(self) -> None:
        """Remember that the node called it."""
        self.warm = True

    def warm_up_everywhere(self) -> Iterator[int]:
        """Remember how far the node went."""
        for size in range(3):
            self.warm_everywhere.append(size)
            yield size

    def suspend(self) -> None:
        """Remember that the node let go of the device."""
        self.suspended = True

    def resume(self) -> None:
        """Remember that the node took it again."""
        self.suspended = False

    def detect(self, frame, region=None, minimum_score=0.0, need_pose=True,
               mask=None) -> Detection:
        """Answer with the real geometry and the approach along the optical axis."""
        self.calls.append({'region': region, 'minimum_score': minimum_score, 'frame': frame,
                           'mask': mask})
        self.called_from.add(threading.current_thread().name)
        if not self.gate.wait(DEADLINE):
            raise AssertionError('the test never opened the gate')
        if self.error is not None:
            raise self.error
        if region is not None and (region[0] + region[2] > frame.size[0]
                                   or region[1] + region[3] > frame.size[1]):
            raise GraspError(Reason.INVALID_REQUEST, 'region outside the image')
        candidates = []
        for rectangle, score in zip(self.rectangles, self.scores, strict=True):
            grasp, reason = None, Reason.OK
            try:
                grasp = rectangle_to_grasp(rectangle, frame, GRIPPER,
                                           np.array([0.0, 0.0, 1.0]))
            except GraspError as failure:
                reason = failure.reason
            candidates.append(Candidate((rectangle.x, rectangle.y), score, rectangle.theta,
                                        rectangle, score, grasp, reason))
        good = [c for c in candidates if c.score >= minimum_score]
        best = next((c for c in good if c.grasp is not None), None)
        reason = Reason.OK if best else good[0].reason if good else Reason.NO_CANDIDATE
        return Detection(tuple(candidates), best, reason, reason.sentence, {'network': 1.0})


class Camera:
    """Publishes colour, depth and camera_info in a namespace; every part can be replaced."""

    def __init__(self, node, qos: int = 10):
        """Create the publishers on ``node``."""
        self.node = node
        self.publishers = {
            'color': node.create_publisher(Image, 'color/image_raw', qos),
            'depth': node.create_publisher(Image, 'depth/image_rect_raw', qos),
            'info': node.create_publisher(CameraInfo, 'color/camera_info', qos)}
        self.published = 0
        self._timer = None

    def messages(self, stamp=None, frame_id: str = 'camera_color_optical_frame') -> dict:
        """One consistent set of messages of the box scene."""
        stamp = stamp or self.node.get_clock().now().to_msg()

        def header():
            # One for each message, so that a test can change one of them.
            return Header(stamp=Time(sec=stamp.sec, nanosec=stamp.nanosec), frame_id=frame_id)

        rgb, depth = box_scene()
        return {'color': conversions.image_message(rgb, 'rgb8', header()),
                'depth': conversions.depth_message(depth, '16UC1', header()),
                'info': conversions.camera_info_message(INTRINSICS, SIZE, header())}

    def publish(self, change=lambda messages: messages, only=('color', 'depth', 'info'),
                stamp=None) -> dict:
        """Publish one set after ``change``; return it."""
        messages = change(self.messages(stamp)) or {}
        for name in only:
            if name in messages:
                self.publishers[name].publish(messages[name])
        self.published += 1
        return messages

    def stream(self, **arguments) -> None:
        """Publish at 20 Hz until :meth:`stop`."""
        self.stop()
        self._timer = self.node.create_timer(0.05, lambda: self.publish(**arguments))

    def stop(self) -> None:
        """Stop the stream."""
        if self._timer is not None:
            self.node.destroy_timer(self._timer)
            self._timer = None


class Rig:
    """A node under test, a camera and a client, each spinning in the background."""

    def __init__(self, detector=None, wait=True, remap=None, **values):
        """
        Start the node with the parameter ``values`` (``__`` in a name stands for a dot).

        ``detector`` may be a function that makes one of the node's parameters; without ``wait``,
        nobody waits for subscriptions and service. ``remap`` renames topics of both sides.
        """
        self.namespace = f'/rig_{next(_numbers)}'
        self.detector = detector or StubDetector()
        factory = self.detector if callable(self.detector) else lambda _: self.detector
        overrides = [Parameter(name.replace('__', '.'), value=value)
                     for name, value in values.items()]
        remappings = ['--ros-args'] + [word for old, new in (remap or {}).items()
                                       for word in ('-r', f'{old}:={new}')]
        self.tester = rclpy.create_node('tester', namespace=self.namespace,
                                        cli_args=remappings)
        self.received: dict[str, list] = {}
        for name, kind in (('grasp', PoseStamped), ('pregrasp', PoseStamped),
                           ('grasps', PoseArray), ('stages', GraspStages),
                           ('markers', MarkerArray)):
            self.received[name] = []
            self.tester.create_subscription(kind, f'grasp_node/{name}',
                                            self.received[name].append, 10)
        self.camera = Camera(self.tester)
        self.client = self.tester.create_client(DetectGrasp, 'grasp_node/detect_grasp',
                                                qos_profile=QoSProfile(depth=100))
        self.node = GraspNode(factory, namespace=self.namespace, cli_args=remappings,
                              parameter_overrides=overrides)
        self._spinners = []
        for node, executor in ((self.node, ServingExecutor()),
                               (self.tester, SingleThreadedExecutor())):
            executor.add_node(node)
            self._spinners.append(Spinner(executor))
        if wait:
            self.wait_for_discovery()

    def wait_for_discovery(self) -> None:
        """Wait until everybody sees everybody."""
        assert self.client.wait_for_service(DEADLINE)
        wait_until(lambda: all(p.get_subscription_count() for p in self.camera.publishers.values())
                   and self.tester.count_publishers('grasp_node/markers'), 'discovery')
        outputs = self.node._outputs
        wait_until(lambda: all(p.get_subscription_count() for p in (
            outputs.grasp, outputs.pregrasp, outputs.grasps, outputs.stages, outputs.markers)),
            'subscribers')

    def call(self, timeout: float = 10.0, minimum_score: float = 0.0, region=None):
        """Call ~/detect_grasp and return the future of the response."""
        request = DetectGrasp.Request(timeout=timeout, minimum_score=minimum_score)
        if region is not None:
            (request.region.x_offset, request.region.y_offset,
             request.region.width, request.region.height) = region
        return self.client.call_async(request)

    def answer(self, future):
        """Wait for the response of :meth:`call`."""
        wait_until(future.done, 'the service to answer')
        return future.result()

    def wait_for(self, topic: str, accept=lambda message: True):
        """Return the first message on ``topic`` (grasp, stages, ...) that ``accept``s."""
        return wait_until(lambda: next((m for m in list(self.received[topic]) if accept(m)), None),
                          f'a message on {topic}')

    def close(self) -> None:
        """Stop everything in the order of the real main."""
        self.camera.stop()
        self.node.close()
        for spinner in self._spinners:
            spinner.stop()
        self.node.destroy_node()
        self.tester.destroy_node()
        for spinner in self._spinners:
            if spinner.failure is not None:
                raise spinner.failure


@pytest.fixture(scope='module')
def ros():
    """Initialise rclpy for the tests of one file."""
    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture
def rig(ros):
    """Return a factory of rigs that are closed after the test."""
    rigs = []

    def create(*args, **kwargs) -> Rig:
        rigs.append(Rig(*args, **kwargs))
        return rigs[-1]

    yield create
    for each in rigs:
        each.close()

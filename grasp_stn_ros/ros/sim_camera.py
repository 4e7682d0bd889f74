"""A camera over a simulated table: publishes what a real RGB-D driver would."""

from __future__ import annotations

import sys

import numpy as np
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from ..simulation.depth_noise import structured_light
from ..simulation.objects import make_object
from ..simulation.scene import RenderedFrame, TableScene, random_scene
from . import conversions
from .spinning import interruptible, stop_on_signals

OPTICAL_FRAME, WORLD_FRAME = 'camera_color_optical_frame', 'world'
DEPTH_ENCODINGS = ('16UC1', '32FC1')


def new_scene(rng: np.random.Generator, count: int = 1) -> TableScene:
    """Return a settled scene with ``count`` procedural objects."""
    return random_scene(rng, [make_object(rng) for _ in range(count)])


class CameraPublisher:
    """Publishes rendered frames in a node's namespace, with fresh depth noise every time."""

    def __init__(self, node: Node, rng: np.random.Generator, depth_encoding: str = '16UC1',
                 frame_id: str = OPTICAL_FRAME):
        """Create the publishers; ``rng`` draws the noise."""
        self._node, self._rng = node, rng
        self._depth_encoding, self._frame_id = depth_encoding, frame_id
        # Reliable: fits subscribers of either kind.
        self._color = node.create_publisher(Image, 'color/image_raw', 5)
        self._depth = node.create_publisher(Image, 'depth/image_rect_raw', 5)
        # RViz looks for the calibration next to the depth image as well; it is the same camera.
        self._infos = [node.create_publisher(CameraInfo, f'{stream}/camera_info', 5)
                       for stream in ('color', 'depth')]

    def publish(self, view: RenderedFrame, scene: TableScene) -> Header:
        """Publish one frame, taken now; return its header."""
        header = Header(stamp=self._node.get_clock().now().to_msg(), frame_id=self._frame_id)
        depth = structured_light(view.depth, scene.intrinsics, self._rng)
        size = (view.rgb.shape[1], view.rgb.shape[0])
        self._color.publish(conversions.image_message(view.rgb, 'rgb8', header))
        self._depth.publish(conversions.depth_message(depth, self._depth_encoding, header))
        info = conversions.camera_info_message(scene.intrinsics, size, header)
        for publisher in self._infos:
            publisher.publish(info)
        return header


class SimCamera(Node):
    """Publishes one scene at a rate; ``~/next_scene`` puts other objects on the table."""

    def __init__(self, **node_arguments):
        """Build the first scene; raises ValueError on a bad parameter."""
        super().__init__('sim_camera', **node_arguments)
        try:
            rate = self._declare('rate', 12.0, 'Frames a second.', (0.1, 60.0))
            seed = self._declare('seed', 0, 'Seed of scenes and noise.', (0, 2**31 - 1))
            self._count = self._declare('objects', 1, 'Objects on the table.', (1, 8))
            encoding = self._declare('depth_encoding', '16UC1', '16UC1 (mm) or 32FC1 (m).')
            frame = self._declare('frame_id', OPTICAL_FRAME, 'Optical frame of the camera.')
        except Exception as error:  # rclpy has half a dozen types for one situation
            raise ValueError(str(error)) from error
        if encoding not in DEPTH_ENCODINGS:
            raise ValueError(f'depth_encoding is {encoding!r}, expected one of '
                             f'{", ".join(DEPTH_ENCODINGS)}')
        self._frame_id = frame
        self._rng = np.random.default_rng(seed)
        self._camera = CameraPublisher(self, np.random.default_rng(seed), encoding, frame)
        self._tf_publisher = self._create_tf_publisher()
        self.scene: TableScene | None = None
        self._replace_scene()
        self._timer = self.create_timer(1 / rate, self._publish)
        self.create_service(Trigger, '~/next_scene', self._on_next_scene)

    def _declare(self, name, default, description, limits=None):
        descriptor = ParameterDescriptor(description=description, read_only=True)
        if limits and isinstance(default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=limits[0], to_value=limits[1])]
        elif limits:
            descriptor.integer_range = [
                IntegerRange(from_value=limits[0], to_value=limits[1], step=1)]
        return self.declare_parameter(name, default, descriptor).value

    def _replace_scene(self) -> None:
        scene = new_scene(self._rng, self._count)
        if self.scene is not None:
            self.scene.close()
        # Rendered once: only the noise differs from frame to frame.
        self.scene, self._view = scene, scene.render()
        self._publish_transform()
        names = ', '.join(thing.name for thing in scene.objects)
        self.get_logger().info(f'on the table: {names}')

    def _publish(self) -> None:
        self._camera.publish(self._view, self.scene)

    def _on_next_scene(self, _request: Trigger.Request,
                       response: Trigger.Response) -> Trigger.Response:
        try:
            self._replace_scene()
            response.success = True
            response.message = ', '.join(thing.name for thing in self.scene.objects)
        except RuntimeError as error:
            response.message = str(error)
        return response

    def _create_tf_publisher(self):
        try:
            from tf2_msgs.msg import TFMessage
        except ImportError:
            return None  # not among the wheels; the node itself needs no transform
        return self.create_publisher(TFMessage, '/tf_static', QoSProfile(
            depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))

    def _publish_transform(self) -> None:
        """Publish where the camera is: latched, as a static transform broadcaster does."""
        if self._tf_publisher is None:
            return
        from geometry_msgs.msg import TransformStamped, Vector3
        from tf2_msgs.msg import TFMessage
        pose = conversions.matrix_to_pose(self.scene.camera_pose)
        transform = TransformStamped(
            header=Header(stamp=self.get_clock().now().to_msg(), frame_id=WORLD_FRAME),
            child_frame_id=self._frame_id)
        p = pose.position
        transform.transform.translation = Vector3(x=p.x, y=p.y, z=p.z)
        transform.transform.rotation = pose.orientation
        self._tf_publisher.publish(TFMessage(transforms=[transform]))


def main(args: list[str] | None = None) -> int:
    """Run the camera until SIGINT or SIGTERM; the exit code."""
    stop = stop_on_signals()
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        with interruptible(stop):
            node = SimCamera()
    except KeyboardInterrupt:
        rclpy.try_shutdown()
        return 0
    except (ValueError, RuntimeError) as error:
        print(f'sim_camera: {error}', file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        # Rendering stays in the main thread, where the first scene made its OpenGL context.
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.1)
    except ExternalShutdownException:
        pass
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())

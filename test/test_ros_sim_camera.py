"""The simulated camera: consistent frames over DDS, another scene on request."""

import numpy as np
import pytest
from ros_fixtures import ros, wait_until  # noqa: F401

pytest.importorskip('mujoco', reason='mujoco is missing: run `make setup`')

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger

from grasp_stn_ros.ros import conversions
from grasp_stn_ros.ros.sim_camera import OPTICAL_FRAME, SimCamera
from grasp_stn_ros.ros.spinning import Spinner


@pytest.mark.parametrize('encoding', ['16UC1', '32FC1'])
def test_frames_are_consistent_and_the_scene_changes(ros, encoding):  # noqa: F811
    received = {'color': [], 'depth': [], 'info': []}
    namespace = f'/sim_{encoding.lower()}'
    camera = SimCamera(namespace=namespace, parameter_overrides=[
        Parameter('depth_encoding', value=encoding), Parameter('rate', value=10.0)])
    tester = rclpy.create_node('tester', namespace=namespace)
    tester.create_subscription(Image, 'color/image_raw', received['color'].append, 10)
    tester.create_subscription(Image, 'depth/image_rect_raw', received['depth'].append, 10)
    tester.create_subscription(CameraInfo, 'color/camera_info', received['info'].append, 10)
    client = tester.create_client(Trigger, 'sim_camera/next_scene')
    executor = SingleThreadedExecutor()
    executor.add_node(tester)
    receiver = Spinner(executor)
    # Rendering belongs to the thread that made the scene: this one spins the camera.
    spinner = SingleThreadedExecutor()
    spinner.add_node(camera)

    def triple(after: int = 0):
        spinner.spin_once(timeout_sec=0.05)
        stamps = [{(m.header.stamp.sec, m.header.stamp.nanosec): m for m in list(messages)}
                  for messages in received.values()]
        common = sorted(set.intersection(*map(set, stamps)))
        return [s[common[-1]] for s in stamps] if len(common) > after else None

    try:
        color, depth, info = wait_until(triple, 'a frame')
        assert {m.header.frame_id for m in (color, depth, info)} == {OPTICAL_FRAME}
        assert depth.encoding == encoding
        frame = conversions.frame_from_messages(color, depth, info)
        assert frame.intrinsics == camera.scene.intrinsics
        # Depth is that of the rendered scene, up to sensor noise.
        true = camera._view.depth
        both = np.isfinite(frame.depth) & np.isfinite(true)
        assert both.mean() > 0.5
        assert np.median(np.abs(frame.depth - true)[both]) < 0.005
        _, second, _ = wait_until(lambda: triple(after=3), 'more frames')
        assert second.data != depth.data, 'the noise is fresh in every frame'

        before = camera._view.rgb.copy()
        future = client.call_async(Trigger.Request())
        wait_until(lambda: spinner.spin_once(timeout_sec=0.05) or future.done(), 'the service')
        assert future.result().success
        assert future.result().message
        assert (camera._view.rgb != before).any()
    finally:
        receiver.stop()
        spinner.shutdown()
        camera.scene.close()
        camera.destroy_node()
        tester.destroy_node()


def test_bad_encoding_is_named(ros):  # noqa: F811
    with pytest.raises(ValueError, match='mono16'):
        SimCamera(parameter_overrides=[Parameter('depth_encoding', value='mono16')])

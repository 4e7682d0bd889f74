"""Frames, limits, mask and tracker of the node over real DDS."""

import math

from builtin_interfaces.msg import Time
import numpy as np
import pytest
import rclpy
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_fixtures import RECTANGLE, SIZE, StubDetector, rig, ros, wait_until  # noqa: F401
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from grasp_stn_ros.node_settings import camera_pose_from
from grasp_stn_ros.reasons import Reason
from grasp_stn_ros.rectangle import GraspRectangle
from grasp_stn_ros.ros import conversions

# The camera hangs 1 m above the origin of the base and looks down: half a turn about x.
OVERHEAD = [0.3, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0]
# In the camera the grasp of the box scene is at (0.075, -0.030, 0.772), see test_ros_node.py.
IN_BASE = [0.3 + 0.075, 0.030, 1.0 - 0.772]


def xyz(pose):
    return [pose.position.x, pose.position.y, pose.position.z]


def approach(pose):
    """First column of the rotation."""
    return conversions.pose_to_matrix(pose)[:3, 0]


def test_grasp_pregrasp_and_flange_in_the_target_frame(rig):  # noqa: F811
    it = rig(target_frame='base', camera_pose=OVERHEAD, approach_offset=0.12,
             gripper__tcp_offset=0.15)
    it.camera.stream()
    grasp = it.wait_for('grasp')
    assert grasp.header.frame_id == 'base'
    np.testing.assert_allclose(xyz(grasp.pose), IN_BASE, atol=1e-6)
    np.testing.assert_allclose(approach(grasp.pose), [0, 0, -1], atol=1e-6)
    pregrasp = it.wait_for('pregrasp')
    assert pregrasp.header.frame_id == 'base'
    np.testing.assert_allclose(xyz(pregrasp.pose), np.add(IN_BASE, [0, 0, 0.12]), atol=1e-6)
    response = it.answer(it.call())
    assert response.grasp.header.frame_id == 'base'
    np.testing.assert_allclose(xyz(response.grasp.pose), IN_BASE, atol=1e-6)
    np.testing.assert_allclose(xyz(response.grasp.pregrasp), np.add(IN_BASE, [0, 0, 0.12]),
                               atol=1e-6)
    np.testing.assert_allclose(xyz(response.grasp.flange), np.add(IN_BASE, [0, 0, 0.15]),
                               atol=1e-6)
    # The stages stay where they were seen.
    stages = it.wait_for('stages')
    assert stages.header.frame_id == 'camera_color_optical_frame'
    np.testing.assert_allclose(xyz(stages.candidates[0].pose), [0.075, -0.030, 0.772], atol=1e-6)


def test_ranked_grasps_and_their_number(rig):  # noqa: F811
    places = [RECTANGLE, GraspRectangle(185.0, 112.0, 0.0, 20.0, 8.0),
              GraspRectangle(185.0, 108.0, 0.0, 20.0, 8.0)]
    it = rig(StubDetector(places, (0.9, 0.8, 0.7)), maximum_alternatives=1)
    it.camera.stream()
    grasps = it.wait_for('grasps')
    assert [round(p.position.y, 3) for p in grasps.poses] == [-0.030, -0.024]
    assert len(it.answer(it.call()).alternatives) == 1
    assert it.node.set_parameters([Parameter('maximum_alternatives', value=5)])[0].successful
    it.wait_for('grasps', lambda m: len(m.poses) == 3)


@pytest.mark.parametrize('values, reason', [
    ({'workspace__minimum': [-1.0, -1.0, 0.0], 'workspace__maximum': [0.0, 1.0, 1.0]},
     Reason.OUTSIDE_WORKSPACE),
    ({'maximum_depth': 0.7}, Reason.OUTSIDE_DEPTH),
    ({'support_margin': 0.05}, Reason.SUPPORT_COLLISION)])
def test_a_grasp_that_the_cell_forbids_is_shown_and_not_published(rig, values, reason):  # noqa: F811
    it = rig(target_frame='base', camera_pose=OVERHEAD, **values)
    it.camera.stream()
    response = it.answer(it.call())
    assert (response.success, response.reason) == (False, reason)
    stages = it.wait_for('stages')
    assert (stages.best, stages.candidates[0].reason) == (-1, reason)
    assert stages.candidates[0].opening > 0, 'the pose is there to be looked at'
    assert not it.received['grasp']
    free = {'workspace.minimum': [0.0] * 3, 'workspace.maximum': [0.0] * 3, 'maximum_depth': 0.0,
            'support_margin': 0.0}
    assert it.node.set_parameters_atomically(
        [Parameter(name, value=value) for name, value in free.items()]).successful
    it.wait_for('grasp')


def test_the_opening_direction_that_the_robot_prefers(rig):  # noqa: F811
    it = rig(opening_preference=[-1.0, 0.0, 0.0])
    it.camera.publish()
    pose = it.wait_for('grasp').pose
    np.testing.assert_allclose(conversions.pose_to_matrix(pose)[:3, 1], [-1, 0, 0], atol=1e-6)


def test_the_mask_rules(rig):  # noqa: F811
    it = rig(mask_topic='mask', mode='on_demand', maximum_mask_age=1.0)
    masks = it.tester.create_publisher(Image, 'mask', 5)
    wait_until(masks.get_subscription_count, 'the subscription')
    it.camera.stream()
    response = it.answer(it.call())
    assert response.reason == Reason.MASKED
    assert f'no mask has come on {it.namespace}/mask' in response.message

    def show(allowed, stamp=None, size=SIZE, encoding='mono8'):
        pixels = np.zeros((size[1], size[0]), np.uint8)
        pixels[:, 150:] = 255 if allowed else 0
        header = Header(stamp=stamp or it.tester.get_clock().now().to_msg())
        # Until this one is the newest: best effort.
        masks.publish(conversions.image_message(pixels, encoding, header))
        wait_until(lambda: it.node._input._mask is not None
                   and it.node._input._mask.header == header, 'the mask')
        return it.answer(it.call())

    assert show(True).success
    # What was shown stays known when the stamps of the camera start over.
    it.camera.publish(stamp=Time(sec=1000))
    wait_until(lambda: it.node._input.clock_jumps, 'the jump')
    assert it.answer(it.call()).success
    assert show(False).reason == Reason.MASKED
    assert 'maximum_mask_age' in show(True, Time(sec=5)).message
    assert show(True, size=(32, 24)).reason == Reason.SIZE_MISMATCH
    assert 'mono8 or 8UC1' in show(True, encoding='rgb8').message
    assert show(True, encoding='8UC1').success


def test_a_mask_that_was_latched_before_the_node_came(rig):  # noqa: F811
    early = rclpy.create_node('segmentation')
    try:
        masks = early.create_publisher(Image, '/latched_mask', QoSProfile(
            depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))
        masks.publish(conversions.image_message(np.full((SIZE[1], SIZE[0]), 255, np.uint8),
                                                'mono8', Header()))
        settings = {'mask_topic': '/latched_mask', 'mode': 'on_demand', 'maximum_mask_age': 0.0}
        it = rig(mask_qos='transient_local', **settings)
        wait_until(lambda: it.node._input._mask is not None, 'the mask')
        it.camera.stream()
        assert it.answer(it.call()).success
        without = rig(**settings)
        without.camera.stream()
        assert 'set mask_qos to transient_local' in without.answer(without.call()).message
    finally:
        early.destroy_node()


def test_poses_of_the_stream_are_not_mixed_with_those_of_requests(rig):  # noqa: F811
    detector = StubDetector(scores=(0.1,))
    it = rig(detector, minimum_score=0.2)
    it.camera.stream()
    it.wait_for('stages')
    assert it.answer(it.call(minimum_score=0.05)).success
    it.wait_for('stages', lambda m: m.best == 0)      # to be looked at
    assert not it.received['grasp'] and not it.received['grasps']


def test_all_published_grasps_have_the_score_that_is_asked_for(rig):  # noqa: F811
    it = rig(StubDetector([RECTANGLE, GraspRectangle(185.0, 103.0, 0.0, 20.0, 8.0)], (0.9, 0.05)),
             minimum_score=0.2)
    it.camera.stream()
    assert len(it.wait_for('grasps').poses) == 1


def test_a_request_gets_the_best_of_its_frame_and_not_the_steady_choice(rig):  # noqa: F811
    left, right = RECTANGLE, GraspRectangle(185.0, 100.0, math.pi / 4, 20.0, 8.0)
    detector = StubDetector((left, right), (0.8, 0.5))
    it = rig(detector, stability__enabled=True)
    it.camera.stream()
    first = it.wait_for('grasp').pose
    detector.rectangles, detector.scores = (right, left), (0.85, 0.8)
    answer = wait_until(lambda: (lambda a: a if a.grasp.score > 0.84 else None)(
        it.answer(it.call())), 'the best of the frame')
    it.received['grasp'].clear()
    assert it.wait_for('grasp').pose.position == first.position
    assert answer.grasp.pose.position != first.position


def test_the_tracker_holds_the_choice(rig):  # noqa: F811
    left, right = RECTANGLE, GraspRectangle(185.0, 100.0, math.pi / 4, 20.0, 8.0)
    detector = StubDetector((left, right), (0.80, 0.78))
    it = rig(detector, stability__enabled=True)

    def best(first, second, scores):
        detector.rectangles, detector.scores = (first, second), scores
        stamp = it.camera.publish()['color'].header.stamp
        stages = it.wait_for('stages', lambda m: m.header.stamp == stamp)
        return round(stages.candidates[stages.best].rectangle.theta, 3)

    assert best(left, right, (0.80, 0.78)) == 0.0
    assert best(right, left, (0.82, 0.78)) == 0.0, 'held, though another one is first'
    assert it.node.set_parameters([Parameter('stability.enabled', value=False)])[0].successful
    assert best(right, left, (0.82, 0.78)) == pytest.approx(math.pi / 4, abs=1e-3)


def test_without_tf2_the_error_says_what_to_do(rig):  # noqa: F811
    try:
        import tf2_ros  # noqa: F401
        pytest.skip('tf2_ros is here; see the tests below')
    except ImportError:
        pass
    it = rig(target_frame='base', autostart=False, wait=False)
    it.node.trigger_configure()
    assert it.node.state == 'unconfigured'
    assert 'tf2' in it.node._diagnostics.failure
    assert 'camera_pose' in it.node._diagnostics.failure


@pytest.fixture
def tf(rig):  # noqa: F811
    """Return a rig with target_frame and a function that says where the camera was when."""
    pytest.importorskip('tf2_ros', reason='tf2_ros is missing: it comes with every ROS 2 '
                        'installation (ros-$ROS_DISTRO-tf2-ros-py), not with the wheels')
    from geometry_msgs.msg import TransformStamped, Vector3
    from tf2_msgs.msg import TFMessage
    it = rig(target_frame='base', transform_timeout=0.5)
    publisher = it.tester.create_publisher(TFMessage, '/tf', 100)
    wait_until(publisher.get_subscription_count, 'the listener')

    def place(x, stamp, child='camera_color_optical_frame'):
        transform = TransformStamped(child_frame_id=child,
                                     header=Header(stamp=stamp, frame_id='base'))
        transform.transform.translation = Vector3(x=x, z=1.0)
        transform.transform.rotation.x, transform.transform.rotation.w = 1.0, 0.0
        publisher.publish(TFMessage(transforms=[transform]))

    return it, place


def test_the_transform_is_that_of_the_stamp(tf):
    it, place = tf
    # The camera moves from x = 0 to x = 1 within two seconds; the image is from the middle.
    for second, x in ((1000, 0.0), (1002, 1.0)):
        place(x, Time(sec=second))
    wait_until(lambda: it.node._transforms._buffer.can_transform(
        'base', 'camera_color_optical_frame', rclpy_time(1001)), 'the transforms')
    it.camera.publish(stamp=Time(sec=1001))
    grasp = it.wait_for('grasp')
    assert (grasp.header.frame_id, grasp.header.stamp.sec) == ('base', 1001)
    np.testing.assert_allclose(xyz(grasp.pose), [0.5 + 0.075, 0.030, 1.0 - 0.772], atol=1e-6)


def test_a_transform_that_does_not_come_is_named_and_nothing_is_published(tf):
    it, place = tf
    it.camera.stream()
    response = it.answer(it.call())
    assert (response.success, response.reason) == (False, Reason.NO_TRANSFORM)
    assert 'base' in response.message
    it.wait_for('stages', lambda m: m.reason == Reason.NO_TRANSFORM and m.candidates)
    assert not it.received['grasp']


def test_a_transform_that_comes_late_is_waited_for(tf):
    it, place = tf
    place(0.0, Time(sec=1000))
    stamp = Time(sec=1001)
    it.camera.publish(stamp=stamp)
    wait_until(lambda: it.node._input.pairs == 1, 'the pair')
    place(0.0, Time(sec=1002))
    np.testing.assert_allclose(xyz(it.wait_for('grasp').pose), np.subtract(IN_BASE, [0.3, 0, 0]),
                               atol=1e-6)


def rclpy_time(second):
    from rclpy.time import Time as RclTime
    return RclTime(seconds=second)


def test_a_fixed_pose_is_normalized_and_zeros_mean_none():
    assert camera_pose_from({'camera_pose': [0.0] * 7}) is None
    matrix = camera_pose_from({'camera_pose': [0.0, 0.0, 1.0, 0.0, 0.0, 0.7071, 0.7071]})
    np.testing.assert_allclose(matrix @ [1, 0, 0, 1], [0, 1, 1, 1], atol=1e-9)

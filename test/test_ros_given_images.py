"""~/detect_grasp_in_images over real DDS: images that come with the request."""

from geometry_msgs.msg import Quaternion
import numpy as np
import pytest
from rclpy.qos import QoSProfile
from ros_fixtures import (  # noqa: F401
    DEADLINE,
    RECTANGLE,
    SIZE,
    StubDetector,
    rig,
    ros,
    wait_until,
)
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from test_ros_cell import IN_BASE, OVERHEAD, xyz

from grasp_stn_interfaces.srv import DetectGrasp, DetectGraspInImages
from grasp_stn_ros.reasons import Reason
from grasp_stn_ros.rectangle import GraspRectangle
from grasp_stn_ros.ros import conversions

# On the same box, above it in the image.
OTHER = GraspRectangle(185.0, 103.0, 0.0, 20.0, 8.0)


class Client:
    """Calls the service of a rig's node."""

    def __init__(self, it):
        self.it = it
        self.service = it.tester.create_client(
            DetectGraspInImages, 'grasp_node/detect_grasp_in_images',
            qos_profile=QoSProfile(depth=100))
        assert self.service.wait_for_service(DEADLINE)

    def call(self, mask=None, timeout=10.0, **changes):
        """Ask for a grasp in the box scene, with some of the fields changed."""
        parts = self.it.camera.messages()
        fields = {'color': parts['color'], 'depth': parts['depth'],
                  'camera_info': parts['info'], **changes}
        if mask is not None:
            fields['mask'] = conversions.image_message(mask, 'mono8', Header())
        return self.service.call_async(DetectGraspInImages.Request(timeout=timeout, **fields))

    def answer(self, **arguments):
        return self.it.answer(self.call(**arguments))


def test_a_grasp_in_the_images_of_the_request(rig):  # noqa: F811
    it = rig(StubDetector([OTHER, RECTANGLE], [0.9, 0.8]), mode='on_demand')
    response = Client(it).answer()
    assert (response.success, response.reason) == (True, Reason.OK)
    assert response.grasp.header.frame_id == 'camera_color_optical_frame'
    assert response.grasp.score == pytest.approx(0.9)
    assert [g.score for g in response.alternatives] == pytest.approx([0.8])
    assert response.stages.header == response.grasp.header
    assert [c.score for c in response.stages.candidates] == pytest.approx([0.9, 0.8])
    # Whoever watches the node sees what was asked for.
    shown = it.wait_for('grasp')
    assert shown.header == response.grasp.header and shown.pose == response.grasp.pose


def test_age_says_nothing_about_images_that_were_given(rig):  # noqa: F811
    it = rig(mode='on_demand', maximum_frame_age=1.0)
    parts = it.camera.messages()
    for message in parts.values():
        message.header.stamp.sec -= 1000
    response = Client(it).answer(color=parts['color'], depth=parts['depth'],
                                 camera_info=parts['info'])
    assert response.success
    assert response.grasp.header.stamp == parts['color'].header.stamp
    assert 'stamps differ' not in it.node._diagnostics.status().message


def test_a_fault_of_images_that_were_given_is_none_of_the_camera(rig):  # noqa: F811
    it = rig(mode='on_demand')
    depth = it.camera.messages()['depth']
    depth.header.frame_id = 'another camera'
    assert Client(it).answer(depth=depth).reason == Reason.FRAME_MISMATCH
    wait_until(lambda: it.node._diagnostics._outcomes, 'the diagnostics to know')
    status = it.node._diagnostics.status()
    assert 'another camera' not in status.message
    assert 'FRAME_MISMATCH' in {v.value.split(':')[0] for v in status.values}


def test_a_mask_chooses_the_object(rig):  # noqa: F811
    it = rig(StubDetector([OTHER, RECTANGLE], [0.9, 0.8]), mode='on_demand')
    client = Client(it)
    mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    response = client.answer(mask=mask)
    assert (response.success, response.reason) == (False, Reason.MASKED)
    assert len(response.stages.candidates) == 2
    mask[106:123, 177:194] = 255
    response = client.answer(mask=mask)
    assert response.success and response.grasp.score == pytest.approx(0.8)
    response = client.answer(mask=mask[:-1])
    assert (response.success, response.reason) == (False, Reason.SIZE_MISMATCH)


def test_the_topic_of_masks_is_for_the_camera(rig):  # noqa: F811
    it = rig(mode='on_demand', mask_topic='mask')
    assert Client(it).answer().success


@pytest.mark.parametrize('changes, reason', [
    ({'depth': Image()}, Reason.FRAME_MISMATCH),
    ({'color': Image()}, Reason.FRAME_MISMATCH),
    ({'depth': Image(header=Header(frame_id='camera_color_optical_frame'))}, Reason.SIZE_MISMATCH),
    ({'color': Image(header=Header(frame_id='camera_color_optical_frame'))}, Reason.SIZE_MISMATCH),
    ({'camera_info': CameraInfo()}, Reason.SIZE_MISMATCH),
    ({'minimum_score': 2.0}, Reason.INVALID_REQUEST),
    ({'timeout': -1.0}, Reason.INVALID_REQUEST),
], ids=['no depth', 'no colour', 'empty depth', 'empty colour', 'no calibration', 'score',
        'timeout'])
def test_what_cannot_be_used_is_named(rig, changes, reason):  # noqa: F811
    it = rig(mode='on_demand')
    client = Client(it)
    response = client.answer(**changes)
    assert not response.success
    assert Reason(response.reason) is reason
    assert response.message.startswith(reason.name)
    assert client.answer().success


def test_a_busy_detector_does_not_hold_the_answer(rig):  # noqa: F811
    it = rig(mode='on_demand')
    client = Client(it)
    it.detector.gate.clear()
    first = client.call(timeout=0.3)
    wait_until(lambda: it.detector.calls, 'the first detection')
    second = client.call(timeout=0.2)
    assert 'took too long' in it.answer(first).message
    assert 'busy with others' in it.answer(second).message
    it.detector.gate.set()
    assert client.answer().success


def test_camera_and_given_images_take_turns(rig):  # noqa: F811
    it = rig()
    client = Client(it)
    it.detector.gate.clear()
    pending = [client.call() for _ in range(6)]
    wait_until(lambda: len(it.node.requests.tickets) == 6, 'the requests')
    it.camera.publish()
    wait_until(lambda: it.node._input.pairs == 1, 'the pair')
    it.detector.gate.set()
    assert all(it.answer(future).success for future in pending)
    wait_until(lambda: len(it.received['stages']) == 7, 'all detections')
    assert len(it.detector.calls) == 7
    assert len(it.wait_for('grasps').poses) == 1 == len(it.received['grasp'])
    stamps = [m.header.stamp for m in it.received['stages']]
    # The camera's pair, the last one taken, did not wait until nobody asked any more.
    camera = max(range(7), key=lambda i: (stamps[i].sec, stamps[i].nanosec))
    assert camera <= 2


def test_camera_pose_is_not_that_of_another_camera(rig):  # noqa: F811
    it = rig(target_frame='base', camera_pose=OVERHEAD)
    it.camera.stream()
    it.wait_for('grasp')
    client = Client(it)
    for frame, reason in (('camera_color_optical_frame', Reason.OK),
                          ('wrist_camera', Reason.NO_TRANSFORM)):
        parts = it.camera.messages(frame_id=frame)
        response = client.answer(color=parts['color'], depth=parts['depth'],
                                 camera_info=parts['info'])
        assert Reason(response.reason) is reason


def test_images_of_the_camera_that_are_given_back_are_the_cameras(rig):  # noqa: F811
    # Such as those that a segmentation has looked at: the parameter names their frame, too.
    it = rig(target_frame='base', camera_pose=OVERHEAD, frame_id='cell_camera')
    it.camera.stream()
    it.wait_for('grasp')
    response = Client(it).answer()
    assert response.success and response.stages.header.frame_id == 'cell_camera'
    np.testing.assert_allclose(xyz(response.grasp.pose), IN_BASE, atol=1e-6)


def test_an_inactive_node_says_so(rig):  # noqa: F811
    it = rig(mode='on_demand')
    client = Client(it)
    it.node.trigger_deactivate()
    response = client.answer()
    assert (response.success, response.reason) == (False, Reason.NOT_ACTIVE)


# Across the box, where RECTANGLE is along it.
TURNED = GraspRectangle(185.0, 110.0, np.pi / 2, 28.0, 8.0)


@pytest.mark.parametrize('cell', [{}, {'target_frame': 'base',
                                       'camera_pose': OVERHEAD}])
def test_a_grasp_that_failed_comes_after_others(rig, cell):  # noqa: F811
    client = Client(rig(StubDetector([RECTANGLE, TURNED], [0.9, 0.8]), mode='on_demand', **cell))
    first = client.answer()
    assert first.grasp.score == pytest.approx(0.9)
    second = client.answer(failed=[first.grasp])
    assert second.success and second.grasp.pose == first.alternatives[0].pose
    assert second.grasp.score == pytest.approx(0.8)
    assert [g.pose for g in second.alternatives] == [first.grasp.pose]
    # In the frame of the camera, whatever that of the grasps is.
    (cross,) = second.stages.failed
    (old,) = [c for c in second.stages.candidates if c.score == pytest.approx(0.9)]
    np.testing.assert_allclose(conversions.pose_to_matrix(cross),
                               conversions.pose_to_matrix(old.pose), atol=1e-6)
    third = client.answer(failed=[first.grasp, second.grasp])
    assert third.success and third.grasp.pose == first.grasp.pose
    # Nobody else has to know.
    assert client.answer().grasp.pose == first.grasp.pose


def test_requests_at_the_same_time_do_not_share_failures(rig):  # noqa: F811
    it = rig(StubDetector([RECTANGLE, TURNED], [0.9, 0.8]), mode='on_demand')
    it.camera.stream()
    first = it.answer(it.call())
    it.camera.stop()
    calls = [it.call() for _ in range(3)]
    knowing = it.client.call_async(DetectGrasp.Request(timeout=10.0, failed=[first.grasp]))
    wait_until(lambda: len(it.node.requests.tickets) == 4, 'the requests')
    it.camera.stream()
    assert [it.answer(call).grasp.score for call in calls] == pytest.approx([0.9] * 3)
    assert it.answer(knowing).grasp.score == pytest.approx(0.8)


@pytest.mark.parametrize('change, words', [
    (lambda grasp: setattr(grasp.header, 'frame_id', 'map'),
     "failed grasps are in frame 'map', the answers in 'camera_color_optical_frame'"),
    (lambda grasp: setattr(grasp.pose.position, 'x', float('nan')), 'has no pose'),
    (lambda grasp: setattr(grasp.pose, 'orientation', Quaternion(w=0.0)), 'has no pose')])
def test_what_cannot_have_failed_is_refused(rig, change, words):  # noqa: F811
    client = Client(rig(mode='on_demand'))
    grasp = client.answer().grasp
    change(grasp)
    response = client.answer(failed=[grasp])
    assert (response.success, response.reason) == (False, Reason.INVALID_REQUEST)
    assert words in response.message
    grasp = client.answer().grasp
    grasp.header.frame_id = ''       # of whoever has only kept the pose
    assert client.answer(failed=[grasp]).success
    assert client.answer(failed=[grasp] * 101).reason == Reason.INVALID_REQUEST

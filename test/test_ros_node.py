"""The node over real DDS: a pair in, a grasp out, and a name for everything that goes wrong."""

import itertools
import re

from builtin_interfaces.msg import Time
import numpy as np
import pytest
from ros_fixtures import RECTANGLE, SIZE, StubDetector, rig, ros, wait_until  # noqa: F401
from sensor_msgs.msg import Image

from grasp_stn_ros.reasons import GraspError, Reason
from grasp_stn_ros.rectangle import GraspRectangle
from grasp_stn_ros.ros import conversions
from grasp_stn_ros.ros.requests import MAXIMUM_REQUESTS


def shifted(message, seconds: float) -> None:
    """Move the stamp of ``message``."""
    stamp = message.header.stamp
    total = stamp.sec * 1_000_000_000 + stamp.nanosec + round(seconds * 1e9)
    stamp.sec, stamp.nanosec = divmod(total, 1_000_000_000)


def assert_hand_computed(pose) -> None:
    """
    Compare with the pose of the box worked out by hand.

    Rectangle centre (185, 110), f = 250, c = (160, 120), surface at z = 0.75, approach (0, 0, 1):
    x = 25 / 250 * 0.75, y = -10 / 250 * 0.75; finger tips 22 mm below the surface. Axes: x' = z,
    y' = x (theta = 0), z' = x' cross y' = y, which is the rotation by 120 degrees about
    -(1, 1, 1): quaternion (-1/2, -1/2, -1/2, 1/2).
    """
    p, q = pose.position, pose.orientation
    np.testing.assert_allclose([p.x, p.y, p.z], [0.075, -0.030, 0.772], atol=1e-6)
    np.testing.assert_allclose([q.x, q.y, q.z, q.w], [-0.5, -0.5, -0.5, 0.5], atol=1e-6)


def test_pair_in_grasp_out(rig):  # noqa: F811
    it = rig()
    sent = it.camera.publish()
    grasp = it.wait_for('grasp')
    assert grasp.header == sent['color'].header
    assert_hand_computed(grasp.pose)
    stages = it.wait_for('stages')
    assert stages.header == sent['color'].header
    assert (stages.best, stages.reason, len(stages.candidates)) == (0, Reason.OK, 1)
    candidate = stages.candidates[0]
    assert_hand_computed(candidate.pose)
    # 20 px and 8 px at 0.75 m with f = 250.
    assert candidate.opening == pytest.approx(0.060, abs=1e-6)
    assert candidate.jaw_size == pytest.approx(0.024, abs=1e-6)
    assert candidate.rectangle.opening == RECTANGLE.opening
    assert stages.stage_names[0] == 'decoding'
    assert len(stages.stage_names) == len(stages.stage_milliseconds)
    assert it.detector.warm
    assert it.detector.called_from == {'inference'}


def test_frame_override(rig):  # noqa: F811
    it = rig(frame_id='hand_eye')
    sent = it.camera.publish()
    grasp = it.wait_for('grasp')
    assert grasp.header.frame_id == 'hand_eye'
    assert grasp.header.stamp == sent['color'].header.stamp


def test_exact_sync(rig):  # noqa: F811
    it = rig(sync='exact', depth_qos='reliable')
    it.camera.publish()
    assert_hand_computed(it.wait_for('grasp').pose)


def test_service_uses_a_frame_taken_after_the_request(rig):  # noqa: F811
    it = rig(mode='on_demand')
    it.camera.publish()
    wait_until(lambda: it.node._input.pairs == 1, 'the pair')
    assert not it.detector.calls, 'on demand means that nobody detects unasked'
    future = it.call()
    wait_until(lambda: it.node.requests.tickets, 'the request')
    before = it.node.requests.tickets[0].after
    it.camera.stream()
    response = it.answer(future)
    assert response.success
    assert (response.reason, response.message[:2]) == (Reason.OK, 'OK')
    stamp = response.grasp.header.stamp
    assert stamp.sec * 1_000_000_000 + stamp.nanosec >= before
    assert_hand_computed(response.grasp.pose)
    assert response.grasp.opening == pytest.approx(0.060, abs=1e-6)
    assert response.grasp.score == pytest.approx(0.9)
    assert response.alternatives == []


def test_service_skips_a_pair_that_was_on_its_way(rig):  # noqa: F811
    it = rig(mode='on_demand')
    old = it.tester.get_clock().now().to_msg()
    future = it.call()
    wait_until(lambda: it.node.requests.tickets, 'the request')
    it.camera.publish(stamp=old)
    wait_until(lambda: it.node.requests.tickets[0].too_early == 1, 'the old pair to be refused')
    new = it.camera.publish()
    assert it.answer(future).grasp.header.stamp == new['color'].header.stamp


def test_service_with_a_calibration_that_changes_with_every_frame(rig):  # noqa: F811
    it = rig(mode='on_demand')
    numbers = itertools.count()

    def autofocus(messages):
        messages['info'].k[0] += next(numbers)
        return messages

    it.camera.stream(change=autofocus)
    wait_until(lambda: it.node._input.info_changes > 1, 'changes of the calibration')
    assert it.answer(it.call()).success


@pytest.mark.parametrize('offset', [-0.4, -1e8, 5.0], ids=['lagging', 'other clock', 'ahead'])
def test_service_with_stamps_of_another_clock(rig, offset):  # noqa: F811
    it = rig(mode='on_demand')

    def late(messages):
        for message in messages.values():
            shifted(message, offset)
        return messages

    it.camera.stream(change=late)
    assert it.answer(it.call()).success


def test_alternatives_are_in_order(rig):  # noqa: F811
    lower = GraspRectangle(185.0, 112.0, 0.0, 20.0, 8.0)
    it = rig(StubDetector((RECTANGLE, lower, lower), (0.9, 0.6, 0.2)), minimum_score=0.5)
    it.camera.stream()
    response = it.answer(it.call())
    assert [round(a.score, 3) for a in response.alternatives] == [0.6]
    response = it.answer(it.call(minimum_score=0.1))
    assert [round(a.score, 3) for a in response.alternatives] == [0.6, 0.2]


def test_silent_camera_times_out_and_names_the_topics(rig):  # noqa: F811
    it = rig()
    response = it.answer(it.call(timeout=0.3))
    assert (response.success, response.reason) == (False, Reason.TIMEOUT)
    for topic in ('color/image_raw', 'depth/image_rect_raw', 'color/camera_info'):
        assert f'{it.namespace}/{topic}' in response.message


@pytest.mark.parametrize('missing, topic', [('info', 'color/camera_info'),
                                            ('depth', 'depth/image_rect_raw')])
def test_one_silent_topic_is_named(rig, missing, topic):  # noqa: F811
    it = rig()
    it.camera.stream(only={'color', 'depth', 'info'} - {missing})
    response = it.answer(it.call(timeout=1.0))
    assert response.reason == Reason.TIMEOUT
    assert f'nothing arrived on {it.namespace}/{topic}' in response.message
    assert 'image_raw' not in response.message.split('nothing arrived on')[1] or \
        missing == 'depth'


def test_images_without_stamps_are_named(rig):  # noqa: F811
    it = rig(mode='on_demand')
    it.camera.stream(stamp=Time())
    wait_until(lambda: it.node._input.pairs >= 3, 'pairs')
    response = it.answer(it.call(timeout=0.3))
    assert response.reason == Reason.TIMEOUT
    assert 'pairs are zero' in response.message


def test_a_timeout_shorter_than_the_period_of_the_camera_is_named(rig):  # noqa: F811
    it = rig(mode='on_demand')
    it.tester.create_timer(0.5, it.camera.publish)
    wait_until(lambda: it.node._input.pairs >= 3, 'pairs')
    # Now and then a pair does come in time.
    wait_until(lambda: re.search(
        r'TIMEOUT.*no pair came within 0\.\d+ s: one comes every \d\.\d+ s; raise',
        it.answer(it.call(timeout=0.05)).message), 'the sentence')


def test_wrong_qos_is_named(rig):  # noqa: F811
    from rclpy.qos import qos_profile_sensor_data
    it = rig(color_qos='reliable')
    it.tester.destroy_publisher(it.camera.publishers['color'])
    it.camera.publishers['color'] = it.tester.create_publisher(Image, 'color/image_raw',
                                                               qos_profile_sensor_data)
    topic = f'{it.namespace}/color/image_raw'
    wait_until(lambda: len(it.node.get_publishers_info_by_topic(topic)) == 1, 'discovery')
    it.camera.stream()
    response = it.answer(it.call(timeout=1.0))
    assert response.reason == Reason.TIMEOUT
    assert 'best effort' in response.message


def test_unsynchronized_input_says_by_how_much(rig):  # noqa: F811
    it = rig(sync_slop=0.02)

    def drift(messages):
        shifted(messages['depth'], 0.027)
        return messages

    future = it.call(timeout=1.0)
    wait_until(lambda: it.node.requests.tickets, 'the request')
    for second in range(1000, 1005):
        it.camera.publish(drift, stamp=Time(sec=second))
    wait_until(lambda: set(it.node._input.counts.values()) == {5}, 'delivery')
    response = it.answer(future)
    assert response.reason == Reason.TIMEOUT
    assert 'do not pair' in response.message
    assert 'by 0.027 s' in response.message
    assert not it.detector.calls


def test_a_lost_image_does_not_shift_the_pairs_behind_it(rig):  # noqa: F811
    it = rig()
    skews = []
    it.node._input._on_pair = lambda pair: skews.append(
        (pair.depth.header.stamp.nanosec - pair.color.header.stamp.nanosec) / 1e9)
    for number in range(24):
        # 30 Hz, and the eleventh colour image is lost.
        only = ('depth', 'info') if number == 10 else ('color', 'depth', 'info')
        it.camera.publish(stamp=Time(sec=1000, nanosec=number * 33_333_333), only=only)
        wait_until(lambda count=number + 1: it.node._input._gates[1].count == count
                   and it.node._input._gates[2].count == count, 'delivery')
    wait_until(lambda: len(skews) == 23, 'the other pairs')
    assert set(skews) == {0.0}


def test_a_camera_whose_depth_comes_half_a_period_later_pairs_all_the_same(rig):  # noqa: F811
    it = rig()

    def later(messages):
        shifted(messages['depth'], 0.016)
        return messages

    for number in range(12):
        it.camera.publish(later, stamp=Time(sec=1000, nanosec=number * 33_333_333))
        wait_until(lambda count=number + 1: set(it.node._input.counts.values()) == {count},
                   'delivery')
    wait_until(lambda: it.node._input.pairs == 12, 'all pairs')


def test_no_candidate(rig):  # noqa: F811
    it = rig()
    it.camera.stream()
    response = it.answer(it.call(minimum_score=0.95))
    assert (response.success, response.reason) == (False, Reason.NO_CANDIDATE)
    assert response.message.startswith('NO_CANDIDATE: ')


def test_empty_table(rig):  # noqa: F811
    it = rig(StubDetector((), ()))
    it.camera.stream()
    assert it.answer(it.call()).reason == Reason.NO_CANDIDATE
    stages = it.wait_for('stages')
    assert (stages.best, stages.candidates) == (-1, [])
    assert not it.received['grasp']


def test_no_depth_between_the_jaws(rig):  # noqa: F811
    it = rig()

    def holes(messages):
        depth = np.full((SIZE[1], SIZE[0]), np.nan, np.float32)
        depth[:40] = 0.8
        messages['depth'] = conversions.depth_message(depth, '32FC1', messages['color'].header)
        return messages

    it.camera.stream(change=holes)
    response = it.answer(it.call())
    assert (response.success, response.reason) == (False, Reason.DEPTH_HOLE)
    stages = it.wait_for('stages')
    assert stages.candidates[0].reason == Reason.DEPTH_HOLE
    markers = it.wait_for('markers')
    assert {m.action for m in markers.markers} == {3}, 'nothing to draw: everything is cleared'


def _encoding(name, value):
    def change(messages):
        messages[name].encoding = value
        return messages
    return change


def _small_depth(messages):
    messages['depth'] = conversions.depth_message(np.full((120, 160), 0.8, np.float32), '16UC1',
                                                  messages['color'].header)
    return messages


def _other_info(messages):
    messages['info'].width = 640
    return messages


def _uncalibrated(messages):
    messages['info'].k = np.zeros(9)
    return messages


def _short(messages):
    messages['color'].data = messages['color'].data[:100]
    return messages


@pytest.mark.parametrize('change, reason, word', [
    (_encoding('color', 'yuv422'), Reason.INVALID_IMAGE, 'yuv422'),
    (_encoding('depth', 'mono16'), Reason.INVALID_DEPTH, '16UC1'),
    (_small_depth, Reason.SIZE_MISMATCH, '160x120'),
    (_other_info, Reason.SIZE_MISMATCH, '640x240'),
    (_uncalibrated, Reason.INVALID_INTRINSICS, 'uncalibrated'),
    (_short, Reason.INVALID_IMAGE, '100 bytes'),
], ids=['color encoding', 'depth encoding', 'sizes', 'info size', 'uncalibrated', 'short data'])
def test_bad_input_is_named_and_the_node_goes_on(rig, change, reason, word):  # noqa: F811
    it = rig()
    it.camera.stream(change=change)
    response = it.answer(it.call())
    assert (response.success, response.reason) == (False, reason)
    assert response.message.startswith(reason.name)
    assert word in response.message
    it.wait_for('stages', lambda m: m.reason == reason and m.best == -1)
    it.camera.stream()
    wait_until(lambda: it.answer(it.call()).success, 'a grasp from good images')


def test_negative_stamps_do_not_stall_the_input(rig):  # noqa: F811
    it = rig()

    def negative(messages):
        for message in messages.values():
            message.header.stamp.sec = -5
        return messages

    it.camera.publish(negative)
    wait_until(lambda: min(it.node._input.counts.values()) == 1, 'the bad messages')
    it.camera.publish()
    it.wait_for('grasp')


def test_stamps_that_go_back_do_not_stall_the_input(rig):  # noqa: F811
    it = rig(sync_queue_size=3)
    # Colour alone fills its queue with stamps of the future.
    topic = f'{it.namespace}/color/image_raw'
    for count in range(1, 6):
        it.camera.publish(only=('color',), stamp=Time(sec=2_000_000_000 + count))
        wait_until(lambda count=count: it.node._input.counts[topic] == count, 'the message')
    it.camera.publish()
    it.wait_for('grasp')


@pytest.mark.parametrize('arguments', [
    {'timeout': -1.0}, {'timeout': float('nan')}, {'timeout': float('inf')},
    {'minimum_score': 1.5}, {'minimum_score': float('nan')},
    {'region': (0, 0, 100, 0)}, {'region': (300, 0, 100, 100)}])
def test_invalid_request(rig, arguments):  # noqa: F811
    it = rig()
    it.camera.stream()
    response = it.answer(it.call(**arguments))
    assert (response.success, response.reason) == (False, Reason.INVALID_REQUEST)


def test_region_and_score_reach_the_detector(rig):  # noqa: F811
    it = rig(mode='on_demand')
    it.camera.stream()
    assert it.answer(it.call(region=(150, 80, 64, 64), minimum_score=0.25)).success
    assert it.detector.calls[-1]['region'] == (150, 80, 64, 64)
    assert it.detector.calls[-1]['minimum_score'] == 0.25


def test_concurrent_clients_are_all_answered(rig):  # noqa: F811
    it = rig(mode='on_demand')
    futures = [it.call() for _ in range(4)] + [it.call(minimum_score=0.95) for _ in range(4)]
    wait_until(lambda: len(it.node.requests.tickets) == 8, 'all requests')
    it.camera.stream()
    responses = [it.answer(f) for f in futures]
    assert [r.success for r in responses] == [True] * 4 + [False] * 4


def test_too_many_clients_are_told(rig):  # noqa: F811
    it = rig(mode='on_demand')
    waiting = [it.call() for _ in range(MAXIMUM_REQUESTS)]
    wait_until(lambda: len(it.node.requests.tickets) == MAXIMUM_REQUESTS, 'all requests')
    response = it.answer(it.call())
    assert response.reason == Reason.INVALID_REQUEST
    assert str(MAXIMUM_REQUESTS) in response.message
    it.camera.stream()
    assert all(it.answer(f).success for f in waiting)


def test_slow_detector_does_not_hold_the_answer(rig):  # noqa: F811
    it = rig(mode='on_demand')
    it.detector.gate.clear()
    future = it.call(timeout=0.5)
    wait_until(lambda: it.node.requests.tickets, 'the request')
    it.camera.publish()
    wait_until(lambda: it.detector.calls, 'the detector')
    response = it.answer(future)
    assert response.reason == Reason.TIMEOUT
    assert 'too long' in response.message
    it.detector.gate.set()


def test_dropped_pairs_are_counted_and_the_newest_is_used(rig):  # noqa: F811
    it = rig()
    it.detector.gate.clear()
    it.camera.publish()
    wait_until(lambda: len(it.detector.calls) == 1, 'the first detection')
    for count in range(2, 6):
        newest = it.camera.publish()
        wait_until(lambda count=count: it.node._input.pairs == count, 'the next pair')
    it.detector.gate.set()
    stamp = newest['color'].header.stamp
    it.wait_for('stages', lambda m: m.header.stamp == stamp)
    assert it.node.dropped == 3
    assert len(it.detector.calls) == 2


def test_detector_defect_is_an_internal_error(rig):  # noqa: F811
    it = rig(StubDetector(error=ZeroDivisionError('oops')))
    it.camera.stream()
    response = it.answer(it.call())
    assert response.reason == Reason.INTERNAL_ERROR
    assert 'oops' in response.message
    it.detector.error = None
    wait_until(lambda: it.answer(it.call()).success, 'recovery')


def test_detector_reason_is_passed_on(rig):  # noqa: F811
    it = rig(StubDetector(error=GraspError(Reason.NO_DEPTH, 'all black')))
    it.camera.stream()
    response = it.answer(it.call())
    assert response.reason == Reason.NO_DEPTH
    assert 'all black' in response.message


def test_debug_image_only_when_subscribed(rig):  # noqa: F811
    pytest.importorskip('grasp_stn_ros.visualization')
    it = rig()
    it.camera.publish()
    # The last thing of a frame before the image: its subscriber must not come in between.
    it.wait_for('markers')
    images = []
    it.tester.create_subscription(Image, 'grasp_node/debug_image', images.append, 1)
    wait_until(it.node._outputs.debug.get_subscription_count, 'the subscription')
    assert not images
    sent = it.camera.publish()
    wait_until(lambda: images, 'the debug image')
    image = images[0]
    assert image.header == sent['color'].header
    assert (image.encoding, image.width, image.height) == ('rgb8', *SIZE)
    drawn = conversions.rgb_from_message(image)
    assert (drawn != conversions.rgb_from_message(sent['color'])).any()


def test_debug_image_is_not_computed_unseen(rig, monkeypatch):  # noqa: F811
    visualization = pytest.importorskip('grasp_stn_ros.visualization')

    def never(*_):
        raise AssertionError('drawn for nobody')

    monkeypatch.setattr(visualization, 'draw_detection', never)
    it = rig()
    it.camera.publish()
    it.wait_for('markers')
    sent = it.camera.publish()
    stamp = sent['color'].header.stamp
    it.wait_for('markers', lambda m: m.markers[0].header.stamp == stamp)


def test_stale_frames_are_refused(rig):  # noqa: F811
    it = rig(maximum_frame_age=0.5)

    def old(messages):
        for message in messages.values():
            shifted(message, -10.0)
        return messages

    it.camera.stream(change=old)
    response = it.answer(it.call(timeout=1.0))
    assert response.reason == Reason.STALE_FRAME
    assert not it.detector.calls
    it.wait_for('stages', lambda m: m.reason == Reason.STALE_FRAME)
    it.camera.stream()
    assert it.answer(it.call()).success


def test_mode_can_be_changed_while_running(rig):  # noqa: F811
    from rclpy.parameter import Parameter
    it = rig(mode='on_demand')
    it.camera.publish()
    wait_until(lambda: it.node._input.pairs == 1, 'the pair')
    result = it.node.set_parameters([Parameter('mode', value='sometimes')])[0]
    assert not result.successful
    assert 'continuous' in result.reason
    assert it.node.set_parameters([Parameter('mode', value='continuous')])[0].successful
    it.wait_for('grasp')
    assert not it.node.set_parameters([Parameter('model', value='other')])[0].successful


def test_rate_limit(rig):  # noqa: F811
    it = rig(maximum_rate=0.01)
    it.camera.publish()
    it.wait_for('grasp')
    for count in range(2, 5):
        it.camera.publish()
        wait_until(lambda count=count: it.node._input.pairs == count, 'the pair')
    # A request is served at once all the same, and its pair is the newest.
    future = it.call()
    wait_until(lambda: it.node.requests.tickets, 'the request')
    it.camera.publish()
    assert it.answer(future).success
    assert len(it.detector.calls) == 2
    assert it.node.dropped == 0, 'the detector was not busy'


def test_shutdown_answers_whoever_waits(rig):  # noqa: F811
    it = rig()
    future = it.call(timeout=60.0)
    wait_until(lambda: it.node.requests.tickets, 'the request')
    it.node.close()
    response = it.answer(future)
    assert response.reason == Reason.NOT_ACTIVE
    assert 'shutting down' in response.message

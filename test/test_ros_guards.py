"""What goes wrong in the field, over real DDS: frames, clocks, restarts, compressed images."""

import struct
import threading
from types import SimpleNamespace

from builtin_interfaces.msg import Time
import cv2
import numpy as np
import pytest
from rclpy.parameter import Parameter
from ros_fixtures import SIZE, Camera, box_scene, rig, ros, wait_until  # noqa: F401
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage
from test_ros_cell import OVERHEAD
from test_ros_node import assert_hand_computed

from grasp_stn_ros import compressed
from grasp_stn_ros.reasons import GraspError, Reason


def test_depth_of_another_frame_is_refused_unless_allowed(rig):  # noqa: F811
    it = rig()

    def unaligned(messages):
        messages['depth'].header.frame_id = 'camera_depth_optical_frame'
        return messages

    it.camera.stream(change=unaligned)
    response = it.answer(it.call())
    assert (response.success, response.reason) == (False, Reason.FRAME_MISMATCH)
    assert 'camera_depth_optical_frame' in response.message
    assert not it.detector.calls
    assert it.node.set_parameters([Parameter('frame_mismatch', value='warn')])[0].successful
    wait_until(lambda: it.answer(it.call()).success, 'a grasp')


def test_a_camera_that_restarts_is_used_again(rig):  # noqa: F811
    it = rig()
    it.camera.stream()
    assert it.answer(it.call()).success
    it.camera.stop()
    for publisher in it.camera.publishers.values():
        it.tester.destroy_publisher(publisher)
    wait_until(lambda: not it.node.count_publishers(f'{it.namespace}/color/image_raw'), 'the end')
    response = it.answer(it.call(timeout=0.5))
    assert response.reason == Reason.TIMEOUT
    it.camera = Camera(it.tester)
    it.camera.stream()
    assert it.answer(it.call()).success


class Bag:
    """A recording of the box scene that is played with /clock, faster than real time."""

    def __init__(self, it):
        self.it = it
        self.clock = it.tester.create_publisher(Clock, '/clock', 10)
        wait_until(self.clock.get_subscription_count, 'the clock')

    def play(self, start: int, done, limit: int = 400):
        """Play frames of 0.1 s from ``start`` seconds on until ``done()``."""
        for step in range(limit):
            second, tenth = divmod(step, 10)
            stamp = Time(sec=start + second, nanosec=tenth * 100_000_000)
            self.clock.publish(Clock(clock=stamp))
            self.it.camera.publish(stamp=stamp)
            if done():
                return
            threading.Event().wait(0.02)
        raise AssertionError('played to the end in vain')


def test_a_bag_with_clock_and_a_loop(rig):  # noqa: F811
    it = rig(use_sim_time=True, maximum_frame_age=5.0)
    bag = Bag(it)
    bag.play(1000, lambda: len(it.received['grasp']) > 5)
    assert it.received['grasp'][-1].header.stamp.sec >= 1000
    assert it.node._input.clock_jumps == 0, 'that simulated time begins is no jump'
    # A request waits while the recording starts over, a thousand seconds earlier.
    future = it.call(timeout=30.0)
    wait_until(lambda: it.node.requests.tickets, 'the request')
    it.received['grasp'].clear()
    bag.play(10, lambda: future.done() and len(it.received['grasp']) > 5)
    assert it.answer(future).success
    assert it.answer(future).grasp.header.stamp.sec < 1000
    assert it.node._input.clock_jumps >= 1


def test_simulated_time_that_never_comes_does_not_hang(rig):  # noqa: F811
    it = rig(use_sim_time=True)
    it.camera.stream(stamp=Time(sec=1000))
    assert it.answer(it.call()).success


def jpeg(message):
    rgb = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
    ok, data = cv2.imencode('.jpg', rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert ok
    return CompressedImage(header=message.header, format='rgb8; jpeg compressed bgr8',
                           data=data.tobytes())


def compressed_depth(raw, label, header, a=0.0, b=0.0):
    ok, data = cv2.imencode('.png', raw)
    assert ok
    return CompressedImage(header=header, format=f'{label}; compressedDepth png',
                           data=struct.pack('<iff', 0, a, b) + data.tobytes())


def compress(messages):
    """Turn the messages of the camera into what image_transport makes of them."""
    raw = np.frombuffer(messages['depth'].data, np.uint16).reshape(SIZE[::-1])
    return {**messages, 'color': jpeg(messages['color']),
            'depth': compressed_depth(raw, '16UC1', messages['depth'].header)}


def compressed_rig(rig):  # noqa: F811
    """Return a node with compressed inputs, and a camera that has the topics for them."""
    it = rig(color_transport='compressed', depth_transport='compressedDepth', wait=False)
    publishers = {
        'color': it.tester.create_publisher(CompressedImage, 'color/image_raw/compressed', 5),
        'depth': it.tester.create_publisher(
            CompressedImage, 'depth/image_rect_raw/compressedDepth', 5),
        'info': it.camera.publishers['info']}
    for name in ('color', 'depth'):
        it.tester.destroy_publisher(it.camera.publishers[name])
    it.camera.publishers = publishers
    it.wait_for_discovery()
    return it


def test_compressed_topics_are_remapped_by_their_base_name(rig):  # noqa: F811
    it = rig(color_transport='compressed', depth_transport='compressedDepth', wait=False,
             remap={'color/image_raw': '/wrist/rgb', 'depth/image_rect_raw': '/wrist/depth'})
    expected = ['/wrist/rgb/compressed', '/wrist/depth/compressedDepth']
    assert list(it.node._input.counts)[:2] == expected
    assert [each.sub.topic_name for each in it.node._input._subscribers[:2]] == expected
    assert [it.node.get_parameter(f'topics.{role}').value for role in ('color', 'depth')] \
        == expected


def test_a_jump_drops_the_transforms_that_moved(rig):  # noqa: F811
    it = rig(target_frame='base', camera_pose=OVERHEAD)
    cleared = threading.Event()
    it.node._transforms._buffer = SimpleNamespace(clear=cleared.set)
    it.camera.publish(stamp=Time(sec=1000))
    wait_until(lambda: it.node._input.pairs == 1, 'the pair')
    it.camera.publish(stamp=Time(sec=900))
    wait_until(cleared.is_set, 'the buffer to be cleared')


def test_compressed_colour_and_depth(rig):  # noqa: F811
    it = compressed_rig(rig)
    sent = it.camera.publish(compress)
    grasp = it.wait_for('grasp')
    assert grasp.header == sent['color'].header
    assert_hand_computed(grasp.pose)
    seen = it.detector.calls[-1]['frame']
    rgb, depth = box_scene()
    np.testing.assert_allclose(seen.depth, depth, atol=1e-6)
    assert np.abs(seen.rgb.astype(int) - rgb).mean() < 2, 'JPEG, red and blue in their places'

    def broken(messages):
        messages = compress(messages)
        messages['color'].data = messages['color'].data[:50]
        return messages

    it.camera.stream(change=broken)
    response = it.answer(it.call())
    assert (response.success, response.reason) == (False, Reason.INVALID_IMAGE)


def test_quantized_metres_of_compressed_depth():
    """Depth = a / (value - b), 0 is a hole: the inverse depth of image_transport's plugin."""
    metres = np.array([[0.5, 1.0], [2.0, np.nan]], np.float32)
    a, b = 1000.0, 1.0
    raw = np.where(np.isfinite(metres), np.rint(a / np.nan_to_num(metres, nan=1.0) + b), 0)
    message = compressed_depth(raw.astype(np.uint16), '32FC1', None, a, b)
    np.testing.assert_allclose(compressed.depth_from_compressed(message), metres, rtol=2e-3)


@pytest.mark.parametrize('label, data, word', [
    ('16UC1; compressedDepth rvl', bytes(40), 'png'),
    ('16UC1; compressedDepth png', b'', 'no PNG'),
    ('16UC1; compressedDepth png', bytes(12) + b'\x89PNG\r\n\x1a\n', 'decoded'),
    ('mono16; png', bytes(40), 'mono16'),
    ('16UC1; compressedDepth png', bytes(12) + b'\x89PNG\r\n\x1a\n' + bytes(8)
     + struct.pack('>II', 2**30, 2**30), 'claims')])
def test_bad_compressed_depth_is_named(label, data, word):
    with pytest.raises(GraspError, match=word) as caught:
        compressed.depth_from_compressed(CompressedImage(format=label, data=data))
    assert caught.value.reason == Reason.INVALID_DEPTH


def test_compressed_depth_of_8_bit_is_refused():
    with pytest.raises(GraspError, match='16 bit'):
        compressed.depth_from_compressed(
            compressed_depth(np.zeros((4, 4), np.uint8), '16UC1', None))


@pytest.mark.parametrize('data', [b'', b'no image at all', b'\xff\xd8\xff\xe0 cut'])
def test_bad_compressed_colour_is_named(data):
    with pytest.raises(GraspError) as caught:
        compressed.rgb_from_compressed(CompressedImage(format='jpeg', data=data))
    assert caught.value.reason == Reason.INVALID_IMAGE

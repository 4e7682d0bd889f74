"""
cv_bridge as this project uses it: the stand-in of pip_ros/, or the real package.

Messages are put together byte by byte, so that the expected pixels can be read off.
"""
# ruff: noqa: E402 (imports after importorskip)

import array
import struct
import time
import uuid

import numpy as np
import pytest

cv2 = pytest.importorskip('cv2', reason='OpenCV is missing: `make test` installs it')
rclpy = pytest.importorskip('rclpy', reason='rclpy is missing: `make test` installs it')
cv_bridge = pytest.importorskip(
    'cv_bridge', reason='cv_bridge is missing: source ROS 2, or `pip install ./pip_ros` where '
                        'ROS comes from wheels')
from cv_bridge import CvBridge, CvBridgeError
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

stand_in_only = pytest.mark.skipif(
    not getattr(cv_bridge, 'IS_STAND_IN', False),
    reason='the real cv_bridge is installed and behaves differently here, see pip_ros/cv_bridge')

DEADLINE = 60.0  # s; only reached when something is broken


def message(encoding, width, height, step, data, big_endian=False):
    """Return a sensor_msgs/Image with these bytes."""
    return Image(encoding=encoding, width=width, height=height, step=step,
                 is_bigendian=int(big_endian), data=array.array('B', data))


def convert(pixels, source, target):
    """Return the image of a message in ``source`` encoding, read in ``target`` encoding."""
    bridge = CvBridge()
    return bridge.imgmsg_to_cv2(bridge.cv2_to_imgmsg(np.asarray(pixels), source), target)


# -- types -------------------------------------------------------------------------------------

@pytest.mark.parametrize('encoding, dtype, channels', [
    ('mono8', 'uint8', 1), ('mono16', 'uint16', 1), ('bgr8', 'uint8', 3), ('rgb8', 'uint8', 3),
    ('bgra8', 'uint8', 4), ('rgba8', 'uint8', 4), ('rgb16', 'uint16', 3), ('bgra16', 'uint16', 4),
    ('bayer_rggb8', 'uint8', 1), ('bayer_gbrg16', 'uint16', 1), ('yuv422', 'uint8', 2),
    ('8UC1', 'uint8', 1), ('8UC3', 'uint8', 3), ('8SC2', 'int8', 2), ('16UC1', 'uint16', 1),
    ('16SC4', 'int16', 4), ('32SC1', 'int32', 1), ('32FC1', 'float32', 1), ('64FC3', 'float64', 3),
    ('32FC10', 'float32', 10), ('16U', 'uint16', 1)])
def test_encodings_name_pixel_types(encoding, dtype, channels):
    assert CvBridge().encoding_to_dtype_with_channels(encoding) == (dtype, channels)


@pytest.mark.parametrize('encoding', ['', 'rgb', 'mono32', '8UC', '12UC1', '16UC1 ', 'bayer8'])
def test_unknown_encodings_are_refused(encoding):
    with pytest.raises(CvBridgeError):
        CvBridge().encoding_to_cvtype2(encoding)
    with pytest.raises(CvBridgeError):
        CvBridge().imgmsg_to_cv2(message(encoding, 1, 1, 1, [0]))


def test_type_numbers_are_those_of_opencv():
    bridge = CvBridge()
    assert bridge.encoding_to_cvtype2('bgr8') == cv2.CV_8UC3
    assert bridge.encoding_to_cvtype2('32FC1') == cv2.CV_32FC1
    assert bridge.cvtype_to_name[cv2.CV_16SC2] == '16SC2'
    assert bridge.cvtype2_to_dtype_with_channels(cv2.CV_64FC4) == ('float64', 4)
    assert bridge.dtype_with_channels_to_cvtype2(np.dtype('uint16'), 1) == '16UC1'


def test_the_error_is_a_type_error():
    assert issubclass(CvBridgeError, TypeError)


# -- message to image --------------------------------------------------------------------------

def test_rows_and_channels():
    image = CvBridge().imgmsg_to_cv2(message('rgb8', 2, 2, 6, range(12)))
    assert image.dtype == np.uint8
    assert image.tolist() == [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]


def test_one_channel_has_no_third_axis():
    assert CvBridge().imgmsg_to_cv2(message('mono8', 3, 2, 3, range(6))).shape == (2, 3)


def test_padding_is_cut_off():
    image = CvBridge().imgmsg_to_cv2(message('mono8', 2, 2, 4, [1, 2, 99, 99, 3, 4, 99, 99]))
    assert image.tolist() == [[1, 2], [3, 4]]
    rows = [1, 2, 3, 99, 99, 99, 4, 5, 6, 99, 99, 99]
    assert CvBridge().imgmsg_to_cv2(message('bgr8', 1, 2, 6, rows)).tolist() == [
        [[1, 2, 3]], [[4, 5, 6]]]


@stand_in_only
def test_padding_need_not_be_whole_pixels():
    rows = [1, 2, 3, 99, 4, 5, 6, 99]
    assert CvBridge().imgmsg_to_cv2(message('bgr8', 1, 2, 4, rows)).tolist() == [
        [[1, 2, 3]], [[4, 5, 6]]]
    rows = [1, 0, 99, 2, 0, 99]
    assert CvBridge().imgmsg_to_cv2(message('16UC1', 1, 2, 3, rows)).tolist() == [[1], [2]]


@pytest.mark.parametrize('big_endian', [False, True])
def test_either_byte_order(big_endian):
    order = '>' if big_endian else '<'
    data = struct.pack(f'{order}4H', 1, 258, 40000, 65535)
    image = CvBridge().imgmsg_to_cv2(message('16UC1', 2, 2, 4, data, big_endian))
    assert image.dtype == np.dtype('uint16')  # in native order, which is what OpenCV takes
    assert image.dtype.isnative
    assert image.tolist() == [[1, 258], [40000, 65535]]
    data = struct.pack(f'{order}2f', 0.75, float('nan'))
    image = CvBridge().imgmsg_to_cv2(message('32FC1', 2, 1, 8, data, big_endian))
    assert image[0, 0] == 0.75
    assert np.isnan(image[0, 1])


def test_bytes_do_not_depend_on_the_byte_order():
    assert CvBridge().imgmsg_to_cv2(message('mono8', 2, 1, 2, [1, 2], True)).tolist() == [[1, 2]]


def test_big_endian_with_padding():
    data = [1, 2, 99, 99, 3, 4, 99, 99]
    image = CvBridge().imgmsg_to_cv2(message('16UC1', 1, 2, 4, data, True))
    assert image.tolist() == [[258], [772]]


def test_an_image_shares_the_memory_of_its_message():
    source = message('16UC1', 2, 1, 4, [1, 0, 2, 0])
    image = CvBridge().imgmsg_to_cv2(source)
    source.data[0] = 7
    assert image.tolist() == [[7, 2]]


def test_a_named_encoding_gives_an_image_of_its_own():
    source = message('mono8', 2, 1, 2, [1, 2])
    image = CvBridge().imgmsg_to_cv2(source, 'mono8')
    source.data[0] = 7
    assert image.tolist() == [[1, 2]]
    image[0, 0] = 9  # and may be written to
    assert source.data[0] == 7


def test_too_little_data_is_refused():
    with pytest.raises(TypeError):  # a CvBridgeError from the stand-in
        CvBridge().imgmsg_to_cv2(message('mono8', 2, 2, 2, [1, 2, 3]))


@stand_in_only
def test_a_step_shorter_than_a_row_is_refused():
    with pytest.raises(CvBridgeError, match='step is 5 bytes.*takes 6'):
        CvBridge().imgmsg_to_cv2(message('rgb8', 2, 1, 5, range(6)))


@stand_in_only
def test_an_empty_image_stays_empty():
    bridge = CvBridge()
    empty = bridge.cv2_to_imgmsg(np.zeros((0, 4), np.uint16), 'mono16')
    assert (empty.height, empty.width, empty.step, len(empty.data)) == (0, 4, 8, 0)
    assert bridge.imgmsg_to_cv2(empty).shape == (0, 4)


# -- image to message --------------------------------------------------------------------------

def test_a_message_says_what_it_holds():
    header = Header(frame_id='camera')
    made = CvBridge().cv2_to_imgmsg(np.arange(12, dtype=np.uint16).reshape(2, 2, 3), 'rgb16',
                                    header)
    assert (made.height, made.width, made.step) == (2, 2, 12)
    assert made.encoding == 'rgb16'
    assert made.header == header
    assert not made.is_bigendian
    assert made.data.tobytes() == struct.pack('<12H', *range(12))


def test_the_data_are_the_array_that_rclpy_takes_without_looking():
    data = CvBridge().cv2_to_imgmsg(np.zeros((2, 3), np.uint8)).data
    assert isinstance(data, array.array)
    assert data.typecode == 'B'


@pytest.mark.parametrize('dtype', [
    'uint8', 'int8', 'uint16', 'int16', 'int32', 'float32', 'float64', '>u2', '>i4', '>f4'])
@pytest.mark.parametrize('shape', [(5, 7), (5, 7, 2), (5, 7, 3), (5, 7, 4), (5, 7, 6)])
def test_round_trip(dtype, shape):
    image = np.random.default_rng(1).integers(-100, 100, shape).astype(dtype)
    made = CvBridge().cv2_to_imgmsg(image)
    assert bool(made.is_bigendian) == dtype.startswith('>')
    again = CvBridge().imgmsg_to_cv2(made)
    assert again.dtype == np.dtype(dtype).newbyteorder('=')
    assert np.array_equal(again, image)


def test_round_trip_of_a_view():
    whole = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    for view in (whole[:, 1:3], whole[::-1, :, ::-1], whole.transpose(1, 0, 2), whole[..., 0]):
        assert np.array_equal(CvBridge().imgmsg_to_cv2(CvBridge().cv2_to_imgmsg(view)), view)


@pytest.mark.parametrize('shape, dtype, encoding', [
    ((2, 2, 3), 'uint8', 'rgba8'), ((2, 2), 'uint8', 'bgr8'), ((2, 2), 'uint8', 'mono16'),
    ((2, 2), 'float32', '16UC1'), ((2, 2, 3), 'uint8', 'nonsense')])
def test_an_encoding_that_does_not_fit_is_refused(shape, dtype, encoding):
    with pytest.raises(CvBridgeError):
        CvBridge().cv2_to_imgmsg(np.zeros(shape, dtype), encoding)


@pytest.mark.parametrize('thing', [1, [[1, 2]], None, b'12'])
def test_only_arrays_are_images(thing):
    with pytest.raises(TypeError):
        CvBridge().cv2_to_imgmsg(thing)


@stand_in_only
@pytest.mark.parametrize('image', [
    np.zeros((2, 2), bool), np.zeros((2, 2), np.int64), np.zeros((2, 2), np.float16), np.zeros(2),
    np.zeros((1, 2, 2, 3))])
def test_arrays_that_are_no_images_are_refused(image):
    with pytest.raises(CvBridgeError):
        CvBridge().cv2_to_imgmsg(image)


# -- conversions -------------------------------------------------------------------------------

PIXEL = np.array([[[10, 20, 30]]], np.uint8)
PIXEL_ALPHA = np.array([[[10, 20, 30, 40]]], np.uint8)


@pytest.mark.parametrize('source, target, expected', [
    ('rgb8', 'bgr8', [30, 20, 10]), ('bgr8', 'rgb8', [30, 20, 10]),
    ('rgb8', 'rgba8', [10, 20, 30, 255]), ('rgb8', 'bgra8', [30, 20, 10, 255]),
    ('rgb8', '8UC3', [10, 20, 30]),
    # 8 bits to 16: 0-255 becomes 0-65535, that is times 257.
    ('rgb8', 'rgb16', [2570, 5140, 7710]), ('rgb8', 'bgr16', [7710, 5140, 2570])])
def test_three_channels(source, target, expected):
    assert convert(PIXEL, source, target).tolist() == [[expected]]


@pytest.mark.parametrize('source, target, expected', [
    ('rgba8', 'rgb8', [10, 20, 30]), ('rgba8', 'bgr8', [30, 20, 10]),
    ('bgra8', 'rgba8', [30, 20, 10, 40]), ('bgra8', 'bgr8', [10, 20, 30])])
def test_four_channels(source, target, expected):
    assert convert(PIXEL_ALPHA, source, target).tolist() == [[expected]]


@pytest.mark.parametrize('source, pixel, grey', [
    # 0.299 R + 0.587 G + 0.114 B of 255
    ('rgb8', [255, 0, 0], 76), ('rgb8', [0, 255, 0], 150), ('rgb8', [0, 0, 255], 29),
    ('bgr8', [255, 0, 0], 29), ('rgba8', [255, 0, 0, 0], 76), ('bgra8', [0, 0, 255, 9], 76)])
def test_colour_to_grey(source, pixel, grey):
    assert convert(np.array([[pixel]], np.uint8), source, 'mono8').tolist() == [[grey]]


def test_colour_to_16_bit_grey():
    red = np.array([[[255, 0, 0]]], np.uint8)
    assert convert(red, 'rgb8', 'mono16').tolist() == [[76 * 257]]


def test_grey_to_colour():
    grey = np.array([[7, 200]], np.uint8)
    assert convert(grey, 'mono8', 'bgr8').tolist() == [[[7] * 3, [200] * 3]]
    assert convert(grey, 'mono8', 'rgba8').tolist() == [[[7, 7, 7, 255], [200, 200, 200, 255]]]


def test_grey_of_another_depth():
    assert convert(np.array([[200]], np.uint8), 'mono8', 'mono16').tolist() == [[51400]]
    # 1000 / 257 = 3.89
    assert convert(np.array([[1000, 65535]], np.uint16), 'mono16', 'mono8').tolist() == [[4, 255]]
    assert convert(np.array([[1000]], np.uint16), 'mono16', 'bgr8').tolist() == [[[4, 4, 4]]]


def test_depth_values_are_kept_between_16_bits_and_float():
    assert convert(np.array([[0, 1234]], np.uint16), '16UC1', '32FC1').tolist() == [[0.0, 1234.0]]
    metres = np.array([[2.5, 3.5, 3.7, -1.0, 70000.0, np.nan]], np.float32)
    # To the nearest, halves to even, saturating.
    assert convert(metres, '32FC1', '16UC1').tolist() == [[2, 4, 4, 0, 65535, 0]]


@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
@pytest.mark.parametrize('bits', [8, 16])
def test_bayer_patterns(pattern, bits):
    value = {'r': 100, 'g': 150, 'b': 200}
    tile = np.array([value[letter] for letter in pattern], f'uint{bits}').reshape(2, 2)
    mosaic = np.tile(tile, (4, 4))
    # A surface of one colour: away from the border every pixel has it.
    rgb = convert(mosaic, f'bayer_{pattern}{bits}', f'rgb{bits}')[2:-2, 2:-2]
    bgr = convert(mosaic, f'bayer_{pattern}{bits}', f'bgr{bits}')[2:-2, 2:-2]
    assert (rgb == [100, 150, 200]).all()
    assert (bgr == [200, 150, 100]).all()


@pytest.mark.parametrize('encoding, pixels', [
    ('yuv422', [[128, 16], [128, 235]]), ('yuv422_yuy2', [[16, 128], [235, 128]])])
def test_yuv_without_colour(encoding, pixels):
    image = np.array([pixels], np.uint8)
    assert convert(image, encoding, 'mono8').tolist() == [[16, 235]]
    assert convert(image, encoding, 'bgr8').tolist() == [[[0] * 3, [255] * 3]]


@pytest.mark.parametrize('shape, dtype, source, target', [
    ((2, 2), 'uint8', '8UC1', 'mono8'),        # what do the numbers mean?
    ((2, 2, 3), 'uint8', '8UC3', 'bgr8'),
    ((2, 2), 'uint16', '16UC1', 'mono16'),
    ((2, 2), 'uint8', 'mono8', '8UC3'),        # another number of channels
    ((2, 2), 'uint16', '16UC1', '8UC3'),
    ((2, 2), 'uint8', 'bayer_rggb8', 'rgba8'),
    ((2, 2), 'uint8', 'mono8', 'bayer_rggb8'),
    ((2, 2, 3), 'uint8', 'rgb8', 'yuv422'),
    ((2, 2), 'uint8', 'bayer_rggb8', 'bayer_bggr8'),
    ((2, 2, 3), 'uint8', 'rgb8', 'nonsense')])
def test_conversions_without_meaning_are_refused(shape, dtype, source, target):
    with pytest.raises(CvBridgeError):
        convert(np.zeros(shape, dtype), source, target)


# -- compressed images -------------------------------------------------------------------------

@pytest.mark.parametrize('shape, dtype', [
    ((6, 8), 'uint8'), ((6, 8), 'uint16'), ((6, 8, 3), 'uint8'), ((6, 8, 4), 'uint8')])
def test_png_is_lossless(shape, dtype):
    image = np.random.default_rng(2).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    made = CvBridge().cv2_to_compressed_imgmsg(image, 'png')
    assert made.format == 'png'
    assert made.data[1:4].tobytes() == b'PNG'
    again = CvBridge().compressed_imgmsg_to_cv2(made)
    assert again.dtype == image.dtype
    assert np.array_equal(again, image)


def test_jpeg_keeps_a_flat_colour():
    image = np.full((16, 16, 3), (40, 80, 160), np.uint8)
    made = CvBridge().cv2_to_compressed_imgmsg(image)
    assert made.format == 'jpg'
    assert made.data[:2].tobytes() == b'\xff\xd8'
    again = CvBridge().compressed_imgmsg_to_cv2(made).astype(int)
    assert abs(again - image).max() <= 3


def test_a_compressed_image_is_blue_first():
    made = CvBridge().cv2_to_compressed_imgmsg(PIXEL, 'png')
    assert CvBridge().compressed_imgmsg_to_cv2(made, 'bgr8').tolist() == [[[10, 20, 30]]]
    assert CvBridge().compressed_imgmsg_to_cv2(made, 'rgb8').tolist() == [[[30, 20, 10]]]


@stand_in_only
def test_a_grey_file_becomes_colour():
    made = CvBridge().cv2_to_compressed_imgmsg(np.array([[9]], np.uint8), 'png')
    assert CvBridge().compressed_imgmsg_to_cv2(made, 'bgr8').tolist() == [[[9, 9, 9]]]


@stand_in_only
@pytest.mark.parametrize('data', [b'', b'not an image'])
def test_a_file_that_is_no_image_is_refused(data):
    with pytest.raises(CvBridgeError):
        CvBridge().compressed_imgmsg_to_cv2(
            CompressedImage(format='png', data=array.array('B', data)))


@stand_in_only
def test_a_file_format_that_does_not_exist_is_refused():
    with pytest.raises(CvBridgeError):
        CvBridge().cv2_to_compressed_imgmsg(PIXEL, 'nonsense')


# -- display -----------------------------------------------------------------------------------

def test_dynamic_scaling_ignores_what_is_not_finite():
    depth = np.array([[50, 100, 150, -np.inf, np.inf]], np.float32)
    shown = cv_bridge.cvtColorForDisplay(depth, '32FC1', 'bgr8', do_dynamic_scaling=True)
    # 100 lies half way: 127.5, to the even neighbour.
    assert shown[0, :4].tolist() == [[0] * 3, [128] * 3, [255] * 3, [0] * 3]


def test_a_given_range_is_stretched():
    depth = np.array([[0, 500, 1000, 1500, 5000]], np.uint16)
    shown = cv_bridge.cvtColorForDisplay(
        depth, '16UC1', 'mono8', min_image_value=500, max_image_value=1500)
    assert shown.tolist() == [[0, 0, 128, 255, 255]]


def test_labels_have_colours_of_their_own():
    labels = np.array([[-1, 0, 1, 2, 3]], np.int32)
    shown = cv_bridge.cvtColorForDisplay(labels, '32SC1', 'bgr8')
    assert shown.shape == (1, 5, 3)
    assert shown[0, 0].tolist() == [0, 0, 0]
    assert len({tuple(pixel) for pixel in shown[0].tolist()}) == 5


# -- over DDS ----------------------------------------------------------------------------------

def test_an_image_arrives_as_it_was_sent():
    context = rclpy.Context()
    rclpy.init(context=context)
    namespace = f'/test_{uuid.uuid4().hex}'
    sender = Node('sender', context=context, namespace=namespace)
    receiver = Node('receiver', context=context, namespace=namespace)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(receiver)
    try:
        seen = []
        receiver.create_subscription(Image, 'depth', seen.append, 1)
        publisher = sender.create_publisher(Image, 'depth', 1)
        depth = np.random.default_rng(3).integers(0, 65536, (48, 64)).astype(np.uint16)
        sent = CvBridge().cv2_to_imgmsg(depth.astype('>u2'), '16UC1', Header(frame_id='optical'))
        end = time.monotonic() + DEADLINE
        while not seen:
            assert time.monotonic() < end, 'deadline reached'
            publisher.publish(sent)
            executor.spin_once(timeout_sec=0.05)
        assert seen[0].header.frame_id == 'optical'
        assert seen[0].is_bigendian
        assert np.array_equal(CvBridge().imgmsg_to_cv2(seen[0]), depth)
    finally:
        executor.shutdown()
        sender.destroy_node()
        receiver.destroy_node()
        rclpy.shutdown(context=context)

"""Messages to numpy and back: encodings, byte order, padding, units, and no surprises."""

import array
from dataclasses import replace
from types import SimpleNamespace

import cv2
from geometry_msgs.msg import Point, Pose, Quaternion
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from ros_fixtures import INTRINSICS, RECTANGLE, SIZE, StubDetector, box_scene
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from grasp_stn_interfaces.srv import DetectGrasp
from grasp_stn_ros import messages
from grasp_stn_ros.reasons import GraspError, Reason
from grasp_stn_ros.rgbd import RgbdFrame
from grasp_stn_ros.ros import conversions

RGB = np.random.default_rng(0).integers(0, 256, (48, 40, 3), np.uint8)


def message(pixels: np.ndarray, encoding: str, padding: int = 0, bigendian: bool = False) -> Image:
    """Build a message byte by byte, with ``padding`` bytes of rubbish behind every row."""
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(pixels.shape[0], -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=0xEE)
    image = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding,
                  step=padded.shape[1], is_bigendian=int(bigendian))
    image.data = array.array('B', padded.tobytes())
    return image


@pytest.mark.parametrize('padding', [0, 2, 64])
@pytest.mark.parametrize('encoding, layout', [
    ('rgb8', lambda rgb: rgb),
    ('bgr8', lambda rgb: rgb[..., ::-1]),
    ('rgba8', lambda rgb: np.dstack([rgb, np.full(rgb.shape[:2], 7, np.uint8)])),
    ('bgra8', lambda rgb: np.dstack([rgb[..., ::-1], np.full(rgb.shape[:2], 7, np.uint8)])),
])
def test_colour_encodings(encoding, layout, padding):
    image = message(layout(RGB), encoding, padding)
    np.testing.assert_array_equal(conversions.rgb_from_message(image), RGB)


def test_grey_becomes_three_equal_channels():
    rgb = conversions.rgb_from_message(message(RGB[..., 0], 'mono8', padding=3))
    np.testing.assert_array_equal(rgb, np.repeat(RGB[..., :1], 3, axis=2))


def test_rgb8_is_read_without_a_copy():
    image = message(RGB, 'rgb8')
    rgb = conversions.rgb_from_message(image)
    assert np.shares_memory(rgb, np.frombuffer(image.data, np.uint8))
    assert not rgb.flags.writeable


@pytest.mark.parametrize('padding', [0, 1, 2, 6])
@pytest.mark.parametrize('order', ['<', '>'])
def test_depth_in_millimetres(order, padding):
    raw = np.full((48, 40), 750, order + 'u2')
    raw[0, :4] = 0, 65535, 99, 101
    depth = conversions.depth_from_message(message(raw, '16UC1', padding, order == '>'))
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth[0, :5], [np.nan, np.nan, np.nan, 0.101, 0.75], atol=1e-6)


@pytest.mark.parametrize('padding', [0, 1, 4])
@pytest.mark.parametrize('order', ['<', '>'])
def test_depth_in_metres(order, padding):
    raw = np.full((48, 40), 0.75, order + 'f4')
    raw[0, :4] = np.nan, np.inf, -np.inf, 0.0
    depth = conversions.depth_from_message(message(raw, '32FC1', padding, order == '>'))
    np.testing.assert_allclose(depth[0, :5], [np.nan] * 4 + [0.75])


@pytest.mark.parametrize('encoding', ['mono16', 'mono8', '16SC1', '64FC1', '32FC2', '16uc1', ''])
def test_depth_without_a_unit_is_refused(encoding):
    with pytest.raises(GraspError) as caught:
        conversions.depth_from_message(message(np.zeros((48, 40), np.uint16), encoding))
    assert caught.value.reason == Reason.INVALID_DEPTH


@pytest.mark.parametrize('encoding', ['8UC3', '8UC1', 'rgb16', 'bayer_rggb8', 'yuv422', 'RGB8'])
def test_unclear_colour_is_refused(encoding):
    with pytest.raises(GraspError) as caught:
        conversions.rgb_from_message(message(RGB, encoding))
    assert caught.value.reason == Reason.INVALID_IMAGE


@settings(max_examples=300, deadline=None)
@given(width=st.integers(0, 2**32 - 1) | st.integers(0, 64),
       height=st.integers(0, 2**32 - 1) | st.integers(0, 64),
       step=st.integers(0, 2**32 - 1) | st.integers(0, 256),
       encoding=st.sampled_from(['rgb8', 'bgra8', 'mono8', '16UC1', '32FC1', 'rgb16', '\0é']),
       bigendian=st.integers(0, 255), length=st.integers(0, 8192))
def test_any_image_is_read_or_refused_by_name(width, height, step, encoding, bigendian, length):
    image = Image(width=width, height=height, step=step, encoding=encoding,
                  is_bigendian=bigendian)
    image.data = array.array('B', bytes(length))
    for read, channels in ((conversions.rgb_from_message, (3,)),
                           (conversions.depth_from_message, ())):
        try:
            pixels = read(image)
        except GraspError:
            continue
        assert pixels.shape == (height, width, *channels)


@settings(max_examples=100, deadline=None)
@given(values=st.lists(st.floats(allow_subnormal=False), min_size=9, max_size=9),
       width=st.integers(0, 2**32 - 1), binning=st.integers(0, 2**32 - 1),
       roi=st.integers(0, 2**32 - 1))
def test_any_camera_info_is_read_or_refused_by_name(values, width, binning, roi):
    info = CameraInfo(width=width, height=48, k=values, binning_x=binning,
                      roi=RegionOfInterest(width=roi, height=roi))
    try:
        read = conversions.intrinsics_from_message(info, (40, 48))
    except GraspError:
        return
    assert np.isfinite([read.fx, read.fy, read.cx, read.cy]).all()


def info_with(**changes) -> CameraInfo:
    info = CameraInfo(width=640, height=480, k=[500.0, 0, 320, 0, 510, 240, 0, 0, 1],
                      p=[400.0, 0, 310, 0, 0, 410, 230, 0, 0, 0, 1, 0])
    for name, value in changes.items():
        setattr(info, name, value)
    return info


def test_k_for_raw_p_for_rectified_images():
    raw = conversions.intrinsics_from_message(info_with(), (640, 480), 'K')
    assert (raw.fx, raw.fy, raw.cx, raw.cy) == (500, 510, 320, 240)
    rectified = conversions.intrinsics_from_message(info_with(), (640, 480), 'P')
    assert (rectified.fx, rectified.fy, rectified.cx, rectified.cy) == (400, 410, 310, 230)


@pytest.mark.parametrize('matrix', ['K', 'P'])
def test_uncalibrated_is_refused(matrix):
    with pytest.raises(GraspError) as caught:
        conversions.intrinsics_from_message(CameraInfo(width=640, height=480), (640, 480), matrix)
    assert caught.value.reason == Reason.INVALID_INTRINSICS


def test_binning_and_region_keep_the_rays():
    """A point of the scene has the same ray in the full image and in a binned part of it."""
    full = conversions.intrinsics_from_message(info_with(), (640, 480))
    part = conversions.intrinsics_from_message(
        info_with(binning_x=2, binning_y=2,
                  roi=RegionOfInterest(x_offset=100, y_offset=60, width=320, height=240)),
        (160, 120))
    # Binned pixel (30, 40) covers the full pixels 160..161 and 140..141.
    np.testing.assert_allclose(part.rays([30.0, 40.0]), full.rays([160.5, 140.5]))


def test_distortion_is_noticed():
    assert not conversions.is_distorted(info_with(d=[0.0] * 5))
    assert conversions.is_distorted(info_with(d=[0.1, 0.0, 0.0, 0.0, 0.0]))


def test_sizes_must_agree():
    color, depth = message(RGB, 'rgb8'), message(np.zeros((47, 40), '<u2'), '16UC1')
    with pytest.raises(GraspError) as caught:
        conversions.frame_from_messages(color, depth, info_with(width=40, height=48))
    assert caught.value.reason == Reason.SIZE_MISMATCH


def as_file(pixels, ending, label, start=b''):
    ok, data = cv2.imencode(ending, pixels)
    assert ok
    return CompressedImage(format=label, data=start + data.tobytes())


@pytest.mark.parametrize('color, depth', [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_raw_and_compressed_images_make_the_same_frame(color, depth):
    raw = np.arange(48 * 40, dtype='<u2').reshape(48, 40)
    colors = (message(RGB, 'rgb8'), as_file(RGB[..., ::-1], '.png', 'rgb8; png compressed bgr8'))
    depths = (message(raw, '16UC1'),
              as_file(raw, '.png', '16UC1; compressedDepth png', bytes(12)))
    frame = messages.frame_from_messages(colors[color], depths[depth],
                                         info_with(width=40, height=48))
    np.testing.assert_array_equal(frame.rgb, RGB)
    np.testing.assert_array_equal(frame.depth, messages.depth_from_message(depths[0]))
    # As a recording has them: objects with these fields, and of no class of ROS.
    plain = SimpleNamespace(format=colors[1].format, data=bytes(colors[1].data))
    np.testing.assert_array_equal(messages.rgb_from_message(plain), RGB)
    with pytest.raises(GraspError) as caught:
        messages.frame_from_messages(colors[color], as_file(
            raw[1:], '.png', '16UC1; compressedDepth png', bytes(12)),
            info_with(width=40, height=48))
    assert caught.value.reason == Reason.SIZE_MISMATCH


@pytest.mark.parametrize('encoding, tolerance', [('16UC1', 0.0005), ('32FC1', 0.0)])
def test_depth_survives_the_way_out_and_in(encoding, tolerance):
    depth = np.random.default_rng(1).uniform(0.2, 9.0, (48, 40)).astype(np.float32)
    depth[:3] = np.nan
    back = conversions.depth_from_message(conversions.depth_message(depth, encoding, Header()))
    np.testing.assert_allclose(back, depth, rtol=0, atol=tolerance + 1e-6)


def test_too_far_for_16_bits_is_a_hole():
    depth = np.array([[65.535, 65.6, np.inf, -1.0]], np.float32)
    image = conversions.depth_message(depth, '16UC1', Header())
    assert np.frombuffer(image.data, '<u2').tolist() == [65535, 0, 0, 0]


def test_region():
    assert conversions.region_from_message(RegionOfInterest()) is None
    box = RegionOfInterest(x_offset=1, y_offset=2, width=3, height=4)
    assert conversions.region_from_message(box) == (1, 2, 3, 4)
    with pytest.raises(GraspError):
        conversions.region_from_message(RegionOfInterest(x_offset=5))


def test_pose_and_matrix_are_inverse():
    rng = np.random.default_rng(2)
    for _ in range(50):
        rotation = np.linalg.qr(rng.standard_normal((3, 3)))[0]
        matrix = np.eye(4)
        matrix[:3, :3] = rotation * np.linalg.det(rotation)
        matrix[:3, 3] = rng.standard_normal(3)
        back = conversions.pose_to_matrix(conversions.matrix_to_pose(matrix))
        np.testing.assert_allclose(back, matrix, atol=1e-12)


def test_a_quaternion_that_is_not_quite_unit_turns_and_does_not_stretch():
    pose = Pose(orientation=Quaternion(x=0.71, y=0.0, z=0.71, w=0.0))
    rotation = conversions.pose_to_matrix(pose)[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)


def test_stages_survive_the_way_out_and_in():
    detection = StubDetector((RECTANGLE, RECTANGLE), (0.9, 0.5)).detect(
        RgbdFrame(*box_scene(), INTRINSICS), need_pose=True)
    failed = np.array([[0.0, 1, 0, 0.02], [0, 0, 1, -0.01], [1, 0, 0, 0.6], [0, 0, 0, 1]])
    detection = replace(detection, failed=(failed,))
    back = conversions.detection_from_message(conversions.stages_message(detection, Header()))
    assert back.best is back.candidates[0]
    assert back.reason == detection.reason
    for old, new in zip(detection.candidates, back.candidates, strict=True):
        np.testing.assert_allclose(new.rectangle.as_array(), old.rectangle.as_array())
        assert new.score == pytest.approx(old.score)
    assert SIZE[0] > back.best.rectangle.x
    np.testing.assert_allclose(back.failed, [failed], atol=1e-12)


@pytest.mark.parametrize('spoil', [
    lambda m: setattr(m, 'reason', 200), lambda m: setattr(m.candidates[0], 'reason', 200),
    lambda m: setattr(m.candidates[0].rectangle, 'jaw', 0.0),
    lambda m: setattr(m.candidates[0].rectangle, 'x', float('nan')),
    lambda m: setattr(m, 'stage_names', ['one', 'more', 'than', 'times']),
    lambda m: setattr(m, 'failed', [Pose(orientation=Quaternion(w=0.0))]),
    lambda m: setattr(m, 'failed', [Pose(position=Point(x=float('nan')))])])
def test_stages_that_cannot_be_have_a_named_error(spoil):
    message = conversions.stages_message(StubDetector().detect(
        RgbdFrame(*box_scene(), INTRINSICS)), Header())
    spoil(message)
    with pytest.raises(GraspError, match='GraspStages cannot be read'):
        conversions.detection_from_message(message, INTRINSICS)


def test_the_service_has_every_reason_by_the_same_name_and_number():
    kind = type(DetectGrasp.Response)
    constants = {name: getattr(DetectGrasp.Response, name) for name in dir(kind)
                 if name.isupper() and not name.startswith('_')}
    assert constants == {reason.name: int(reason) for reason in Reason}


@pytest.mark.parametrize('encoding, values, words', [
    ('32FC1', [700.0, 1000.0, np.nan],
     ['700 to 1000', '32FC1 is metres', 'look like millimetres']),
    ('32FC1', [0.02, 0.05, np.inf], ['0.02 to 0.05', '0.1 to 10']),
    ('16UC1', [12000, 30000, 0], ['12000 to 30000', '16UC1 is millimetres', '100 to 10000']),
    ('16UC1', [0, 0, 0], []), ('32FC1', [np.nan, -1.0, 0.0], [])])
@pytest.mark.parametrize('big', [False, True])
def test_depth_in_another_unit_is_named_with_its_values(encoding, values, words, big):
    dtype = ('>' if big else '<') + {'32FC1': 'f4', '16UC1': 'u2'}[encoding]
    image = conversions.image_message(np.array([values], dtype), encoding, Header())
    image.is_bigendian = int(big)
    assert not np.isfinite(conversions.depth_from_message(image)).any()
    text = messages.why_no_depth(image)
    assert text.startswith('not one pixel of the depth image is valid')
    assert all(word in text for word in words), text
    assert ('values are' in text) == bool(words)
    assert ('look like millimetres' in text) == ('look like millimetres' in words)

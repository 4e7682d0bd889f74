"""Preprocessing: the exact inverse of views, the channels of known scenes, holes."""

from concurrent.futures import ThreadPoolExecutor
import math
import threading

import cv2
from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from grasp_stn_ros import preprocessing
from grasp_stn_ros.preprocessing import (
    HEIGHT_SCALE,
    INPUT_SIZE,
    LARGEST_SIZE,
    SMALLEST_SIZE,
    View,
    _whole_pixels,
    at_scale,
    fill_holes,
    preprocess,
    size_for_jaw,
)
from grasp_stn_ros.reasons import GraspError, Reason
from grasp_stn_ros.rgbd import CameraIntrinsics, RgbdFrame, clean_depth, depth_from_millimetres
from grasp_stn_ros.support_plane import fit_support_plane

CAMERA = CameraIntrinsics(525.0, 525.0, 319.5, 239.5)


def table_frame(tilt=0.3, distance=0.8, box_height=0.05, size=(640, 480), camera=CAMERA):
    """A tilted table with a raised square; returns the frame, the true normal and the mask."""
    normal = np.array([0.0, -math.sin(tilt), -math.cos(tilt)])
    grid = np.stack(np.meshgrid(np.arange(size[0]), np.arange(size[1])), axis=-1)
    rays = camera.rays(grid)
    table = -distance / (rays @ normal)
    top = -(distance - box_height) / (rays @ normal)
    mask = (abs(grid[..., 0] - 330) < 40) & (abs(grid[..., 1] - 250) < 40)
    depth = np.where(mask, top, table).astype(np.float32)
    rgb = np.full((size[1], size[0], 3), 200, np.uint8)
    rgb[mask] = (30, 60, 90)
    return RgbdFrame(rgb, depth, camera), normal, mask


# The detector flushes subnormal numbers to zero for its whole process, tests included.
@given(st.floats(-300, 900, allow_subnormal=False), st.floats(-300, 900, allow_subnormal=False),
       st.floats(0.2, 3), st.floats(-7, 7, allow_subnormal=False),
       st.booleans())
def test_view_and_its_inverse(x, y, scale, angle, mirror):
    view = View.similarity((x, y), scale, angle, mirror)
    points = np.array([[0.0, 0.0], [639.0, 479.0], [x, y]])
    assert np.allclose(view.to_image(view.to_view(points)), points, atol=1e-6)
    assert np.allclose(view.to_view(np.array([x, y])), 199.5)
    assert view.scale == pytest.approx(scale)


def test_square_view_of_a_vga_image_by_hand():
    view = View.square((640, 480))
    # 480 pixels become 400; the border of the square, x = 79.5, becomes the border -0.5.
    assert np.allclose(view.to_view(np.array([79.5, -0.5])), [-0.5, -0.5])
    assert np.allclose(view.to_view(np.array([559.5, 479.5])), [399.5, 399.5])
    assert view.region == pytest.approx((80, 0, 480, 480))


def test_region_view_shows_the_whole_region_centred():
    view = View.of_region(100, 50, 200, 100)
    corners = view.to_view(np.array([[99.5, 49.5], [299.5, 149.5]]))
    assert np.allclose(corners, [[-0.5, 99.5], [399.5, 299.5]])


@pytest.mark.parametrize('size', [(640, 480), (1280, 720), (1920, 1080), (320, 240), (400, 400)])
def test_pixels_land_where_the_view_says(size):
    rgb = np.zeros((size[1], size[0], 3), np.uint8)
    spot = (int(size[0] * 0.6), int(size[1] * 0.4))
    reach = max(1, size[1] // 100)
    rgb[spot[1] - reach:spot[1] + reach + 1, spot[0] - reach:spot[0] + reach + 1] = 255
    prepared = preprocess(RgbdFrame(rgb))
    # Grey (0) comes in at the border of an enlarged image; only what is brighter counts.
    bright = prepared.channels[0].clip(0)
    rows, columns = np.mgrid[:400, :400]
    centre = [(bright * columns).sum() / bright.sum(), (bright * rows).sum() / bright.sum()]
    assert np.allclose(centre, prepared.view.to_view(np.array(spot)), atol=0.3)


def test_channels_of_a_tilted_table_with_a_box():
    frame, normal, _ = table_frame()
    prepared = preprocess(frame)
    assert prepared.channels.shape == (7, 400, 400)
    assert prepared.channels.dtype == np.float32
    assert np.allclose(prepared.support.normal, normal, atol=1e-3)
    assert prepared.support.offset == pytest.approx(0.8, abs=1e-3)
    box = prepared.view.to_view(np.array([330, 250])).astype(int)
    height = prepared.channels[3]
    assert height[box[1], box[0]] == pytest.approx(0.05 * HEIGHT_SCALE, abs=0.02)
    assert height[350, 50] == pytest.approx(0, abs=0.02)
    # The table and the box's top are parallel to the support: normal (0, 0, 1) on both.
    for x, y in (box, (50, 350), (300, 60)):
        assert np.allclose(prepared.channels[4:, y, x], [0, 0, 1], atol=0.02)
    assert np.allclose(prepared.channels[:3, box[1], box[0]] * 127.5 + 127.5, [30, 60, 90],
                       atol=1)


def test_normals_of_a_slope_point_up_the_right_way():
    # A plane that comes nearer to the right, next to a large fronto-parallel support.
    camera = CAMERA
    depth = np.full((480, 640), 1.0, np.float32)
    u = np.arange(300, 400)
    # z = 1 - t with x = t: a slope of 45 degrees whose normal points to the left and up.
    ray = (u - camera.cx) / camera.fx
    start = (300 - camera.cx) / camera.fx
    depth[200:300, 300:400] = (1 + start) / (1 + ray)
    prepared = preprocess(RgbdFrame(np.zeros((480, 640, 3), np.uint8), depth, camera))
    x, y = prepared.view.to_view(np.array([350, 250])).astype(int)
    expected = np.array([-1, 0, 1]) / math.sqrt(2)
    assert np.allclose(prepared.channels[4:, y, x], expected, atol=0.05)


def test_turned_and_mirrored_views_see_the_same_support_and_heights():
    frame, normal, _ = table_frame()
    for view in (View.similarity((330.0, 250.0), 0.9, 1.1),
                 View.similarity((330.0, 250.0), 0.9, -2.0, mirror=True)):
        prepared = preprocess(frame, view)
        assert np.allclose(prepared.support.normal, normal, atol=2e-3)
        assert prepared.channels[3, 199, 199] == pytest.approx(0.05 * HEIGHT_SCALE, abs=0.03)
        assert np.allclose(prepared.channels[4:, 199, 199], [0, 0, 1], atol=0.03)


@pytest.mark.parametrize('view', [None, View.similarity((330.0, 250.0), 0.9, 1.1, mirror=True)],
                         ids=['upright', 'turned and mirrored'])
def test_the_support_is_exact_where_pixels_are_not_square(view):
    camera = CameraIntrinsics(500.0, 525.0, 322.0, 239.0)
    normal = np.array([0.3, -0.4, -math.sqrt(0.75)])
    rays = camera.rays(np.stack(np.meshgrid(np.arange(640), np.arange(480)), axis=-1))
    depth = (-0.8 / (rays @ normal)).astype(np.float32)
    support = preprocess(RgbdFrame(np.zeros((480, 640, 3), np.uint8), depth, camera), view).support
    assert np.allclose(support.normal, normal, atol=1e-3)
    assert support.offset == pytest.approx(0.8, abs=1e-3)


def test_holes_are_filled_in_height_and_marked_in_the_normals():
    frame, _, _ = table_frame()
    depth = frame.depth.copy()
    depth[100:110, 200:220] = np.nan
    prepared = preprocess(RgbdFrame(frame.rgb, depth, CAMERA))
    x, y = prepared.view.to_view(np.array([210, 105])).astype(int)
    assert not prepared.valid[y, x]
    assert prepared.channels[3, y, x] == pytest.approx(0, abs=0.03)
    assert (prepared.channels[4:, y, x] == 0).all()
    length = np.linalg.norm(prepared.channels[4:], axis=0)
    assert np.allclose(length[prepared.valid], 1, atol=1e-3)
    assert np.isfinite(prepared.channels).all()


def test_missing_depth_leaves_its_channels_zero():
    frame, _, _ = table_frame()
    for prepared in (preprocess(RgbdFrame(frame.rgb)),
                     preprocess(RgbdFrame(frame.rgb, np.full_like(frame.depth, np.nan), CAMERA)),
                     preprocess(frame, use_depth=False)):
        assert (prepared.channels[3:] == 0).all() and not prepared.valid.any()
        assert prepared.support is None
        assert (prepared.channels[:3] != 0).any()


def test_nothing_to_see_is_an_error_with_a_name():
    frame, _, _ = table_frame()
    with pytest.raises(GraspError) as error:
        preprocess(RgbdFrame(frame.rgb, np.full_like(frame.depth, np.nan), CAMERA),
                   use_rgb=False)
    assert error.value.reason is Reason.NO_DEPTH


def test_fill_holes_keeps_what_is_known_and_interpolates():
    values = np.tile(np.arange(64, dtype=np.float32), (64, 1))
    valid = np.ones((64, 64), bool)
    valid[20:40, 20:40] = False
    filled = fill_holes(np.where(valid, values, 0).astype(np.float32), valid)
    assert np.array_equal(filled[valid], values[valid])
    assert np.abs(filled - values)[~valid].max() < 8
    assert np.array_equal(fill_holes(values, np.ones_like(valid)), values)
    assert (fill_holes(values, np.zeros_like(valid)) == 0).all()


def test_support_plane_survives_clutter_noise_and_a_wall():
    frame, normal, _ = table_frame(tilt=0.6)
    rng = np.random.default_rng(3)
    depth = frame.depth + rng.normal(0, 0.002, frame.depth.shape).astype(np.float32)
    depth[rng.random(depth.shape) < 0.3] = np.nan
    depth[:120] = 1.1                         # a wall behind the table
    plane = fit_support_plane(depth, CAMERA)
    assert np.degrees(np.arccos(plane.normal @ normal)) < 0.5
    assert plane.offset == pytest.approx(0.8, abs=0.004)


def test_no_support_plane_in_chaos():
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.3, 3.0, (480, 640)).astype(np.float32)
    assert fit_support_plane(depth, CAMERA) is None
    assert fit_support_plane(np.full((480, 640), np.nan, np.float32), CAMERA) is None


def test_depth_units_and_markers_for_holes():
    raw = np.array([[0, 500, 1234, 65535]], np.uint16)
    metres = depth_from_millimetres(raw)
    assert np.isnan(metres[0, 0]) and np.isnan(metres[0, 3])
    assert metres[0, 1:3] == pytest.approx([0.5, 1.234])
    cleaned = clean_depth(np.array([[np.inf, -1, 0, 0.5, np.nan]], np.float64))
    assert cleaned.dtype == np.float32
    assert np.isnan(cleaned[0, [0, 1, 2, 4]]).all() and cleaned[0, 3] == 0.5


@pytest.mark.parametrize('rgb, depth, reason', [
    (np.zeros((48, 64), np.uint8), None, Reason.INVALID_IMAGE),
    (np.zeros((48, 64, 3), np.float32), None, Reason.INVALID_IMAGE),
    (np.zeros((8, 8, 3), np.uint8), None, Reason.INVALID_IMAGE),
    (np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64)), Reason.INVALID_DEPTH),
    (np.zeros((48, 64, 3), np.uint8), np.full((48, 64), 0, np.float32), Reason.INVALID_DEPTH),
    (np.zeros((48, 64, 3), np.uint8), np.full((48, 64), 800, np.float32), Reason.INVALID_DEPTH),
    (np.zeros((48, 64, 3), np.uint8), np.zeros((48, 60), np.float32), Reason.SIZE_MISMATCH)])
def test_frames_are_checked_by_name(rgb, depth, reason):
    with pytest.raises(GraspError) as error:
        RgbdFrame(rgb, depth)
    assert error.value.reason is reason


@pytest.mark.parametrize('values', [(0, 0, 0, 0), (525, -1, 0, 0), (math.nan, 1, 1, 1)])
def test_uncalibrated_cameras_are_refused(values):
    with pytest.raises(GraspError) as error:
        CameraIntrinsics(*values)
    assert error.value.reason is Reason.INVALID_INTRINSICS


@pytest.mark.parametrize('region', [(80, 0, 480, 480), (10, 100, 300, 220), (7, 3, 410, 410)])
def test_a_view_of_whole_pixels_is_sampled_as_any_other(region):
    rng = np.random.default_rng(3)
    rgb = cv2.GaussianBlur(rng.integers(0, 256, (480, 640, 3), np.uint8), (0, 0), 2)
    view = View.of_region(*region)
    # A turn that moves no sample, but must be warped.
    turned = View(view.matrix + [[0, 1e-9, 0], [-1e-9, 0, 0]])
    assert _whole_pixels(view, rgb) is not None and _whole_pixels(turned, rgb) is None
    one, other = (preprocess(RgbdFrame(rgb, None), v).channels[:3] for v in (view, turned))
    # Interpolation weights are rounded to 1/32 in one case: a grey level.
    assert np.abs(one - other).max() <= 2.01 / 127.5


@pytest.mark.parametrize('region', [(0.5, 3, 410, 410), (0, 0, 300, 220), (300, 0, 340, 480)])
def test_other_views_are_warped(region):
    # Half a pixel beside; more above than there is; more to the side.
    rgb = np.zeros((480, 640, 3), np.uint8)
    assert _whole_pixels(View.of_region(*region), rgb) is None


class Helper(ThreadPoolExecutor):
    """One thread that begins its job half a second late: whoever does not wait is ahead of it."""

    def submit(self, function, *args):
        def late():
            threading.Event().wait(0.5)
            self.thread = threading.current_thread()
            return function(*args)
        return super().submit(late)


@pytest.mark.parametrize('depth', [True, False])
def test_what_a_helper_shares_is_the_same_and_complete(depth):
    frame, _, _ = table_frame()
    frame = frame if depth else RgbdFrame(frame.rgb, None, CAMERA)
    expected = preprocess(frame).channels
    with Helper(1) as helper:
        out, last = np.full_like(expected, 7), np.full((400, 400, 7), 7, np.float32)
        channels = preprocess(frame, out=out, helper=helper, last=last).channels
        # Products of matrices that begin elsewhere may round elsewhere.
        assert np.allclose(channels, expected, rtol=0, atol=1e-6)
        assert (last == channels.transpose(1, 2, 0)).all()
        # Without depth there is nothing to do meanwhile.
        assert hasattr(helper, 'thread') == depth
        if depth:
            assert helper.thread is not threading.current_thread()


def test_a_helper_has_finished_where_the_depth_fails(monkeypatch):
    frame, _, _ = table_frame()

    def fail(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr('grasp_stn_ros.preprocessing.fill_holes', fail)
    out = np.full((7, 400, 400), np.nan, np.float32)
    with Helper(1) as helper:
        with pytest.raises(MemoryError):
            preprocess(frame, out=out, helper=helper)
        # Before the helper is closed, which would wait for it.
        assert np.isfinite(out[:3]).all()


def test_strips_are_no_part_of_the_result():
    # Tilted, with a hole across the border of the halves.
    frame, _, _ = table_frame()
    depth = frame.depth.copy()
    depth[225:255, 200:400] = np.nan
    frame = RgbdFrame(frame.rgb, depth, CAMERA)
    whole = preprocess(frame).channels
    with ThreadPoolExecutor(1) as helper:
        halves = preprocess(frame, helper=helper).channels
    assert np.allclose(whole, halves, rtol=0, atol=1e-6)
    assert np.ptp(whole[4:, 198:202]) > 0.1


def test_channels_that_are_not_contiguous_are_refused():
    with pytest.raises(ValueError, match='contiguous'):
        preprocess(table_frame()[0], out=np.empty((400, 400, 7), np.float32).transpose(2, 0, 1))


@pytest.mark.parametrize('jaw, size', [
    (14.0, 400), (30.0, 400), (10.0, 544), (12.5, 448), (13.4, 400), (1.0, LARGEST_SIZE),
    (1e-300, LARGEST_SIZE), (0.0, 400), (-1.0, 400), (math.nan, 400), (math.inf, 400)])
def test_a_view_grows_until_jaws_have_the_pixels_that_are_wanted(jaw, size):
    assert size_for_jaw(jaw, 14.0) == size
    assert size_for_jaw(jaw, 0.0) == INPUT_SIZE
    # The coarsest features have a cell for 16 pixels.
    assert size % 16 == 0


@pytest.mark.parametrize('jaw, size', [
    (14.0, 400), (16.0, 352), (10.0, 544), (20.0, SMALLEST_SIZE), (1e300, SMALLEST_SIZE)])
def test_a_view_shrinks_only_where_it_may(jaw, size):
    assert size_for_jaw(jaw, 14.0, with_depth=True) == size
    assert size_for_jaw(jaw, 14.0) == max(size, INPUT_SIZE)
    assert SMALLEST_SIZE % 16 == 0


@pytest.mark.parametrize('region', [None, (200, 100, 300, 220)])
@pytest.mark.parametrize('tilt', [0.0, 0.5])
def test_a_view_at_scale_needs_no_second_fit(monkeypatch, region, tilt):
    frame, _, _ = table_frame(tilt)
    plain = View.square(frame.size) if region is None else View.of_region(*region)
    view, known = at_scale(frame, plain, 20.0)
    # 525 px * 20 mm / 0.8 m are 13.1 pixels of the image where the camera looks straight down.
    alone = preprocess(frame, view)
    assert view.region == pytest.approx(plain.region)
    assert view.size == size_for_jaw(preprocess(frame, plain).jaw(0.02), 20.0, with_depth=True)
    if region is None and not tilt:
        assert view.size == 688 and alone.jaw(0.02) == pytest.approx(13.125 * 688 / 480, rel=0.01)
    monkeypatch.setattr(preprocessing, 'fit_support_plane', None)
    together = preprocess(frame, view, known=known)
    assert together.jaw(0.02) == pytest.approx(alone.jaw(0.02), rel=0.003)
    assert together.support.normal == pytest.approx(alone.support.normal, abs=2e-3)
    np.testing.assert_allclose(together.channels, alone.channels, atol=0.02)


def test_views_of_all_sizes_share_one_memory():
    frame, _, _ = table_frame(0.5)
    hollow = frame.depth.copy()
    hollow[200:260, 300:400] = np.nan
    frame = RgbdFrame(frame.rgb, hollow, CAMERA)
    views = [View.of_region(*View.square(frame.size).region, size) for size in (544, 400, 688)]

    def channels(view):
        return preprocess(frame, view).channels

    def kept(view):
        channels(view)
        return sum(array.nbytes for array in preprocessing._workspace._arrays.values())

    expected = []
    for view in views:  # what a thread has by itself
        with ThreadPoolExecutor(1) as fresh:
            expected.append(fresh.submit(channels, view).result())
    for view, alone in zip(views[:2] + views, expected[:2] + expected, strict=True):
        # Sums in another order, where the memory begins elsewhere.
        np.testing.assert_allclose(channels(view), alone, rtol=0, atol=1e-6)
    with ThreadPoolExecutor(1) as fresh:
        largest = fresh.submit(kept, views[2]).result()
    with ThreadPoolExecutor(1) as fresh:
        assert [fresh.submit(kept, view).result() for view in views][2] == largest


def test_a_view_without_depth_has_no_scale_to_go_by():
    frame, _, _ = table_frame()
    view = View.square(frame.size)
    for depth in (None, np.full_like(frame.depth, math.nan)):
        assert at_scale(RgbdFrame(frame.rgb, depth, CAMERA), view, 20.0) == (view, None)
    assert at_scale(frame, view, 0.0) == (view, None)

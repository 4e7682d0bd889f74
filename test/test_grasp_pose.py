"""The pose of a rectangle, worked out by hand, and the exact inverse."""

import dataclasses
import math

import numpy as np
import pytest

from grasp_stn_ros.detection import Grasp
from grasp_stn_ros.grasp_pose import (
    Gripper,
    approach_vector,
    grasp_axes,
    grasp_to_rectangle,
    rectangle_to_grasp,
    rectangles_to_grasps,
    surface_normals,
)
from grasp_stn_ros.reasons import GraspError, Reason
from grasp_stn_ros.rectangle import GraspRectangle, angle_distance
from grasp_stn_ros.rgbd import CameraIntrinsics, RgbdFrame
from grasp_stn_ros.support_plane import SupportPlane

CAMERA = CameraIntrinsics(500.0, 500.0, 320.0, 240.0)
OPTICAL_AXIS = np.array([0.0, 0.0, 1.0])
# Not the defaults: the numbers below are worked out for these.
GRIPPER = Gripper(finger_depth=0.022, support_clearance=0.004)
BLANK = np.zeros((480, 640, 3), np.uint8)


def block_frame(top=0.75, table=0.80, half=(15, 60), centre=(400, 240)):
    """A block seen straight from above: +-half pixels around the centre at depth ``top``."""
    depth = np.full((480, 640), table, np.float32)
    depth[centre[1] - half[1]:centre[1] + half[1] + 1,
          centre[0] - half[0]:centre[0] + half[0] + 1] = top
    return RgbdFrame(BLANK, depth, CAMERA)


def test_pose_of_a_known_rectangle_by_hand():
    rectangle = GraspRectangle(400.0, 240.0, 0.0, 50.0, 14.0)
    grasp = rectangle_to_grasp(rectangle, block_frame(), GRIPPER, OPTICAL_AXIS)
    # Surface: depth 0.75, x = (400 - 320) / 500 * 0.75 = 0.12; tips 22 mm below.
    assert np.allclose(grasp.surface, [0.12, 0.0, 0.75], atol=1e-6)
    assert np.allclose(grasp.position, [0.12, 0.0, 0.772], atol=1e-6)
    # 50 px at 0.75 m and f = 500 px are 75 mm; 14 px are 21 mm.
    assert grasp.opening == pytest.approx(0.075, abs=1e-6)
    assert grasp.jaw_size == pytest.approx(0.021, abs=1e-6)
    # x = approach = optical z, y = opening = image x, z = x cross y = image y.
    assert np.allclose(grasp.rotation, [[0, 1, 0], [0, 0, 1], [1, 0, 0]], atol=1e-9)
    # That takes x to z, z to y and y to x: -120 degrees around (1, 1, 1).
    assert np.allclose(grasp.quaternion, [-0.5, -0.5, -0.5, 0.5], atol=1e-9)
    assert np.allclose(grasp.normal, [0, 0, -1], atol=1e-6)


def test_angle_of_the_opening_goes_from_x_to_y():
    rectangle = GraspRectangle(400.0, 240.0, math.radians(30), 44.0, 14.0)
    grasp = rectangle_to_grasp(rectangle, block_frame(half=(12, 12)), GRIPPER, OPTICAL_AXIS)
    assert np.allclose(grasp.rotation[:, 1], [math.cos(math.pi / 6), 0.5, 0], atol=1e-6)


def test_tips_stop_above_the_support():
    # 10 mm high: the tips may go 10 - 4 = 6 mm below the top.
    grasp = rectangle_to_grasp(GraspRectangle(400, 240, 0, 50, 14), block_frame(top=0.79),
                               GRIPPER, OPTICAL_AXIS)
    assert grasp.position[2] == pytest.approx(0.796, abs=1e-5)


def test_a_ring_is_grasped_across_its_hole():
    # Nothing in the middle, two 12 px wide walls 10 mm above the table between the jaws.
    frame = block_frame(top=0.79, half=(22, 60))
    depth = frame.depth.copy()
    depth[:, 400 - 10:400 + 11] = 0.80
    grasp = rectangle_to_grasp(GraspRectangle(400, 240, 0, 52, 14),
                               RgbdFrame(BLANK, depth, CAMERA), GRIPPER, OPTICAL_AXIS)
    assert grasp.surface[2] == pytest.approx(0.79, abs=1e-5)
    assert grasp.position[2] == pytest.approx(0.796, abs=1e-5)


def test_known_support_counts_where_shadows_hide_it():
    frame = block_frame(top=0.79)
    depth = np.where(frame.depth > 0.795, np.float32(np.nan), frame.depth)
    support = SupportPlane(np.array([0.0, 0.0, -1.0]), 0.80, 1.0)
    grasp = rectangle_to_grasp(GraspRectangle(400, 240, 0, 50, 14),
                               RgbdFrame(BLANK, depth, CAMERA), GRIPPER, OPTICAL_AXIS, support)
    assert grasp.position[2] == pytest.approx(0.796, abs=1e-5)


@pytest.mark.parametrize('tilt, roll, theta', [(0, 0, 0.4), (0.3, 0.5, -1.2), (0.6, 2.0, 1.5)])
def test_rectangle_and_grasp_are_inverse_for_tilted_cameras(tilt, roll, theta):
    """A plane seen under an angle; the grasp's opening comes back exactly."""
    normal = -np.array([math.sin(tilt) * math.cos(roll), math.sin(tilt) * math.sin(roll),
                        math.cos(tilt)])
    grid = np.stack(np.meshgrid(np.arange(640), np.arange(480)), axis=-1)
    depth = (-0.7 / (CAMERA.rays(grid) @ normal)).astype(np.float32)
    frame = RgbdFrame(BLANK, depth, CAMERA)
    rectangle = GraspRectangle(350.0, 200.0, theta, 30.0, 13.0)
    grasp = rectangle_to_grasp(rectangle, frame, Gripper(support_clearance=0.0), -normal)
    assert np.allclose(grasp.rotation.T @ grasp.rotation, np.eye(3), atol=1e-9)
    assert np.linalg.det(grasp.rotation) == pytest.approx(1)
    assert normal @ grasp.surface == pytest.approx(-0.7, abs=1e-3)
    back = grasp_to_rectangle(grasp, CAMERA)
    assert np.allclose([back.x, back.y, back.opening],
                       [rectangle.x, rectangle.y, rectangle.opening], atol=1e-6)
    assert angle_distance(back.theta, rectangle.theta) < 1e-9


@pytest.mark.parametrize('change, reason', [
    ({'opening': 80.0}, Reason.TOO_WIDE),
    ({'x': 700.0}, Reason.OUTSIDE_IMAGE)])
def test_rectangles_that_cannot_be_grasped_have_a_reason(change, reason):
    rectangle = dataclasses.replace(GraspRectangle(400, 240, 0, 50, 14), **change)
    with pytest.raises(GraspError) as error:
        rectangle_to_grasp(rectangle, block_frame(), GRIPPER, OPTICAL_AXIS)
    assert error.value.reason is reason


def test_depth_that_allows_no_pose_has_a_reason():
    rectangle = GraspRectangle(400, 240, 0, 50, 14)

    def reason_for(frame, approach=OPTICAL_AXIS):
        with pytest.raises(GraspError) as error:
            rectangle_to_grasp(rectangle, frame, GRIPPER, approach)
        return error.value.reason

    frame = block_frame()
    assert reason_for(RgbdFrame(BLANK, None, CAMERA)) is Reason.NO_DEPTH
    assert reason_for(RgbdFrame(BLANK, frame.depth)) is Reason.INVALID_INTRINSICS
    hole = frame.depth.copy()
    hole[220:260, 380:420] = np.nan
    assert reason_for(RgbdFrame(BLANK, hole, CAMERA)) is Reason.DEPTH_HOLE
    assert reason_for(frame, np.array([0.0, 1.0, 0.0])) is Reason.GRAZING
    flat = np.full((480, 640), 0.8, np.float32)
    assert reason_for(RgbdFrame(BLANK, flat, CAMERA)) is Reason.TOO_FLAT
    blocked = frame.depth.copy()
    blocked[:, 424:440] = 0.70
    assert reason_for(RgbdFrame(BLANK, blocked, CAMERA)) is Reason.JAWS_BLOCKED


def test_speckle_and_small_holes_do_not_move_the_surface():
    frame = block_frame()
    rng = np.random.default_rng(1)
    depth = frame.depth.copy()
    depth[rng.random(depth.shape) < 0.3] = np.nan
    depth[rng.random(depth.shape) < 0.01] = 0.4      # flying pixels
    grasp = rectangle_to_grasp(GraspRectangle(400, 240, 0, 50, 14),
                               RgbdFrame(BLANK, depth, CAMERA), GRIPPER, OPTICAL_AXIS)
    assert grasp.surface[2] == pytest.approx(0.75, abs=1e-4)


def test_approach_vectors():
    frame = block_frame()
    rectangle = GraspRectangle(400, 240, 0, 50, 14)
    support = SupportPlane(np.array([0.0, -0.6, -0.8]), 0.7, 0.9)

    def vector(name, direction=(0.0, 0.0, 1.0), plane=support):
        return approach_vector(name, direction, frame, rectangle, plane)

    assert np.allclose(vector('optical_axis'), [0, 0, 1])
    assert np.allclose(vector('support_plane'), [0, 0.6, 0.8])
    assert np.allclose(vector('surface_normal'), [0, 0, 1], atol=1e-6)
    assert np.allclose(vector('direction', (0, 3, 4)), [0, 0.6, 0.8])
    for arguments, reason in ((('support_plane', (0, 0, 1), None), Reason.NO_SUPPORT_PLANE),
                              (('direction', (0, 0, 0)), Reason.INVALID_REQUEST),
                              (('sideways',), Reason.INVALID_REQUEST)):
        with pytest.raises(GraspError) as error:
            vector(*arguments)
        assert error.value.reason is reason


def test_surface_normal_of_a_slope():
    grid = np.stack(np.meshgrid(np.arange(640), np.arange(480)), axis=-1)
    normal = np.array([0.6, 0.0, -0.8])
    depth = (-0.6 / (CAMERA.rays(grid) @ normal)).astype(np.float32)
    corners = np.array([[300.0, 200.0], [0.2, 479.0], [900.0, 200.0]])
    normals = surface_normals(RgbdFrame(BLANK, depth, CAMERA), corners)
    assert np.allclose(normals[:2], normal, atol=1e-3)
    assert np.isnan(normals[2]).all(), 'outside the image'


def test_many_rectangles_at_once_are_those_rectangles_one_by_one():
    frame = block_frame()
    hole = frame.depth.copy()
    hole[100:140, 100:140] = np.nan
    frame = RgbdFrame(BLANK, hole, CAMERA)
    tilted = np.array([0.1, 0.0, np.sqrt(0.99)])
    rectangles = [GraspRectangle(400, 240, 0, 50, 14), GraspRectangle(120, 120, 0, 20, 10),
                  GraspRectangle(400, 230, 0.1, 45, 12), GraspRectangle(-20, 120, 0, 20, 10),
                  GraspRectangle(400, 240, 0, 80, 14), GraspRectangle(200, 400, 0.5, 30, 12)]
    approaches = np.stack([OPTICAL_AXIS, OPTICAL_AXIS, tilted, OPTICAL_AXIS, OPTICAL_AXIS, tilted])
    support = SupportPlane(-OPTICAL_AXIS, 0.80, 0.9)
    found = rectangles_to_grasps(rectangles, frame, GRIPPER, approaches, support)
    assert [g.reason.name if isinstance(g, GraspError) else 'OK' for g in found] == [
        'OK', 'DEPTH_HOLE', 'OK', 'OUTSIDE_IMAGE', 'TOO_WIDE', 'TOO_FLAT']
    for rectangle, approach, grasp in zip(rectangles, approaches, found, strict=True):
        if isinstance(grasp, GraspError):
            with pytest.raises(GraspError) as error:
                rectangle_to_grasp(rectangle, frame, GRIPPER, approach, support)
            assert str(error.value) == str(grasp)
            continue
        alone = rectangle_to_grasp(rectangle, frame, GRIPPER, approach, support)
        for field in dataclasses.fields(Grasp):
            assert np.allclose(getattr(alone, field.name), getattr(grasp, field.name))
    assert rectangles_to_grasps([], frame, GRIPPER, np.zeros((0, 3)), support) == []


@pytest.mark.parametrize('turn', range(12))
def test_quaternion_rebuilds_the_rotation(turn):
    rng = np.random.default_rng(turn)
    rotation = grasp_axes(rng.normal(size=3), rng.normal(size=3))
    zero = np.zeros(3)
    x, y, z, w = Grasp(zero, rotation, 0.05, 0.02, zero, zero).quaternion
    rebuilt = np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]])
    assert np.allclose(rebuilt, rotation, atol=1e-9) and w >= 0


@pytest.mark.parametrize('change', [{'maximum_opening': 0.0}, {'finger_depth': -0.01},
                                    {'jaw_size': 2.0}, {'support_clearance': -1e-3}])
def test_impossible_grippers_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        Gripper(**change)

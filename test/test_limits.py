"""What a cell forbids, by hand-computed cases; no ROS."""

from dataclasses import replace

import numpy as np
import pytest

from grasp_stn_ros import limits
from grasp_stn_ros.detection import Candidate, Detection, Grasp
from grasp_stn_ros.grasp_pose import Gripper, grasp_axes
from grasp_stn_ros.limits import Limits
from grasp_stn_ros.reasons import GraspError, Reason
from grasp_stn_ros.rectangle import GraspRectangle
from grasp_stn_ros.rgbd import CameraIntrinsics, RgbdFrame
from grasp_stn_ros.support_plane import SupportPlane

# A camera 0.8 m above a table, looking straight down.
DOWN = np.array([0.0, 0.0, 1.0])
SUPPORT = SupportPlane(-DOWN, 0.8, 1.0)
FRAME = RgbdFrame(np.zeros((240, 320, 3), np.uint8), np.full((240, 320), 0.8, np.float32),
                  CameraIntrinsics(250.0, 250.0, 160.0, 120.0))


def grasp(x=0.0, y=0.0, z=0.78, surface=0.75, approach=DOWN, opening=0.06):
    return Grasp(np.array([x, y, z]), grasp_axes(approach, np.array([1.0, 0.0, 0.0])), opening,
                 0.02, np.array([x, y, surface]), -DOWN)


def detection(*grasps, scores=None):
    scores = scores or [0.9 - 0.1 * i for i in range(len(grasps))]
    candidates = tuple(
        Candidate((160.0, 120.0), 1.0, 0.0,
                  GraspRectangle(160 + 250 * g.position[0] / g.surface[2],
                                 120 + 250 * g.position[1] / g.surface[2], 0.0, 20.0, 8.0), s, g)
        for g, s in zip(grasps, scores, strict=True))
    return Detection(candidates, candidates[0] if candidates else None, Reason.OK, '',
                     support=SUPPORT)


def test_without_limits_nothing_changes():
    before = detection(grasp(), grasp(0.1))
    after = limits.apply(before, Limits(), FRAME, 0.1)
    assert after.best is after.candidates[0]
    assert [c.reason for c in after.candidates] == [Reason.OK, Reason.OK]


@pytest.mark.parametrize('limit, reason, numbers', [
    (Limits(minimum_depth=0.76), Reason.OUTSIDE_DEPTH, '0.750 m, allowed are 0.76 m and more'),
    (Limits(maximum_depth=0.74), Reason.OUTSIDE_DEPTH, '0.750 m, allowed are 0 to 0.74 m'),
    (Limits(workspace=limits.box([0.05, -1, 0], [1, 1, 2])), Reason.OUTSIDE_WORKSPACE,
     'at (0.000, 0.000, 0.780), the box is (0.050, -1.000, 0.000) to (1.000, 1.000, 2.000) m'),
    (Limits(support_margin=0.03), Reason.SUPPORT_COLLISION,
     '20.0 mm above it, the margin is 30 mm'),
])
def test_what_is_forbidden_is_kept_with_its_reason_and_not_the_best(limit, reason, numbers):
    only = limits.apply(detection(grasp()), limit, FRAME, 0.1)
    assert (only.best, only.reason) == (None, reason)
    assert only.candidates[0].grasp is not None, 'kept, to be looked at'
    assert only.candidates[0].reason == reason
    assert reason.sentence in only.message and numbers in only.message
    # One that is allowed behind it becomes the best and has no forbidden alternative.
    good = grasp(0.1, z=0.76, surface=0.75)
    if reason == Reason.OUTSIDE_DEPTH:
        good = replace(good, surface=np.array([0.1, 0.0, limit.minimum_depth or 0.7]))
    both = limits.apply(detection(grasp(), good), limit, FRAME, 0.1)
    assert both.best is both.candidates[1]
    assert both.reason == Reason.OK
    assert both.alternatives == ()


def test_the_best_never_has_a_score_below_the_minimum():
    low = detection(grasp(), grasp(0.1), scores=[0.9, 0.05])
    limit = Limits(workspace=limits.box([0.05, -1, 0], [1, 1, 2]))
    assert limits.apply(low, limit, FRAME, 0.1).best is None
    assert limits.apply(low, limit, FRAME, 0.01).best is not None


def test_the_workspace_is_in_the_target_frame():
    # The target frame has its origin 1 m below the camera, z up.
    transform = np.array([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 1.0], [0, 0, 0, 1]])
    box = limits.box([-0.5, -0.5, 0.2], [0.5, 0.5, 0.25])
    found = limits.apply(detection(grasp(z=0.78)), Limits(workspace=box), FRAME, 0.1, transform)
    assert found.best is not None, '1 - 0.78 = 0.22 m lies in the box'
    found = limits.apply(detection(grasp(z=0.70)), Limits(workspace=box), FRAME, 0.1, transform)
    assert found.best is None, '0.30 m does not'


@pytest.mark.parametrize('lower, upper', [([0, 0, 0], [1, 1, 0]), ([0.1, 0, 0], [0, 1, 1])])
def test_an_empty_workspace_is_refused(lower, upper):
    with pytest.raises(ValueError, match='empty'):
        limits.box(lower, upper)


def test_the_corner_of_a_tilted_finger_counts():
    """Straight down all corners are 20 mm above; tilted by 30 degrees the lower one is not."""
    gripper = Gripper(jaw_size=0.02, finger_thickness=0.01)
    straight = limits.finger_corners(grasp(z=0.78), gripper)
    np.testing.assert_allclose(SUPPORT.height(straight), 0.02, atol=1e-12)
    tilted = grasp(z=0.78, approach=np.array([np.sin(np.pi / 6), 0.0, np.cos(np.pi / 6)]))
    # The opening direction is turned with it: half the opening and the thickness, times sin 30.
    lowest = 0.02 - (0.03 + 0.01) * 0.5
    assert SUPPORT.height(limits.finger_corners(tilted, gripper)).min() == pytest.approx(lowest)
    limit = Limits(gripper=gripper, support_margin=0.005)
    assert limits.apply(detection(grasp(z=0.78)), limit, FRAME, 0.1).best is not None
    assert limits.apply(detection(tilted), limit, FRAME, 0.1).reason == Reason.SUPPORT_COLLISION


def test_a_margin_without_a_known_support_finds_or_refuses():
    limit = Limits(support_margin=0.005)
    unknown = replace(detection(grasp(z=0.79)), support=None)
    assert limits.apply(unknown, limit, FRAME, 0.1).best is not None, 'fitted to the depth'
    blind = RgbdFrame(FRAME.rgb, None, FRAME.intrinsics)
    assert limits.apply(unknown, limit, blind, 0.1).reason == Reason.NO_SUPPORT_PLANE


def test_the_mask_decides_by_the_middle_of_the_rectangle():
    mask = np.zeros((240, 320), np.uint8)
    mask[:, :180] = 255
    found = limits.apply(detection(grasp(0.1), grasp(-0.1)), Limits(), FRAME, 0.1, None, mask)
    assert found.candidates[0].reason == Reason.MASKED
    assert found.best is found.candidates[1]
    with pytest.raises(GraspError, match='10x20'):
        limits.apply(detection(grasp()), Limits(), FRAME, 0.1, None, np.ones((20, 10), np.uint8))


@pytest.mark.parametrize('preference, sign', [([1, 0, 0], 1), ([-1, 0, 0], -1), (None, 1)])
def test_the_preferred_way_round(preference, sign):
    limit = Limits(opening_preference=None if preference is None else np.array(preference, float))
    found = limits.apply(detection(grasp()), limit, FRAME, 0.1).best.grasp
    np.testing.assert_allclose(found.rotation[:, 1], [sign, 0, 0], atol=1e-12)
    np.testing.assert_allclose(found.approach, DOWN)
    assert np.linalg.det(found.rotation) == pytest.approx(1)


def test_a_detection_without_a_grasp_keeps_its_reason():
    nothing = Detection((), None, Reason.NO_CANDIDATE, 'nothing there')
    found = limits.apply(nothing, Limits(support_margin=0.1, minimum_depth=5.0), FRAME, 0.1)
    assert (found.reason, found.message) == (Reason.NO_CANDIDATE, 'nothing there')


def test_back_along_the_approach_and_into_another_frame():
    start = limits.retreated(grasp(z=0.78), 0.1)
    np.testing.assert_allclose(start.position, [0, 0, 0.68])
    quarter = np.array([[0.0, -1, 0, 1.0], [1, 0, 0, 2.0], [0, 0, 1, 3.0], [0, 0, 0, 1]])
    moved = limits.transformed(grasp(0.1, z=0.78), quarter)
    np.testing.assert_allclose(moved.position, [1.0, 2.1, 3.78])
    np.testing.assert_allclose(moved.rotation[:, 1], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(moved.surface, [1.0, 2.1, 3.75])

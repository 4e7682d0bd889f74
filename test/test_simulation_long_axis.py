"""The baseline across the long axis of the mask."""

import numpy as np
import pytest

from grasp_stn_ros.baselines.long_axis import MARGIN, long_axis_grasp
from grasp_stn_ros.grasp_pose import Gripper
from grasp_stn_ros.reasons import GraspError, Reason
from grasp_stn_ros.rectangle import angle_distance
from grasp_stn_ros.rgbd import CameraIntrinsics, RgbdFrame

INTRINSICS = CameraIntrinsics(500.0, 500.0, 319.5, 239.5)


def frame(depth=1.0):
    return RgbdFrame(np.zeros((480, 640, 3), np.uint8), np.full((480, 640), depth, np.float32),
                     INTRINSICS)


def bar(angle, half_length=60, half_width=8, centre=(300.0, 200.0)):
    """Mask of a bar whose long axis has ``angle`` against the image's x axis."""
    x, y = np.meshgrid(np.arange(640) - centre[0], np.arange(480) - centre[1])
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return (np.abs(along) <= half_length) & (np.abs(across) <= half_width)


@pytest.mark.parametrize('angle', [0.0, 0.4, 1.2, -0.9])
def test_the_opening_runs_across_the_bar(angle):
    rectangle = long_axis_grasp(bar(angle), frame())
    assert angle_distance(rectangle.theta, angle + np.pi / 2) < 0.02
    assert (rectangle.x, rectangle.y) == pytest.approx((300, 200), abs=0.5)
    # 1 m away, 500 px a metre: 16 px of bar and the margin on both sides; jaws of 20 mm.
    assert rectangle.opening == pytest.approx(16 + 2 * MARGIN * 500, abs=1.5)
    assert rectangle.jaw == pytest.approx(10)


def test_the_opening_is_what_the_gripper_has_at_most():
    rectangle = long_axis_grasp(bar(0.0, 100, 80), frame())
    assert rectangle.opening == pytest.approx(Gripper().maximum_opening * 500)


def test_an_empty_mask_and_missing_depth_are_named():
    with pytest.raises(GraspError) as error:
        long_axis_grasp(np.zeros((480, 640), bool), frame())
    assert error.value.reason is Reason.NO_CANDIDATE
    with pytest.raises(GraspError) as error:
        long_axis_grasp(bar(0.0), frame(np.nan))
    assert error.value.reason is Reason.NO_DEPTH

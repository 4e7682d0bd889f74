"""The structured-light model: holes are NaN, errors grow with distance, shadows have a side."""

import numpy as np
import pytest

pytest.importorskip('mujoco', reason='mujoco is missing; pip install -r requirements.txt')

from grasp_stn_ros.rgbd import CameraIntrinsics
from grasp_stn_ros.simulation.depth_noise import (
    BASELINE,
    DISPARITY_STEP,
    structured_light,
)

INTRINSICS = CameraIntrinsics(525.0, 525.0, 319.5, 239.5)


def wall(distance):
    return np.full((480, 640), distance, np.float32)


def test_holes_are_nan_and_nothing_else():
    depth = wall(0.8)
    depth[100:140, 200:260] = np.nan
    depth[300:320, 300:320] = 7.0       # out of the sensor's range
    measured = structured_light(depth, INTRINSICS, np.random.default_rng(0))
    assert measured.dtype == np.float32
    assert np.isnan(measured[100:140, 200:260]).all()
    assert np.isnan(measured[300:320, 300:320]).all()
    valid = measured[np.isfinite(measured)]
    assert len(valid) > 0.95 * measured.size - 40 * 60
    assert valid.min() > 0.75 and valid.max() < 7


def test_measurements_lie_on_the_steps_of_the_disparity():
    measured = structured_light(wall(1.0), INTRINSICS, np.random.default_rng(0))
    steps = INTRINSICS.fx * BASELINE / measured[np.isfinite(measured)] / DISPARITY_STEP
    assert np.abs(steps - np.rint(steps)).max() < 1e-3


def test_the_error_grows_with_the_square_of_the_distance():
    spread = [np.nanstd(structured_light(wall(z), INTRINSICS, np.random.default_rng(1)))
              for z in (0.8, 1.6)]
    assert spread[1] / spread[0] == pytest.approx(4, rel=0.15)
    assert 0.0005 < spread[0] < 0.004


def test_the_shadow_lies_on_the_background_on_one_side_of_a_near_object():
    depth = wall(1.0)
    depth[200:280, 300:340] = 0.7
    hole = np.isnan(structured_light(depth, INTRINSICS, np.random.default_rng(2)))[210:270]
    # The shadow is as wide as the difference of the disparities.
    width = round(INTRINSICS.fx * BASELINE * (1 / 0.7 - 1 / 1.0))
    assert width == 17
    assert hole[:, 300 - width + 2:300].mean() > 0.95
    assert hole[:, 300 - 2 * width:300 - width - 2].mean() < 0.05
    assert hole[:, 345:345 + width].mean() < 0.05
    assert hole[:, 305:335].mean() < 0.05       # the object itself is lit


def test_the_same_generator_gives_the_same_noise():
    a, b = (structured_light(wall(0.9), INTRINSICS, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(a, b)

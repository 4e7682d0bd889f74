"""Grasps near the middle of their object are preferred where that is asked for."""

import math

import numpy as np
import pytest

from grasp_stn_ros.detector import GraspDetector
from grasp_stn_ros.evaluation.benchmark import frames
from grasp_stn_ros.middle import distances_from_middle, prefer_middle
from grasp_stn_ros.rgbd import RgbdFrame


def test_the_middle_is_that_of_the_volume_of_one_object():
    """A hammer's middle lies in its head; a crumb and the table do not count."""
    heights = np.zeros((200, 240), np.float32)
    heights[80:84, 20:120] = 0.02       # the handle, 400 pixels
    heights[60:104, 120:140] = 0.06     # the head, 880 pixels
    heights[160:180, 200:220] = 0.012   # a crumb, 8 % of the volume
    heights[0:8] = 0.004                # noise of the table
    handle, head = 400 * 0.02, 880 * 0.06
    x = (handle * 69.5 + head * 129.5) / (handle + head)
    y = (handle * 81.5 + head * 81.5) / (handle + head)
    points = np.array([[24.0, 82.0], [128.0, 70.0], [209.0, 169.0], [200.0, 4.0], [400.0, -60.0],
                       [40.0, 90.0], [np.nan, 80.0]])
    found = distances_from_middle(heights, points, 1000.0)
    # A pixel is a millimetre, and every fourth one is looked at.
    assert found[0] == pytest.approx(math.hypot(24 - x, 82 - y) / 1000, abs=2e-3)
    assert found[1] == pytest.approx(math.hypot(128 - x, 70 - y) / 1000, abs=2e-3)
    assert np.isnan(found[2:5]).all() and np.isnan(found[6])
    # Beside the handle, within reach: a rim is held like that.
    assert found[5] == pytest.approx(math.hypot(40 - x, 90 - y) / 1000, abs=2e-3)
    # Heights in units of 1/15 m, as the network sees them.
    assert distances_from_middle(heights * 15, points, 1000.0, 15.0) == pytest.approx(
        found, nan_ok=True)


def test_between_several_objects_no_distance_is_known():
    """Nor in a bin, whose walls stand around them."""
    heights = np.zeros((100, 120), np.float32)
    heights[20:40, 20:40] = 0.05
    points = np.array([[22.0, 30.0], [90.0, 70.0]])
    alone = distances_from_middle(heights, points, 1000.0)
    assert alone[0] == pytest.approx(0.0075, abs=2e-3) and np.isnan(alone[1])
    heights[60:80, 80:100] = 0.01       # a fifth of the volume of the other
    assert np.isnan(distances_from_middle(heights, points, 1000.0)).all()
    assert np.isnan(distances_from_middle(np.zeros_like(heights), points, 1000.0)).all()


def test_scores_lose_logits_by_distance():
    """Ten times 0.1 m is one of the logit; what is known for sure, or lies nowhere, stays."""
    scores = np.array([0.7, 0.7, 0.0, 1.0])
    preferred = prefer_middle(scores, np.array([0.1, np.nan, 0.1, 0.1]), 10.0)
    assert preferred[0] == pytest.approx(1 / (1 + math.exp(1) * 0.3 / 0.7))
    assert preferred[1:] == pytest.approx(scores[1:])
    assert prefer_middle(scores, np.full(4, 0.1), 0.0) == pytest.approx(scores)


def test_the_detector_lowers_scores_by_the_distance_of_their_grasps():
    """With the shipped weights; without depth nothing changes."""
    frame = frames(1)[0]
    usual, middle, shipped = (GraspDetector(threads=1, precision='fp32', middle_weight=weight)
                              for weight in (0.0, 10.0, None))

    def scores(detector, seen):
        found = detector.detect(seen, minimum_score=0.0, need_pose=False).candidates
        return {tuple(c.rectangle.as_array()): c.score for c in found}

    before, after = scores(usual, frame), scores(middle, frame)
    assert before.keys() == after.keys() and len(before) > 1
    assert all(after[key] <= before[key] for key in before)
    assert any(after[key] < before[key] - 1e-4 for key in before)
    # What the model card says is the default, and it says nothing of it.
    assert scores(shipped, frame) == before
    flat = RgbdFrame(frame.rgb, None, frame.intrinsics)
    assert scores(usual, flat) == scores(middle, flat)
    with pytest.raises(ValueError, match='middle_weight'):
        GraspDetector(middle_weight=-1.0)

"""Grasps near the middle of their object are preferred where that is asked for."""

import math

import numpy as np
import pytest

from grasp_stn_ros.detector import GraspDetector
from grasp_stn_ros.evaluation.benchmark import frames
from grasp_stn_ros.middle import distances_from_middle, prefer_middle
from grasp_stn_ros.rgbd import RgbdFrame


def test_the_middle_is_that_of_the_volume_of_one_object():
    """A hammer's middle lies in its head; another object and the table do not count."""
    heights = np.zeros((100, 120), np.float32)
    heights[40:42, 10:60] = 0.02        # the handle, 100 pixels
    heights[30:52, 60:70] = 0.06        # the head, 220 pixels
    heights[80:90, 100:110] = 0.05      # something else
    heights[0:5] = 0.004                # noise of the table
    handle, head = 100 * 0.02, 220 * 0.06
    x = (handle * 34.5 + head * 64.5) / (handle + head)
    y = (handle * 40.5 + head * 40.5) / (handle + head)
    points = np.array([[12.0, 41.0], [64.0, 35.0], [104.5, 84.5], [100.0, 2.0], [200.0, -30.0],
                       [20.0, 46.0], [np.nan, 40.0]])
    found = distances_from_middle(heights, points, 1000.0)
    assert found[0] == pytest.approx(math.hypot(12 - x, 41 - y) / 1000, abs=1e-3)
    assert found[1] == pytest.approx(math.hypot(64 - x, 35 - y) / 1000, abs=1e-3)
    assert found[2] == pytest.approx(0.0, abs=1e-3)
    assert np.isnan(found[3:5]).all() and np.isnan(found[6])
    # Beside the handle, within reach: a rim is held like that.
    assert found[5] == pytest.approx(math.hypot(20 - x, 46 - y) / 1000, abs=1e-3)
    # Heights in units of 1/15 m, as the network sees them.
    assert distances_from_middle(heights * 15, points, 1000.0, 15.0) == pytest.approx(
        found, nan_ok=True)


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

"""What failed grasps do to the next choice."""

from dataclasses import replace

import numpy as np

from grasp_stn_ros import retry
from grasp_stn_ros.detection import Candidate, Detection, Grasp
from grasp_stn_ros.grasp_pose import grasp_axes
from grasp_stn_ros.reasons import Reason
from grasp_stn_ros.rectangle import GraspRectangle

MINIMUM = 0.2


def candidate(x, theta, score, reason=Reason.OK):
    rotation = grasp_axes(np.array([0.0, 0.0, 1.0]), np.array([np.cos(theta), np.sin(theta), 0]))
    grasp = Grasp(np.array([x, 0.0, 0.8]), rotation, 0.05, 0.02, np.array([x, 0.0, 0.78]),
                  np.array([0.0, 0.0, -1.0]))
    return Candidate((0.0, 0.0), 1.0, theta, GraspRectangle(100 * x, 0.0, theta, 30.0, 12.0),
                     score, grasp, reason)


def pose(of: Candidate) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = of.grasp.rotation, of.grasp.position
    return matrix


def detection(*candidates) -> Detection:
    best = next((c for c in candidates if c.executable), None)
    return Detection(candidates, best, Reason.OK if best else Reason.TOO_WIDE, '')


BEST, BESIDE, TURNED, OTHER = (candidate(0.0, 0.0, 0.9), candidate(0.02, 0.2, 0.85),
                               candidate(0.0, np.pi / 2, 0.8), candidate(0.3, 0.0, 0.6))
SCENE = detection(BEST, BESIDE, TURNED, OTHER)


def order(*failed):
    """Numbers of the candidates in the order after the failures."""
    poses = [pose(c) for c in failed]
    found = retry.after_failures(SCENE, poses, MINIMUM)
    np.testing.assert_array_equal(found.failed, poses)
    assert found.best is found.candidates[0] and found.reason == Reason.OK
    assert list(found.alternatives) == list(found.candidates[1:])
    return [next(i for i, old in enumerate(SCENE.candidates) if old is c)
            for c in found.candidates]


def test_without_failures_nothing_changes():
    assert retry.after_failures(SCENE, [], MINIMUM) is SCENE


def test_another_object_comes_first_and_what_repeats_a_failure_last():
    assert order(BEST) == [3, 2, 0, 1]
    # A parallel jaw turned by half a turn is the same jaw.
    assert order(candidate(0.0, np.pi, 0.5)) == [3, 2, 0, 1]
    # Far from everything: as it was.
    assert order(candidate(1.0, 0.0, 0.9)) == [0, 1, 2, 3]


def test_failures_add_up():
    # All around the first object have failed: what failed least often comes first.
    assert order(BEST, OTHER) == [2, 0, 1, 3]
    assert order(BEST, OTHER, TURNED) == [3, 0, 1, 2]


def test_when_to_give_up_is_for_the_robot_to_say():
    found = retry.after_failures(detection(BEST), [pose(BEST)] * 5, MINIMUM)
    assert found.best is BEST
    weak = candidate(0.3, 0.0, 0.1)
    assert retry.after_failures(detection(BEST, weak), [pose(BEST)] * 5, MINIMUM).best is BEST
    assert retry.after_failures(detection(BEST, weak), [pose(BEST)] * 5, 0.05).best is weak


def test_what_cannot_be_executed_stays_so():
    wide = candidate(0.0, 0.0, 0.95, Reason.TOO_WIDE)
    hole = replace(candidate(0.0, 0.0, 0.9), grasp=None, reason=Reason.DEPTH_HOLE)
    none = detection(wide, hole)
    found = retry.after_failures(none, [pose(BEST)], MINIMUM)
    assert (found.best, found.reason) == (None, Reason.TOO_WIDE)
    some = retry.after_failures(detection(wide, hole, OTHER), [pose(BEST)], MINIMUM)
    assert some.best is OTHER
    assert {c.reason for c in some.candidates} == {Reason.TOO_WIDE, Reason.DEPTH_HOLE, Reason.OK}


def test_certainty_does_not_outlive_a_failure():
    sure = candidate(0.0, 0.0, 1.0)
    assert retry.after_failures(detection(sure, OTHER), [pose(sure)] * 9, MINIMUM).best is OTHER
    never = candidate(0.0, 0.0, 0.0)
    assert retry.after_failures(detection(OTHER, never), [pose(sure)], 0.0).best is OTHER

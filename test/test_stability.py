"""The tracker: no flicker, no invention, and a change of mind when there is reason; no ROS."""

import numpy as np
import pytest
from test_limits import detection, grasp

from grasp_stn_ros.reasons import Reason
from grasp_stn_ros.stability import Stability, Tracker

A, B = grasp(0.0), grasp(0.1)


def ordered(*pairs):
    """Detection of (grasp, score) pairs in descending order, as a detector returns them."""
    pairs = sorted(pairs, key=lambda p: -p[1])
    return detection(*(g for g, _ in pairs), scores=[s for _, s in pairs])


def position(found):
    return float(found.best.grasp.position[0])


def test_noise_of_the_scores_does_not_change_the_choice():
    rng = np.random.default_rng(0)
    tracker = Tracker()
    raw, steady = [], []
    for _ in range(100):
        seen = ordered((A, 0.8 + rng.normal(0, 0.05)), (B, 0.8 + rng.normal(0, 0.05)))
        raw.append(position(seen))
        steady.append(position(tracker.choose(seen, 0.1)))
    assert np.count_nonzero(np.diff(raw)) > 20, 'the input does flicker'
    assert np.count_nonzero(np.diff(steady)) == 0


def test_a_clearly_better_one_wins_soon():
    tracker = Tracker()
    for _ in range(5):
        tracker.choose(ordered((A, 0.6), (B, 0.5)), 0.1)
    frames = [position(tracker.choose(ordered((A, 0.6), (B, 0.95)), 0.1)) for _ in range(10)]
    assert frames[0] == 0.0, 'not at the first glance'
    assert frames[-1] == pytest.approx(0.1)
    assert frames == sorted(frames), 'and then it stays'


def test_the_choice_is_always_a_candidate_of_this_frame():
    tracker = Tracker()
    tracker.choose(ordered((A, 0.9), (B, 0.5)), 0.1)
    seen = ordered((B, 0.5))
    assert tracker.choose(seen, 0.1).best is seen.candidates[0]
    # One jump, not two: the stand-in is held when the other one is back, if it is not far better.
    assert position(tracker.choose(ordered((A, 0.55), (B, 0.5)), 0.1)) == pytest.approx(0.1)


@pytest.mark.parametrize('patience, back', [(1, 0.1), (5, 0.0)])
def test_what_was_good_is_remembered_for_the_patience(patience, back):
    """A is far better but missing for two frames; remembered, its average is still high."""
    tracker = Tracker(Stability(patience=patience, margin=0.05))
    for _ in range(5):
        tracker.choose(ordered((A, 1.0), (B, 0.3)), 0.1)
    for _ in range(2):
        tracker.choose(ordered((B, 0.3)), 0.1)
    # (1 - 0.5 * 0.75 ** 4) * 0.75 ** 2 = 0.47, a quarter of the way to 0.33: 0.44 > 0.30 + 0.05.
    found = tracker.choose(ordered((A, 0.33), (B, 0.3)), 0.1)
    assert position(found) == pytest.approx(back)


def test_a_half_turn_of_the_jaw_is_the_same_grasp():
    from grasp_stn_ros.limits import turned
    assert Stability().same(A, turned(A))
    assert not Stability(distance=0.05).same(A, B)
    quarter = grasp(0.0)
    object.__setattr__(quarter, 'rotation', A.rotation[:, [0, 2, 1]] * [1, 1, -1])
    assert not Stability().same(A, quarter)


def test_a_moving_camera_does_not_matter_in_a_fixed_frame():
    tracker = Tracker()
    tracker.choose(ordered((A, 0.8), (B, 0.75)), 0.1, np.eye(4))
    # The camera moves by 0.1 m: A is seen at -0.1, B where A was.
    moved = np.eye(4)
    moved[0, 3] = 0.1
    seen = ordered((grasp(-0.1), 0.75), (grasp(0.0), 0.8))
    assert position(tracker.choose(seen, 0.1, moved)) == pytest.approx(-0.1)


def test_what_is_forbidden_or_too_low_is_never_chosen():
    from dataclasses import replace
    tracker = Tracker()
    tracker.choose(ordered((A, 0.9), (B, 0.5)), 0.1)
    seen = ordered((A, 0.9), (B, 0.5))
    forbidden = replace(seen, best=seen.candidates[1], candidates=(
        replace(seen.candidates[0], reason=Reason.MASKED), seen.candidates[1]))
    assert position(tracker.choose(forbidden, 0.1)) == pytest.approx(0.1)
    nothing = replace(seen, best=None, candidates=(), reason=Reason.NO_CANDIDATE)
    assert tracker.choose(nothing, 0.1) is nothing


def test_reset_forgets():
    tracker = Tracker()
    for _ in range(5):
        tracker.choose(ordered((A, 0.9), (B, 0.5)), 0.1)
    tracker.reset()
    assert position(tracker.choose(ordered((A, 0.5), (B, 0.55)), 0.1)) == pytest.approx(0.1)


def test_what_counts_as_a_jump():
    pytest.importorskip('mujoco', reason='mujoco is missing: run `make setup`')
    pytest.importorskip('torch', reason='torch is missing: run `make setup`')
    from grasp_stn_ros.evaluation.stability import _Series, is_jump
    assert not is_jump(grasp(0.0), grasp(0.009))
    assert is_jump(grasp(0.0), grasp(0.011))
    series = _Series()
    for at in (0.0, 0.001, 0.1, None, 0.0, 0.0):
        series.add(ordered((grasp(at), 0.5)) if at is not None else detection())
    # Three pairs in which both frames have a grasp, one of them a jump.
    assert (series.pairs, series.jumps, len(series.scores)) == (3, 1, 5)


def test_the_published_figures_are_those_of_the_result_file():
    import json
    from pathlib import Path
    root = Path(__file__).resolve().parents[1]
    result = json.loads((root / 'results' / 'stability.json').read_text())
    text = (root / 'docs' / 'node.md').read_text()
    for name in ('without', 'with'):
        row = result[name]
        assert row['jumps'] == sum(r['jumps' if name == 'without' else 'jumps_tracked']
                                   for r in result['rows'])
        assert f'| {row["pairs"]} | {100 * row["jump_rate"]:.1f} % |' in text

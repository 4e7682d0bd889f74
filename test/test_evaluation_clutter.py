"""Clearing tables: what is taken away stays away, what was moved stays moved, when it ends."""

import cv2
import numpy as np
import pytest

from grasp_stn_ros.detection import Candidate, Detection, Grasp
from grasp_stn_ros.detector import GraspDetector
from grasp_stn_ros.evaluation import clutter
from grasp_stn_ros.evaluation.failures import FailedAttempts, write_sheet
from grasp_stn_ros.grasp_pose import grasp_axes
from grasp_stn_ros.reasons import Reason
from grasp_stn_ros.rectangle import GraspRectangle
from grasp_stn_ros.simulation.labels import open_scene

SEED = 515


@pytest.fixture
def scene():
    """Three objects on a table."""
    opened = open_scene(SEED, 0, objects=3)
    yield opened
    opened.close()


def test_what_is_taken_away_is_neither_seen_nor_in_the_way(scene):
    before = scene.object_positions().copy()
    assert set(np.unique(scene.render().segmentation)) == {0, 1, 2, 3}
    scene.accept(removed=1)
    assert scene.present == (0, 2)
    assert set(np.unique(scene.render().segmentation)) == {0, 1, 3}
    assert np.abs(scene.object_vertices()).max() < 1.0
    after = scene.object_positions()
    assert np.abs(after[1] - before[1]).max() > 10
    scene.restore()                                   # does not bring it back
    assert scene.present == (0, 2) and 2 not in scene.render().segmentation


def test_what_was_moved_stays_where_it_is(scene):
    address = scene._qpos[0]
    scene.data.qpos[address] += 0.05
    scene.data.qpos[address + 2] += 0.03
    moved = scene.data.qpos[address]
    scene.accept()
    scene.restore()
    assert scene.present == (0, 1, 2)
    assert abs(scene.data.qpos[address] - moved) < 0.03       # fell down, did not go back
    velocities = scene.data.qvel[scene._dofs[0]:scene._dofs[0] + 6]
    assert np.abs(velocities).max() < 0.05


class _Blind:
    """Sees nothing, ever."""

    def detect(self, frame):
        return Detection((), None, Reason.NO_CANDIDATE, '')


def _candidate(x, theta, score):
    rotation = grasp_axes(np.array([0.0, 0.0, 1.0]), np.array([np.cos(theta), np.sin(theta), 0]))
    grasp = Grasp(np.array([x, 0.0, 0.8]), rotation, 0.05, 0.02, np.array([x, 0.0, 0.78]),
                  np.array([0.0, 0.0, -1.0]))
    return Candidate((0.0, 0.0), 1.0, theta, GraspRectangle(0.0, 0.0, theta, 30.0, 12.0), score,
                     grasp)


def test_three_failures_in_a_row_end_it():
    row = clutter.run_scene(_Blind(), SEED, 0, objects=2)
    assert row['attempts'] == 3 and row['removed'] == 0
    assert row['outcomes'] == ['no grasp: NO_CANDIDATE'] * 3


class _Aloof:
    """Grasps the air above the table, surer each time and somewhere else."""

    score = 0.5

    def detect(self, frame):
        self.score += 0.1
        candidate = _candidate(self.score, 0.0, self.score)
        candidate.grasp.position[2] = 0.35
        return Detection((candidate,), candidate, Reason.OK, '')


class _Stubborn:
    """Sees the same two grasps of air, whatever happens."""

    def detect(self, frame):
        candidates = _candidate(0.0, 0.0, 0.9), _candidate(0.2, 0.0, 0.5)
        for candidate in candidates:
            candidate.grasp.position[2] = 0.35
        return Detection(candidates, candidates[0], Reason.OK, '')


@pytest.mark.parametrize('memory, places', [(True, [0.0, 0.2, 0.0]), (False, [0.0] * 3)])
def test_after_a_failure_another_object_is_tried_first(memory, places):
    tried = []
    clutter.run_scene(_Stubborn(), SEED, 0, objects=2, memory=memory,
                      watch=lambda frame, candidate, outcome: tried.append(candidate.grasp))
    assert [round(float(grasp.position[0]), 1) for grasp in tried] == places


def test_failed_attempts_are_drawn_the_surest_first(tmp_path, monkeypatch):
    failed, seen = FailedAttempts(), []

    def watch(frame, candidate, outcome):
        seen.append((frame.size, round(candidate.score, 1), outcome))
        failed.watch(frame, candidate, outcome)

    clutter.run_scene(_Aloof(), SEED, 0, objects=2, watch=watch)
    assert seen == [((640, 480), score, 'missed') for score in (0.6, 0.7, 0.8)]
    monkeypatch.setattr('grasp_stn_ros.evaluation.failures.COUNT', 2)
    drawn = []
    monkeypatch.setattr('grasp_stn_ros.evaluation.failures.write_sheet',
                        lambda path, tiles: (drawn.extend(tiles), write_sheet(path, tiles)))
    failed.draw(tmp_path / 'worst.png')
    assert cv2.imread(str(tmp_path / 'worst.png')).shape == (240, 480, 3)
    # The scores are written under them.
    assert len(drawn) == 2 and (drawn[0][222:] != drawn[1][222:]).any()


def test_the_shipped_model_clears_something_and_counts_add_up():
    rows = [clutter.run_scene(GraspDetector(threads=1), SEED, index, objects=2)
            for index in range(3)]
    for row in rows:
        assert row['attempts'] == len(row['outcomes'])
        assert row['removed'] == row['outcomes'].count('lifted') <= row['objects'] == 2
        assert row['removed'] == 2 or row['outcomes'][-3:].count('lifted') == 0
    result = clutter.summarize(rows)
    assert result['removed'] >= 2 and result['objects'] == 6
    assert result['removed_per_attempt'] == result['removed'] / result['attempts']
    again = clutter.run_scene(GraspDetector(threads=1), SEED, 1, objects=2)
    assert again == rows[1]


def test_summary_by_hand():
    rows = [{'attempts': 5, 'removed': 5, 'objects': 5}, {'attempts': 5, 'removed': 1,
                                                          'objects': 5}]
    result = clutter.summarize(rows)
    assert result['removed_per_attempt'] == 0.6 and result['cleared'] == 0.5
    assert result['removed_share'] == 0.6 and result['n'] == 2

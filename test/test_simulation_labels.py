"""Labelled data: reproducible to the byte, resumable, sharded, and geometrically right."""

import json
import shutil

import cv2
import numpy as np
import pytest

pytest.importorskip('mujoco', reason='mujoco is missing; pip install -r requirements.txt')

from grasp_stn_ros.data.simulated import decode_depth
from grasp_stn_ros.grasp_pose import Gripper, grasp_to_rectangle, rectangle_to_grasp
from grasp_stn_ros.rgbd import RgbdFrame
from grasp_stn_ros.simulation import labels
from grasp_stn_ros.simulation import scene as scenes
from grasp_stn_ros.simulation.domain import BASIC
from grasp_stn_ros.simulation.gripper import TrialResult
from grasp_stn_ros.simulation.objects import make_object

SEED, SCENES = 77, 3


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'set'
    assert labels.generate_dataset(folder, SCENES, SEED, progress=False) == SCENES
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_do_not_overlap_and_add_up_to_the_whole(dataset, tmp_path):
    made = [labels.generate_dataset(tmp_path / 'a', SCENES, SEED, (part, 2), progress=False)
            for part in (0, 1)]
    assert made == [2, 1]
    assert contents(tmp_path / 'a') == contents(dataset)


def test_an_interrupted_run_goes_on_and_writes_the_same_bytes(dataset, tmp_path):
    copy = tmp_path / 'copy'
    shutil.copytree(dataset, copy)
    # As if killed while writing scene 1: its JSON file comes last.
    (copy / '000001.json').unlink()
    (copy / '000001_depth.png').write_bytes(b'half a file')
    assert labels.generate_dataset(copy, SCENES, SEED, progress=False) == 1
    assert contents(copy) == contents(dataset)
    assert labels.generate_dataset(copy, SCENES, SEED, progress=False) == 0


def test_a_folder_with_other_settings_is_refused(dataset):
    before = contents(dataset)
    with pytest.raises(ValueError, match='other settings'):
        labels.generate_dataset(dataset, SCENES, SEED + 1, progress=False)
    assert contents(dataset) == before


def test_an_impossible_shard_is_refused(tmp_path):
    with pytest.raises(ValueError, match='2/2'):
        labels.generate_dataset(tmp_path, 1, 0, (2, 2))


def test_the_files_hold_the_frame_of_open_scene(dataset):
    scene = labels.open_scene(SEED, 1)
    rgb = cv2.imread(str(dataset / '000001_rgb.png'))[..., ::-1]
    raw = cv2.imread(str(dataset / '000001_depth.png'), cv2.IMREAD_UNCHANGED)
    mask = cv2.imread(str(dataset / '000001_mask.png'), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(rgb, scene.frame.rgb)
    np.testing.assert_array_equal(decode_depth(raw), scene.frame.depth)
    np.testing.assert_array_equal(mask, scene.render().segmentation)
    record = json.loads((dataset / '000001.json').read_text())
    np.testing.assert_allclose(record['camera_pose'], scene.camera_pose)
    assert record['objects'][0]['family'] == scene.objects[0].family
    scene.close()


def test_records_are_complete_and_consistent(dataset):
    for path in sorted(dataset.glob('0*.json')):
        record = json.loads(path.read_text())
        assert len(record['grasps']) == BASIC.candidates
        for grasp in record['grasps']:
            assert grasp['trials'] == len(grasp['outcomes']) in (2, 4)
            assert grasp['successes'] == grasp['outcomes'].count('lifted')
            # Two trials that agree, or four because they did not.
            first = {outcome == 'lifted' for outcome in grasp['outcomes'][:2]}
            assert len(first) == grasp['trials'] / 2
            assert 0 < grasp['opening'] <= 0.085 and grasp['position'][2] >= 0.004
            assert grasp['kind'] in ('antipodal', 'random')


def test_rectangles_lie_on_the_object(dataset):
    for path in sorted(dataset.glob('0*.json')):
        mask = cv2.imread(str(path.with_name(path.stem + '_mask.png')), cv2.IMREAD_UNCHANGED)
        near = cv2.dilate((mask > 0).astype(np.uint8), np.ones((25, 25)))
        for grasp in json.loads(path.read_text())['grasps']:
            x, y, *_ = grasp['rectangle']
            if grasp['kind'] == 'antipodal':
                assert near[round(y), round(x)]


def test_the_rectangle_alone_gives_the_planned_grasp_back():
    """Labels and detection share one geometry: plan -> rectangle -> pose is the identity."""
    rng = np.random.default_rng(1)
    scene = scenes.random_scene(rng, [make_object(rng, 'bottle')])
    plans = labels.choose(*labels.propose(scene.height_map(), scene.gripper, rng), scene.gripper,
                          rng)
    view = scene.render()
    frame = RgbdFrame(view.rgb, view.depth, scene.intrinsics)
    down = -scene.camera_pose[:3, :3].T @ scene.support_normal_world
    antipodal = [plan for plan in plans if plan.kind == 'antipodal']
    assert len(antipodal) >= 5
    for plan in antipodal:
        rectangle = grasp_to_rectangle(labels.camera_grasp(plan, scene), scene.intrinsics)
        grasp = rectangle_to_grasp(rectangle, frame, scene.gripper, down)
        pose = scene.world_pose(grasp)
        np.testing.assert_allclose(pose[:2, 3], plan.position[:2], atol=2e-3)
        assert pose[2, 3] == pytest.approx(plan.position[2], abs=5e-3)
        assert grasp.opening == pytest.approx(plan.opening, abs=2e-3)
        assert abs(pose[:3, 1] @ plan.pose[:3, 1]) > 0.9999
    scene.close()


def block_heights(half_x, half_y, height):
    """Height map of a block at the origin, metres."""
    n = scenes.HEIGHT_MAP_SIZE
    axis = (np.arange(n) - (n / 2 - 0.5)) * scenes.HEIGHT_MAP_STEP
    inside = (np.abs(axis) <= half_x) & (np.abs(axis) <= half_y)[:, None]
    return np.where(inside, height, 0).astype(np.float32)


def test_candidates_on_a_bar_are_across_it_with_the_right_depth_and_width():
    gripper = Gripper()
    rng = np.random.default_rng(0)
    plans, fits, quality = labels.propose(block_heights(0.06, 0.015, 0.05), gripper, rng)
    chosen = [p for p in labels.choose(plans, fits, quality, gripper, rng)
              if p.kind == 'antipodal']
    assert len(chosen) == round(labels.ANTIPODAL_SHARE * BASIC.candidates)
    for plan in chosen:
        assert abs(np.sin(plan.yaw)) > 0.85                 # the bar lies along x
        assert abs(plan.position[1]) < 0.003                # in the middle between the flanks
        assert plan.position[2] == pytest.approx(0.05 - gripper.finger_depth)
        assert plan.surface == pytest.approx(0.05)
        assert 0.030 < plan.opening <= 0.085


def test_the_tips_keep_clear_of_the_table():
    gripper = Gripper()
    plans, fits, _ = labels.propose(block_heights(0.06, 0.015, 0.012), gripper,
                                    np.random.default_rng(0))
    assert fits.any()
    np.testing.assert_allclose([p.position[2] for p in plans], gripper.support_clearance,
                               atol=1e-6)


def test_what_is_wider_than_the_gripper_has_no_fitting_candidate():
    plans, fits, _ = labels.propose(block_heights(0.06, 0.06, 0.05), Gripper(),
                                    np.random.default_rng(0))
    # Only across its corners the 120 mm block is narrow enough.
    middle = np.array([np.abs(p.position[:2]).max() < 0.03 for p in plans])
    assert middle.sum() > 50 and not (fits & middle).any()


def test_an_empty_table_has_no_candidates():
    plans, fits, quality = labels.propose(block_heights(0, 0, 0.0), Gripper(),
                                          np.random.default_rng(0))
    assert plans == [] and len(fits) == len(quality) == 0


@pytest.mark.parametrize(('lifts', 'trials'), [([1, 1, 0, 0], 2), ([0, 0, 1, 1], 2),
                                               ([1, 0, 1, 1], 4), ([0, 1, 0, 0], 4)])
def test_disagreeing_trials_are_repeated(lifts, trials):
    class Trial:
        def __init__(self):
            self.poses = []

        def execute(self, pose, opening, rng):
            self.poses.append(pose)
            lifted = bool(lifts[len(self.poses) - 1])
            return TrialResult(lifted, 'lifted' if lifted else 'slipped')

    plan = labels.Plan(np.array([0.01, 0.02, 0.03]), 0.3, 0.05, 0.052, 'antipodal')
    trial = Trial()
    outcomes = labels.try_out(plan, trial, BASIC, np.random.default_rng(0))
    assert len(outcomes) == trials
    assert outcomes.count('lifted') == sum(lifts[:trials])
    np.testing.assert_array_equal(trial.poses[0], plan.pose)     # the first one is nominal
    assert not np.allclose(trial.poses[1], plan.pose, atol=1e-4)

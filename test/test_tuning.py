"""What turns a trained network into the one that ships: mixtures, own trials, calibration."""

from dataclasses import replace
import json
import shutil

from click.testing import CliRunner
import numpy as np
import pytest
import torch

from grasp_stn_ros.cli import main
from grasp_stn_ros.data.mixture import Mixture
from grasp_stn_ros.data.sample import DataError, digest, in_both, scenes
from grasp_stn_ros.data.simulated import SimulatedDataset, own_path
from grasp_stn_ros.data.splits import Subset
from grasp_stn_ros.data.with_holes import WithHoles
from grasp_stn_ros.detection import Candidate, Detection
from grasp_stn_ros.detector import GraspDetector
from grasp_stn_ros.ensemble import turned, vote
from grasp_stn_ros.evaluation import calibration
from grasp_stn_ros.node_settings import read_gripper
from grasp_stn_ros.preprocessing import View, preprocess
from grasp_stn_ros.reasons import Reason
from grasp_stn_ros.rectangle import GraspRectangle, angle_distance
from grasp_stn_ros.simulation.domain import WIDE
from grasp_stn_ros.simulation.labels import generate_dataset, open_scene
from grasp_stn_ros.simulation.own_trials import dataset_domain, try_own
from grasp_stn_ros.stn import checkpoint
from grasp_stn_ros.stn.multi_stage import ModelConfig, MultiStageSTN
from grasp_stn_ros.stn.network import score_logit
from grasp_stn_ros.stn.stages import encode_jaw
from grasp_stn_ros.training.calibrate import calibrated_copy

SMALL = ModelConfig(features=16, width=0.25, blocks=(0, 0, 0), gripper_input=True, refinements=1)
TWO_VIEWS = replace(WIDE, views=2)


@pytest.fixture(scope='module')
def wide(tmp_path_factory):
    """Two views of one scene of the wide domain."""
    folder = tmp_path_factory.mktemp('wide')
    generate_dataset(folder, 2, 31, progress=False, candidates=4, domain=TWO_VIEWS)
    return folder


# ---------------------------------------------------------------------------- network
def test_the_jaw_size_reaches_the_fit_and_the_score():
    torch.manual_seed(0)
    model = MultiStageSTN(SMALL).eval()
    image = torch.randn(1, 7, 96, 96)
    with torch.no_grad():
        outputs = [model(image, 4, jaw=torch.tensor([jaw])) for jaw in (0.0, 8.0, 30.0)]
        unknown = model(image, 4)
    assert torch.equal(unknown.rectangles, outputs[0].rectangles)
    assert not torch.allclose(outputs[1].rectangles, outputs[2].rectangles)
    assert torch.equal(outputs[1].locations, outputs[2].locations)


def test_an_unknown_jaw_is_not_a_typical_one():
    unknown, typical = encode_jaw(torch.tensor([0.0, 11.0]))
    assert unknown.tolist() == [0.0, 0.0] and typical.tolist() == [1.0, 0.0]


def test_a_refinement_starts_from_the_first_fit():
    torch.manual_seed(0)
    model = MultiStageSTN(SMALL).eval()
    image, at = torch.randn(1, 7, 96, 96), torch.tensor([[[40.0, 50.0]]])
    theta = torch.tensor([[0.3]])
    with torch.no_grad():
        features = model.trunk(image)
        first = model.fitted_rectangles(at, theta, model.fit_parameters(features, image, at,
                                                                        theta))
        at, theta = first[..., :2], first[..., 2]
        second = model.fitted_rectangles(at, theta, model.fit_parameters(features, image, at,
                                                                         theta))
        assert torch.allclose(model.fit(features, image, torch.tensor([[[40.0, 50.0]]]),
                                        torch.tensor([[0.3]])), second)


def test_score_logit_is_the_logit_of_the_product():
    logits = torch.tensor([[0.3, -1.2], [4.0, 5.0], [30.0, 30.0]])
    product = torch.sigmoid(logits.double()).prod(-1)
    assert torch.allclose(torch.sigmoid(score_logit(logits)).double(), product, atol=1e-6)
    assert torch.isfinite(score_logit(logits)).all()


def test_the_jaw_in_the_view_is_what_the_camera_projects():
    scene = open_scene(31, 2)
    try:
        prepared = preprocess(scene.frame)
        pose = scene.camera_pose
    finally:
        scene.close()
    # Where the middle of the view meets the table, plates 20 mm high.
    view = prepared.view
    ray = pose[:3, :3] @ scene.intrinsics.rays(view.to_image(np.array([199.5, 199.5])))
    depth = -pose[2, 3] / ray[2]
    expected = 0.02 * scene.intrinsics.fx / depth * view.scale
    assert prepared.jaw(0.02) == pytest.approx(expected, rel=0.02)
    assert prepared.jaw(0.02, 27.0) == pytest.approx(27.0 * view.scale)
    colour = preprocess(scene.frame, use_depth=False)
    assert colour.jaw(0.02) == 0.0 and colour.jaw(None) == 0.0


# ---------------------------------------------------------------------------- data
def test_a_mixture_has_the_shares_that_were_asked_for():
    first, second = [f'a{i}' for i in range(60)], [f'b{i}' for i in range(7)]
    mixture = Mixture(first, [(second, 0.25)])
    seen = [mixture[i] for i in range(len(mixture))]
    assert len(seen) == 80 and set(first) <= set(seen)
    assert sum(s.startswith('b') for s in seen) == 20 and set(second) <= set(seen)
    with pytest.raises(ValueError, match='shares'):
        Mixture(first, [(second, 1.0)])


def test_holes_take_the_share_of_the_depth_and_are_the_same_again(wide):
    data = SimulatedDataset(wide)
    holed = WithHoles(data, 0.4)
    depth = holed[0].frame.depth
    assert np.array_equal(depth, holed[0].frame.depth, equal_nan=True)
    kept = np.isfinite(data[0].frame.depth)
    assert 0.3 < 1 - np.isfinite(depth)[kept].mean() < 0.5
    assert np.array_equal(depth[np.isfinite(depth)], data[0].frame.depth[np.isfinite(depth)])


def test_two_views_show_the_same_trials_from_two_cameras(wide):
    data = SimulatedDataset(wide)
    first, second = data[0], data[1]
    assert np.array_equal(first.success, second.success)
    assert not np.allclose(first.rectangles, second.rectangles)
    assert first.frame.intrinsics.fx != second.frame.intrinsics.fx
    assert dataset_domain(wide) == TWO_VIEWS
    scene = open_scene(31, 1, domain=TWO_VIEWS)
    try:
        assert np.array_equal(scene.frame.rgb, second.frame.rgb)
    finally:
        scene.close()


# ---------------------------------------------------------------------------- own trials
def test_own_trials_join_the_labels(tmp_path):
    folder = tmp_path / 'basic'
    generate_dataset(folder, 2, 31, progress=False, candidates=4)
    before = (folder / '000000.json').read_bytes()
    detector = GraspDetector(threads=1)
    assert try_own(detector, folder, range(2)) == 2
    assert try_own(detector, folder, range(2)) == 0
    assert (folder / '000000.json').read_bytes() == before
    own = json.loads(own_path(folder / '000000.json').read_text())['grasps']
    assert own and all(g['trials'] == 1 and g['successes'] in (0, 1) for g in own)
    alone, joined = SimulatedDataset(folder), SimulatedDataset(folder, own=True)
    assert len(alone) == len(joined) == 2
    assert len(joined[0].rectangles) == len(alone[0].rectangles) + len(own)
    again = CliRunner().invoke(main, ['own-trials', '--data', str(folder), '--threads', '1'])
    assert '2 images had trials already' in again.output and '*_own.json' in again.output


def test_a_data_set_of_another_domain_is_not_tried(tmp_path):
    generate_dataset(tmp_path / 'd', 1, 31, progress=False, candidates=4)
    settings = json.loads((tmp_path / 'd' / 'dataset.json').read_text())
    settings['domain'] = {'name': 'wide', 'spread': 7}
    (tmp_path / 'd' / 'dataset.json').write_text(json.dumps(settings))
    with pytest.raises(DataError, match='another version'):
        dataset_domain(tmp_path / 'd')


@pytest.mark.parametrize('gripper', [{'maximum_opening': 2.0}, {'reach': 0.1}, None])
def test_a_gripper_that_there_is_not_is_named(wide, tmp_path, gripper):
    settings = json.loads((wide / 'dataset.json').read_text())
    settings['domain']['gripper'] = gripper
    (tmp_path / 'dataset.json').write_text(json.dumps(settings))
    with pytest.raises(DataError, match='dataset.json is broken'):
        dataset_domain(tmp_path)


def test_scenes_of_another_gripper_are_the_same_with_other_trials(tmp_path, monkeypatch):
    def simulated(name, *options):
        run = CliRunner().invoke(main, [
            'simulate', '--scenes', '1', '--seed', '31', '--candidates', '4', '--out',
            str(tmp_path / name), *options])
        assert run.exit_code == 0, run.output
        return SimulatedDataset(tmp_path / name)[0]

    usual, other = simulated('usual'), simulated('other', '--gripper', 'robotiq_2f_140')
    # The same pictures, to train on and to judge by, whatever was tried out in them.
    one, two = (SimulatedDataset(tmp_path / name) for name in ('usual', 'other'))
    assert in_both(one, two) == set(scenes(one)) and digest(one) != digest(two)
    assert (one.gripper, two.gripper) == (None, read_gripper('robotiq_2f_140'))
    assert Subset(two, [0]).gripper == two.gripper
    asked = []
    monkeypatch.setattr(GraspDetector, 'detect', lambda self, *_, **__: asked.append(
        self.gripper) or Detection((), None, Reason.NO_CANDIDATE, ''))
    for command in (['own-trials'], ['evaluate', 'accuracy']):
        CliRunner().invoke(main, [*command, '--data', str(tmp_path / 'other'), '--threads', '1'])
        assert set(asked) == {two.gripper}
        asked.clear()
    assert np.array_equal(usual.frame.rgb, other.frame.rgb)
    assert not np.array_equal(usual.rectangles, other.rectangles)
    assert (usual.jaw_size, other.jaw_size) == (0.020, 0.027)
    domain = dataset_domain(tmp_path / 'other')
    assert domain.gripper == read_gripper('robotiq_2f_140')
    scene = open_scene(31, 0, domain=domain)
    try:
        # Fingers that reach 50 mm down have to be longer than that.
        lowest = -(scene.model.geom('palm').pos[0] + scene.model.geom('palm').size[0])
        assert lowest == pytest.approx(0.065) and scene.gripper == domain.gripper
        assert scene.model.joint('left').range[1] == pytest.approx(0.07)
    finally:
        scene.close()


# ---------------------------------------------------------------------------- calibration
def test_calibration_finds_the_scaling_that_distorted_the_scores():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, 6000)
    lifted = (rng.random(6000) < 1 / (1 + np.exp(-logits))).astype(float)
    scores = 1 / (1 + np.exp(-(logits - 1.0) / 2.0))         # slope 2, offset 1 undo it
    slope, offset = calibration.fit_platt(scores, lifted)
    assert slope == pytest.approx(2.0, rel=0.1) and offset == pytest.approx(1.0, abs=0.1)
    before = calibration.expected_calibration_error(scores, lifted)
    after = calibration.expected_calibration_error(
        calibration.apply_platt(scores, (slope, offset)), lifted)
    assert before > 0.1 and after < 0.03


def test_what_cannot_be_calibrated_is_refused():
    with pytest.raises(ValueError, match='too few'):
        calibration.fit_platt(np.full(50, 0.5), np.ones(50))
    with pytest.raises(ValueError, match='rise'):
        calibration.fit_platt(np.linspace(0.1, 0.9, 100), np.linspace(1, 0, 100) > 0.5)


def test_a_calibrated_copy_keeps_the_weights_and_the_order(tmp_path):
    torch.manual_seed(0)
    checkpoint.save(tmp_path / 'raw.safetensors', MultiStageSTN(SMALL), {'licence': 'none'})
    rng = np.random.default_rng(1)
    rows = [{'scene': i // 2, 'score': float(s), 'lifted': bool(rng.random() < s)}
            for i, s in enumerate(rng.random(400))]
    figures = calibrated_copy(tmp_path / 'raw.safetensors', rows, tmp_path / 'out.safetensors')
    assert figures['n'] == 200 and 0 <= figures['ece'] < 0.15
    assert (tmp_path / 'out_reliability.png').stat().st_size > 1000
    model, sidecar = checkpoint.load(tmp_path / 'out.safetensors')
    raw, _ = checkpoint.load(tmp_path / 'raw.safetensors')
    assert sidecar['licence'] == 'none'
    assert model.config.calibration == tuple(figures['calibration'])
    image = torch.randn(1, 7, 96, 96)
    with torch.no_grad():
        a, b = raw(image, 6), model(image, 6)
    assert torch.equal(a.score_logits, b.score_logits)
    assert torch.equal(a.scores.argsort(), b.scores.argsort())
    assert model.config.middle_weight == 0.0
    calibrated_copy(tmp_path / 'out.safetensors', rows, tmp_path / 'middle.safetensors', 5.0)
    assert checkpoint.load(tmp_path / 'middle.safetensors')[0].config.middle_weight == 5.0


def test_calibrating_replaces_no_weights(tmp_path):
    for name in ('raw', 'there'):
        checkpoint.save(tmp_path / f'{name}.safetensors', MultiStageSTN(SMALL))
    before = (tmp_path / 'there.safetensors').read_bytes()
    run = CliRunner().invoke(main, ['calibrate', '--scenes', '20', '--model',
                                    str(tmp_path / 'raw.safetensors'), '--out',
                                    str(tmp_path / 'there.safetensors')])
    assert run.exit_code == 1 and 'there.safetensors exists' in run.output
    assert before == (tmp_path / 'there.safetensors').read_bytes()


# ---------------------------------------------------------------------------- commands
def test_published_are_the_weights_that_were_measured(tmp_path):
    paths = [tmp_path / f'{name}.safetensors' for name in ('a', 'b', 'out')]
    for seed, path in enumerate(paths[:2]):
        torch.manual_seed(seed)
        checkpoint.save(path, MultiStageSTN(SMALL))
    result = {'plain': 0.5, 'n': 4, 'split': 'x', 'command': 'c', 'commit': 'd',
              'machine': {'cpu': 'e'}}
    (tmp_path / 'old.json').write_text(json.dumps(result))
    (tmp_path / 'of_a.json').write_text(json.dumps(
        {**result, 'weights_sha256': checkpoint.read_sidecar(paths[0])['sha256'],
         'modality': 'rgb', 'jaw_told': True}))
    (tmp_path / 'list.json').write_text('[]')

    def publish(weights, *results):
        named = [word for name in results for word in ('--result', str(tmp_path / name))]
        return CliRunner().invoke(main, ['publish', str(weights), '--out', str(paths[2]),
                                         '--data', 'nothing', *named])

    for name, message in (('of_a.json', 'of_a.json is a result of other weights'),
                          ('list.json', 'list.json: not a result')):
        refused = publish(paths[1], name)
        assert refused.exit_code == 1 and message in refused.output
        assert not paths[2].exists()
    # Again with more figures, but never over other weights.
    assert publish(paths[0], 'of_a.json').exit_code == 0
    more = publish(paths[0], 'of_a.json', 'old.json')
    assert more.exit_code == 0 and 'old.json does not say which weights' in more.output
    assert set(checkpoint.read_sidecar(paths[2])['metrics']) == {'of_a', 'old'}
    card = paths[2].with_suffix('.md').read_text()
    assert '(RGB only, the size of the jaws in pixels told) | 50.0% | 4 | x' in card
    refused = publish(paths[1], 'old.json')
    assert refused.exit_code == 1 and 'out.safetensors exists' in refused.output
    assert checkpoint.digest(checkpoint.load(paths[2])[0]) == \
        checkpoint.read_sidecar(paths[0])['sha256']
    assert card == paths[2].with_suffix('.md').read_text()


def test_training_on_both_kinds_needs_a_share(wide, tmp_path):
    cornell = tmp_path / 'cornell' / '01'
    cornell.mkdir(parents=True)
    (cornell / 'pcd0100r.png').write_bytes(b'')
    run = CliRunner().invoke(main, ['train', '--data', str(wide), '--data',
                                    str(cornell.parent), '--out', str(tmp_path / 'out')])
    assert run.exit_code == 2 and '--share' in run.output


@pytest.mark.parametrize(('change', 'message'), [
    ('model.refinements', 'GROUP.NAME=VALUE'), ('weights.x=1', 'GROUP.NAME=VALUE'),
    ('losses.nothing=1', 'losses has locations'), ('model.width=wide', 'no JSON value'),
    ('augmentation.told_jaw=14', 'set model.told_jaw'),
    ('augmentation.seen_jaw=12', 'set model.seen_jaw'),
    ('training.warm_up=0', 'warm_up is 0, expected a whole number of at least 1'),
    ('training.batch=2.5', 'batch is 2.5, expected a whole number'),
    ('training.average=1e400', 'average is inf, expected a finite number from 0 to 1'),
    ('training.choose=1', 'choose is 1, expected text'),
    ('augmentation.no_depth="x"', "no_depth is 'x', expected a finite number from 0 to 1"),
    ('losses.taught=1.5', 'taught is 1.5'), ('model.width=-1', 'width is -1, expected a finite '
                                                               'number above 0'),
    ('model.blocks=[1]', 'expected a list of 3 numbers'), ('model.patch=8', 'expected 13 to 16'),
    ('model.finger_depths=[0.01,-1]', 'expected a list, each element a finite number'),
    ('model.gripper_input=1', 'expected true or false'),
    ('training.learning_rate=' + '9' * 400, 'expected a finite number above 0')])
def test_settings_that_cannot_be_used_are_refused(wide, tmp_path, change, message):
    run = CliRunner().invoke(main, ['train', '--data', str(wide), '--set', change, '--out',
                                    str(tmp_path / 'out')])
    assert run.exit_code == 2 and message in run.output


@pytest.mark.parametrize(('device', 'message'), [
    ('gpu', 'expected auto, cpu, cuda or cuda:N'), ('cpu:1', 'expected auto, cpu'),
    ('cuda:x', 'expected auto, cpu'), ('cuda:99', 'PyTorch finds')])
def test_devices_that_are_not_there_are_refused(wide, tmp_path, device, message):
    run = CliRunner().invoke(main, ['train', '--data', str(wide), '--device', device, '--out',
                                    str(tmp_path / 'out')])
    assert run.exit_code == 2 and message in run.output


def test_weights_of_another_configuration_are_no_start(wide, tmp_path):
    checkpoint.save(tmp_path / 'start.safetensors', MultiStageSTN(SMALL))
    run = CliRunner().invoke(main, [
        'train', '--data', str(wide), '--finetune', str(tmp_path / 'start.safetensors'), '--set',
        'model.features=48', '--images', '4', '--out', str(tmp_path / 'out')])
    assert run.exit_code == 1
    assert 'do not fit the configuration' in run.output and 'Traceback' not in run.output


@pytest.mark.parametrize('option', ['--learning-rate', '--share', '--hold-back'])
@pytest.mark.parametrize('value', ['nan', 'inf'])
def test_numbers_that_are_none_are_refused(wide, tmp_path, option, value):
    run = CliRunner().invoke(main, ['train', '--data', str(wide), option, value, '--out',
                                    str(tmp_path / 'out')])
    assert run.exit_code == 2 and value in run.output


def test_validation_on_what_is_trained_on_is_refused(wide, tmp_path):
    copied = tmp_path / 'copy'
    shutil.copytree(wide, copied)
    run = CliRunner().invoke(main, ['train', '--data', str(wide), '--validation', str(copied),
                                    '--out', str(tmp_path / 'out')])
    assert run.exit_code == 1 and '2 of the 2 images of --validation' in run.output


def test_fine_tuning_goes_on_from_the_weights(wide, tmp_path):
    generate_dataset(tmp_path / 'unseen', 1, 32, progress=False, candidates=4)
    torch.manual_seed(0)
    start = MultiStageSTN(SMALL)
    checkpoint.save(tmp_path / 'start.safetensors', start)
    run = CliRunner().invoke(main, [
        'train', '--data', str(wide), '--finetune', str(tmp_path / 'start.safetensors'),
        '--images', '4', '--batch', '2', '--learning-rate', '1e-5', '--set',
        'augmentation.size=128', '--validation', str(tmp_path / 'unseen'), '--out',
        str(tmp_path / 'out')])
    assert run.exit_code == 0, run.output
    # Before and after.
    assert 'after no step: plain' in run.output and 'after fine-tuning: plain' in run.output
    tuned, sidecar = checkpoint.load(tmp_path / 'out' / 'model.safetensors')
    assert tuned.config == SMALL
    assert [p['name'] for p in sidecar['training']['phases']] == ['fine-tuning']
    difference = max(float((a - b).abs().max()) for a, b in zip(
        tuned.parameters(), start.parameters(), strict=True))
    assert 0 < difference < 1e-3


# ---------------------------------------------------------------------------- ensemble
def test_an_ensemble_finds_the_grasp_in_image_coordinates(wide):
    frame = SimulatedDataset(wide)[0].frame
    alone = GraspDetector(threads=1, precision='fp32').detect(frame, minimum_score=0.0)
    together = GraspDetector(threads=1, precision='fp32', turns=4).detect(frame,
                                                                          minimum_score=0.0)
    best = together.candidates[0]
    assert len(together.candidates) > len(alone.candidates)
    assert any(np.hypot(best.rectangle.x - c.rectangle.x, best.rectangle.y - c.rectangle.y) < 25
               for c in alone.candidates)
    # Each candidate's first angle and its fitted one are the same up to the fit's own turn.
    assert all(angle_distance(c.theta, c.rectangle.theta) < 0.7 for c in together.candidates)


def test_turned_views_keep_their_middle():
    view = View.square((640, 480))
    views = turned(view, 3)
    assert np.allclose(views[0].matrix, view.matrix)
    for other in views:
        assert np.allclose(other.to_image(np.array([199.5, 199.5])), [319.5, 239.5])
        assert other.scale == pytest.approx(view.scale)


def test_what_every_view_finds_wins_over_what_one_is_sure_of():
    def candidate(x, score):
        return Candidate((x, 0.0), 1.0, 0.0, GraspRectangle(x, 0.0, 0.0, 40.0, 20.0), score)

    views = [[candidate(0.0, 0.9), candidate(100.0, 0.6)], [candidate(101.0, 0.7)],
             [candidate(99.0, 0.5)]]
    result = vote(views)
    assert result[0].rectangle.x in (99.0, 100.0, 101.0)
    assert result[0].score == pytest.approx(0.6)
    assert next(c.score for c in result if c.rectangle.x == 0.0) == pytest.approx(0.3)

"""The five systems of Table I: encodings, grids, losses by hand, learning, weights, detection."""

from dataclasses import replace
import json
import math
import os
from pathlib import Path
import subprocess
import sys

from click.testing import CliRunner
import cv2
import numpy as np
import pytest
import torch

from grasp_stn_ros.architectures import ARCHITECTURES, build
from grasp_stn_ros.baselines.regression import Regression, RegressionConfig
from grasp_stn_ros.baselines.single_stage import SingleStageSTN
from grasp_stn_ros.baselines.sliding_window import (
    CNNSlidingWindow,
    SAESlidingWindow,
    WindowConfig,
    sparsity_penalty,
)
from grasp_stn_ros.cli import main
from grasp_stn_ros.data.augmentation import Augmentation, FixedView
from grasp_stn_ros.data.sample import LabelledFrame, collate
from grasp_stn_ros.data.splits import Subset
from grasp_stn_ros.detector import GraspDetector
from grasp_stn_ros.names import SYSTEMS
from grasp_stn_ros.rectangle import GraspRectangle, angle_distance, is_correct
from grasp_stn_ros.rgbd import CameraIntrinsics, RgbdFrame
from grasp_stn_ros.simulation.labels import generate_dataset
from grasp_stn_ros.stn import checkpoint, encoding
from grasp_stn_ros.stn.multi_stage import ModelConfig
from grasp_stn_ros.stn.network import CERTAIN, StageOutputs
from grasp_stn_ros.stn.paper import SHIFT_UNIT, PaperConfig, PaperSTN
from grasp_stn_ros.stn.resnet import PatchConfig
from grasp_stn_ros.training import distributed, targets
from grasp_stn_ros.training.losses import LossSettings
from grasp_stn_ros.training.schedule import (
    phase_at,
    separate_schedule,
    within_phase,
)
from grasp_stn_ros.training.systems import TRAINABLE
from grasp_stn_ros.training.trainer import Trainer, TrainingError

# Coarse enough for seconds: 8 x 8 locations in a view of 400 pixels.
WINDOWS = {'step': 50.0, 'orientations': 4, 'patch': 8, 'hidden': 12, 'width': 0.5}
TINY = {
    'MultiStageSTN': {'width': 0.25, 'features': 16, 'fine_channels': 8},
    'sae_sliding_window': WINDOWS,
    'cnn_sliding_window': WINDOWS,
    'regression': {'width': 0.25, 'blocks': (1, 1, 1)},
    'single_stage_stn': {'width': 0.25, 'blocks': (1, 1, 1), 'patch': 16},
    'multi_stage_stn': {'width': 0.25, 'blocks': (1, 1, 1), 'patch': 16}}


def tiny(name):
    torch.manual_seed(0)
    return build(name, TINY[name])


# ---------------------------------------------------------------- numbers
def test_rectangles_are_encoded_as_worked_out_by_hand():
    # The middle of a view of 400 is pixel 199.5; 299.5 is a hundred pixels on.
    rectangle = torch.tensor([299.5, 199.5, math.pi / 4, 36.0 * math.e, 18.0])
    numbers = encoding.encode_rectangles(rectangle, 400)
    assert torch.allclose(numbers, torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0]), atol=1e-5)
    corner = encoding.decode_locations(torch.tensor([-2.0, -2.0]), 400)
    assert corner.tolist() == [-0.5, -0.5]          # the paper's zero: the top left corner


def test_encoded_rectangles_decode_to_themselves():
    rectangles = torch.rand(50, 5) * torch.tensor([400.0, 400, 3, 80, 40]) + \
        torch.tensor([0.0, 0, -1.5, 10, 5])
    back = encoding.decode_rectangles(encoding.encode_rectangles(rectangles, 400), 400)
    assert torch.allclose(back[:, [0, 1, 3, 4]], rectangles[:, [0, 1, 3, 4]], atol=1e-3)
    assert angle_distance(back[:, 2].numpy(), rectangles[:, 2].numpy()).max() < 1e-4


def test_an_angle_of_no_length_has_a_finite_gradient():
    numbers = torch.zeros(3, 2, requires_grad=True)
    encoding.decode_angles(numbers).sum().backward()
    assert torch.isfinite(numbers.grad).all()


def test_fit_of_the_paper_network_by_hand_and_round_trip():
    # Turned by 90 degrees, u points down: 20 px down is +20 along u, 10 px right is -10 along v.
    target = torch.tensor([[[110.0, 120.0, 0.0, 36.0, 18.0]]])
    location, theta = torch.tensor([[[100.0, 100.0]]]), torch.tensor([[math.pi / 2]])
    numbers = PaperSTN.encode_fit(location, theta, target)
    assert torch.allclose(numbers[0, 0] * SHIFT_UNIT, torch.tensor([20.0, -10, 0, 0]), atol=1e-4)
    fitted = tiny('multi_stage_stn').fitted_rectangles(location, theta, numbers)[0, 0]
    assert torch.allclose(fitted[[0, 1, 3, 4]], target[0, 0, [0, 1, 3, 4]], atol=1e-3)
    assert angle_distance(float(fitted[2]), math.pi / 2) < 1e-5


def test_best_candidates_of_a_fixed_number():
    scores = torch.tensor([[0.0, 3.0, -1.0, 2.0]])
    rectangles = torch.arange(20.0).reshape(1, 4, 5)
    outputs = StageOutputs(rectangles[..., :2], torch.full((1, 4), CERTAIN), rectangles[..., 2],
                           rectangles, torch.stack([scores, torch.full_like(scores, 30)], -1))
    best = outputs.best(2)
    assert best.rectangles[0, :, 0].tolist() == [5, 15]
    assert best.scores[0].tolist() == pytest.approx([1 / (1 + math.exp(-3)),
                                                     1 / (1 + math.exp(-2))])
    assert outputs.best(9) is outputs


# ---------------------------------------------------------------- targets
def test_the_first_slot_is_the_top_right_label_and_missing_ones_are_not_filled():
    labels = torch.tensor([[[50.0, 50, 0, 30, 10], [300, 60, 0, 30, 10], [80, 350, 0, 30, 10],
                            [290, 65, 0, 30, 10], [310, 340, 0, 30, 10], [390, 5, 0, 30, 10]],
                           [[70.0, 70, 0, 30, 10], [90, 30, 0, 30, 10]] + [[-1e4] * 5] * 4])
    wanted = torch.tensor([[True] * 5 + [False], [True] * 2 + [False] * 4])
    slots, filled = targets.label_slots(labels, wanted, 4)
    # x - y: 0, 240, -270, 225, -30; the neighbour of the first, at (290, 65), is left out.
    assert slots[0, :, :2].tolist() == [[300, 60], [50, 50], [310, 340], [80, 350]]
    assert filled.tolist() == [[True] * 4, [True, True, False, False]]
    assert slots[1, :2, 0].tolist() == [90, 70]


def test_no_label_is_in_two_slots():
    labels = torch.tensor([[[50.0, 50, 0, 30, 10], [50.0, 50, 1, 30, 10]]])
    slots, filled = targets.label_slots(labels, torch.ones(1, 2, dtype=torch.bool), 2)
    assert filled.all() and sorted(slots[0, :, 2].tolist()) == [0, 1]


def test_matches_are_what_the_rectangle_metric_calls_correct():
    rng = np.random.default_rng(0)
    label = np.array([[60.0, 60, 0.2, 40, 20]])
    candidates = label + rng.normal(size=(60, 5)) * [6, 6, 0.4, 3, 2]
    found = targets.matches(torch.tensor(candidates)[None], torch.tensor(label)[None],
                            torch.ones(1, 1, dtype=torch.bool))[0]
    truth = [is_correct(GraspRectangle(*c), [GraspRectangle(*label[0])]) for c in candidates]
    assert 5 < sum(truth) < 55
    # The overlap is counted on a grid: single cases next to the threshold may differ.
    assert (found.numpy() != np.array(truth)).sum() <= 3


def test_background_patches_are_white_and_far_from_labels():
    torch.manual_seed(0)
    image = torch.full((1, 7, 400, 400), -0.8)
    image[:, :, 200:, :] = 0.9                              # the lower half is white
    label = torch.tensor([[[100.0, 300.0, 0.0, 40, 20]]])
    drawn = targets.near_white_background(image, label, torch.ones(1, 1, dtype=torch.bool), 4)
    assert drawn.shape == (1, 4, 5)
    assert (drawn[0, :, 1] > 180).all()
    assert ((drawn[0, :, :2] - label[0, :, :2]).norm(dim=1) > 20).all()


# ---------------------------------------------------------------- sliding windows
def test_the_grid_covers_the_view():
    model = SAESlidingWindow()
    grid = model.windows(400, torch.zeros(1))
    assert grid.shape == (40 * 40 * 12 * 6, 5) and len(torch.unique(grid, dim=0)) == len(grid)
    line = torch.unique(grid[:, 0])
    assert len(line) == 40 and torch.allclose(line.diff(), torch.tensor(10.0))
    assert line[0] == 4.5 and line[-1] == 394.5              # 0 ... 399 within half a step
    turn = torch.unique((grid[:, 2] % math.pi * 1e4).round())
    assert len(turn) == 12


def test_labels_snap_to_the_nearest_window():
    model = SAESlidingWindow()
    snapped = model.snapped(torch.tensor([[[123.0, 78.0, math.radians(22), 50.0, 25.0]]]), 400)
    assert snapped[0, 0].tolist() == pytest.approx([124.5, 74.5, math.radians(15), 46, 26])
    grid = model.windows(400, torch.zeros(1))
    distance = (grid - snapped[0, 0]).abs().amax(dim=1)
    assert distance.min() < 1e-4


def test_the_search_returns_the_best_windows_whatever_the_chunk():
    images = torch.randn(2, 7, 100, 100)
    outputs = []
    for chunk in (7, 1000):
        torch.manual_seed(0)
        model = CNNSlidingWindow(WindowConfig(**{**WINDOWS, 'chunk': chunk})).eval()
        outputs.append(model(images, 5))
    assert torch.allclose(outputs[0].rectangles, outputs[1].rectangles)
    grid = model.windows(100, images)
    every = model.score_numbers(images, grid[None].expand(2, -1, -1))
    assert torch.allclose(outputs[0].scores[:, 0], torch.sigmoid(every.amax(dim=1)), atol=1e-5)
    assert (outputs[0].scores.diff(dim=1) <= 0).all()


def test_sparsity_penalty_by_hand():
    hidden = torch.tensor([[0.0, 0.05], [1.0, 0.05]])        # means 0.5 and 0.05
    expected = 0.05 * math.log(0.05 / 0.5) + 0.95 * math.log(0.95 / 0.5)
    assert float(sparsity_penalty(hidden, 0.05)) == pytest.approx(expected / 2, abs=1e-5)
    assert float(sparsity_penalty(torch.full((4, 3), 0.05), 0.05)) == pytest.approx(0, abs=1e-7)


# ---------------------------------------------------------------- weights, detector
def _frame(depth=True):
    rgb = np.full((480, 640, 3), 220, np.uint8)
    rgb[230:250, 290:350] = 40
    z = np.full((480, 640), 0.8, np.float32)
    z[230:250, 290:350] = 0.76
    return RgbdFrame(rgb, z if depth else None, CameraIntrinsics(525.0, 525.0, 319.5, 239.5))


def test_every_row_of_the_table_can_be_built_and_trained():
    assert set(SYSTEMS) < set(ARCHITECTURES) and set(TRAINABLE) == {'shipped', *SYSTEMS}
    assert TRAINABLE['shipped'].architecture == 'MultiStageSTN'
    for name in SYSTEMS:
        assert TRAINABLE[name].network is ARCHITECTURES[name]
        assert isinstance(TRAINABLE[name].settings.augmentation, FixedView)
    assert PaperConfig().candidates == 4 and RegressionConfig().candidates == 1
    assert PatchConfig().candidates == 4


@pytest.mark.parametrize('name', ARCHITECTURES)
def test_weights_of_every_architecture_round_trip_and_detect(name, tmp_path):
    model = tiny(name).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    checkpoint.save(tmp_path / 'x.safetensors', model)
    loaded, sidecar = checkpoint.load(tmp_path / 'x.safetensors')
    assert sidecar['architecture'] == name and type(loaded) is type(model)
    assert loaded.config == model.config
    for key, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key])
    detector = GraspDetector(tmp_path / 'x.safetensors', precision='fp32')
    for frame in (_frame(), _frame(depth=False)):
        detection = detector.detect(frame, minimum_score=0.0, need_pose=False)
        assert 1 <= len(detection.candidates) <= model.config.candidates
        scores = [c.score for c in detection.candidates]
        assert scores == sorted(scores, reverse=True) and detection.best is not None
    if name == 'regression':
        best = detection.best
        assert best.score == pytest.approx(1) and len(scores) == 1
        assert best.location == pytest.approx((best.rectangle.x, best.rectangle.y))


def test_unknown_architectures_are_refused_by_name(tmp_path):
    checkpoint.save(tmp_path / 'x.safetensors', tiny('regression'))
    sidecar = json.loads((tmp_path / 'x.json').read_text())
    (tmp_path / 'x.json').write_text(json.dumps({**sidecar, 'architecture': 'AlexNet'}))
    with pytest.raises(checkpoint.CheckpointError, match="'AlexNet', this version has"):
        checkpoint.load(tmp_path / 'x.safetensors')


@pytest.mark.parametrize('name', SYSTEMS)
def test_detect_with_each_system(name, tmp_path, monkeypatch):
    checkpoint.save(tmp_path / f'table_simulated_{name}.safetensors', tiny(name).eval())
    monkeypatch.setattr('grasp_stn_ros.detector.find_weights', lambda file: tmp_path / file)
    frame = _frame()
    cv2.imwrite(str(tmp_path / 'rgb.png'), frame.rgb[..., ::-1])
    cv2.imwrite(str(tmp_path / 'depth.tiff'), frame.depth)
    arguments = [str(tmp_path / 'rgb.png'), str(tmp_path / 'depth.tiff'), '--json', '--stages',
                 str(tmp_path / 'stages.png'), '--minimum-score', '0']
    result = CliRunner().invoke(main, ['detect', *arguments, '--system', name])
    assert result.exit_code == 0, result.output
    record = json.loads(result.output)
    assert record['success'] and record['opening'] > 0
    assert cv2.imread(str(tmp_path / 'stages.png')).shape == (360, 5 * 360, 3)
    both = CliRunner().invoke(main, ['detect', *arguments, '--system', name, '--model', 'x'])
    assert both.exit_code != 0 and 'not both' in both.output


def test_a_system_without_weights_says_how_to_get_them(monkeypatch):
    def nowhere(name):
        raise checkpoint.CheckpointError(name)

    monkeypatch.setattr('grasp_stn_ros.detector.find_weights', nowhere)
    result = CliRunner().invoke(main, ['detect', 'x.png', '--system', 'regression'])
    assert result.exit_code != 0 and 'grasp_stn train --system regression' in result.output


# ---------------------------------------------------------------- training
class Bars:
    """Four images of a dark bar on white, each grasped across its long axis."""

    region = (120.0, 40.0, 400.0, 400.0)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        x, y = [(250, 160), (380, 200), (290, 330), (400, 320)][index]
        theta = [0.2, 1.0, -0.6, -1.3][index]
        rgb = np.full((480, 640, 3), 235, np.uint8)
        box = cv2.boxPoints(((x, y), (26, 90), math.degrees(theta)))
        cv2.fillConvexPoly(rgb, np.rint(box).astype(np.int32), (30, 40, 50 * index))
        labels = np.array([[x, y, theta, 44.0, 22.0]])
        return LabelledFrame(str(index), RgbdFrame(rgb, None, None), labels, np.ones(1))


def _trainer(name, out, images, config=None, **changes):
    system = TRAINABLE[name]
    settings = system.settings_for(Bars(), **{
        'images': images, 'batch': 4, 'warm_up': 2, 'average': 0.9, 'weight_decay': 0.0,
        'measure_every': 0, 'choose': '', **changes})
    settings = replace(settings, augmentation=replace(settings.augmentation, size=128))
    network = system.network.CONFIG(**{**TINY[system.architecture], **(config or {})})
    return Trainer(Bars(), out, settings, network, system=system)


def _batch():
    view = FixedView(128, Bars.region)
    rng = np.random.default_rng(0)
    return collate(*map(list, zip(*[view(Bars()[i], rng) for i in range(4)], strict=True)))


def _right(model, batch):
    """Which of the images (B,) are answered correctly by the best candidate."""
    model = model.eval()
    with torch.no_grad():
        best = model(batch.images).best(1).rectangles
    return targets.matches(best, batch.rectangles, batch.graspable)[:, 0]


def test_a_fixed_view_shows_the_region_as_it_is():
    channels, rectangles, success, _ = FixedView(region=Bars.region)(Bars()[1],
                                                                  np.random.default_rng(0))
    again = FixedView(region=Bars.region)(Bars()[1], np.random.default_rng(9))[0]
    assert channels.shape == (7, 400, 400) and np.array_equal(channels, again)
    # Scale 1, moved by the corner of the region.
    assert rectangles[0] == pytest.approx([380 - 120, 200 - 40, 1.0, 44, 22])
    assert success.tolist() == [1] and channels[0, 160, 260] < -0.5
    # Without a region: the centred square of 480 becomes 400.
    square = FixedView()(Bars()[1], np.random.default_rng(0))[1][0]
    assert square[3] == pytest.approx(44 * 400 / 480)


def test_settings_follow_the_region_of_the_data():
    part = Subset(Bars(), [0, 2])
    assert part.region == Bars.region
    assert TRAINABLE['regression'].settings_for(part).augmentation.region == Bars.region
    assert TRAINABLE['shipped'].settings_for(part).augmentation.nominal == 1.0
    fixed = Augmentation(nominal=1.0, log_scale=0.0, turn=False, mirror=False)
    label = fixed(Bars()[0], np.random.default_rng(0))[1][0]
    assert label[3:].tolist() == pytest.approx([44, 22])


@pytest.mark.parametrize('name', ['regression', 'single_stage_stn', 'multi_stage_stn',
                                  'cnn_sliding_window'])
def test_systems_can_learn_a_few_images_by_heart(name, tmp_path):
    config = {'step': 8.0, 'orientations': 12, 'sizes': ((14.0, 7.0),)} if 'window' in name else {}
    trainer = _trainer(name, tmp_path, 4 * (240 if 'stn' in name else 120), config,
                       learning_rate=5e-3)
    before = _right(trainer.model, _batch()).sum()
    model = trainer.run()
    assert before < 4
    assert _right(model, _batch()).sum() >= (3 if 'window' in name else 4)
    records = [json.loads(line) for line in (tmp_path / 'log.jsonl').read_text().splitlines()]
    assert records and checkpoint.load(tmp_path / 'model.safetensors')[1]['architecture'] == name


def test_autoencoders_learn_to_reconstruct_without_labels(tmp_path):
    trainer = _trainer('sae_sliding_window', tmp_path, 4)
    phase, settings = trainer.phases[0], LossSettings(classified=24)
    batch = _batch()
    no_labels = collate(list(batch.images.numpy()), [np.zeros((0, 5))] * 4, [np.zeros(0)] * 4)
    first = last = 0.0
    for _ in range(60):
        losses = trainer.system.objective(trainer.model, no_labels, phase, settings)
        assert set(losses) == {'autoencoder 1'}
        losses['autoencoder 1'].backward()
        trained = {n.split('.')[1] for n, p in trainer.model.named_parameters()
                   if p.grad is not None and p.grad.abs().sum() > 0}
        assert trained == {'0'}                             # the first autoencoder alone
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        last = float(losses['autoencoder 1'].detach())
        first = first or last
    assert last < 0.7 * first


@pytest.mark.parametrize('name', SYSTEMS)
def test_every_phase_trains_what_it_names(name, tmp_path):
    trainer = _trainer(name, tmp_path, 4)
    batch = _batch()
    for phase in trainer.phases:
        trainer.model.train().zero_grad(set_to_none=True)
        losses = trainer.system.objective(trainer.model, batch, phase, trainer.settings.losses)
        assert set(losses) == set(phase.stages), phase.name
        total = sum(losses.values())
        assert torch.isfinite(total)
        total.backward()
        if name == 'multi_stage_stn':
            for block in ('crop', 'rotation', 'scale_crop', 'classifier'):
                trained = any(p.grad is not None and p.grad.abs().sum() > 0
                              for p in getattr(trainer.model, block).parameters())
                assert trained == (block in phase.stages), (phase.name, block)
        assert all(block.training for block in trainer.model.modules())


@pytest.mark.parametrize('name', SYSTEMS)
def test_images_without_labels_do_no_harm(name, tmp_path):
    trainer = _trainer(name, tmp_path, 4)
    empty = collate([np.zeros((7, 128, 128), np.float32)] * 2, [np.zeros((0, 5))] * 2,
                    [np.zeros(0)] * 2)
    for phase in trainer.phases:
        losses = trainer.system.objective(trainer.model, empty, phase, trainer.settings.losses)
        assert all(torch.isfinite(v) for v in losses.values()), phase.name


def test_gradient_of_the_fit_reaches_the_blocks_before_it(tmp_path):
    trainer = _trainer('multi_stage_stn', tmp_path, 4)
    torch.nn.init.normal_(trainer.model.scale_crop.output.weight)
    torch.nn.init.normal_(trainer.model.rotation.output.weight)
    last = trainer.phases[-1]
    loss = trainer.system.objective(trainer.model, _batch(), last,
                                    trainer.settings.losses)['scale_crop']
    loss.backward()
    assert trainer.model.crop.maps.weight.grad.abs().sum() > 0
    assert trainer.model.rotation.output.bias.grad.abs().sum() > 0


def test_paper_schedule_trains_blocks_alone_then_from_the_last_one_backwards():
    phases = separate_schedule(('a', 'b', 'c'), (0.5, 0.2, 0.1), (0.1, 0.1))
    assert [set(p.stages) for p in phases] == [{'a'}, {'b'}, {'c'}, {'c'}, {'b', 'c'}]
    assert [set(p.own) for p in phases] == [set(), set(), set(), {'c'}, {'b', 'c'}]
    assert within_phase(phases, 0.6) == pytest.approx(0.5) and phase_at(phases, 0.6) == 1
    assert within_phase(phases, 0.0) == 0 and within_phase(phases, 1.0) == pytest.approx(1)


def test_the_learning_rate_falls_in_every_phase_anew(tmp_path):
    trainer = _trainer('multi_stage_stn', tmp_path, 4000)
    rates = []
    for step in (2, 490, 502, 620, 862, 999):
        trainer.step = step
        rates.append(trainer._learning_rate() / trainer.settings.learning_rate)
    assert rates[0] > 0.9 > 0.05 > rates[1] and rates[2] > 0.9 and rates[3] < 0.1
    assert 0.2 < rates[4] < 0.31 and rates[5] < 0.01         # end to end: 0.3 of it


def test_the_weights_before_the_end_to_end_step_are_kept(tmp_path):
    trainer = _trainer('multi_stage_stn', tmp_path, 40)
    trainer.run()
    before, sidecar = checkpoint.load(tmp_path / 'stage_wise.safetensors')
    assert sidecar['training']['steps'] == 9                  # 0.86 of ten steps
    after = checkpoint.load(tmp_path / 'model.safetensors')[0]
    assert not torch.equal(before.classifier.output.weight, after.classifier.output.weight)


def test_the_best_weights_by_validation_are_chosen(tmp_path):
    figures = iter([0.9, 0.2, 0.8, 0.5, 0.1, 0.1, 0.1, 0.1, 0.1])
    seen = []

    def validate(model):
        seen.append((next(figures), model.output.weight.clone()))
        return {'plain': seen[-1][0]}

    system = TRAINABLE['sae_sliding_window']
    settings = system.settings_for(Bars(), images=40, batch=4, choose='plain', measure_every=8)
    settings = replace(settings, augmentation=replace(settings.augmentation, size=64))
    trainer = Trainer(Bars(), tmp_path, settings, system.network.CONFIG(**WINDOWS),
                      validate=validate, system=system)
    trainer.run()
    # Before the classifier is trained, with 0.9, 0.2 and 0.8, nothing can be chosen.
    assert [s[0] for s in seen] == [0.9, 0.2, 0.8, 0.5, 0.1, 0.1]
    chosen = checkpoint.load(tmp_path / 'model.safetensors')[0]
    assert torch.equal(chosen.output.weight, seen[3][1])
    with pytest.raises(TrainingError, match='no validation data'):
        Trainer(Bars(), tmp_path / 'b', settings, system=system)


def test_fixed_views_are_prepared_once_and_stay_the_same(tmp_path, monkeypatch):
    trainer = _trainer('regression', tmp_path, 12)
    first, again = trainer._make_batch(0), trainer._make_batch(0)
    exact = FixedView(128, Bars.region)(Bars()[int(trainer._order(0)[0])], None)[0]
    assert torch.equal(first.images, again.images) and len(trainer._kept) == 4
    assert np.abs(first.images[0].numpy() - exact).max() < 2e-3
    monkeypatch.setattr(trainer, 'data', range(4))
    assert torch.equal(trainer._make_batch(0).images, first.images)


def test_resuming_another_system_is_refused(tmp_path):
    _trainer('regression', tmp_path, 8).save_state()
    assert _trainer('regression', tmp_path, 8).resume()
    with pytest.raises(TrainingError, match='other phases, other system, other network;'):
        _trainer('single_stage_stn', tmp_path, 8).resume()


_WORKER = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
from test_systems import _trainer
from grasp_stn_ros.training import distributed
# As on a machine with a GPU that is not to be used.
available, torch.cuda.is_available = torch.cuda.is_available, lambda: True
assert distributed.start('cpu') == 'cpu'
torch.cuda.is_available = available
assert torch.distributed.get_backend() == 'gloo'
out = Path(sys.argv[2])
trainer = _trainer('regression', out, 24)
torch.manual_seed(distributed.rank())
trainer.run()
rank = distributed.rank()
torch.save(trainer.model.state_dict(), out / f'rank{rank}.pt')
parts = torch.nn.ParameterList([torch.nn.Parameter(torch.zeros(2)) for _ in range(3)])
parts[0].grad = torch.full((2,), 1.0 + rank)
if rank:
    parts[1].grad = torch.ones(2)
distributed.average_gradients(parts)
torch.save([p.grad for p in parts], out / f'gradients{rank}.pt')
distributed.stop()
"""


def test_two_processes_hold_the_same_weights_and_one_writes(tmp_path):
    (tmp_path / 'worker.py').write_text(_WORKER)
    here = Path(__file__).resolve().parent
    environment = {**os.environ, 'OMP_NUM_THREADS': '1',
                   'PYTHONPATH': os.pathsep.join([str(here.parent),
                                                  os.environ.get('PYTHONPATH', '')])}
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2',
         str(tmp_path / 'worker.py'), str(here), str(tmp_path)], capture_output=True, text=True,
        timeout=240, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f'rank{r}.pt', weights_only=True) for r in (0, 1))
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
    # A part that only one process needed, or none.
    for rank in (0, 1):
        found = torch.load(tmp_path / f'gradients{rank}.pt', weights_only=True)
        assert found[0].tolist() == [1.5, 1.5] and found[1].tolist() == [0.5, 0.5]
        assert found[2] is None
    # Six steps of four images over both processes.
    assert checkpoint.load(tmp_path / 'model.safetensors')[1]['training']['steps'] == 6


def test_every_process_has_a_gpu_of_its_own(tmp_path, monkeypatch):
    assert [distributed.own_device('cuda', rank) for rank in (0, 3)] == ['cuda:0', 'cuda:3']
    assert distributed.own_device('cpu', 3) == 'cpu'
    # One process takes what it is given, where that is there.
    with monkeypatch.context() as two:
        two.setattr(torch.cuda, 'is_available', lambda: True)
        two.setattr(torch.cuda, 'device_count', lambda: 2)
        assert distributed.start('cuda:1') == 'cuda:1'
        with pytest.raises(ValueError, match='finds 2 CUDA devices'):
            distributed.start('cuda:2')
    monkeypatch.setenv('WORLD_SIZE', '2')
    refused = CliRunner().invoke(main, ['train', '--data', str(tmp_path), '--out',
                                        str(tmp_path / 'out'), '--device', 'cuda:1'])
    assert refused.exit_code == 2 and 'cuda:1 would be shared by all processes' in refused.output


@pytest.mark.parametrize('held_back', [True, False])
def test_train_on_a_fold_and_judge_its_test_part(tmp_path, held_back):
    generate_dataset(tmp_path / 'data', 6, seed=31338, progress=False, candidates=4)
    out = tmp_path / 'run'
    arguments = ['--data', str(tmp_path / 'data')]
    trained = CliRunner().invoke(main, [
        'train', *arguments, '--system', 'regression', '--fold', '1', '--out', str(out),
        '--images', '4', '--batch', '2',
        *(['--choose', 'plain'] if held_back else ['--hold-back', '0'])])
    assert trained.exit_code == 0, trained.output
    split = json.loads((out / 'split.json').read_text())
    parts = [set(split[part]) for part in ('train', 'validation', 'test')]
    assert [bool(part) for part in parts] == [True, held_back, True]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 6
    assert (out / 'curves.png').stat().st_size > 1000
    judged = CliRunner().invoke(main, [
        'evaluate', 'accuracy', *arguments, '--model', str(out / 'model.safetensors'),
        '--split', str(out / 'split.json'), '--json', str(tmp_path / 'result.json')])
    assert judged.exit_code == 0, judged.output
    result = json.loads((tmp_path / 'result.json').read_text())
    assert result['images'] == len(split['test']) and result['seed'] == 31338
    assert result['weights_sha256'] == checkpoint.read_sidecar(out / 'model.safetensors')['sha256']
    # Weights whose training cannot be gone on with are not replaced.
    (out / 'training.pt').unlink()
    before = (out / 'model.safetensors').stat().st_mtime_ns
    again = CliRunner().invoke(main, [
        'train', *arguments, '--system', 'regression', '--out', str(out), '--images', '4',
        '--batch', '2'])
    assert again.exit_code == 1 and 'and no training.pt to go on with' in again.output
    assert before == (out / 'model.safetensors').stat().st_mtime_ns


def test_training_another_fold_in_the_same_folder_is_refused(tmp_path):
    generate_dataset(tmp_path / 'data', 6, seed=31338, progress=False, candidates=4)
    out = tmp_path / 'run'

    def train(*changes):
        return CliRunner().invoke(main, [
            'train', '--data', str(tmp_path / 'data'), '--system', 'regression', '--out', str(out),
            '--images', '4', '--batch', '2', '--hold-back', '0', *changes])

    trained = train('--fold', '0')
    assert trained.exit_code == 0, trained.output
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for other in (('--fold', '1'), ('--fold', '0', '--split-seed', '5'), ()):
        refused = train(*other)
        assert refused.exit_code == 1 and 'other training images' in refused.output
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}
    assert 'going on at step 2 of 2' in train('--fold', '0').output


def test_what_a_sidecar_does_not_name_has_its_default():
    """Sidecars from before there were a gripper input, refinements and weights of the location."""
    config = {'channels': 7, 'candidates': 4, 'features': 16, 'width': 0.25,
              'blocks': [1, 2, 2], 'context': 36.0, 'margin': [14.0, 12.0], 'patch': 16,
              'fine_channels': 8}
    assert build('MultiStageSTN', config).config == ModelConfig(
        features=16, width=0.25, blocks=(1, 2, 2), fine_channels=8)


def test_regression_is_a_resnet_of_32_layers():
    layers = [m for n, m in Regression().named_modules()
              if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear)) and 'shortcut' not in n]
    assert len(layers) == 32


def test_single_stage_has_five_parameters_for_each_candidate():
    model = SingleStageSTN(PatchConfig(**TINY['single_stage_stn'])).eval()
    outputs = model(torch.randn(2, 7, 128, 128))
    assert outputs.rectangles.shape == (2, 4, 5) and outputs.score_logits.shape == (2, 4, 2)
    assert model(torch.randn(2, 7, 128, 128), 2).rectangles.shape == (2, 2, 5)

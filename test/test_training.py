"""Simulated data in, weights out: reading, augmentation, losses, resuming."""

from dataclasses import replace
import json
import math
import shutil

import numpy as np
import pytest
import torch

from grasp_stn_ros.data.augmentation import Augmentation, to_view
from grasp_stn_ros.data.mixture import Mixture
from grasp_stn_ros.data.sample import (
    DataError,
    LabelledFrame,
    collate,
    digest,
    in_both,
    scenes,
)
from grasp_stn_ros.data.simulated import SimulatedDataset
from grasp_stn_ros.data.splits import Subset
from grasp_stn_ros.data.with_jaw import WithJaw
from grasp_stn_ros.detector import GraspDetector
from grasp_stn_ros.evaluation.accuracy import judge, summarize
from grasp_stn_ros.evaluation.report import provenance, wilson_interval, write_json
from grasp_stn_ros.preprocessing import View
from grasp_stn_ros.rectangle import GraspRectangle, angle_distance
from grasp_stn_ros.rgbd import CameraIntrinsics, RgbdFrame
from grasp_stn_ros.simulation.labels import generate_dataset
from grasp_stn_ros.stn import checkpoint
from grasp_stn_ros.stn.multi_stage import ModelConfig, MultiStageSTN
from grasp_stn_ros.training import terms
from grasp_stn_ros.training.distillation import Teachers
from grasp_stn_ros.training.joining import average_weights
from grasp_stn_ros.training.losses import STAGES, LossSettings, stage_losses
from grasp_stn_ros.training.schedule import Phase, paper_schedule, phase_at
from grasp_stn_ros.training.trainer import Trainer, TrainingError, TrainingSettings

TINY = ModelConfig(width=0.25, features=16, fine_channels=8)


@pytest.fixture(scope='module')
def data_folder(tmp_path_factory):
    """Three simulated, labelled scenes."""
    folder = tmp_path_factory.mktemp('simulated')
    generate_dataset(folder, 3, seed=77, progress=False)
    return folder


def test_dataset_reads_what_the_simulation_wrote(data_folder):
    data = SimulatedDataset(data_folder)
    assert len(data) == 3
    sample = data[1]
    record = json.loads((data_folder / '000001.json').read_text())
    assert sample.frame.rgb.shape == (480, 640, 3)
    assert sample.frame.intrinsics.fx == record['intrinsics']['fx']
    assert np.isnan(sample.frame.depth).any() and 0.4 < np.nanmedian(sample.frame.depth) < 2
    assert len(sample.rectangles) == len(record['grasps']) == len(sample.success)
    assert ((sample.success >= 0) & (sample.success <= 1)).all()
    mask = data.mask(1)
    # Labels lie on or near the object.
    rows, columns = np.nonzero(mask)
    centre = np.array([columns.mean(), rows.mean()])
    assert np.linalg.norm(sample.rectangles[:, :2] - centre, axis=1).min() < 60


@pytest.mark.parametrize('name, content, message', [
    ('000000.json', b'{}', '000000.json is no valid label file'),
    ('000000.json', b'not json', '000000.json is no valid label file'),
    ('000000_rgb.png', b'', '000000_rgb.png is missing or no image'),
    ('000000_depth.png', None, '000000_depth.png is missing or no image')])
def test_broken_files_are_named(data_folder, tmp_path, name, content, message):
    for file in data_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        SimulatedDataset(tmp_path)[0]


@pytest.mark.parametrize('own', [False, True])
@pytest.mark.parametrize('change', [
    {'rectangle': [9.0, 9.0, 0.1, 0.0, 8.0]}, {'rectangle': [9.0, 9.0, 0.1, -3.0, 8.0]},
    {'rectangle': [9.0, 9.0, 0.1, 30.0, 0.0]}, {'rectangle': [9.0, 9.0, math.nan, 30.0, 8.0]},
    {'successes': math.nan}, {'successes': -1}, {'successes': 3}, {'trials': 0}])
def test_labels_that_are_no_grasps_are_named(data_folder, tmp_path, change, own):
    name = '000001_own.json' if own else '000001.json'
    shutil.copytree(data_folder, tmp_path, dirs_exist_ok=True)
    record = json.loads((data_folder / '000001.json').read_text())
    good = {'rectangle': [9.0, 9.0, 0.1, 30.0, 8.0], 'successes': 1, 'trials': 2}
    record['grasps'] = [good, good, {**good, **change}]
    (tmp_path / name).write_text(json.dumps(record))
    which = 'ZeroDivision' if 'trials' in change else 'grasp 2 has the rectangle .* lifts in'
    with pytest.raises(DataError, match=f'{name} is no valid label file: .*{which}'):
        SimulatedDataset(tmp_path, own=own)[1]
    SimulatedDataset(tmp_path, own=own)[0].graspable()      # of the others nothing is wrong


def test_a_folder_that_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(DataError, match='dataset.json is missing'):
        SimulatedDataset(tmp_path)


def test_rectangles_follow_the_view():
    view = View.similarity((320.0, 240.0), 2.0, math.pi / 2, size=272)
    mapped, inside = to_view(np.array([[330.0, 240, 0.2, 30, 10], [0, 0, 0, 30, 10]]), view)
    # Ten pixels to the right become twenty pixels down.
    assert np.allclose(mapped[0, :2], [135.5, 155.5])
    assert angle_distance(mapped[0, 2], 0.2 + math.pi / 2) < 1e-9
    assert mapped[0, 3:].tolist() == [60, 20] and inside.tolist() == [True, False]


def test_mirrored_rectangles_agree_with_transformed_ones():
    view = View.similarity((300.0, 200.0), 0.7, 0.9, mirror=True)
    rectangle = GraspRectangle(310, 190, 0.4, 30, 12)
    mapped, _ = to_view(rectangle.as_array()[None], view)
    expected = rectangle.transformed(view.matrix).as_array()
    assert np.allclose(mapped[0, [0, 1, 3, 4]], expected[[0, 1, 3, 4]])
    assert angle_distance(mapped[0, 2], expected[2]) < 1e-9


def test_augmentation_keeps_labels_on_the_object():
    rgb = np.zeros((480, 640, 3), np.uint8)
    rgb[230:250, 340:360] = 255
    depth = np.full((480, 640), 0.8, np.float32)
    sample = LabelledFrame('x', RgbdFrame(rgb, depth, CameraIntrinsics(525, 525, 319.5, 239.5)),
                           np.array([[349.5, 239.5, 0.3, 30, 12.0]]), np.ones(1))
    augment = Augmentation(no_colour=0.0, no_depth=0.0)
    seen = 0
    for seed in range(20):
        channels, rectangles, _, _ = augment(sample, np.random.default_rng(seed))
        assert channels.shape == (7, 240, 240) and np.isfinite(channels).all()
        for x, y, *_ in rectangles:
            background = np.median(channels[:3])
            assert channels[:3, int(round(y)), int(round(x))].mean() > background + 0.2
            seen += 1
    assert seen > 10


def test_modalities_are_dropped_whole():
    depth = np.full((480, 640), 0.8, np.float32)
    sample = LabelledFrame('x', RgbdFrame(np.full((480, 640, 3), 30, np.uint8), depth,
                                          CameraIntrinsics(525, 525, 319.5, 239.5)),
                           np.zeros((0, 5)), np.zeros(0))
    rng = np.random.default_rng(0)
    no_colour = Augmentation(no_colour=1.0)(sample, rng)[0]
    assert (no_colour[:3] == 0).all() and (no_colour[3:] != 0).any()
    no_depth = Augmentation(no_colour=0.0, no_depth=1.0)(sample, rng)[0]
    assert (no_depth[3:] == 0).all() and (no_depth[:3] != 0).any()


def test_teachers_see_what_is_kept_from_the_network():
    depth = np.full((480, 640), 0.8, np.float32)
    depth[200:280, 300:340] = 0.75
    sample = LabelledFrame('x', RgbdFrame(np.full((480, 640, 3), 30, np.uint8), depth,
                                          CameraIntrinsics(525, 525, 319.5, 239.5)),
                           np.array([[320.0, 240, 0, 60, 20]]), np.ones(1), jaw_size=0.02)
    settings = Augmentation(no_colour=0.0, no_depth=1.0, no_jaw=0.0)
    alone = settings(sample, np.random.default_rng(3))
    both = replace(settings, whole=True)(sample, np.random.default_rng(3))
    assert both[0].shape == (14, 240, 240) and both[3] == alone[3] == 0.0
    assert np.array_equal(both[0][:7], alone[0]) and np.array_equal(both[0][7:10], alone[0][:3])
    batch = collate(*map(list, zip(both, both, strict=True)))
    assert (batch.images[:, 3:] == 0).all() and (batch.whole[:, 3:] != 0).any()
    # Where nothing is kept from it, both are the same.
    everything = replace(settings, no_depth=0.0, whole=True)(sample, np.random.default_rng(3))
    assert np.array_equal(everything[0][:7], everything[0][7:]) and everything[3] > 0


def _flat_table(jaw: float) -> LabelledFrame:
    """A table 0.8 m away with one label, whose jaws of 20 mm have ``jaw`` pixels."""
    depth = np.full((480, 640), 0.8, np.float32)
    return LabelledFrame('x', RgbdFrame(np.full((480, 640, 3), 30, np.uint8), depth,
                                        CameraIntrinsics(525, 525, 319.5, 239.5)),
                         np.array([[320.0, 240, 0, 60, jaw]]), np.ones(1), jaw_size=0.02)


def test_the_jaws_are_told_without_depth():
    sample = _flat_table(jaw=20)
    settings = Augmentation(no_colour=0.0, no_depth=1.0, no_jaw=0.0, jaw_without_depth=1.0,
                            log_scale=0.0)
    channels, _, _, jaw = settings(sample, np.random.default_rng(0))
    assert (channels[3:] == 0).all()
    # A view of 400 pixels shows 480: 525 px / 0.8 m * 0.02 m, and 400 / 480 of it.
    assert jaw == pytest.approx(525 / 0.8 * 0.02 * 400 / 480, rel=0.01)
    half = replace(settings, jaw_without_depth=0.5)
    rng = np.random.default_rng(1)
    told = [half(sample, rng)[3] > 0 for _ in range(60)]
    assert 15 < sum(told) < 45
    # There is nothing to know it from in an image that never had depth.
    flat = replace(sample, frame=RgbdFrame(sample.frame.rgb, None, sample.frame.intrinsics))
    assert settings(flat, np.random.default_rng(0))[3] == 0
    assert WithJaw([flat])[0].jaw_pixels is None
    assert WithJaw([sample])[0].jaw_pixels == pytest.approx(525 / 0.8 * 0.02, rel=0.01)
    assert WithJaw([replace(sample, jaw_pixels=31.0)])[0].jaw_pixels == 31


def test_views_of_told_jaws_have_one_scale():
    sample = _flat_table(jaw=13.125)
    settings = Augmentation(no_colour=0.0, no_depth=1.0, no_jaw=0.0, jaw_without_depth=1.0,
                            told_jaw=14.0)
    rng = np.random.default_rng(0)
    told = [settings(sample, rng) for _ in range(30)]
    # 13.1 px in the image are 10.9 of a view of 400; one of 496 gives them 13.6.
    jaws = np.array([jaw for _, _, _, jaw in told])
    nominal = 525 / 0.8 * 0.02 * 496 / 480
    assert np.all(abs(np.log(jaws / nominal)) < 0.07) and np.ptp(jaws) > 0.5
    for _, rectangles, _, jaw in told:
        np.testing.assert_allclose(rectangles[:, 4], jaw, rtol=1e-3)
    # Where they are kept from the network, or it sees depth, the view is any.
    for other in (replace(settings, no_jaw=1.0), replace(settings, no_depth=0.0)):
        extents = [r[0, 4] for _, r, _, _ in (other(sample, rng) for _ in range(30)) if len(r)]
        assert np.mean(extents) < 12 and np.ptp(extents) > 2


def test_views_with_depth_have_one_scale_where_that_is_wanted():
    sample = _flat_table(jaw=13.125)
    settings = Augmentation(no_colour=0.5, no_depth=0.0, no_jaw=0.5, seen_jaw=14.0)
    rng = np.random.default_rng(0)
    seen = [settings(sample, rng) for _ in range(30)]
    # 13.1 px in the image are 10.9 of a view of 400; one of 496 gives them 13.6. What depth tells
    # need not be told.
    extents = [view[1][0, 4] for view in seen if len(view[1])]
    np.testing.assert_allclose(extents, 13.125 * 496 / 480, rtol=0.07)
    assert np.ptp(extents) > 0.5 and {view[3] > 0 for view in seen} == {True, False}
    # Of a near camera the view has fewer pixels where depth says so, but not where that is told.
    for told, size in ((replace(settings, seen_jaw=8.0), 304),
                       (replace(settings, no_depth=1.0, no_colour=0.0, no_jaw=0.0, seen_jaw=0.0,
                                told_jaw=8.0, jaw_without_depth=1.0), 400)):
        extents = [r[0, 4] for _, r, _, _ in (told(sample, rng) for _ in range(30)) if len(r)]
        np.testing.assert_allclose(extents, 13.125 * size / 480, rtol=0.07)
    for other in (replace(settings, no_depth=1.0, no_colour=0.0), replace(settings, seen_jaw=0.0)):
        extents = [r[0, 4] for _, r, _, _ in (other(sample, rng) for _ in range(30)) if len(r)]
        assert np.mean(extents) < 12 and np.ptp(extents) > 2


def test_a_training_shows_what_its_network_and_its_teachers_want(data_folder, tmp_path):
    data, settings = SimulatedDataset(data_folder), TrainingSettings(images=4, batch=4)
    own = Trainer(data, tmp_path / 'a', settings, replace(TINY, told_jaw=14.0, seen_jaw=9.0))
    taught = Trainer(data, tmp_path / 'b', settings, TINY,
                     teachers=Teachers([MultiStageSTN(TINY)]))
    assert [(views.told_jaw, views.seen_jaw, views.whole) for views in (
        own.settings.augmentation, taught.settings.augmentation)] \
        == [(14.0, 9.0, False), (0.0, 0.0, True)]


def test_a_network_comes_closer_to_its_teachers():
    torch.manual_seed(0)
    model, teachers = MultiStageSTN(TINY), Teachers([MultiStageSTN(TINY), MultiStageSTN(TINY)])
    before = [p.clone() for network in teachers.networks for p in network.parameters()]
    everything = frozenset(STAGES)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(25):
        torch.manual_seed(1)
        losses.append(stage_losses(model, _batch(), everything, everything - {'crop'},
                                   LossSettings(taught=1.0), teachers))
        optimizer.zero_grad()
        sum(losses[-1].values()).backward()
        optimizer.step()
    for name in everything:
        assert losses[-1][name] < losses[0][name], name
    after = [p for network in teachers.networks for p in network.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_share_of_the_teachers_is_what_the_settings_say():
    teachers, model = Teachers([MultiStageSTN(TINY)]), MultiStageSTN(TINY)
    everything = frozenset(STAGES)

    def losses(taught, teachers):
        torch.manual_seed(1)
        found = stage_losses(model.eval(), _batch(), everything, everything,
                             LossSettings(taught=taught), teachers)
        return {name: float(loss.detach()) for name, loss in found.items()}

    labels, none = losses(0.5, None), losses(0.0, teachers)
    half, only = losses(0.5, teachers), losses(1.0, teachers)
    for name in everything:
        assert none[name] == pytest.approx(labels[name], rel=1e-5)
        assert half[name] == pytest.approx((labels[name] + only[name]) / 2, rel=1e-4)


def test_features_come_closer_to_those_of_the_teachers_where_that_is_asked_for():
    torch.manual_seed(0)
    model, teachers = MultiStageSTN(TINY), Teachers([MultiStageSTN(TINY)])
    everything = frozenset(STAGES)

    def losses(weight):
        torch.manual_seed(1)
        return stage_losses(model, _batch(), everything, everything - {'crop'},
                            LossSettings(features=weight), teachers)

    assert set(losses(0.0)) == everything
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    first = losses(1.0)['features'].item()
    assert losses(2.0)['features'].item() == pytest.approx(2 * first, rel=1e-4)
    for _ in range(25):
        optimizer.zero_grad()
        losses(1.0)['features'].backward()
        optimizer.step()
    assert losses(1.0)['features'].item() < 0.8 * first


def _batch(count=2, size=96):
    rng = np.random.default_rng(0)
    labels = [rng.uniform([20, 20, -1, 20, 8], [70, 70, 1, 30, 12], (4, 5)) for _ in range(count)]
    images = [rng.normal(size=(7, size, size)).astype(np.float32) for _ in range(count)]
    return collate(images, labels, [np.array([1.0, 1, 0, 0.5])] * count)


@pytest.mark.parametrize('phase', paper_schedule(), ids=lambda p: p.name)
def test_every_phase_trains_its_stages_and_no_other(phase):
    torch.manual_seed(0)
    model = MultiStageSTN(TINY)
    losses = stage_losses(model, _batch(), phase.stages, phase.own, LossSettings())
    assert set(losses) == set(phase.stages)
    total = sum(losses.values())
    assert torch.isfinite(total)
    total.backward()
    blocks = {'crop': model.crop, 'rotation': model.rotation, 'scale_crop': model.scale_crop,
              'classifier': model.classifier}
    for name, block in blocks.items():
        trained = any(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())
        assert trained == (name in phase.stages), name


def test_losses_survive_images_without_any_label():
    model = MultiStageSTN(TINY)
    batch = collate([np.zeros((7, 96, 96), np.float32)] * 2, [np.zeros((0, 5))] * 2,
                    [np.zeros(0)] * 2)
    everything = frozenset(STAGES)
    losses = stage_losses(model, batch, everything, everything - {'crop'}, LossSettings())
    assert all(torch.isfinite(v) for v in losses.values())


def test_a_choice_costs_what_the_softmax_gives_to_wrong_candidates():
    scores = torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.8, 0.1, 0.1], [0.6, 0.2, 0.2]]))
    right = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, 1.0], [0.3, 0.0, 0.0]])
    # The third image has no candidate that is right, and nothing to choose.
    expected = -(math.log(0.5 + 0.15) + math.log(0.2)) / 2
    assert float(terms.choice(scores, right)) == pytest.approx(expected, rel=1e-5)
    assert float(terms.choice(scores, torch.zeros_like(right))) == 0.0


def test_the_classifier_learns_to_choose_among_own_proposals():
    torch.manual_seed(0)
    model, batch = MultiStageSTN(replace(TINY, location_weight=0.25)).eval(), _batch()
    with torch.no_grad():
        own = model(batch.images, candidates=6, jaw=batch.jaw).rectangles
    # Two of the six proposals are right.
    batch = collate(list(batch.images.numpy()), list(own[:, :2].double().numpy()),
                    [np.ones(2)] * 2)
    everything = frozenset(STAGES)

    def classifier_loss(choice):
        torch.manual_seed(1)
        return stage_losses(model, batch, everything, everything,
                            LossSettings(choice=choice))['classifier']

    none, one, three = (classifier_loss(choice) for choice in (0.0, 1.0, 3.0))
    assert one > none
    assert (three - none).item() == pytest.approx(3 * (one - none).item(), rel=1e-4)
    gradients = torch.autograd.grad(one - none, [next(model.classifier.parameters())])
    assert gradients[0].abs().sum() > 0


def test_schedule_goes_from_ground_truth_to_end_to_end_backwards():
    phases = paper_schedule()
    assert phase_at(phases, 0.0) == 0 and phase_at(phases, 1.0) == len(phases) - 1
    assert sum(p.share for p in phases) == pytest.approx(1)
    order = [p.own for p in phases if p.own]
    assert order[0] == {'classifier'} and order[-1] >= {'classifier', 'scale_crop', 'rotation'}


SHORT = (Phase('ground truth', 0.5, frozenset(STAGES)),
         Phase('end to end', 0.5, frozenset(STAGES), frozenset({'classifier', 'scale_crop'})))


def _trainer(data, out, images=24, **settings):
    return Trainer(data, out, TrainingSettings(images=images, batch=4, warm_up=2, **settings),
                   TINY, SHORT)


def test_interrupted_training_gives_the_same_weights(data_folder, tmp_path):
    data = SimulatedDataset(data_folder, cache=True)
    whole = _trainer(data, tmp_path / 'whole').run()

    class Stop(Exception):
        pass

    interrupted = _trainer(data, tmp_path / 'parts')
    step = interrupted._train_step

    def stop_in_the_middle(batch, phase):
        if interrupted.step == 3:
            raise Stop
        step(batch, phase)

    interrupted._train_step = stop_in_the_middle
    with pytest.raises(Stop):
        interrupted.run()
    interrupted.save_state()
    resumed = _trainer(data, tmp_path / 'parts')
    assert resumed.resume() and resumed.step == 3
    parts = resumed.run()
    other = parts.state_dict()
    apart = math.sqrt(sum(float(((value - other[name]).double() ** 2).sum())
                          for name, value in whole.state_dict().items()))
    # Arrays at other addresses are summed up in another order, which Adam makes 0.005 of. A moving
    # average that is lost makes 0.1, a lost state of Adam 0.9.
    assert apart < 0.03
    assert checkpoint.load(tmp_path / 'parts' / 'model.safetensors')[1]['training']['seed'] == 0


def test_a_phase_that_had_just_ended_when_it_was_interrupted_is_ended(data_folder, tmp_path):
    class Stop(Exception):
        pass

    def stop(*_):
        raise Stop

    data, measured = SimulatedDataset(data_folder, cache=True), []
    interrupted = _trainer(data, tmp_path)
    interrupted._end_phase = stop
    with pytest.raises(Stop):
        interrupted.run(save_every=0.0)
    resumed = _trainer(data, tmp_path)
    resumed.validate = lambda model: measured.append(resumed.step) or {'plain': 0.5}
    assert resumed.resume() and resumed.step == 3
    assert not (tmp_path / 'stage_wise.safetensors').exists()
    resumed.run()
    assert measured == [3, 6]
    assert (tmp_path / 'stage_wise.safetensors').exists()


def test_resuming_with_other_settings_is_refused(data_folder, tmp_path):
    data = SimulatedDataset(data_folder)
    _trainer(data, tmp_path).save_state()
    with pytest.raises(TrainingError, match='other settings'):
        _trainer(data, tmp_path, seed=5).resume()


def test_resuming_with_other_images_is_refused(data_folder, tmp_path):
    data = SimulatedDataset(data_folder)
    _trainer(Subset(data, (0, 1)), tmp_path).save_state()
    assert _trainer(Subset(data, (0, 1)), tmp_path).resume()
    # As many, others; as many of the same scenes, of another data set; the same with own trials.
    generate_dataset(tmp_path / 'other', 2, seed=78, progress=False, candidates=4)
    same = tmp_path / 'copy'
    shutil.copytree(data_folder, same)
    (same / '000000_own.json').write_text(json.dumps({'grasps': []}))
    assert _trainer(Subset(SimulatedDataset(same), (0, 1)), tmp_path).resume()
    assert in_both(data, SimulatedDataset(same, own=True)) == set(scenes(data))
    some = digest(SimulatedDataset(same, own=True))
    (same / '000000_own.json').write_text(json.dumps({'grasps': [], 'trials': 2}))
    assert digest(SimulatedDataset(same, own=True)) != some
    for other in (Subset(data, (0, 2)), SimulatedDataset(tmp_path / 'other'),
                  Subset(SimulatedDataset(same, own=True), (0, 1))):
        with pytest.raises(TrainingError, match='with other training images .*--fold'):
            _trainer(other, tmp_path).resume()


def test_shares_of_a_mixture_tell_trainings_apart(data_folder):
    data = SimulatedDataset(data_folder)
    one, two = (Mixture(data, [(Subset(data, (0, 1)), share)]) for share in (0.4, 0.25))
    assert digest(one) != digest(two) != digest(data)
    assert digest(one) == digest(Mixture(data, [(Subset(data, (0, 1)), 0.4)]))


def test_going_on_from_other_weights_is_refused(data_folder, tmp_path):
    data, networks = SimulatedDataset(data_folder), []
    for seed in range(2):
        torch.manual_seed(seed)
        networks.append(MultiStageSTN(TINY))
    settings = TrainingSettings(images=24, batch=4)
    Trainer(data, tmp_path, settings, start=networks[0]).save_state()
    assert Trainer(data, tmp_path, settings, start=networks[0]).resume()
    for start in (networks[1], None):
        with pytest.raises(TrainingError, match='with other weights to start from;'):
            Trainer(data, tmp_path, settings, TINY, start=start).resume()


@pytest.mark.parametrize(('state', 'message'), [
    ({'fingerprint': json.dumps([{'images': 24}, 'MultiStageSTN', {}, 3, [], []]), 'step': 3},
     'is of an earlier version'),
    ({'step': 3}, 'is no state of a training'), (b'', 'is no state of a training'),
    (b'PK\x03\x04 cut off', 'is no state of a training')])
def test_states_that_cannot_be_gone_on_with_are_named(data_folder, tmp_path, state, message):
    if isinstance(state, dict):
        torch.save(state, tmp_path / 'training.pt')
    else:
        (tmp_path / 'training.pt').write_bytes(state)
    with pytest.raises(TrainingError, match=f'training.pt {message}.*remove it'):
        _trainer(SimulatedDataset(data_folder), tmp_path).resume()


def test_a_loss_that_is_not_finite_stops_the_training(data_folder, tmp_path):
    trainer = _trainer(SimulatedDataset(data_folder), tmp_path)
    with torch.no_grad():
        trainer.model.crop.output.weight.fill_(math.nan)
    with pytest.raises(TrainingError, match='not finite in step 0'):
        trainer.run()


def test_judge_counts_what_is_right(data_folder):
    data = SimulatedDataset(data_folder)
    detector = GraspDetector(MultiStageSTN(TINY))
    outcomes = judge(detector, data)
    summary = summarize(outcomes)
    graspable = sum(bool(data[i].graspable()) for i in range(3))
    assert summary['n'] == graspable
    assert summary['strict'] <= summary['plain'] <= summary['any_plain']

    class Oracle:
        def detect(self, frame, region, minimum_score, need_pose, jaw_pixels):
            from grasp_stn_ros.detection import Candidate, Detection
            from grasp_stn_ros.reasons import Reason
            label = next(d for d in (data[i] for i in range(3))
                         if np.array_equal(d.frame.rgb, frame.rgb)).graspable()[0]
            best = Candidate((label.x, label.y), 1.0, label.theta, label, 1.0)
            return Detection((best,), best, Reason.OK, '', {}, (80, 0, 480, 480))

    assert 'n_rgbd' not in summary      # all of them have depth
    none = summarize([replace(outcome, has_depth=False) for outcome in outcomes])
    assert none['n_rgbd'] == 0 and 'plain_rgbd' not in none
    perfect = summarize(judge(Oracle(), data))
    assert perfect['plain'] == perfect['strict'] == perfect['located'] == 1


def test_results_say_where_they_come_from(tmp_path):
    write_json(tmp_path / 'deep' / 'result.json', {'n': 3})
    result = json.loads((tmp_path / 'deep' / 'result.json').read_text())
    assert result['n'] == 3 and set(provenance()) <= set(result)
    assert result['machine']['cores'] >= 1


def test_wilson_interval_by_hand():
    # 8 of 10: centre (0.8 + 0.19208) / 1.38416, half width from the textbook formula.
    low, high = wilson_interval(8, 10)
    assert low == pytest.approx(0.4902, abs=1e-3) and high == pytest.approx(0.9433, abs=1e-3)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_mean_of_weights(tmp_path):
    networks = []
    for seed in range(2):
        torch.manual_seed(seed)
        networks.append(MultiStageSTN(replace(TINY, calibration=(0.5, seed))))
        checkpoint.save(tmp_path / f'{seed}.safetensors', networks[-1],
                        {'training': {'images': seed}})
    paths = [tmp_path / '0.safetensors', tmp_path / '1.safetensors']
    mean, notes = average_weights(paths)
    a, b, c = (network.trunk.lateral8.weight for network in (*networks, mean))
    assert torch.allclose(c, (a + b) / 2) and not torch.equal(c, a)
    # A calibration belongs to the scores of one network.
    assert mean.config.calibration == (1.0, 0.0)
    assert notes['training']['images'] == 1
    assert notes['training']['mean_of'] == [checkpoint.read_sidecar(path)['sha256']
                                            for path in paths]


def test_no_mean_of_what_differs(tmp_path):
    for name, width in (('a', 0.25), ('b', 0.5)):
        checkpoint.save(tmp_path / f'{name}.safetensors',
                        MultiStageSTN(replace(TINY, width=width)))
    with pytest.raises(checkpoint.CheckpointError, match='another network'):
        average_weights([tmp_path / 'a.safetensors', tmp_path / 'b.safetensors'])
    with pytest.raises(checkpoint.CheckpointError, match='at least two'):
        average_weights([tmp_path / 'a.safetensors'])

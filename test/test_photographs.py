"""Networks for images without depth: features of photographs, teachers, and two in one."""

from dataclasses import replace
import json

from click.testing import CliRunner
import numpy as np
import pytest
from script_files import load_script
import torch

from grasp_stn_ros.cli import main
from grasp_stn_ros.data.augmentation import Augmentation, FixedView
from grasp_stn_ros.data.sample import Batch
from grasp_stn_ros.detector import GraspDetector
from grasp_stn_ros.rgbd import CameraIntrinsics, RgbdFrame
from grasp_stn_ros.simulation.labels import generate_dataset
from grasp_stn_ros.stn import checkpoint
from grasp_stn_ros.stn.efficientnet import PhotographFeatures, PretrainedError, load_pretrained
from grasp_stn_ros.stn.multi_stage import ModelConfig, MultiStageSTN
from grasp_stn_ros.training import validation
from grasp_stn_ros.training.distillation import Teachers
from grasp_stn_ros.training.joining import (
    answers_alike_with_depth,
    average_weights,
    join_networks,
    split_networks,
)
from grasp_stn_ros.training.losses import LossSettings
from grasp_stn_ros.training.objectives import multi_stage
from grasp_stn_ros.training.pretrained import with_photographs
from grasp_stn_ros.training.schedule import Phase
from grasp_stn_ros.training.settings import TrainingSettings
from grasp_stn_ros.training.systems import SHIPPED, TRAINABLE

SMALL = ModelConfig(width=0.25, features=16, fine_channels=8, candidates=4)
_NAMES = {'conv.weight': '{conv}.weight',
          **{f'norm.{name}': '{norm}.' + name
             for name in ('weight', 'bias', 'running_mean', 'running_var')}}
_PLACES = {'expand': ('_expand_conv', '_bn0'), 'depthwise': ('_depthwise_conv', '_bn1'),
           'project': ('_project_conv', '_bn2')}


@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
    """Write weights with the names and shapes of EfficientNet-Lite0; path and features."""
    torch.manual_seed(5)
    features = PhotographFeatures()
    weights = {'_fc.weight': torch.zeros(1000, 1280)}
    for name, value in features.state_dict().items():
        value = torch.rand_like(value) + 0.5 if value.is_floating_point() else value
        features.state_dict()[name].copy_(value)
        part, _, end = name.partition('.')
        if end.endswith('num_batches_tracked'):
            continue
        if part == 'stem':
            place, conv, norm = end, '_conv_stem', '_bn0'
        else:
            number, kind, place = end.split('.', 2)
            conv, norm = (f'_blocks.{number}.{x}' for x in _PLACES[kind])
        weights[_NAMES[place].format(conv=conv, norm=norm)] = value
    path = tmp_path_factory.mktemp('pretrained') / 'lite0.pth'
    torch.save(weights, path)
    return path, features


@pytest.fixture(scope='module')
def network(pretrained):
    """Build a small network with features of photographs, next to the one it was made from."""
    torch.manual_seed(0)
    start = MultiStageSTN(SMALL).eval()
    return with_photographs(SMALL, start, pretrained[0]).eval(), start


def _image(count=1, size=96):
    image = torch.randn(count, 7, size, size)
    image[:, -1] = image[:, -1].abs() + 0.1
    return image


def test_every_weight_comes_from_the_file(pretrained):
    features = PhotographFeatures()
    load_pretrained(features, pretrained[0])
    for name, value in pretrained[1].state_dict().items():
        if not name.endswith('num_batches_tracked'):
            assert torch.equal(features.state_dict()[name], value), name


def test_another_file_is_refused(tmp_path):
    torch.save({'_conv_stem.weight': torch.zeros(32, 3, 5, 5)}, tmp_path / 'other.pth')
    (tmp_path / 'text.pth').write_text('no weights')
    for name in ('other.pth', 'text.pth', 'missing.pth'):
        with pytest.raises(PretrainedError, match='EfficientNet-Lite0'):
            load_pretrained(PhotographFeatures(), tmp_path / name)


def test_the_features_have_strides_8_16_and_32_and_stay_as_they_are(pretrained):
    features = PhotographFeatures().train()
    load_pretrained(features, pretrained[0])
    assert not any(module.training for module in features.modules())
    before = {k: v.clone() for k, v in features.state_dict().items()}
    found = features(torch.rand(2, 3, 160, 160))
    assert [tuple(x.shape) for x in found] == [(2, 24, 20, 20), (2, 40, 10, 10), (2, 112, 5, 5)]
    assert not any(x.requires_grad for x in found)
    assert all(torch.equal(v, before[k]) for k, v in features.state_dict().items())


def test_layers_that_have_been_trained_are_not_made_smaller(network, pretrained):
    again = with_photographs(network[0].config, network[0], pretrained[0])
    for name, value in network[0].state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_they_join_only_where_depth_is_missing(network):
    model, start = network
    torch.manual_seed(1)
    image = _image(3)
    image[1, 3:] = 0
    # One pixel with depth is an image with depth.
    image[2, 3:] = 0
    image[2, -1, 37, 51] = 1
    with torch.no_grad():
        features, plain = model.trunk_features(image), start.trunk_features(image)
        for i in range(3):
            alone = model.trunk_features(image[i:i + 1])
            assert torch.allclose(features[i], alone[0], atol=1e-5 * float(features[i].max()))
    difference = (features - plain).abs().amax(dim=(1, 2, 3))
    assert difference[0] < 1e-4 and difference[2] < 1e-4 and difference[1] > 1e-2


def test_what_is_traced_tells_both_kinds_of_images_apart(network, tmp_path):
    checkpoint.save(tmp_path / 'model.safetensors', network[0])
    rgb = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    depth = np.full((480, 640), 0.8, np.float32)
    depth[200:260, 280:360] = 0.75
    intrinsics = CameraIntrinsics(525, 525, 319.5, 239.5)
    with_depth, without = RgbdFrame(rgb, depth, intrinsics), RgbdFrame(rgb, None, intrinsics)
    traced = GraspDetector(tmp_path / 'model.safetensors', threads=1, precision='fp32')
    eager = GraspDetector(tmp_path / 'model.safetensors', threads=1, precision='fp32')
    eager._model.tracer = None
    for frame in (with_depth, without, with_depth, without, with_depth):
        a, b = (d.detect(frame, minimum_score=0.0, need_pose=False) for d in (traced, eager))
        assert len(a.candidates) == len(b.candidates) > 0
        for x, y in zip(a.candidates, b.candidates, strict=True):
            assert x.score == pytest.approx(y.score, abs=1e-4)
            assert x.rectangle.x == pytest.approx(y.rectangle.x, abs=0.1)


# ---------------------------------------------------------------------------- commands
@pytest.fixture(scope='module')
def simulated(tmp_path_factory):
    """Two labelled scenes."""
    folder = tmp_path_factory.mktemp('simulated')
    generate_dataset(folder, 2, seed=78, progress=False)
    return folder


def _train(simulated, out, *arguments):
    return CliRunner().invoke(main, [
        'train', '--data', str(simulated), '--images', '4', '--batch', '2', '--set',
        'augmentation.size=128', '--out', str(out), *map(str, arguments)])


def test_a_network_goes_on_with_photographs_and_a_teacher(simulated, pretrained, tmp_path):
    torch.manual_seed(0)
    path = tmp_path / 'start.safetensors'
    checkpoint.save(path, MultiStageSTN(SMALL))
    run = _train(simulated, tmp_path / 'out', '--finetune', path, '--photographs', pretrained[0],
                 '--teacher', path, '--set', 'augmentation.no_depth=0.5')
    assert run.exit_code == 0, run.output
    model, sidecar = checkpoint.load(tmp_path / 'out' / 'model.safetensors')
    assert model.config == replace(SMALL, photographs=True)
    assert sidecar['training']['teachers'] == [checkpoint.read_sidecar(path)['sha256']]
    assert sidecar['training']['augmentation']['whole'] is True
    # Not trained, and in the weights: the next training needs no other file.
    for name, value in pretrained[1].state_dict().items():
        if not name.endswith('num_batches_tracked'):
            assert torch.equal(model.trunk.photographs.state_dict()[name], value), name
    run = _train(simulated, tmp_path / 'on', '--finetune',
                 tmp_path / 'out' / 'model.safetensors')
    assert run.exit_code == 0, run.output
    assert checkpoint.load(tmp_path / 'on' / 'model.safetensors')[0].config.photographs


def test_a_training_by_other_teachers_is_another_training(simulated, tmp_path):
    torch.manual_seed(0)
    for name in ('a', 'b'):
        checkpoint.save(tmp_path / f'{name}.safetensors', MultiStageSTN(SMALL))
    start = '--finetune', tmp_path / 'a.safetensors'
    assert _train(simulated, tmp_path / 'out', *start, '--teacher',
                  tmp_path / 'a.safetensors').exit_code == 0
    run = _train(simulated, tmp_path / 'out', *start, '--teacher', tmp_path / 'b.safetensors')
    assert run.exit_code == 1 and 'with other teachers;' in run.output


def test_what_cannot_teach_or_learn_is_refused(simulated, pretrained, tmp_path):
    other = TRAINABLE['regression'].network()
    checkpoint.save(tmp_path / 'other.safetensors', other)
    run = _train(simulated, tmp_path / 'a', '--teacher', tmp_path / 'other.safetensors')
    assert run.exit_code == 1 and 'no answers that a MultiStageSTN could learn' in run.output
    checkpoint.save(tmp_path / 'model.safetensors', MultiStageSTN(SMALL))
    run = _train(simulated, tmp_path / 'b', '--system', 'regression', '--teacher',
                 tmp_path / 'model.safetensors')
    assert run.exit_code == 1 and 'cannot be taught' in run.output
    # A loss that broadcasts would compare some channels with all others.
    checkpoint.save(tmp_path / 'broad.safetensors', MultiStageSTN(replace(SMALL, features=1)))
    run = _train(simulated, tmp_path / 'd', '--finetune', tmp_path / 'model.safetensors',
                 '--teacher', tmp_path / 'broad.safetensors', '--set', 'losses.features=1')
    assert run.exit_code == 1 and 'as many features, these have 1, 16' in run.output
    run = _train(simulated, tmp_path / 'c', '--system', 'regression', '--photographs',
                 pretrained[0])
    assert run.exit_code == 1 and 'features of photographs' in run.output
    for start in ((), ('--finetune', tmp_path / 'model.safetensors')):
        run = _train(simulated, tmp_path / 'd', *start, '--set', 'model.photographs=true')
        assert run.exit_code == 2 and 'needs --photographs' in run.output


# ---------------------------------------------------------------------------- two networks in one
@pytest.fixture(scope='module')
def joined(network, tmp_path_factory):
    """Join a network for images with depth and one, with photographs, for those without."""
    folder = tmp_path_factory.mktemp('joined')
    torch.manual_seed(3)
    checkpoint.save(folder / 'depth.safetensors', MultiStageSTN(SMALL),
                    {'data': 'rooms', 'training': {'images': 7}})
    checkpoint.save(folder / 'colours.safetensors', network[0], {'training': {'images': 9}})
    model, notes = join_networks(folder / 'depth.safetensors', folder / 'colours.safetensors')
    checkpoint.save(folder / 'joined.safetensors', model, notes)
    return folder


def test_each_network_answers_for_its_own_images(joined):
    rgb = np.random.default_rng(1).integers(0, 255, (480, 640, 3), np.uint8)
    depth = np.full((480, 640), 0.8, np.float32)
    depth[200:260, 280:360] = 0.75
    intrinsics = CameraIntrinsics(525, 525, 319.5, 239.5)
    whole, colours = RgbdFrame(rgb, depth, intrinsics), RgbdFrame(rgb, None, intrinsics)
    blind = RgbdFrame(rgb, np.full_like(depth, np.nan), intrinsics)
    detectors = {name: GraspDetector(joined / f'{name}.safetensors', threads=1, precision='fp32')
                 for name in ('joined', 'depth', 'colours')}
    both = detectors.pop('joined')
    for frame, name in ((whole, 'depth'), (colours, 'colours'), (blind, 'colours'),
                        (whole, 'depth')):
        a, b = (d.detect(frame, minimum_score=0.0, need_pose=False)
                for d in (both, detectors[name]))
        assert len(a.candidates) == len(b.candidates) > 0
        for x, y in zip(a.candidates, b.candidates, strict=True):
            assert x.score == pytest.approx(y.score, abs=1e-4)
            assert x.rectangle.x == pytest.approx(y.rectangle.x, abs=0.1)


def test_what_is_joined_says_how_both_were_trained(joined):
    model, sidecar = checkpoint.load(joined / 'joined.safetensors')
    assert model.config == replace(SMALL, photographs=True, without_depth=True)
    assert sidecar['training'] == {'images': 7, 'without_depth': {'images': 9}}
    assert sidecar['data'] == 'rooms'
    # Features of photographs are only where they are used.
    assert model.trunk.photographs is None
    assert model.without_depth.trunk.photographs is not None


def test_what_was_joined_comes_apart_and_another_may_take_a_place(joined, tmp_path):
    script = load_script('split_networks')
    taught = MultiStageSTN(replace(SMALL, photographs=True, without_depth=True,
                                   finger_depths=(0.02, 0.04), calibration=(2.0, 0.5),
                                   seen_jaw=9.0))
    model, sidecar = checkpoint.load(joined / 'joined.safetensors')
    taught.load_state_dict(model.state_dict(), strict=False)
    checkpoint.save(tmp_path / 'taught.safetensors', taught,
                    {**checkpoint.notes(sidecar), 'metrics': {'lift': {'lift': 0.9}}})
    arguments = [str(tmp_path / 'taught.safetensors'), '--out', str(tmp_path)]
    done = CliRunner().invoke(script.main, arguments)
    assert done.exit_code == 0, done.output
    for name, original in zip(script.NAMES, ('depth', 'colours'), strict=True):
        part, notes = checkpoint.load(tmp_path / name)
        whole, before = checkpoint.load(joined / f'{original}.safetensors')
        # How views with depth have to be is of the network that sees it.
        assert part.config == replace(whole.config, seen_jaw=9.0 * (original == 'depth'))
        assert notes['training'] == before['training']
        assert notes['data'] == 'rooms' and 'metrics' not in notes
        assert checkpoint.digest(part) == checkpoint.digest(whole)
    again = CliRunner().invoke(script.main, arguments)
    assert again.exit_code == 1 and 'exists' in again.output
    with torch.no_grad():
        part.trunk.stage4[0].conv.weight.add_(1.0)
    part.config = replace(part.config, told_jaw=14.0)
    checkpoint.save(tmp_path / 'better.safetensors', part, {'training': {'images': 11}})
    renewed, notes = join_networks(tmp_path / 'taught.safetensors',
                                   tmp_path / 'better.safetensors')
    # What the size of the jaws is good for goes with the network that is told it.
    assert renewed.config == replace(taught.config, told_jaw=14.0)
    assert notes['training']['without_depth'] == {'images': 11}
    assert 'metrics' not in notes, 'they are of another network'
    for name, value in renewed.state_dict().items():
        assert torch.equal(value, taught.state_dict()[name]) \
            != (name == 'without_depth.trunk.stage4.0.conv.weight')
    checkpoint.save(tmp_path / 'renewed.safetensors', renewed)
    with_depth, without = split_networks(tmp_path / 'renewed.safetensors')
    assert (with_depth[0].config.told_jaw, without[0].config.told_jaw) == (0.0, 14.0)
    assert answers_alike_with_depth(*(tmp_path / f'{name}.safetensors'
                                      for name in ('renewed', 'taught')))
    mean, _ = average_weights([joined / 'colours.safetensors', tmp_path / 'better.safetensors'])
    assert mean.config == part.config


@pytest.mark.parametrize('scale, expected', [((), 9.0), (('--seen-jaw', 7.5), 7.5),
                                             (('--seen-jaw', 0), 0.0)])
def test_what_is_joined_may_be_shown_its_images_at_another_scale(joined, tmp_path, scale,
                                                                 expected):
    trained = checkpoint.load(joined / 'depth.safetensors')[0]
    trained.config = replace(trained.config, seen_jaw=9.0)
    checkpoint.save(tmp_path / 'depth.safetensors', trained)
    done = CliRunner().invoke(load_script('join_networks').main, [
        *map(str, (tmp_path / 'depth.safetensors', joined / 'colours.safetensors')),
        '--out', str(tmp_path / 'out.safetensors'), *map(str, scale)])
    assert done.exit_code == 0, done.output
    assert checkpoint.load(tmp_path / 'out.safetensors')[0].config.seen_jaw == expected


def test_results_with_depth_outlive_another_network_for_images_without(joined, tmp_path):
    pair = joined / 'joined.safetensors'
    colours = checkpoint.load(joined / 'colours.safetensors')[0]
    with torch.no_grad():
        colours.trunk.stage4[0].conv.weight.add_(1.0)
    checkpoint.save(tmp_path / 'colours.safetensors', colours)
    depth = checkpoint.load(joined / 'depth.safetensors')[0]
    with torch.no_grad():
        depth.trunk.stage4[0].conv.weight.add_(1.0)
    checkpoint.save(tmp_path / 'depth.safetensors', depth)
    for name, parts in (('renewed', (pair, tmp_path / 'colours.safetensors')),
                        ('other', (tmp_path / 'depth.safetensors',
                                   joined / 'colours.safetensors'))):
        checkpoint.save(tmp_path / f'{name}.safetensors', join_networks(*parts)[0])
    for name, of in (('both', {'modality': 'rgbd'}), ('colours', {'modality': 'rgb'}),
                     ('some', {'modality': 'rgbd', 'plain_rgbd': 0.5, 'n_rgbd': 2})):
        (tmp_path / f'{name}.json').write_text(json.dumps(
            {'plain': 0.5, 'n': 4, 'split': 'x', 'command': 'c', 'commit': 'd', 'seed': 1,
             'machine': {'cpu': 'e'}, **of,
             'weights_sha256': checkpoint.read_sidecar(pair)['sha256']}))

    def publish(weights, result, *more):
        return CliRunner().invoke(main, [
            'publish', str(tmp_path / weights), '--out', str(tmp_path / 'out.safetensors'),
            '--data', 'rooms', '--result', str(tmp_path / result), *map(str, more)])

    for arguments, message in (
            (('renewed.safetensors', 'both.json'), 'result of other weights'),
            (('renewed.safetensors', 'colours.json', '--formerly', pair),
             'result of other weights'),
            (('renewed.safetensors', 'some.json', '--formerly', pair), 'result of other weights'),
            (('other.safetensors', 'both.json', '--formerly', pair), 'differs from'),
            (('renewed.safetensors', 'both.json', '--formerly', joined / 'depth.safetensors'),
             'differs from')):
        refused = publish(*arguments)
        assert refused.exit_code == 1 and message in refused.output, arguments
        assert not (tmp_path / 'out.safetensors').exists()
    done = publish('renewed.safetensors', 'both.json', '--formerly', pair)
    assert done.exit_code == 0, done.output
    assert checkpoint.read_sidecar(tmp_path / 'out.safetensors')['metrics']['both']['plain'] == 0.5


@pytest.mark.parametrize(('no_depth', 'trained'), [(0.0, (True, False)), (1.0, (False, True)),
                                                   (0.5, (True, True))])
def test_a_joined_network_goes_on_with_each_image_where_it_belongs(simulated, joined, tmp_path,
                                                                   no_depth, trained):
    before = checkpoint.load(joined / 'joined.safetensors')[0]
    run = _train(simulated, tmp_path / 'out', '--finetune', joined / 'joined.safetensors', '--set',
                 f'augmentation.no_depth={no_depth}', '--set', 'augmentation.no_colour=0',
                 '--set', 'training.weight_decay=0', '--images', '8', '--batch', '4')
    assert run.exit_code == 0, run.output
    after = checkpoint.load(tmp_path / 'out' / 'model.safetensors')[0]
    for changed, old, new in ((trained[0], before.trunk.stage4, after.trunk.stage4),
                              (trained[1], before.without_depth.trunk.stage4,
                               after.without_depth.trunk.stage4)):
        assert changed != torch.equal(old[0].conv.weight, new[0].conv.weight)


def test_the_losses_of_both_are_weighed_by_their_images(joined):
    model = checkpoint.load(joined / 'joined.safetensors')[0].eval()
    image = _image(4)
    image[1:, 3:] = 0
    rectangles = torch.tensor([48.0, 40.0, 0.3, 20.0, 10.0]).expand(4, 2, 5).clone()
    batch = Batch(image, rectangles, torch.ones(4, 2), torch.ones(4, 2, dtype=torch.bool),
                  torch.zeros(4))
    assert batch.with_depth.tolist() == [True, False, False, False]
    phase = Phase('crop', 1.0, frozenset({'crop'}))
    found = multi_stage(model, batch, phase, LossSettings())['crop']
    alone = [multi_stage(model, batch.part(which), phase, LossSettings())['crop']
             for which in (batch.with_depth, ~batch.with_depth)]
    assert torch.allclose(found, 0.25 * alone[0] + 0.75 * alone[1])


@pytest.mark.parametrize(('augmentation', 'modality'), [
    (Augmentation(no_depth=0.95), 'rgb'), (Augmentation(no_depth=0.4), 'rgbd'),
    (FixedView(), 'rgbd')])
def test_a_network_for_images_without_depth_is_watched_without_depth(monkeypatch, augmentation,
                                                                     modality):
    seen = []
    monkeypatch.setattr(validation, 'judge', lambda detector, data: seen.append(
        (detector.modality, data)) or [])
    settings = TrainingSettings(augmentation=augmentation)
    figures = validation.validator(SHIPPED, settings, ['frame'])(MultiStageSTN(SMALL))
    assert figures == {'n': 0} and seen == [(modality, ['frame'])]


def test_a_joined_teacher_teaches_each_image_by_the_network_meant_for_it(joined):
    # As a training leaves it: several threads sum up three images in another order than two.
    torch.set_num_threads(1)
    pair = Teachers.load([joined / 'joined.safetensors'])
    image = _image(3)
    image[1, 3:] = 0
    batch = Batch(image, torch.zeros(3, 1, 5), torch.zeros(3, 1),
                  torch.zeros(3, 1, dtype=torch.bool), torch.zeros(3))
    batch.whole, batch.images = image, image.clone()
    batch.images[:, 3:] = 0    # what is kept from the one that learns decides nothing
    lessons = pair.look_at(batch)
    assert [lesson.which.tolist() for lesson in lessons] == [[True, False, True],
                                                             [False, True, False]]
    maps, features = torch.randn(3, 3, 24, 24), torch.randn(3, SMALL.features, 24, 24)
    for lesson, name in zip(lessons, ('depth', 'colours'), strict=True):
        alone, = Teachers.load([joined / f'{name}.safetensors']).look_at(batch.part(lesson.which))
        assert float(lesson.share) == pytest.approx(len(alone.images) / 3)
        of_its_own = Teachers.load([joined / f'{name}.safetensors']).look_at(batch)[0]
        assert torch.allclose(lesson.features[0], of_its_own.features[0][lesson.which], atol=1e-5)
        assert torch.allclose(lesson.crop_loss(maps), alone.crop_loss(maps[lesson.which]))
        assert torch.allclose(lesson.trunk_loss(features),
                              alone.trunk_loss(features[lesson.which]))


def test_what_cannot_be_joined_or_go_on_joined_is_refused(simulated, joined, pretrained,
                                                          tmp_path):
    pair = joined / 'joined.safetensors'
    with pytest.raises(checkpoint.CheckpointError, match='a single MultiStageSTN'):
        join_networks(joined / 'depth.safetensors', pair)
    with pytest.raises(checkpoint.CheckpointError, match='one network, not two'):
        split_networks(joined / 'depth.safetensors')
    checkpoint.save(tmp_path / 'wide.safetensors', MultiStageSTN(replace(SMALL, width=0.5)))
    with pytest.raises(checkpoint.CheckpointError, match='another network than'):
        join_networks(joined / 'depth.safetensors', tmp_path / 'wide.safetensors')
    run = _train(simulated, tmp_path / 'b', '--finetune', pair, '--photographs', pretrained[0])
    assert run.exit_code == 1 and 'photographs already' in run.output

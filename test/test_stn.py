"""Spatial transformers, the network's stages, targets and weights on disk."""

import copy
from dataclasses import replace
import json
import math
import warnings

import numpy as np
import pytest
import torch

from grasp_stn_ros.atomic import write_together
from grasp_stn_ros.detection import Candidate
from grasp_stn_ros.detector import GraspDetector, choose, default_weights
from grasp_stn_ros.evaluation.benchmark import frames
from grasp_stn_ros.preprocessing import preprocess
from grasp_stn_ros.reasons import GraspError, Reason
from grasp_stn_ros.rectangle import GraspRectangle, iou
from grasp_stn_ros.rgbd import CameraIntrinsics, RgbdFrame
from grasp_stn_ros.stn import checkpoint, transformer
from grasp_stn_ros.stn.backbone import (
    ConvBlock,
    PackedConv,
    fold_batch_norm,
    pack_convolutions,
    round_to_bf16,
)
from grasp_stn_ros.stn.multi_stage import ModelConfig, MultiStageSTN
from grasp_stn_ros.stn.stages import STNCrop, STNRotation, STNScaleCrop
from grasp_stn_ros.stn.tracing import Tracer
from grasp_stn_ros.training import targets


@pytest.fixture(scope='module')
def small():
    """A narrow, untrained network."""
    torch.manual_seed(0)
    return MultiStageSTN(ModelConfig(width=0.25, features=16, fine_channels=8)).eval()


def test_sampler_reads_the_pixels_that_the_pose_names():
    # The image's values are its own x and y coordinates.
    line = torch.arange(64.0)
    image = torch.stack([line[None].expand(64, 64), line[:, None].expand(64, 64)])[None]
    pose = torch.tensor([[[[10.0, 0, 30], [0, 5, 20]]]])
    patch = transformer.sample(image, pose, 5, 64)
    # Sample i of 5 lies at u = (2 i + 1) / 5 - 1 = -0.8 ... 0.8.
    assert torch.allclose(patch[0, 0, 0], torch.tensor([22.0, 26, 30, 34, 38]), atol=1e-4)
    assert torch.allclose(patch[0, 1, :, 0], torch.tensor([16.0, 18, 20, 22, 24]), atol=1e-4)


def test_sampler_agrees_for_features_of_another_stride():
    # A cell of stride 4 covers pixels 4 i ... 4 i + 3, whose mean coordinate is 4 i + 1.5.
    features = (torch.arange(16.0) * 4 + 1.5)[None].expand(16, 16)[None, None]
    pose = transformer.place(torch.tensor([[[30.0, 31.0]]]), 8.0)
    patch = transformer.sample(features, pose, 4, 64)
    assert torch.allclose(patch[0, 0, 0], torch.tensor([24.0, 28, 32, 36]), atol=1e-4)


def test_rotated_patch_has_u_along_the_opening():
    line = torch.arange(64.0)
    image = torch.stack([line[None].expand(64, 64), line[:, None].expand(64, 64)])[None]
    pose = transformer.rotate(transformer.place(torch.tensor([[[30.0, 30.0]]]), 10.0),
                              torch.tensor([[math.pi / 2]]))
    patch = transformer.sample(image, pose, 3, 64)[0]
    # A quarter turn: along u (columns) the image's y grows, along v (rows) its x falls.
    assert torch.allclose(patch[1, 1], 30 + torch.tensor([-1, 0, 1]) * 20 / 3, atol=1e-4)
    assert torch.allclose(patch[0, :, 1], 30 - torch.tensor([-1, 0, 1]) * 20 / 3, atol=1e-4)


def test_outside_the_view_is_zero():
    pose = transformer.place(torch.tensor([[[500.0, 500.0]]]), 10.0)
    assert (transformer.sample(torch.ones(1, 2, 16, 16), pose, 4, 64) == 0).all()


def test_poses_and_rectangles_are_inverse():
    rectangles = torch.rand(3, 4, 5) * 50 + 5
    rectangles[..., 2] = torch.rand(3, 4) * 3 - 1.5
    back = transformer.to_rectangles(transformer.from_rectangles(rectangles))
    assert torch.allclose(back, rectangles, atol=1e-4)


def test_composed_transforms_reach_the_encoded_rectangle(small):
    locations, theta = torch.rand(2, 3, 2) * 300, torch.rand(2, 3) * 3 - 1.5
    target = torch.rand(2, 3, 5) * 20 + 10
    target[..., 2] = theta + torch.rand(2, 3) * 0.5
    fitted = small.fitted_rectangles(locations, theta,
                                     STNScaleCrop.encode(locations, theta, target))
    for a, b in zip(fitted.reshape(-1, 5).tolist(), target.reshape(-1, 5).tolist(),
                    strict=True):
        assert iou(GraspRectangle(*a), GraspRectangle(*b)) == pytest.approx(1, abs=1e-4)


def test_gradient_of_the_fit_reaches_location_and_angle(small):
    image = torch.randn(1, 7, 64, 64)
    features = small.trunk(image)
    locations = torch.tensor([[[30.0, 30.0]]], requires_grad=True)
    theta = torch.tensor([[0.3]], requires_grad=True)
    small.fit_parameters(features, image, locations, theta).sum().backward()
    assert locations.grad.abs().sum() > 0 and theta.grad.abs().sum() > 0


def test_what_is_compared_or_added_stays_in_single_precision(small):
    model = round_to_bf16(copy.deepcopy(small))
    assert model.rotation.network.output.weight.dtype is torch.bfloat16
    torch.manual_seed(2)
    features, patches, extent = torch.randn(1, 16, 12, 12), torch.randn(3, 24, 16, 16), \
        torch.full((3, 2), 20.0)
    coarse = torch.randn(1, small.trunk.lateral16.in_channels, 3, 3)
    with torch.no_grad():
        exact = small.crop(features), small.classifier(patches, extent), \
            small.trunk.lateral16(coarse)
        with torch.autocast('cpu', torch.bfloat16):
            rounded = model.crop(features), model.classifier(patches, extent), \
                model.trunk.lateral16(coarse)
    assert all(torch.equal(a, b) for a, b in zip(exact, rounded, strict=True))


def test_peaks_of_a_hand_made_map():
    maps = torch.full((1, 3, 20, 20), 0.0)
    maps[:, 0] = -10
    maps[0, 0, 4, 7], maps[0, 0, 15, 2] = 3.0, 5.0
    maps[0, 0, 4, 8] = 2.9                       # beside a higher one: no peak
    maps[0, 1, 15, 2] = 0.5
    locations, logits = STNCrop.propose(maps, 3)
    # Cell (column 2, row 15), offset half a cell: x = (2 + 0.5 + 0.5) * 4 - 0.5.
    assert torch.allclose(locations[0, 0], torch.tensor([11.5, 61.5]))
    assert torch.allclose(locations[0, 1], torch.tensor([29.5, 17.5]))
    assert logits[0, :2].tolist() == [5.0, 3.0] and logits[0, 2] == -10


def test_fewer_peaks_than_asked_for_get_no_score(small):
    image = torch.zeros(1, 7, 64, 64)
    outputs = small(image, candidates=200)
    missing = outputs.location_logits < -1e3
    assert missing.any() and (outputs.scores[missing] == 0).all()
    assert torch.isfinite(outputs.rectangles).all()


@pytest.mark.parametrize('degrees', [-90, -85, -44, 0, 5, 33, 89])
def test_angle_bins_decode_to_the_angle_they_encode(degrees):
    theta = math.radians(degrees)
    label = torch.tensor([[[50.0, 50.0, theta, 20.0, 10.0]]])
    yes = torch.ones(1, 1, dtype=torch.bool)
    bins, near = targets.angle_bins(torch.tensor([[[50.0, 50.0]]]), label, torch.ones(1, 1), yes)
    decoded = STNRotation.decode(torch.logit(bins.clamp(1e-6, 1 - 1e-6)))[0, 0, 0]
    difference = targets.angle_difference(decoded, torch.tensor(theta)).abs()
    # Three bins of 10 degrees carry the bell's mean to within 2 degrees; stage 3 does the rest.
    assert near == 1 and math.degrees(difference) < 2.0


def test_second_angle_differs_from_the_first():
    logits = torch.full((1, STNRotation.BINS), -6.0)
    logits[0, 2], logits[0, 11] = 4.0, 3.0
    first, second = (math.degrees(v) for v in STNRotation.decode(logits, 2)[0])
    assert first == pytest.approx(20, abs=1) and second % 180 == pytest.approx(110, abs=1)


def test_location_target_peaks_at_the_label():
    label = torch.tensor([[[41.5, 21.5, 0.0, 20.0, 10.0], [10.0, 10.0, 0.0, 20.0, 10.0]]])
    wanted = torch.tensor([[True, False]])
    heat, offset, counts = targets.location_maps(label, torch.ones(1, 2), wanted, 16)
    # (41.5, 21.5) is the centre of cell (column 10, row 5).
    assert heat[0, 5, 10] == pytest.approx(1) and heat[0].argmax() == 5 * 16 + 10
    assert heat[0, 2, 2] < 0.01 and counts[0, 5, 10] == 1
    assert torch.allclose(offset[0, :, 5, 10], torch.zeros(2), atol=1e-5)
    assert offset[0, 0, 5, 9] == pytest.approx(1)


def test_approximate_iou_is_close_to_the_exact_one():
    rng = np.random.default_rng(0)
    a = rng.uniform([40, 40, -1.5, 20, 8], [60, 60, 1.5, 40, 16], (1, 20, 5))
    b = rng.uniform([40, 40, -1.5, 20, 8], [60, 60, 1.5, 40, 16], (1, 20, 5))
    approximate = targets.approximate_iou(torch.tensor(a), torch.tensor(b))[0].numpy()
    exact = [[iou(GraspRectangle(*p), GraspRectangle(*q)) for q in b[0]] for p in a[0]]
    assert np.abs(approximate - exact).max() < 0.12
    assert np.abs(approximate - exact).mean() < 0.02


def test_quality_of_good_failed_and_far_candidates():
    labels = torch.tensor([[[50.0, 50, 0, 30, 12], [100.0, 50, 0, 30, 12]]])
    success = torch.tensor([[1.0, 0.0]])
    present = torch.ones(1, 2, dtype=torch.bool)
    candidates = torch.cat([labels, labels[:, :1] + torch.tensor([0.0, 0, 1.5, 0, 0]),
                            labels[:, :1] + 300], dim=1)
    match, lift, weight = targets.grasp_quality(candidates, labels, success, success > 0.5,
                                                present)
    assert match[0].tolist() == pytest.approx([1, 0, 0, 0])
    assert lift[0, :2].tolist() == pytest.approx([1, 0], abs=1e-4)
    assert weight[0].tolist() == pytest.approx([1, 1, 0, 0])


def test_folded_batch_norm_changes_nothing(small):
    image = torch.randn(1, 7, 96, 96)
    before = small(image)
    copy = MultiStageSTN(small.config)
    copy.load_state_dict(small.state_dict())
    after = fold_batch_norm(copy.eval())(image)
    assert torch.allclose(before.rectangles, after.rectangles, atol=1e-2)
    assert torch.allclose(before.scores, after.scores, atol=1e-4)


# ---------------------------------------------------------------- weights on disk
def test_weights_round_trip(small, tmp_path):
    path = tmp_path / 'net.safetensors'
    checkpoint.save(path, small, {'licence': 'Apache-2.0'})
    loaded, sidecar = checkpoint.load(path)
    assert sidecar['licence'] == 'Apache-2.0'
    for name, value in small.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    assert not list(tmp_path.glob('*.tmp'))


def test_weights_that_cannot_be_written_leave_the_earlier_ones(small, tmp_path):
    path = tmp_path / 'net.safetensors'
    checkpoint.save(path, small, {'licence': 'Apache-2.0'})
    other = MultiStageSTN(small.config)
    with pytest.raises(TypeError):
        checkpoint.save(path, other, {'licence': object()})
    assert checkpoint.digest(checkpoint.load(path)[0]) == checkpoint.digest(small)
    # A file that is left from an interruption does not belong to the other one.
    checkpoint.save(tmp_path / 'other.safetensors', other)
    (tmp_path / 'other.safetensors').replace(path)
    with pytest.raises(checkpoint.CheckpointError, match='interrupted, write them again'):
        checkpoint.load(path)


def test_files_are_written_together_or_not_at_all(tmp_path):
    first, second = tmp_path / 'a', tmp_path / 'missing' / 'b'
    first.write_bytes(b'before')
    with pytest.raises(OSError):
        write_together({first: b'after', second: b'after'})
    assert first.read_bytes() == b'before' and [p.name for p in tmp_path.iterdir()] == ['a']
    second.parent.mkdir()
    write_together({first: b'after', second: b'after'})
    assert first.read_bytes() == second.read_bytes() == b'after'


def test_weights_are_not_replaced_by_others(small, tmp_path):
    path = tmp_path / 'net.safetensors'
    checkpoint.require_new(path)
    checkpoint.save(path, small)
    assert checkpoint.digest(small) == checkpoint.read_sidecar(path)['sha256']
    checkpoint.require_new(path, small)
    calibrated = MultiStageSTN(replace(small.config, calibration=(2.0, 1.0)))
    calibrated.load_state_dict(small.state_dict())
    for other in (None, MultiStageSTN(small.config), calibrated):
        with pytest.raises(checkpoint.CheckpointError, match='net.safetensors exists'):
            checkpoint.require_new(path, other)
    path.unlink()
    with pytest.raises(checkpoint.CheckpointError, match='net.json exists'):
        checkpoint.require_new(path, small)


def _edit(path, change):
    sidecar = json.loads(path.with_suffix('.json').read_text())
    change(sidecar)
    path.with_suffix('.json').write_text(json.dumps(sidecar))


@pytest.mark.parametrize('damage, message', [
    (lambda p: p.write_bytes(p.read_bytes()[:1000]), 'corrupt'),
    (lambda p: p.write_bytes(b''), 'corrupt'),
    (lambda p: p.unlink(), 'net.safetensors is missing'),
    (lambda p: p.with_suffix('.json').unlink(), 'net.json is missing'),
    (lambda p: p.with_suffix('.json').write_text('{'), 'cannot be read'),
    (lambda p: p.with_suffix('.json').write_text('[]'), 'format'),
    (lambda p: _edit(p, lambda s: s.update(format='other/9')), 'other/9'),
    (lambda p: _edit(p, lambda s: s.pop('sha256')), "no 'sha256'"),
    (lambda p: _edit(p, lambda s: s['preprocessing'].update(version=99)), 'preprocessing'),
    (lambda p: _edit(p, lambda s: s['config'].update(features=32)), 'does not fit'),
    (lambda p: _edit(p, lambda s: s['config'].update(surprise=1)), 'does not fit')])
def test_damaged_weights_are_refused_by_name(small, tmp_path, damage, message):
    path = tmp_path / 'net.safetensors'
    checkpoint.save(path, small)
    damage(path)
    with pytest.raises(checkpoint.CheckpointError, match=message):
        checkpoint.load(path)


def test_weights_that_are_not_finite_are_refused(small, tmp_path):
    broken = MultiStageSTN(small.config)
    with torch.no_grad():
        broken.crop.output.bias[0] = math.nan
    checkpoint.save(tmp_path / 'net.safetensors', broken)
    with pytest.raises(checkpoint.CheckpointError, match='not finite in crop.output.bias'):
        checkpoint.load(tmp_path / 'net.safetensors')


def test_pickled_weights_are_never_loaded(tmp_path):
    path = tmp_path / 'net.pt'
    torch.save({}, path)
    with pytest.raises(checkpoint.CheckpointError, match='pickled weights are not loaded'):
        checkpoint.load(path)


# ---------------------------------------------------------------- the detector
def _frame(**changes):
    depth = np.full((480, 640), 0.8, np.float32)
    depth[220:260, 300:340] = 0.76
    fields = {'rgb': np.full((480, 640, 3), 128, np.uint8), 'depth': depth,
              'intrinsics': CameraIntrinsics(525.0, 525.0, 319.5, 239.5)}
    return RgbdFrame(**{**fields, **changes})


def test_detector_returns_candidates_in_image_pixels_in_order(small):
    detector = GraspDetector(small, candidates=6)
    detection = detector.detect(_frame(), need_pose=False)
    scores = [c.score for c in detection.candidates]
    assert scores == sorted(scores, reverse=True) and 0 < len(scores) <= 6
    assert detection.region == pytest.approx((80, 0, 480, 480))
    for candidate in detection.candidates:
        assert 60 < candidate.location[0] < 580 and -20 < candidate.location[1] < 500
    assert set(detection.milliseconds) == {'preprocessing', 'trunk', 'stn_crop', 'stn_rotation',
                                           'stn_scale_crop', 'classifier', 'grasp_pose'}


def test_detector_says_why_there_is_no_grasp(small):
    detector = GraspDetector(small)
    detection = detector.detect(_frame(), minimum_score=0.9999)
    assert detection.best is None and detection.reason is Reason.NO_CANDIDATE
    assert 'minimum score 0.9999' in detection.message
    # 200 px at 0.76 m and f = 525 px are 290 mm.
    wide = Candidate((319.5, 239.5), 1.0, 0.0, GraspRectangle(319.5, 239.5, 0.0, 200.0, 14.0), 0.9)
    refused = detector._with_poses([wide], _frame(), preprocess(_frame()))
    assert choose(refused, 0.2, need_pose=True) == (
        None, Reason.TOO_WIDE, f'{Reason.TOO_WIDE.sentence} (the only candidate: 290 mm wide, '
                               'the gripper opens 85 mm)')
    without_camera = detector.detect(_frame(intrinsics=None))
    assert without_camera.best is None
    assert without_camera.reason is Reason.INVALID_INTRINSICS
    assert detector.detect(_frame(depth=None)).reason is Reason.NO_DEPTH
    # As the node: of depth without one valid pixel it is not the approach that is wrong.
    blind = np.full((480, 640), np.nan, np.float32)
    assert detector.detect(_frame(depth=blind)).reason is Reason.NO_DEPTH
    blind[:, :80] = 0.8         # beside the view
    assert detector.detect(_frame(depth=blind)).reason is Reason.NO_DEPTH
    colours = GraspDetector(small, modality='rgb', approach='optical_axis')
    assert colours.detect(_frame()).reason is not Reason.NO_DEPTH
    assert detector.detect(_frame(depth=None), need_pose=False).best is not None


@pytest.mark.parametrize('region', [(-1, 0, 100, 100), (600, 0, 100, 100), (0, 0, 10, 10),
                                    (0, 0, math.nan, 100)])
def test_regions_that_do_not_fit_are_refused(small, region):
    with pytest.raises(GraspError) as error:
        GraspDetector(small).detect(_frame(), region=region)
    assert error.value.reason is Reason.INVALID_REQUEST


def test_candidates_stay_in_the_region(small):
    region = (250.0, 100.0, 200.0, 60.0)
    detection = GraspDetector(small, candidates=32).detect(_frame(), region=region,
                                                           need_pose=False)
    for candidate in detection.candidates:
        assert 249.5 <= candidate.rectangle.x <= 449.5
        assert 99.5 <= candidate.rectangle.y <= 159.5


@pytest.mark.parametrize('arguments, message', [
    ({'approach': 'sideways'}, 'approach'), ({'precision': 'int4'}, 'precision'),
    ({'device': 'tpu'}, 'device'), ({'candidates': 1000}, 'candidates')])
def test_detector_refuses_settings_by_name(small, arguments, message):
    with pytest.raises(ValueError, match=message):
        GraspDetector(small, **arguments)


def _detections(detector, tracer, images):
    detector._model.tracer = tracer
    return [detector.detect(image) for image in images]


def test_traced_stages_answer_as_the_untraced_ones():
    """To the last digits, for every K and precision: what is exact in bf16 remains so."""
    images = frames(3)
    for precision in ('fp32', 'bf16'):
        detector = GraspDetector(precision=precision, threads=1)
        assert isinstance(detector._model.tracer, Tracer)
        for count in (8, 3):
            detector.candidates = count
            traced = _detections(detector, Tracer(detector._model, precision == 'bf16'), images)
            for a, b in zip(traced, _detections(detector, None, images), strict=True):
                assert len(a.candidates) == len(b.candidates) <= count
                assert list(a.milliseconds) == list(b.milliseconds)
                np.testing.assert_allclose(a.best.rectangle.as_array(),
                                           b.best.rectangle.as_array(), atol=1e-3)
                assert a.best.score == pytest.approx(b.best.score, abs=1e-4)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_packed_convolutions_answer_as_plain_ones(dtype):
    """With and without a ReLU, for sizes they were packed for and others; unused ones remain."""
    network = torch.nn.Sequential(ConvBlock(7, 16, 6, 4), ConvBlock(16, 16, activate=False),
                                  torch.nn.Conv2d(16, 24, 1, groups=2), ConvBlock(24, 8))
    network = fold_batch_norm(network.eval()).requires_grad_(False).to(dtype)
    packed = copy.deepcopy(network)
    images = torch.randn(2, 7, 64, 64, dtype=dtype), torch.randn(3, 7, 40, 48, dtype=dtype)
    with torch.inference_mode():
        pack_convolutions(packed, lambda: packed[:3](images[0]))
        kinds = [type(m) for m in packed.modules() if isinstance(m, torch.nn.Conv2d | PackedConv)]
        # Without AVX-512 oneDNN has none in bf16, and nothing is to change.
        there = dtype is torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
        kind = PackedConv if there else torch.nn.Conv2d
        assert kinds == [kind, kind, kind, torch.nn.Conv2d]
        for image in images:
            expected = network[:3](image)
            assert (expected < 0).any() and (network[:1](image) == 0).any()
            torch.testing.assert_close(packed[:3](image.float() if there else image), expected)


def test_packed_weights_answer_as_shipped_ones():
    """All of the shipped networks' convolutions, with what comes behind them."""
    network = fold_batch_norm(checkpoint.load(default_weights())[0].eval()).requires_grad_(False)
    image = torch.from_numpy(preprocess(frames(1)[0]).channels)[None]
    blind = image.clone()
    blind[:, 3:] = 0
    for given, part in ((image, network), (blind, network.for_images(False))):
        with torch.inference_mode():
            expected = part(given)
            packed = copy.deepcopy(part)
            packed.without_depth = None     # judged by itself
            pack_convolutions(packed, lambda x=given, p=packed: p(x))
            found = packed(given)
        assert not [m for m in packed.modules() if isinstance(m, torch.nn.Conv2d)]
        for name in ('location_logits', 'rectangles', 'score_logits'):
            torch.testing.assert_close(getattr(found, name), getattr(expected, name),
                                       atol=1e-3, rtol=1e-3)


def test_tracer_keeps_what_depends_on_its_input():
    """Other values of the same shapes give other results; other shapes and keys are others."""
    tracer = Tracer(torch.nn.Module())
    with torch.inference_mode():
        for values in (torch.tensor([1.0, 5.0, 2.0]), torch.tensor([7.0, 5.0, 2.0]),
                       torch.tensor([3.0, 9.0])):
            top, index = tracer('top', lambda x: x.topk(2), values)
            assert top.tolist() == sorted(values.tolist())[::-1][:2]
            assert index[0] == values.argmax()
        assert tracer(('times', 2), lambda x: x * 2, values).tolist() == [6.0, 18.0]
        assert tracer(('times', 3), lambda x: x * 3, values).tolist() == [9.0, 27.0]


def test_what_cannot_be_traced_runs_untraced(monkeypatch):
    """A PyTorch without TorchScript is slower, says so once, and gives the same."""
    def gone(*arguments, **options):
        raise RuntimeError('TorchScript is gone')

    monkeypatch.setattr(torch.jit, 'trace', gone)
    layer = torch.nn.Linear(4, 4).requires_grad_(False)
    tracer = Tracer(layer, bf16=True)
    with pytest.warns(RuntimeWarning, match='TorchScript is gone'), torch.inference_mode():
        assert tracer('layer', layer, torch.ones(1, 4)).dtype == torch.bfloat16
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert tracer('layer', layer, torch.ones(1, 4)).dtype == torch.bfloat16

"""A device without memory, and the precisions that there are on a CPU."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip('torch', reason='torch is missing: run `make setup`')

import torch

import grasp_stn_ros
from grasp_stn_ros.detector import GraspDetector, default_weights
from grasp_stn_ros.device import cpu_has_bf16, pick_device
from grasp_stn_ros.evaluation.benchmark import frames
from grasp_stn_ros.grasp_pose import Gripper
from grasp_stn_ros.preprocessing import LARGEST_SIZE, SMALLEST_SIZE, view_sizes
from grasp_stn_ros.reasons import GraspError, Reason
from grasp_stn_ros.rectangle import is_correct
from grasp_stn_ros.rgbd import CameraIntrinsics, RgbdFrame
from grasp_stn_ros.stn import checkpoint
from grasp_stn_ros.stn.multi_stage import ModelConfig, MultiStageSTN
from grasp_stn_ros.stn.tracing import Tracer

FRAME = RgbdFrame(np.full((240, 320, 3), 90, np.uint8), np.full((240, 320), 0.8, np.float32),
                  CameraIntrinsics(250.0, 250.0, 160.0, 120.0))


class FullGpu(GraspDetector):
    """A detector whose device, other than the CPU, has no memory; there is no GPU to fill here."""

    def _run(self, image, jaw, with_depth, lap, allowed=None):
        if self.device.type != 'cpu':
            raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB\nmore')
        return super()._run(image, jaw, with_depth, lap, allowed)


@pytest.fixture(scope='module')
def working():
    return GraspDetector(device='cpu')


def full_gpu(working: GraspDetector, asked: str) -> FullGpu:
    detector = FullGpu.__new__(FullGpu)
    vars(detector).update(vars(working))
    detector.device, detector._may_fall_back = torch.device('cuda'), asked == 'auto'
    return detector


def test_auto_falls_back_to_the_cpu_with_a_warning_and_the_same_answer(working):
    expected = working.detect(FRAME)
    detector = full_gpu(working, 'auto')
    with pytest.warns(RuntimeWarning, match='out of memory'):
        found = detector.detect(FRAME)
    assert detector.device.type == 'cpu'
    assert 'runs on the CPU' in detector.fallback
    assert [c.score for c in found.candidates] == [c.score for c in expected.candidates]


@pytest.mark.parametrize('asked, there', [
    ('fp32', 'fp32'), ('bf16', 'bf16'), ('auto', 'bf16' if cpu_has_bf16() else 'fp32')])
def test_a_precision_that_was_asked_for_outlives_the_fall_back(asked, there):
    detector = full_gpu(GraspDetector(device='cpu', precision=asked), 'auto')
    with pytest.warns(RuntimeWarning, match='out of memory'):
        detector._fall_back(torch.OutOfMemoryError('full'))
    assert detector.precision == there


def test_denormals_are_zero_in_whichever_thread_detects(working):
    def product(*_):
        torch.set_flush_denormal(False)
        before = float(torch.full((1,), 1e-38) * 0.01)
        working.detect(FRAME)
        return before, float(torch.full((1,), 1e-38) * 0.01)

    with ThreadPoolExecutor(1) as other:
        before, after = other.submit(product).result()
    assert before > 0
    assert after == 0


def test_a_device_is_picked_by_its_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    picked = {name: str(pick_device(name)) for name in ('auto', 'cuda', 'cuda:1', 'cpu')}
    assert picked == {'auto': 'cuda', 'cuda': 'cuda', 'cuda:1': 'cuda:1', 'cpu': 'cpu'}
    with pytest.raises(ValueError, match='finds 2 CUDA devices, the first of which is cuda:0'):
        pick_device('cuda:2')


@pytest.mark.parametrize(('capability', 'precision'), [((7, 5), 'fp32'), ((8, 6), 'bf16')])
def test_bf16_is_for_gpus_that_have_it(working, monkeypatch, capability, precision):
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: capability)
    assert full_gpu(working, 'auto')._precision_there() == precision


def test_a_device_that_was_asked_for_by_name_is_refused_by_name(working):
    detector = full_gpu(working, 'cuda')
    with pytest.raises(GraspError, match='2 GiB') as caught:
        detector.detect(FRAME)
    assert caught.value.reason == Reason.OUT_OF_MEMORY
    assert 'more' not in str(caught.value).split('2 GiB')[1]


def test_memory_that_runs_out_on_the_cpu_is_named_too(working, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError('no more')

    monkeypatch.setattr(working, '_run', full)
    with pytest.raises(GraspError) as caught:
        working.warm_up()
    assert caught.value.reason == Reason.OUT_OF_MEMORY


def test_rest_and_work_again(working):
    before = [c.score for c in working.detect(FRAME).candidates]
    working.suspend()
    working.resume()
    assert [c.score for c in working.detect(FRAME).candidates] == before


def test_bf16_finds_the_grasps_of_single_precision():
    exact, fast = (GraspDetector(threads=1, precision=p) for p in ('fp32', 'bf16'))
    same = []
    for frame in frames(8, seed=77):
        a, b = exact.detect(frame), fast.detect(frame)
        assert a.best is not None and b.best is not None
        # Candidates with nearly the same score may change places.
        tied = [c.rectangle for c in a.candidates if c.score > a.best.score - 0.02]
        same.append(is_correct(b.best.rectangle, tied, 0.5, math.radians(15)))
    assert sum(same) >= 7


def test_a_network_is_not_changed_by_the_detector_that_runs_it():
    torch.manual_seed(0)
    network = MultiStageSTN(ModelConfig(width=0.25, features=16, fine_channels=8)).eval()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    GraspDetector(network, precision='bf16').warm_up()
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(v, after[k]) and v.dtype == after[k].dtype for k, v in before.items())


def test_processors_that_look_faster_look_more_often(tmp_path):
    info = tmp_path / 'cpuinfo'
    for vendor, expected in (('GenuineIntel', 4000), ('AuthenticAMD', 1000)):
        info.write_text(f'processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: fpu\n')
        assert grasp_stn_ros._looks(str(info)) == expected
    # ARM names no vendor; elsewhere there is no such file.
    info.write_text('processor\t: 0\nCPU implementer\t: 0x41\n')
    assert grasp_stn_ros._looks(str(info)) == grasp_stn_ros._looks(str(tmp_path / 'none')) == 1000


@pytest.mark.parametrize(('chosen', 'expected'), [
    ({}, str(grasp_stn_ros._looks())), ({'OMP_WAIT_POLICY': 'PASSIVE'}, '0'),
    ({'GOMP_SPINCOUNT': '77'}, '77')])
def test_threads_that_wait_sleep_soon_unless_the_user_has_decided(chosen, expected):
    environment = {name: value for name, value in os.environ.items()
                   if name not in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')}
    # OpenMP itself says what it goes by.
    done = subprocess.run(
        [sys.executable, '-c', 'import grasp_stn_ros.detector'], capture_output=True, text=True,
        env={**environment, **chosen, 'OMP_DISPLAY_ENV': 'VERBOSE'}, timeout=120, check=True)
    spins = re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)
    if not spins:
        pytest.skip("this PyTorch's OpenMP is not GCC's; install the one of requirements.txt")
    assert set(spins) == {expected}


def _shown(detector, monkeypatch):
    """Of each view from now on: its size, the jaws in its pixels, and whether there is depth."""
    seen = []
    infer = detector._infer

    def watched(image, jaw, with_depth, *more):
        seen.append((image.shape[-1], round(jaw, 1), with_depth))
        return infer(image, jaw, with_depth, *more)

    monkeypatch.setattr(detector, '_infer', watched)
    return seen


def test_inputs_of_all_sizes_share_one_memory():
    memory = grasp_stn_ros.detector._Input()
    for size in (400, 544, 400):
        channels, image = memory.of_size(size)
        assert channels.shape == image.shape[1:] == (7, size, size)
        assert channels.flags.c_contiguous
        assert image.is_contiguous(memory_format=torch.channels_last)
    for small, large in zip(memory.of_size(400), memory.of_size(544), strict=True):
        assert np.shares_memory(np.asarray(small), np.asarray(large))


def test_told_jaws_have_the_same_size_in_every_view_without_depth(monkeypatch):
    network, _ = checkpoint.load(default_weights())
    network.config = replace(network.config, told_jaw=14.0, seen_jaw=0.0)
    detector = GraspDetector(network, device='cpu')
    seen = _shown(detector, monkeypatch)
    frame = next(iter(frames(1, seed=5)))
    blind = replace(frame, depth=None)
    plain = detector.detect(blind, need_pose=False)
    found = detector.detect(blind, need_pose=False, jaw_pixels=12.0)
    assert detector.detect(frame, jaw_pixels=12.0).best is not None
    nothing = replace(frame, depth=np.full_like(frame.depth, math.nan))
    assert detector.detect(nothing, need_pose=False, jaw_pixels=12.0).candidates[0].score \
        == pytest.approx(found.candidates[0].score, abs=1e-4)
    detector.modality = 'rgb'
    detector.detect(frame, need_pose=False, jaw_pixels=12.0)
    # 12 of 480 image pixels are 10 of 400, and 13.6 of 544.
    assert seen == [(400, 0.0, False), (544, 13.6, False), (400, 10.0, True), (544, 13.6, False),
                    (544, 13.6, False)]
    # What is looked at is the same, only finer, and so is what is found.
    assert found.region == pytest.approx(plain.region)
    assert any(is_correct(c.rectangle, [plain.best.rectangle]) for c in found.candidates)
    x, y, width, height = region = (200.0, 160.0, 300.0, 200.0)
    detection = detector.detect(blind, region, need_pose=False, jaw_pixels=6.0)
    assert seen[-1] == (688, 13.8, False) and detection.candidates
    assert all(x - 1 <= c.rectangle.x <= x + width and y - 1 <= c.rectangle.y <= y + height
               for c in detection.candidates)


@pytest.mark.parametrize('turns', [1, 2])
def test_where_depth_is_seen_views_have_the_scale_that_the_network_wants(monkeypatch, turns):
    torch.manual_seed(0)
    network = MultiStageSTN(ModelConfig(width=0.25, features=16, fine_channels=8, seen_jaw=14.0,
                                        gripper_input=True))
    detector = GraspDetector(network, device='cpu', turns=turns)
    seen = _shown(detector, monkeypatch)
    flat = np.full((480, 640), 0.85, np.float32)
    frame = RgbdFrame(np.full((480, 640, 3), 90, np.uint8), flat,
                      CameraIntrinsics(525.0, 525.0, 319.5, 239.5))
    # 12.4 of the image's pixels, 10.3 of 400 and 14.0 of 544.
    assert detector.detect(frame).region == pytest.approx((80, 0, 480, 480))
    detector.detect(replace(frame, depth=flat * 2))
    detector.detect(frame, (200.0, 160.0, 240.0, 240.0))
    # Another gripper, or who tells its size, sees the same view. That of a near camera is smaller.
    detector.detect(frame, jaw_pixels=30.0)
    detector.gripper = Gripper(jaw_size=0.03)
    detector.detect(frame)
    assert seen[::turns] == [(544, 14.0, True), (688, 8.9, True), (304, 15.6, True),
                             (544, 34.0, True), (544, 21.0, True)]
    seen.clear()
    detector.detect(replace(frame, depth=None))
    detector.modality = 'rgb'
    detector.detect(frame)
    assert {size for size, *_ in seen} == {400}


def test_a_frame_of_another_size_is_warmed_up_once(monkeypatch):
    network, _ = checkpoint.load(default_weights())
    network.config = replace(network.config, seen_jaw=14.0, told_jaw=14.0)
    detector = GraspDetector(network, device='cpu', precision='fp32')
    detector.warm_up()
    seen = _shown(detector, monkeypatch)
    frame = next(iter(frames(1, seed=5)))
    blind = replace(frame, depth=None)
    for _ in range(2):
        detector.warm_up_for(frame)
        detector.warm_up_for(blind)
        detector.warm_up_for(blind, jaw_pixels=12.0)
    # TorchScript needs three runs; with depth this camera has one size, without it two.
    assert [with_depth for *_, with_depth in seen] == [True] * 3 + [False] * 6
    assert [size for size, *_ in seen[3:]] == [400] * 3 + [544] * 3
    with pytest.raises(GraspError):
        detector.warm_up_for(frame, region=(0.0, 0.0, 1.0, 1.0))


def test_a_camera_at_any_distance_is_warmed_up_for(monkeypatch):
    torch.manual_seed(0)
    network = MultiStageSTN(ModelConfig(width=0.25, features=16, fine_channels=8, seen_jaw=9.0,
                                        gripper_input=True))
    detector = GraspDetector(network, device='cpu')
    seen = _shown(detector, monkeypatch)
    sizes = list(view_sizes(with_depth=True))
    assert list(detector.warm_up_everywhere()) == sizes
    assert sizes[0] == SMALLEST_SIZE and sizes[-1] == LARGEST_SIZE
    assert {size for size, *_ in seen} == set(sizes)
    assert {jaw for _, jaw, _ in seen} == {9.0}
    # Nothing is left to prepare, wherever the camera is.
    monkeypatch.setattr(Tracer, '_traced', None)
    seen.clear()
    rgb = np.full((480, 640, 3), 90, np.uint8)
    camera = CameraIntrinsics(600.0, 600.0, 300.0, 240.0)
    for distance in (0.3, 0.98, 1.1, 1.4, 3.0):
        depth = np.full((480, 640), distance, np.float32)
        assert detector.detect(RgbdFrame(rgb, depth, camera)).milliseconds['trunk'] > 0
    assert [size for size, *_ in seen] == [304, 352, 400, 496, 688]
    assert not list(GraspDetector(MultiStageSTN(replace(network.config, seen_jaw=0.0)),
                                  device='cpu').warm_up_everywhere())

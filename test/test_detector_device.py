"""A device without memory: the CPU in its place where that was allowed, else a name for it."""

import numpy as np
import pytest

pytest.importorskip('torch', reason='torch is missing: run `make setup`')

import torch

from grasp_stn_ros.detector import GraspDetector
from grasp_stn_ros.reasons import GraspError, Reason
from grasp_stn_ros.rgbd import CameraIntrinsics, RgbdFrame

FRAME = RgbdFrame(np.full((240, 320, 3), 90, np.uint8), np.full((240, 320), 0.8, np.float32),
                  CameraIntrinsics(250.0, 250.0, 160.0, 120.0))


class FullGpu(GraspDetector):
    """A detector whose device, other than the CPU, has no memory; there is no GPU to fill here."""

    def _run(self, image, jaw, lap):
        if self.device.type != 'cpu':
            raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB\nmore')
        return super()._run(image, jaw, lap)


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

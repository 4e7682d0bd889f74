"""The tensor path of the GPU, run on the CPU: the same input as NumPy and OpenCV prepare."""

import numpy as np
import pytest
import torch

from grasp_stn_ros.cuda_path import TensorPreprocessor
from grasp_stn_ros.detector import GraspDetector
from grasp_stn_ros.evaluation.benchmark import resized
from grasp_stn_ros.preprocessing import View, preprocess
from grasp_stn_ros.reasons import GraspError
from grasp_stn_ros.rgbd import RgbdFrame
from grasp_stn_ros.simulation.labels import open_scene


@pytest.fixture(scope='module')
def frames():
    result = []
    for index in range(3):
        scene = open_scene(47, index)
        result.append(scene.frame)
        scene.close()
    return result


@pytest.fixture(scope='module')
def prepare():
    return TensorPreprocessor(torch.device('cpu'))


@pytest.mark.parametrize('size', [(640, 480), (1280, 720), (2000, 1500)])
def test_channels_are_those_of_the_cpu_path(frames, prepare, size):
    for frame in frames:
        frame = resized(frame, size)
        view = View.square(frame.size)
        expected = preprocess(frame, view)
        channels, rest = prepare(frame, view)
        assert channels.shape == (1, 7, 400, 400)
        difference = np.abs(channels[0].numpy() - expected.channels)
        # Colours are rounded to bytes on the CPU; heights and normals differ where holes meet.
        assert difference[:3].mean() < 0.01
        assert np.quantile(difference[3], 0.99) < 0.02 and difference[4:].mean() < 0.01
        assert rest.pixels_per_metre == expected.pixels_per_metre
        assert np.allclose(rest.support.normal, expected.support.normal)


def test_detections_are_the_same(frames, prepare, monkeypatch):
    detector = GraspDetector(threads=1, precision='fp32')
    expected = [detector.detect(frame) for frame in frames]
    monkeypatch.setattr(detector, '_on_gpu', prepare)
    for frame, before in zip(frames, expected, strict=True):
        after = detector.detect(frame)
        assert np.allclose(before.best.rectangle.as_array(), after.best.rectangle.as_array(),
                           atol=1.0)
        assert before.best.score == pytest.approx(after.best.score, abs=0.05)


def test_missing_modalities_are_zero(frames, prepare):
    view = View.square(frames[0].size)
    assert not prepare(frames[0], view, use_depth=False)[0][0, 3:].any()
    assert not prepare(frames[0], view, use_rgb=False)[0][0, :3].any()
    empty = RgbdFrame(frames[0].rgb, np.full_like(frames[0].depth, np.nan),
                      frames[0].intrinsics)
    assert not prepare(empty, view)[0][0, 3:].any()
    with pytest.raises(GraspError, match='neither colour nor depth'):
        prepare(empty, view, use_rgb=False)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs an NVIDIA GPU and PyTorch for '
                                                          'CUDA (pip install torch)')
@pytest.mark.parametrize('cuda_graph', [False, True])
def test_cuda_finds_the_same_grasps(frames, cuda_graph):
    cpu = GraspDetector(device='cpu', precision='fp32')
    cuda = GraspDetector(device='cuda', precision='fp32', cuda_graph=cuda_graph)
    for frame in frames:
        a, b = cpu.detect(frame).best, cuda.detect(frame).best
        assert np.allclose(a.rectangle.as_array(), b.rectangle.as_array(), atol=1.0)

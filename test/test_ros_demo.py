"""The demo: the whole way works, and what does not work is named."""

import numpy as np
import pytest
from ros_fixtures import ros  # noqa: F401  (skips where ROS is missing)
from std_msgs.msg import Header

pytest.importorskip('mujoco', reason='mujoco is missing: run `make setup`')
pytest.importorskip('rich', reason='rich is missing: run `make setup`')

from grasp_stn_interfaces.srv import DetectGrasp
from grasp_stn_ros.baselines.long_axis import long_axis_grasp
from grasp_stn_ros.detection import Candidate
from grasp_stn_ros.grasp_pose import Gripper, rectangle_to_grasp
from grasp_stn_ros.rgbd import RgbdFrame
from grasp_stn_ros.ros import conversions, demo
from grasp_stn_ros.simulation.objects import make_object
from grasp_stn_ros.simulation.scene import random_scene


@pytest.fixture(scope='module')
def untrained(tmp_path_factory):
    """Weights of a network that has learnt nothing: enough for plumbing."""
    torch = pytest.importorskip('torch', reason='torch is missing: run `make setup`')
    from grasp_stn_ros.stn import checkpoint
    from grasp_stn_ros.stn.multi_stage import ModelConfig, MultiStageSTN
    path = tmp_path_factory.mktemp('weights') / 'untrained.safetensors'
    torch.manual_seed(0)
    checkpoint.save(path, MultiStageSTN(ModelConfig(width=0.25, features=16, fine_channels=8)))
    return path


def test_the_whole_way(untrained, tmp_path, capfd):
    code = demo.main(['--scenes', '2', '--model', str(untrained), '--output', str(tmp_path)])
    output = capfd.readouterr().out
    assert code == 0, output
    assert 'From camera to lifted object' in output
    assert 'of 2 objects' in output
    import cv2
    pictures = [cv2.imread(str(tmp_path / name))
                for name in ('stages.png', 'stages_1.png', 'stages_2.png')]
    assert all(p is not None for p in pictures)
    assert pictures[0].shape[1] > 3 * pictures[0].shape[0], 'the stages are side by side'
    np.testing.assert_array_equal(pictures[0], pictures[1])


def test_missing_weights_are_named(tmp_path, capfd):
    code = demo.main(['--scenes', '1', '--model', str(tmp_path / 'none.safetensors'),
                      '--output', str(tmp_path)])
    output = capfd.readouterr().out
    assert code == 1
    assert 'demo failed' in output
    assert 'none.' in output


def test_gui_without_a_display_is_named(monkeypatch, capfd):
    monkeypatch.delenv('DISPLAY', raising=False)
    monkeypatch.delenv('WAYLAND_DISPLAY', raising=False)
    assert demo.main(['--gui']) == 2
    assert 'NO_DISPLAY' in capfd.readouterr().out


def test_a_good_grasp_is_executed_where_the_message_says():
    """
    Grasps across noise-free masks go through the response message and the camera's pose.

    With a wrong axis, sign or frame on the way none of them would lift anything.
    """
    lifted = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        scene = random_scene(rng, [make_object(rng, 'box')])
        try:
            view = scene.render()
            frame = RgbdFrame(view.rgb, view.depth, scene.intrinsics)
            rectangle = long_axis_grasp(view.segmentation == 1, frame)
            down = scene.camera_pose[:3, :3].T @ [0.0, 0.0, -1.0]
            grasp = rectangle_to_grasp(rectangle, frame, Gripper(), down)
            candidate = Candidate((rectangle.x, rectangle.y), 1.0, rectangle.theta, rectangle,
                                  1.0, grasp)
            response = DetectGrasp.Response(
                success=True, grasp=conversions.grasp_message(candidate, Header()))
            row = demo.execute(scene, response, rng, gui=False)
        finally:
            scene.close()
        assert row.tilt == pytest.approx(0, abs=1e-3)
        # Above the table, near its middle, where the object is.
        assert 0 < row.position[2] < 0.3
        assert np.hypot(*row.position[:2]) < 0.25
        lifted.append(row.lifted)
    assert sum(lifted) >= 2, lifted

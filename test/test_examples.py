"""The examples for people's own robots: what they compute, and the client over real DDS."""

import os
from pathlib import Path
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from ros_fixtures import StubDetector, rig, ros  # noqa: F401
from scipy.spatial.transform import Rotation

EXAMPLES = Path(__file__).resolve().parents[1] / 'examples'
sys.path.insert(0, str(EXAMPLES))

import moveit_pick  # noqa: E402
from moveit_pick import matrix, plan_pick, quaternion, slow_down  # noqa: E402


def example(name: str, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, 'PYTHONPATH': str(EXAMPLES.parent)}
    return subprocess.run([sys.executable, str(EXAMPLES / name), *arguments], env=environment,
                          check=False, capture_output=True, text=True, timeout=100)


def test_the_simple_client_over_dds(rig):  # noqa: F811
    it = rig()
    it.camera.stream()
    result = example('simple_client.py', '--ros-args', '-r', f'__ns:={it.namespace}')
    assert result.returncode == 0, result.stdout + result.stderr
    # The box on the table of the fixtures: 0.75 m away, 25 px right of and 10 above the middle.
    assert 'score 0.90: x 0.075  y -0.030  z 0.772 m, open 60 mm' in result.stdout
    assert 'camera_color_optical_frame' in result.stdout


def test_the_simple_client_says_why_there_is_no_grasp(rig):  # noqa: F811
    it = rig(StubDetector(scores=(0.001,)))
    it.camera.stream()
    result = example('simple_client.py', '--ros-args', '-r', f'__ns:={it.namespace}')
    assert result.returncode == 1 and 'NO_CANDIDATE' in result.stdout


def test_the_simple_client_is_simple():
    assert len((EXAMPLES / 'simple_client.py').read_text().splitlines()) <= 40


def test_quaternions_and_matrices_agree():
    for turn in Rotation.random(20, random_state=0):
        pose = matrix((1, 2, 3), turn.as_quat())
        assert pose[:3, :3] == pytest.approx(turn.as_matrix())
        assert pose[:3, 3].tolist() == [1, 2, 3]
        assert quaternion(turn.as_matrix()) == pytest.approx(turn.as_quat(canonical=True))
    with pytest.raises(ValueError, match='length 0.000'):
        matrix((0, 0, 0), (0, 0, 0, 0))


def downwards():
    """A camera 1 m above the table that looks straight down, and a grasp 0.7 m below it."""
    camera = np.eye(4)
    camera[:3, :3] = np.diag([1.0, -1.0, -1.0])
    camera[:3, 3] = [0.4, 0.1, 1.0]
    grasp = np.eye(4)
    grasp[:3, :3] = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], float)   # x = +z, y = +x
    grasp[:3, 3] = [0.02, 0.03, 0.7]
    return camera, grasp


def test_a_slow_trajectory_goes_through_the_same_points():
    points = [SimpleNamespace(time_from_start=SimpleNamespace(sec=1, nanosec=500_000_000),
                              velocities=[1.0, -2.0], accelerations=[5.0])]
    slow_down(points, 0.2)
    when = points[0].time_from_start
    assert (when.sec, when.nanosec) == (7, 500_000_000)
    assert points[0].velocities == pytest.approx([0.2, -0.4])
    assert points[0].accelerations == pytest.approx([0.2])


def test_a_pick_goes_in_along_the_approach_and_up():
    camera, grasp = downwards()
    pick = plan_pick(camera, grasp, 0.05, tool_axes='z_forward_y_closes', tcp_offset=0.1)
    # Image x is the world's x, image y its -y, depth goes down.
    assert pick.grasp[:3, 3] == pytest.approx([0.42, 0.07, 0.4])
    assert pick.before[:3, 3] == pytest.approx([0.42, 0.07, 0.5])
    assert pick.lifted[:3, 3] == pytest.approx([0.42, 0.07, 0.5])
    assert pick.grasp[:3, 2] == pytest.approx([0, 0, -1])          # the tool's z approaches
    assert pick.grasp[:3, 1] == pytest.approx([1, 0, 0])           # its y closes, along image x
    assert np.linalg.det(pick.grasp[:3, :3]) == pytest.approx(1)


def test_tools_with_other_axes():
    camera, grasp = downwards()
    same = plan_pick(camera, grasp, 0.05, tool_axes='x_forward_y_closes')
    assert same.grasp == pytest.approx(camera @ grasp)
    across = plan_pick(camera, grasp, 0.05, tool_axes='z_forward_x_closes')
    assert across.grasp[:3, 2] == pytest.approx([0, 0, -1])
    assert across.grasp[:3, 0] == pytest.approx([1, 0, 0])
    with pytest.raises(ValueError, match='z_forward_x_closes'):
        plan_pick(camera, grasp, 0.05, tool_axes='diagonal')


def test_the_table_of_quaternions_in_the_docs():
    text = (EXAMPLES.parent / 'docs' / 'gripper.md').read_text()
    for axes in moveit_pick.TOOL_AXES.values():
        rounded = (round(float(v), 7) + 0.0 for v in quaternion(axes))
        numbers = ' '.join(f'{v:.7f}'.rstrip('0').rstrip('.') for v in rounded)
        assert f'| {numbers} |' in text


def test_without_moveit_the_example_says_what_is_missing():
    if not moveit_pick.MISSING:
        pytest.skip('MoveIt is installed here')
    result = example('moveit_pick.py')
    assert result.returncode == 2 and 'ros-$ROS_DISTRO-moveit' in result.stdout


def test_the_moveit_message():
    pytest.importorskip('moveit_msgs', reason='moveit_msgs is missing: sudo apt-get install '
                        'ros-$ROS_DISTRO-moveit ros-$ROS_DISTRO-control-msgs')
    pick = plan_pick(*downwards(), 0.05)
    message = moveit_pick.to_moveit(pick, 'world', 0.9, ['left', 'right'])
    assert message.grasp_pose.header.frame_id == 'world'
    assert message.pre_grasp_approach.direction.vector.z == pytest.approx(-1)
    assert message.post_grasp_retreat.direction.vector.z == 1
    assert list(message.pre_grasp_posture.points[0].positions) == [0.025, 0.025]

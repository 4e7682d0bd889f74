"""The launch files say what they start, and leave a user's own middleware settings alone."""

import importlib.util
import os
from pathlib import Path

import pytest
from ros_fixtures import ros  # noqa: F401  (skips where ROS is missing)
import yaml

from grasp_stn_ros.ros import parameters
from grasp_stn_ros.ros.environment import share_directory, shared_memory_profile

ROOT = Path(__file__).resolve().parents[1]
LAUNCH_MISSING = ('launch and launch_ros are missing: they come with every ROS 2 installation '
                  '(ros-$ROS_DISTRO-launch-ros), not with the wheels')


def test_profile_is_set_and_exists():
    variables = shared_memory_profile({})
    assert list(variables) == ['FASTDDS_DEFAULT_PROFILES_FILE']
    assert Path(variables['FASTDDS_DEFAULT_PROFILES_FILE']).is_file()


@pytest.mark.parametrize('name', [
    'FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE',
    'FASTDDS_BUILTIN_TRANSPORTS'])
def test_the_users_choice_is_kept(name):
    assert shared_memory_profile({name: 'mine'}) == {}


def test_share_directory_has_what_is_looked_up_there():
    for path in ('config/fastdds_shm.xml', 'config/grasp.rviz', 'launch/grasp.launch.py'):
        assert (share_directory() / path).is_file()


def test_rviz_config_shows_image_cloud_stages_and_grasp():
    from grasp_stn_ros.ros.markers import NAMESPACES
    config = yaml.safe_load((ROOT / 'config' / 'grasp.rviz').read_text())
    displays = {d['Name']: d for d in config['Visualization Manager']['Displays']}
    assert {d['Class'].split('/')[1] for d in displays.values()} >= {
        'Image', 'DepthCloud', 'MarkerArray', 'Pose'}
    assert set(displays['Stages']['Namespaces']) == set(NAMESPACES)
    assert displays['Stages']['Topic']['Value'] == '/grasp_node/markers'
    assert displays['Image']['Topic']['Value'] == \
        '/' + parameters.BY_NAME['color_topic'].default
    assert displays['Cloud']['Depth Map Topic']['Value'] == \
        '/' + parameters.BY_NAME['depth_topic'].default


def entities(name: str, **arguments):
    """Run a launch file's description with ``arguments``; return (context, started actions)."""
    launch = pytest.importorskip('launch', reason=LAUNCH_MISSING)
    pytest.importorskip('launch_ros', reason=LAUNCH_MISSING)
    spec = importlib.util.spec_from_file_location('launch_file', ROOT / 'launch' / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    context = launch.LaunchContext()
    context.launch_configurations.update(arguments)
    started = []

    def visit(entity):
        started.append(entity)
        for child in entity.visit(context) or []:
            visit(child)

    visit(module.generate_launch_description())
    return context, started


def nodes(started):
    from launch_ros.actions import Node
    return {n.node_executable: n for n in started if isinstance(n, Node)}


@pytest.fixture
def no_start(monkeypatch):
    """Let nodes be described, not executed."""
    pytest.importorskip('launch_ros', reason=LAUNCH_MISSING)
    from launch_ros.actions import Node
    monkeypatch.setattr(Node, 'execute', lambda self, context: None)
    monkeypatch.setattr(os, 'environ', dict(os.environ))


def test_grasp_launch_starts_the_node_only(no_start):
    context, started = entities('grasp.launch.py')
    assert set(nodes(started)) == {'grasp_node'}


@pytest.mark.parametrize('gripper', ['robotiq_2f_85', 'wsg_50'])
def test_grasp_launch_with_a_gripper_under_a_manager(no_start, gripper):
    context, started = entities('grasp.launch.py', gripper=gripper, autostart='false',
                                target_frame='base', use_sim_time='true')
    node = nodes(started)['grasp_node']
    from launch_ros.utilities import evaluate_parameters
    files_and_values = evaluate_parameters(context, node._Node__parameters)
    assert [f.stem for f in files_and_values[:-1]] == ['grasp_node', gripper]
    assert files_and_values[-1] == {'autostart': False, 'target_frame': 'base',
                                    'use_sim_time': True}


@pytest.mark.parametrize('camera', ['realsense_d400', 'azure_kinect', 'oak_d', 'zed'])
def test_grasp_launch_with_rviz_for_each_camera(no_start, monkeypatch, camera):
    import ament_index_python.packages
    monkeypatch.setattr(ament_index_python.packages, 'get_package_prefix', lambda name: name)
    _, started = entities('grasp.launch.py', camera=camera, rviz='true')
    assert set(nodes(started)) == {'grasp_node', 'rviz2'}


def test_missing_rviz_is_named_before_anything_starts(no_start, monkeypatch):
    import ament_index_python.packages

    def missing(name):
        raise ament_index_python.packages.PackageNotFoundError(name)

    monkeypatch.setattr(ament_index_python.packages, 'get_package_prefix', missing)
    with pytest.raises(RuntimeError, match='apt install'):
        entities('grasp.launch.py', rviz='true')


def test_unknown_files_are_refused(no_start):
    with pytest.raises(FileNotFoundError, match='nowhere'):
        entities('grasp.launch.py', params_file='/nowhere.yaml')


def test_demo_launch_starts_camera_and_node(no_start):
    _, started = entities('demo.launch.py', seed='3')
    assert set(nodes(started)) == {'grasp_node', 'sim_camera'}

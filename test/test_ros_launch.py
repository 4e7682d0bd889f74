"""The launch files say what they start, and leave a user's own middleware settings alone."""

import importlib.util
import os
from pathlib import Path
import re
import sys

import pytest
from ros_fixtures import ros  # noqa: F401  (skips where ROS is missing)
import yaml

from grasp_stn_ros.parameter_files import parameters_in
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


@pytest.mark.parametrize('text, words', [
    ('maximum_opening: 0.085\njaw_size: 0.022', 'maximum_opening is 0.085, expected'),
    ('- minimum_score', 'the whole file is'), ('minimum_score', 'the whole file is'),
    ('/**:\n  ros__parameters: 3', 'ros__parameters is 3'),
    ('/**:\n  minimum_score: 0.5', 'minimum_score is 0.5'),
    ('/**: {ros__parameters: [}', 'cannot be read as YAML'), ('\x00', 'cannot be read as YAML')])
def test_a_file_that_has_no_parameters_is_named_with_what_is_expected(tmp_path, text, words):
    path = tmp_path / 'mine.yaml'
    path.write_text(text)
    with pytest.raises(ValueError, match='mine.yaml') as error:
        parameters_in(path)
    assert words in str(error.value)


@pytest.mark.parametrize('text', [
    '/**: {ros__parameters: {mode: on_demand}}', '/cell/grasp_node: {ros__parameters: {mode: x}}',
    'other:\ncell: {grasp_node: {ros__parameters: {mode: on_demand}}}'])
def test_parameters_are_found_in_every_layout_that_ros_reads(tmp_path, text):
    path = tmp_path / 'mine.yaml'
    path.write_text(text)
    assert set(parameters_in(path)) == {'mode'}


def test_files_in_the_documentation_can_be_used_as_they_are_printed(tmp_path):
    path, names = tmp_path / 'printed.yaml', set()
    for page in sorted((ROOT / 'docs').rglob('*.md')):
        for block in re.findall(r'```yaml\n(.*?)```', page.read_text(), re.DOTALL):
            path.write_text(block)
            names |= set(parameters_in(path))
    assert names >= {'gripper', 'camera_pose'}


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


def test_arguments_reach_the_node_with_the_types_of_the_parameters(no_start, tmp_path):
    given = {'color_transport': 'compressed', 'depth_transport': 'compressedDepth',
             'intrinsics': 'P', 'approach': 'optical_axis', 'region': '[80, 0, 480, 480]',
             'minimum_score': '1', 'threads': '2', 'frame_id': '007'}
    context, started = entities('grasp.launch.py', **given)
    from launch_ros.utilities import evaluate_parameters
    values = evaluate_parameters(context, nodes(started)['grasp_node']._Node__parameters)[-1]
    assert {name: list(v) if name == 'region' else v for name, v in values.items()} == {
        **given, 'region': [80, 0, 480, 480], 'minimum_score': 1.0, 'threads': 2}
    for name, value in values.items():
        value = list(value) if name == 'region' else value
        assert parameters.BY_NAME[name].problem(value) is None


@pytest.mark.parametrize('name, value', [('threads', 'two'), ('region', '80 0 480 480'),
                                         ('minimum_score', '[')])
def test_an_argument_of_another_type_is_named(no_start, name, value):
    with pytest.raises(ValueError, match=f'{name} is .*expected'):
        entities('grasp.launch.py', **{name: value})


def test_arguments_that_the_documentation_names_exist():
    launch_files = ''.join(path.read_text() for path in (ROOT / 'launch').glob('*.py'))
    for page in [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]:
        # depth_unit is one of a camera's driver.
        for name in {*re.findall(r'`(\w+):=', page.read_text())} - {'depth_unit'}:
            assert f"'{name}'" in launch_files, f'{page.name}: {name}:='


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


def test_a_file_that_is_no_parameter_file_is_refused(no_start, tmp_path):
    (tmp_path / 'gripper.yaml').write_text('jaw_size: 0.022')
    with pytest.raises(ValueError, match='gripper.yaml: jaw_size is 0.022'):
        entities('grasp.launch.py', params_file=str(tmp_path / 'gripper.yaml'))


def run(name: str, **arguments) -> tuple[int, dict[str, int]]:
    """Run a launch file until it ends; return its exit code and those of its processes."""
    launch = pytest.importorskip('launch', reason=LAUNCH_MISSING)
    pytest.importorskip('launch_ros', reason=LAUNCH_MISSING)
    from launch.actions import IncludeLaunchDescription, RegisterEventHandler
    from launch.event_handlers import OnProcessExit
    from launch.launch_description_sources import PythonLaunchDescriptionSource
    ended = {}

    def note(event, _context):
        ended[event.process_name.partition('-')[0]] = event.returncode

    service = launch.LaunchService()
    service.include_launch_description(launch.LaunchDescription([
        IncludeLaunchDescription(PythonLaunchDescriptionSource(str(ROOT / 'launch' / name)),
                                 launch_arguments=arguments.items()),
        RegisterEventHandler(OnProcessExit(on_exit=note))]))
    return service.run(), ended


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """A prefix in which ``ros2 launch`` finds the executables; the camera is one that waits."""
    (tmp_path / 'share/ament_index/resource_index/packages').mkdir(parents=True)
    (tmp_path / 'share/ament_index/resource_index/packages/grasp_stn_ros').touch()
    folder = tmp_path / 'lib' / 'grasp_stn_ros'
    folder.mkdir(parents=True)
    for name, code in (('grasp_node', f'import sys; sys.path.insert(0, {str(ROOT)!r})\n'
                        'from grasp_stn_ros.ros.entry import grasp_node; sys.exit(grasp_node())'),
                       ('sim_camera', 'import signal; signal.sigwait({signal.SIGINT})')):
        (folder / name).write_text(f'#!{sys.executable}\n{code}\n')
        (folder / name).chmod(0o755)
    # A copy: launch files set variables.
    monkeypatch.setattr(os, 'environ', {
        **os.environ, 'ROS_LOG_DIR': str(tmp_path / 'log'),
        'AMENT_PREFIX_PATH': f'{tmp_path}:{os.environ.get("AMENT_PREFIX_PATH", "")}'})


def test_a_launch_whose_node_cannot_start_ends_with_an_exit_code(installed):
    code, ended = run('demo.launch.py', mode='sometimes')
    assert code == 1
    assert ended['sim_camera'] == 0


def test_a_launch_may_outlive_the_node(no_start):
    _, started = entities('grasp.launch.py', required='false')
    assert nodes(started)['grasp_node']._ExecuteLocal__on_exit is None


def test_demo_launch_starts_camera_and_node(no_start):
    _, started = entities('demo.launch.py', seed='3')
    assert set(nodes(started)) == {'grasp_node', 'sim_camera'}

"""The table of parameters against the node, the files in config/ and the README."""

from pathlib import Path

import pytest
from ros_fixtures import StubDetector, rig, ros  # noqa: F401
import yaml

from grasp_stn_ros.node_settings import gripper_from
from grasp_stn_ros.ros import parameters
from grasp_stn_ros.ros.grasp_node import GraspNode

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / 'config').glob('*.yaml'))
GRIPPERS = sorted((ROOT / 'config' / 'grippers').glob('*.yaml'))


def flatten(tree: dict, prefix: str = '') -> dict:
    """Nested parameters -> dotted names."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f'{prefix}{name}.'))
        else:
            flat[prefix + name] = value
    return flat


def values_in(path: Path) -> dict:
    return flatten(yaml.safe_load(path.read_text())['/**']['ros__parameters'])


def test_names_are_unique():
    assert len(parameters.BY_NAME) == len(parameters.PARAMETERS)


def test_defaults_are_allowed():
    assert parameters.first_problem((p.name, p.default) for p in parameters.PARAMETERS) is None


def test_there_is_a_file_for_each_camera():
    assert {f.stem for f in FILES} == {'grasp_node', 'realsense_d400', 'azure_kinect', 'oak_d',
                                       'zed'}


def test_there_is_a_file_for_each_gripper():
    assert {f.stem for f in GRIPPERS} == {'robotiq_2f_85', 'robotiq_2f_140', 'franka_hand',
                                          'onrobot_rg2', 'wsg_50'}


@pytest.mark.parametrize('path', GRIPPERS, ids=lambda p: p.stem)
def test_gripper_files_describe_a_whole_gripper_with_sources(path):
    values = values_in(path)
    whole = {name for name in parameters.BY_NAME if name.startswith('gripper.')}
    assert set(values) == whole
    defaults = {p.name: p.default for p in parameters.PARAMETERS}
    gripper = gripper_from({**defaults, **values})
    assert gripper.finger_depth < gripper.maximum_opening
    for name in ('maximum_opening', 'jaw_size', 'finger_depth', 'finger_thickness', 'tcp_offset'):
        assert f'# {name} ' in path.read_text(), f'{name} has no source'


@pytest.mark.parametrize('path', FILES + GRIPPERS, ids=lambda p: p.stem)
def test_files_have_known_names_right_types_and_allowed_values(path):
    for name, value in values_in(path).items():
        default = parameters.BY_NAME[name].default
        assert type(value) is type(default), name
        assert parameters.BY_NAME[name].problem(value) is None


def test_the_main_file_is_generated_and_complete():
    path = ROOT / 'config' / 'grasp_node.yaml'
    assert path.read_text() == parameters.yaml_file() + '\n', (
        'run `python -m grasp_stn_ros.ros.parameters --yaml > config/grasp_node.yaml`')
    assert values_in(path) == {p.name: p.default for p in parameters.PARAMETERS}


@pytest.mark.parametrize('path', [f for f in FILES if f.stem != 'grasp_node'],
                         ids=lambda p: p.stem)
def test_camera_files_name_absolute_topics(path):
    values = values_in(path)
    for name in ('color_topic', 'depth_topic', 'camera_info_topic'):
        assert values[name].startswith('/')


@pytest.mark.parametrize('name, value', [
    ('mode', 'sometimes'), ('sync_slop', 0.0), ('sync_slop', float('nan')), ('threads', -1),
    ('region', [0, 0, 5]), ('region', [0, 0, -5, 5]), ('minimum_score', 1.1),
    ('approach_direction', [0.0, float('inf'), 1.0])])
def test_what_the_table_forbids_is_named(name, value):
    assert name in parameters.BY_NAME[name].problem(value)


def test_the_node_declares_the_table(rig):  # noqa: F811
    node = rig().node
    for p in parameters.PARAMETERS:
        described = node.describe_parameter(p.name)
        assert described.description == p.description
        assert described.read_only is not p.live
    assert parameters.values(node) == {p.name: p.default for p in parameters.PARAMETERS}


@pytest.mark.parametrize('name, value', [('sync', 'sloppy'), ('sync_slop', -1.0), ('threads', 1.5),
                                         ('region', [1, 2, 3])])
def test_the_node_refuses_to_start_and_says_which(ros, name, value):  # noqa: F811
    from rclpy.parameter import Parameter
    with pytest.raises(ValueError, match=name):
        GraspNode(lambda _: StubDetector(), namespace='/refused',
                  parameter_overrides=[Parameter(name, value=value)])


@pytest.mark.parametrize('name, value, meant', [
    ('minimum_scor', 0.5, 'minimum_score'), ('workspace.minimun', [0.0] * 3, 'workspace.minimum'),
    ('workspace.lower_corner', [0.0] * 3, 'workspace.m'), ('Mode', 'on_demand', 'mode'),
    ('griper.jaw_size', 0.02, 'gripper.jaw_size'), ('jaw_size', 0.02, 'gripper.jaw_size')])
def test_a_misspelt_parameter_is_refused_with_the_one_that_was_meant(ros, name, value, meant):  # noqa: F811
    from rclpy.parameter import Parameter
    with pytest.raises(ValueError, match=rf'{name} \(did you mean {meant}'):
        GraspNode(lambda _: StubDetector(), namespace='/refused',
                  parameter_overrides=[Parameter(name, value=value)])


def test_a_file_for_several_nodes_is_read_and_what_is_foreign_in_it_logged(ros, tmp_path, capfd):  # noqa: F811
    (tmp_path / 'cell.yaml').write_text(
        '/**: {ros__parameters: {use_sim_time: false, start_type_description_service: true, '
        'qos_overrides: {/parameter_events: {publisher: {depth: 10}}}, minimum_score: 0.4, '
        'enabled: true, robot_description: none}}')
    node = GraspNode(lambda _: StubDetector(), namespace='/foreign', cli_args=[
        '--ros-args', '--params-file', str(tmp_path / 'cell.yaml')])
    try:
        assert node.state == 'active'
        assert parameters.values(node)['minimum_score'] == 0.4
    finally:
        node.close()
        node.destroy_node()
    assert 'no such parameter: enabled, robot_description\n' in capfd.readouterr().err


def test_the_documentation_has_the_whole_table():
    assert parameters.markdown_table() in (ROOT / 'docs' / 'node.md').read_text(), (
        'run `python -m grasp_stn_ros.ros.parameters` and paste what it prints')


def test_the_readme_has_rows_of_the_same_table():
    rows = parameters.markdown_table().splitlines()
    names = {f'| `{name}`' for name in parameters.BY_NAME}
    found = [line for line in (ROOT / 'README.md').read_text().splitlines()
             if line.split(' |')[0] in names]
    assert len(found) >= 5
    assert [line for line in found if line not in rows] == []


CELL = {'target_frame': 'base', 'minimum_depth': 0.5, 'maximum_depth': 1.0}


@pytest.mark.parametrize('changes, word', [
    ({'workspace.minimum': [1.0, 0.0, 0.0], 'workspace.maximum': [0.5, 1.0, 1.0]}, 'workspace'),
    ({'minimum_depth': 1.5}, 'minimum_depth'),
    ({'maximum_depth': 0.4}, 'maximum_depth'),
    ({'camera_pose': [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.5]}, 'quaternion'),
    ({'approach': 'direction', 'approach_direction': [0.0, 0.0, 0.0]}, 'approach_direction'),
    ({'region': [0, 0, 31, 20]}, 'at least 32 px'), ({'region': [0, 0, 20000, 0]}, '1 on the')])
def test_values_that_contradict_each_other_are_rejected_with_the_reason(rig, changes, word):  # noqa: F811
    from rclpy.parameter import Parameter
    node = rig(wait=False, autostart=False, **CELL).node
    before = parameters.values(node)
    result = node.set_parameters_atomically(
        [Parameter(name, value=value) for name, value in changes.items()])
    assert not result.successful
    assert word in result.reason
    assert parameters.values(node) == before


def test_a_region_that_does_not_fit_the_image_is_told_by_the_name_of_the_parameter(rig):  # noqa: F811
    from rclpy.parameter import Parameter
    it = rig(region=[0, 0, 20000, 20])
    it.camera.publish()
    message = it.wait_for('stages').message
    assert message == ('the parameter region does not fit the image, set another one: region '
                       'outside the image')
    assert it.node.set_parameters([Parameter('region', value=[0, 0, 200, 200])])[0].successful
    it.camera.stream()
    it.wait_for('grasp')
    # The same of a request is not the parameter's.
    assert 'parameter' not in it.answer(it.call(region=(0, 0, 2000, 2000))).message


def test_live_parameters_take_effect_on_the_next_frame(rig):  # noqa: F811
    from rclpy.parameter import Parameter
    it = rig()
    it.camera.publish()
    first = it.wait_for('pregrasp').pose.position.z
    for offset in (0.2, 0.05):
        it.received['pregrasp'].clear()
        assert it.node.set_parameters(
            [Parameter('approach_offset', value=offset)])[0].successful
        it.camera.publish()
        # Along the optical axis, 0.1 m back at first.
        assert it.wait_for('pregrasp').pose.position.z == pytest.approx(first + 0.1 - offset)
    assert it.node.set_parameters([
        Parameter('gripper.maximum_opening', value=0.11), Parameter('approach', value='direction'),
        Parameter('approach_direction', value=[0.0, 0.1, 1.0]),
        Parameter('middle_weight', value=7.5)])[2].successful
    it.received['grasp'].clear()
    it.camera.publish()
    it.wait_for('grasp')
    assert it.detector.gripper.maximum_opening == 0.11
    assert it.detector.approach_direction == (0.0, 0.1, 1.0)
    assert it.detector.middle_weight == 7.5


def test_a_read_only_parameter_says_so(rig):  # noqa: F811
    from rclpy.parameter import Parameter
    node = rig(wait=False, autostart=False).node
    result = node.set_parameters([Parameter('color_topic', value='elsewhere')])[0]
    assert not result.successful
    assert 'read-only' in result.reason
    result = node.set_parameters([Parameter('maximum_rate', value='fast')])[0]
    assert not result.successful
    assert 'maximum_rate' in result.reason

"""The table of parameters against the node, the files in config/ and the README."""

from pathlib import Path

import pytest
from ros_fixtures import StubDetector, rig, ros  # noqa: F401
import yaml

from grasp_stn_ros.ros import parameters
from grasp_stn_ros.ros.grasp_node import GraspNode

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / 'config').glob('*.yaml'))


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


@pytest.mark.parametrize('path', FILES, ids=lambda p: p.stem)
def test_files_have_known_names_right_types_and_allowed_values(path):
    for name, value in values_in(path).items():
        default = parameters.BY_NAME[name].default
        assert type(value) is type(default), name
        assert parameters.BY_NAME[name].problem(value) is None


def test_the_main_file_has_the_defaults():
    for name, value in values_in(ROOT / 'config' / 'grasp_node.yaml').items():
        assert value == parameters.BY_NAME[name].default, name


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


def test_every_parameter_is_in_the_readme():
    readme = ROOT / 'README.md'
    if not readme.exists():
        pytest.skip('README.md is not written yet')
    text = readme.read_text()
    missing = [line for line in parameters.markdown_table().splitlines() if line not in text]
    assert not missing, 'run `python -m grasp_stn_ros.ros.parameters` and paste what it prints'

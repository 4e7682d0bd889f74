"""Algorithm code does not know ROS: only ros/, launch/ and the stand-ins import it."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROS_PACKAGES = {
    'rclpy', 'message_filters', 'cv_bridge', 'launch', 'launch_ros', 'tf2_ros', 'tf2_msgs',
    'ament_index_python', 'rcl_interfaces', 'builtin_interfaces', 'std_msgs', 'std_srvs',
    'sensor_msgs', 'geometry_msgs', 'visualization_msgs', 'diagnostic_msgs',
    'lifecycle_msgs', 'grasp_stn_interfaces'}


def imported(path: Path) -> set[str]:
    """Top-level names of what a file imports, and 'grasp_stn_ros.ros' where it imports that."""
    names = set()
    package = path.relative_to(ROOT).with_suffix('').parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[:len(package) - node.level + 1]) if node.level else []
            module = '.'.join(base + ([node.module] if node.module else []))
            modules = [module, *(f'{module}.{alias.name}' for alias in node.names)]
        else:
            continue
        for module in modules:
            names.add(module.split('.')[0])
            if module.split('.')[:2] == ['grasp_stn_ros', 'ros']:
                names.add('grasp_stn_ros.ros')
    return names


def test_only_the_ros_folder_imports_ros():
    files = [p for p in (ROOT / 'grasp_stn_ros').rglob('*.py')
             if p.relative_to(ROOT).parts[1] != 'ros']
    assert len(files) > 10
    guilty = {str(p.relative_to(ROOT)): sorted(found) for p in files
              if (found := imported(p) & {*ROS_PACKAGES, 'grasp_stn_ros.ros'})}
    assert not guilty


def test_the_ros_folder_does_import_ros():
    """The check above can see what it looks for."""
    names = imported(ROOT / 'grasp_stn_ros' / 'ros' / 'grasp_node.py')
    assert {'rclpy', 'message_filters', 'grasp_stn_interfaces'} & names >= {'rclpy'}
    assert 'grasp_stn_ros.ros' in names

"""Start grasp_node for a camera: `ros2 launch grasp_stn_ros grasp.launch.py --show-args`."""

from pathlib import Path
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
import yaml

from grasp_stn_ros.parameter_files import parameters_in
from grasp_stn_ros.ros.environment import end_launch, share_directory, shared_memory_profile
from grasp_stn_ros.ros.parameters import BY_NAME
from launch import LaunchDescription

# Launch arguments that become parameters where they are given; otherwise the camera's file, the
# params_file and then the node's defaults decide.
PARAMETERS = {
    'color_topic': 'topic of the colour image',
    'depth_topic': 'topic of the depth image aligned to colour',
    'camera_info_topic': "topic of the colour camera's calibration",
    'color_transport': 'raw or compressed (JPEG or PNG beside the raw topic)',
    'depth_transport': 'raw or compressedDepth',
    'intrinsics': 'matrix of camera_info: K for raw images, P for rectified ones',
    'frame_id': "name of the camera's optical frame, where its driver leaves it empty or wrong",
    'model': 'weights: default or the path of a .safetensors file',
    'device': 'auto, cpu, cuda or cuda:N',
    'threads': 'CPU threads of the network, 0 = as many as are fastest at the time',
    'moving_camera': 'true: prepare the network at the start for every distance of the camera',
    'mode': 'continuous or on_demand',
    'minimum_score': 'candidates below this score are no grasp, 0 to 1',
    'region': 'region of interest in pixels: "[x, y, width, height]"',
    'approach': 'support_plane, optical_axis, surface_normal or direction',
    'target_frame': 'frame of the published grasps (default: the frame of the colour image)',
    'autostart': 'true, or false = wait for a lifecycle manager',
    'use_sim_time': 'true to follow /clock, as for bags played with --clock',
}
BOOLEANS = {'autostart', 'moving_camera', 'use_sim_time'}


def typed(name: str, text: str) -> Any:
    """Return a launch argument as the type of the parameter; raises ValueError that names it."""
    if name in BOOLEANS:
        return text == 'true'
    known = BY_NAME[name]
    if isinstance(known.default, str):
        return ParameterValue(text, value_type=str)
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    if isinstance(known.default, float) and type(value) is int:
        value = float(value)
    if problem := known.problem(value):
        raise ValueError(problem)
    return value


def cameras() -> list[str]:
    """Names of the files in config/ that know a camera's topics."""
    return sorted(path.stem for path in (share_directory() / 'config').glob('*.yaml')
                  if path.stem != 'grasp_node')


def grippers() -> list[str]:
    """Names of the files in config/grippers/."""
    return sorted(path.stem for path in (share_directory() / 'config/grippers').glob('*.yaml'))


def start_node(context):
    """Return the node with the parameters that the launch arguments ask for."""
    def argument(name):
        return LaunchConfiguration(name).perform(context)

    files = [share_directory() / 'config' / 'grasp_node.yaml']
    if argument('camera'):
        files.append(share_directory() / 'config' / f'{argument("camera")}.yaml')
    if argument('gripper'):
        files.append(share_directory() / 'config' / 'grippers' / f'{argument("gripper")}.yaml')
    if argument('params_file'):
        files.append(Path(argument('params_file')))
    for path in files:
        if not path.is_file():
            raise FileNotFoundError(f'no such parameter file: {path}')
    values = {}
    for path in files:
        values.update(parameters_in(path))
    given = {name: typed(name, argument(name)) for name in PARAMETERS if argument(name)}
    nodes = [Node(package='grasp_stn_ros', executable='grasp_node', name='grasp_node',
                  namespace=argument('namespace'), output='screen', emulate_tty=True,
                  parameters=[*map(str, files), given],
                  on_exit=end_launch if argument('required') == 'true' else None)]
    if argument('rviz') == 'true':
        values.update((name, argument(name)) for name in given)
        # First: where it is missing, nothing has been started yet.
        nodes.insert(0, rviz(argument('namespace').strip('/'), values, argument('fixed_frame')))
    return nodes


def rviz(namespace: str, values: dict, fixed_frame: str) -> Node:
    """Return RViz with the topics of config/grasp.rviz renamed to those in use."""
    try:
        get_package_prefix('rviz2')
    except PackageNotFoundError:
        raise RuntimeError('rviz:=true needs the package rviz2: '
                           'sudo apt install ros-$ROS_DISTRO-rviz2') from None

    def absolute(name):
        return name if name.startswith('/') else '/'.join(filter(None, ['', namespace, name]))

    topics = {'/color/image_raw': values['color_topic'],
              '/depth/image_rect_raw': values['depth_topic'],
              '/grasp_node/grasp': 'grasp_node/grasp',
              '/grasp_node/markers': 'grasp_node/markers',
              '/grasp_node/debug_image': 'grasp_node/debug_image'}
    # The cloud takes the calibration next to the depth image.
    topics['/depth/camera_info'] = values['depth_topic'].rpartition('/')[0] + '/camera_info'
    return Node(package='rviz2', executable='rviz2', name='rviz2', output='log',
                arguments=['-d', str(share_directory() / 'config' / 'grasp.rviz'),
                           '-f', fixed_frame],
                remappings=[(old, absolute(new)) for old, new in topics.items()
                            if old != absolute(new)])


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; the node itself is put together when they are known."""
    return LaunchDescription([
        DeclareLaunchArgument('camera', default_value='', choices=['', *cameras()],
                              description="topics of a known camera: a file's name in config/"),
        DeclareLaunchArgument('gripper', default_value='', choices=['', *grippers()],
                              description="a known gripper: a file's name in config/grippers/"),
        DeclareLaunchArgument('params_file', default_value='',
                              description='your own parameter file, read after the others'),
        DeclareLaunchArgument('namespace', default_value='', description='namespace of the node'),
        DeclareLaunchArgument('required', default_value='true', choices=['true', 'false'],
                              description='end the whole launch, with exit code 1 after a '
                                          'failure, when the node ends'),
        DeclareLaunchArgument('rviz', default_value='false', choices=['true', 'false'],
                              description='show image, cloud and stages in RViz'),
        DeclareLaunchArgument('fixed_frame', default_value='camera_color_optical_frame',
                              description="RViz's fixed frame"),
        *(DeclareLaunchArgument(name, default_value='', description=text,
                                choices=['', 'true', 'false'] if name in BOOLEANS else None)
          for name, text in PARAMETERS.items()),
        *(SetEnvironmentVariable(name, value)
          for name, value in shared_memory_profile().items()),
        OpaqueFunction(function=start_node),
    ])

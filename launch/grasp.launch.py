"""Start grasp_node for a camera: `ros2 launch grasp_stn_ros grasp.launch.py --show-args`."""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from grasp_stn_ros.ros.environment import shared_memory_profile, share_directory

# Launch arguments that become parameters where they are given; otherwise the camera's file, the
# params_file and then the node's defaults decide.
PARAMETERS = {
    'color_topic': 'topic of the colour image',
    'depth_topic': 'topic of the depth image aligned to colour',
    'camera_info_topic': "topic of the colour camera's calibration",
    'frame_id': 'frame of everything published (default: the frame of the colour image)',
    'model': 'weights: default or the path of a .safetensors file',
    'device': 'auto, cpu, cuda or cuda:N',
    'mode': 'continuous or on_demand',
}


def cameras() -> list[str]:
    """Names of the files in config/ that know a camera's topics."""
    return sorted(path.stem for path in (share_directory() / 'config').glob('*.yaml')
                  if path.stem != 'grasp_node')


def start_node(context):
    """Return the node with the parameters that the launch arguments ask for."""
    def argument(name):
        return LaunchConfiguration(name).perform(context)

    files = [share_directory() / 'config' / 'grasp_node.yaml']
    if argument('camera'):
        files.append(share_directory() / 'config' / f'{argument("camera")}.yaml')
    if argument('params_file'):
        files.append(Path(argument('params_file')))
    for path in files:
        if not path.is_file():
            raise FileNotFoundError(f'no such parameter file: {path}')
    given = {name: ParameterValue(argument(name), value_type=str)
             for name in PARAMETERS if argument(name)}
    return [Node(package='grasp_stn_ros', executable='grasp_node', name='grasp_node',
                 namespace=argument('namespace'), output='screen', emulate_tty=True,
                 parameters=[*map(str, files), given])]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments; the node itself is put together when they are known."""
    rviz = Node(package='rviz2', executable='rviz2', name='rviz2', output='log',
                namespace=LaunchConfiguration('namespace'),
                arguments=['-d', str(share_directory() / 'config' / 'grasp.rviz')],
                condition=IfCondition(LaunchConfiguration('rviz')))
    return LaunchDescription([
        DeclareLaunchArgument('camera', default_value='', choices=['', *cameras()],
                              description="topics of a known camera: a file's name in config/"),
        DeclareLaunchArgument('params_file', default_value='',
                              description='your own parameter file, read after the others'),
        DeclareLaunchArgument('namespace', default_value='', description='namespace of the node'),
        DeclareLaunchArgument('rviz', default_value='false', choices=['true', 'false'],
                              description='show image, cloud and stages in RViz'),
        *(DeclareLaunchArgument(name, default_value='', description=text)
          for name, text in PARAMETERS.items()),
        *(SetEnvironmentVariable(name, value)
          for name, value in shared_memory_profile().items()),
        OpaqueFunction(function=start_node),
        rviz,
    ])

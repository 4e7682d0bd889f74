"""A simulated camera and grasp_node: `ros2 launch grasp_stn_ros demo.launch.py rviz:=true`."""

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, SetEnvironmentVariable
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from grasp_stn_ros.ros.environment import end_launch, share_directory, shared_memory_profile
from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Start both; all arguments of grasp.launch.py can be given as well."""
    def number(name, kind):
        return ParameterValue(LaunchConfiguration(name), value_type=kind)

    return LaunchDescription([
        DeclareLaunchArgument('seed', default_value='0', description='seed of the scenes'),
        DeclareLaunchArgument('objects', default_value='1', description='objects on the table'),
        DeclareLaunchArgument('rate', default_value='12.0', description='frames a second'),
        DeclareLaunchArgument('depth_encoding', default_value='16UC1',
                              choices=['16UC1', '32FC1'], description='unit of the depth image'),
        *(SetEnvironmentVariable(name, value)
          for name, value in shared_memory_profile().items()),
        IncludeLaunchDescription(PythonLaunchDescriptionSource(
            str(share_directory() / 'launch' / 'grasp.launch.py'))),
        Node(package='grasp_stn_ros', executable='sim_camera', name='sim_camera',
             namespace=LaunchConfiguration('namespace'), output='screen', emulate_tty=True,
             parameters=[{'seed': number('seed', int), 'objects': number('objects', int),
                          'rate': number('rate', float),
                          'depth_encoding': number('depth_encoding', str)}],
             on_exit=end_launch),
    ])

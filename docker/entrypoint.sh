#!/bin/bash
# Source ROS 2 and the workspace, then run the command.
set -e
source "/opt/ros/${ROS_DISTRO}/setup.bash"
source /workspace/install/setup.bash
exec "$@"

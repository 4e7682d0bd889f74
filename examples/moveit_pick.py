"""
Pick what grasp_node finds, with MoveIt 2.

    ros2 launch YOUR_ROBOT_moveit_config ...          # move_group, with the camera in TF
    ros2 launch grasp_stn_ros grasp.launch.py camera:=realsense_d400 mode:=on_demand
    python3 moveit_pick.py --ros-args -p group:=panda_arm -p tool_link:=panda_hand_tcp \
        -p gripper_action:=/panda_hand_controller/gripper_cmd

The way: call ~/detect_grasp, transform the grasp into the robot's frame *at its own stamp*, turn
its axes into those of the tool, then open, go before the object, move straight in, close, lift.
Where the fingers then meet, nothing is held: back to where the arm was, and ask again, saying what
has failed.

The upper half needs NumPy and nothing else, and is what to copy into another motion planner. The
lower half needs moveit_msgs, control_msgs, tf2_ros and a robot.
"""

from __future__ import annotations

from dataclasses import dataclass
import sys

import numpy as np

# Of what the joints can do, also where the tool moves straight: zero would be all of it.
SPEED = {'max_velocity_scaling_factor': 0.2, 'max_acceleration_scaling_factor': 0.2}
# Columns: the axes of the tool in the frame of the grasp (x = approach, y = opening direction).
TOOL_AXES = {
    'x_forward_y_closes': np.eye(3),
    'z_forward_y_closes': np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]),
    'z_forward_x_closes': np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
}


@dataclass(frozen=True)
class Pick:
    """Poses (4, 4) of the tool's link in the planning frame, metres, in the order of use."""

    before: np.ndarray      # the start of the straight approach
    grasp: np.ndarray
    lifted: np.ndarray
    opening: float          # between the jaws, before closing


def matrix(position, orientation) -> np.ndarray:
    """Position (3,) and quaternion (x, y, z, w) -> pose (4, 4); ValueError if it is none."""
    q = np.asarray(orientation, np.float64)
    length = np.linalg.norm(q)
    if not 0.99 < length < 1.01:
        raise ValueError(f'quaternion {q.tolist()} has length {length:.3f}, expected 1')
    x, y, z, w = q / length
    pose = np.eye(4)
    pose[:3, :3] = [[1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                    [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                    [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]]
    pose[:3, 3] = position
    return pose


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """Rotation (3, 3) -> (x, y, z, w): the eigenvector that Bar-Itzhack's method looks for."""
    m = np.asarray(rotation, np.float64)
    k = np.array([
        [m[0, 0] - m[1, 1] - m[2, 2], m[1, 0] + m[0, 1], m[2, 0] + m[0, 2], m[2, 1] - m[1, 2]],
        [m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], m[2, 1] + m[1, 2], m[0, 2] - m[2, 0]],
        [m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1], m[1, 0] - m[0, 1]],
        [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], np.trace(m)]])
    q = np.linalg.eigh(k)[1][:, -1]
    return q if q[3] >= 0 else -q


def plan_pick(camera: np.ndarray, grasp: np.ndarray, opening: float, *,
              tool_axes: str = 'z_forward_y_closes', tcp_offset: float = 0.0,
              retreat: float = 0.10, lift: float = 0.10) -> Pick:
    """
    Work out the tool's poses in the planning frame.

    ``camera`` (4, 4) is the pose of the camera's optical frame in the planning frame at the stamp
    of the image, ``grasp`` (4, 4) the pose from the service in the optical frame. ``tcp_offset``
    is the distance in metres from the tool's link to the point between the finger tips, along the
    approach: 0 where the link is the TCP. ``retreat`` and ``lift`` are metres, along the approach
    and straight up in the planning frame.
    """
    if tool_axes not in TOOL_AXES:
        raise ValueError(f'tool_axes {tool_axes!r}, expected one of {", ".join(TOOL_AXES)}')
    tip = camera @ grasp
    approach = tip[:3, 0]
    tool = tip.copy()
    tool[:3, :3] = tip[:3, :3] @ TOOL_AXES[tool_axes]
    tool[:3, 3] -= tcp_offset * approach
    before, lifted = tool.copy(), tool.copy()
    before[:3, 3] -= retreat * approach
    lifted[2, 3] += lift
    return Pick(before, tool, lifted, opening)


# ---------------------------------------------------------------------- with ROS and MoveIt
try:
    from control_msgs.action import GripperCommand
    from geometry_msgs.msg import Pose, PoseStamped
    from moveit_msgs.action import ExecuteTrajectory, MoveGroup
    from moveit_msgs.msg import (
        BoundingVolume,
        Constraints,
        Grasp,
        MotionPlanRequest,
        MoveItErrorCodes,
        OrientationConstraint,
        PositionConstraint,
    )
    from moveit_msgs.srv import GetCartesianPath
    import rclpy
    from rclpy.action import ActionClient
    from rclpy.duration import Duration
    from rclpy.time import Time
    from shape_msgs.msg import SolidPrimitive
    from tf2_ros import Buffer, TransformException, TransformListener
    from trajectory_msgs.msg import JointTrajectoryPoint

    from grasp_stn_interfaces.srv import DetectGrasp
    MISSING = ''
except ImportError as error:                    # the upper half works without
    MISSING = str(error)


def to_pose(pose: np.ndarray) -> Pose:
    """Pose (4, 4) -> geometry_msgs/Pose."""
    message = Pose()
    message.position.x, message.position.y, message.position.z = map(float, pose[:3, 3])
    (message.orientation.x, message.orientation.y, message.orientation.z,
     message.orientation.w) = map(float, quaternion(pose[:3, :3]))
    return message


def to_moveit(pick: Pick, frame: str, score: float, finger_joints: list[str], *,
              retreat: float = 0.10, lift: float = 0.10) -> Grasp:
    """
    Return the pick as moveit_msgs/Grasp in ``frame``: for the MoveIt Task Constructor and others.

    Each of ``finger_joints`` moves by half the opening.
    """
    message = Grasp(id='grasp_stn', grasp_quality=float(score))
    message.grasp_pose = PoseStamped(pose=to_pose(pick.grasp))
    message.grasp_pose.header.frame_id = frame
    direction = pick.grasp[:3, 3] - pick.before[:3, 3]
    for part, way, vector in (
            (message.pre_grasp_approach, retreat, direction / np.linalg.norm(direction)),
            (message.post_grasp_retreat, lift, np.array([0.0, 0.0, 1.0]))):
        part.direction.header.frame_id = frame
        (part.direction.vector.x, part.direction.vector.y,
         part.direction.vector.z) = map(float, vector)
        part.desired_distance, part.min_distance = way, 0.8 * way
    for posture, width in ((message.pre_grasp_posture, pick.opening),
                           (message.grasp_posture, 0.0)):
        posture.joint_names = list(finger_joints)
        posture.points = [JointTrajectoryPoint(positions=[width / 2] * len(finger_joints),
                                               time_from_start=Duration(seconds=1.0).to_msg())]
    return message


class PickError(RuntimeError):
    """A step failed; the message says which and what it was waiting for."""


class Picker:
    """Picks one object; every step waits with a deadline."""

    def __init__(self):
        """Declare the parameters and connect."""
        self.node = rclpy.create_node('moveit_pick')
        value = self.node.declare_parameter
        self.group = value('group', 'panda_arm').value
        self.tool_link = value('tool_link', 'panda_hand_tcp').value
        self.frame = value('planning_frame', 'panda_link0').value
        self.tool_axes = value('tool_axes', 'z_forward_y_closes').value
        self.tcp_offset = value('tcp_offset', 0.0).value
        self.attempts = value('attempts', 3).value
        # Of the gripper's action, in its own unit: what closes farther has nothing between it.
        self.empty = value('empty_position', 0.001).value
        self.fingers = value('finger_joints', ['panda_finger_joint1',
                                               'panda_finger_joint2']).value
        gripper = value('gripper_action', '/panda_hand_controller/gripper_cmd').value
        self.buffer = Buffer()
        self.listener = TransformListener(self.buffer, self.node)
        self.detect = self.node.create_client(DetectGrasp, 'grasp_node/detect_grasp')
        self.straight = self.node.create_client(GetCartesianPath, 'compute_cartesian_path')
        self.move = ActionClient(self.node, MoveGroup, 'move_action')
        self.execute = ActionClient(self.node, ExecuteTrajectory, 'execute_trajectory')
        self.gripper = ActionClient(self.node, GripperCommand, gripper)

    def run(self) -> None:
        """Detect and pick until something is held; raises :class:`PickError`."""
        # From there the camera sees the table, whether it is on the arm or the arm in its way.
        start = self.where(self.tool_link, Time(), 'does the robot publish its state?')
        failed: list = []
        while True:
            grasp = self.find(failed)
            if self.pick(grasp):
                return
            failed.append(grasp)
            if len(failed) >= self.attempts:
                raise PickError(f'nothing is held after {len(failed)} attempts')
            self.node.get_logger().warning('nothing is held: going back for another grasp')
            self.go(start, 'go back')

    def pick(self, grasp) -> bool:
        """Execute a grasp; whether something is held in the end."""
        # "Latest" would be wrong if the camera moves.
        camera = self.where(grasp.header.frame_id, Time.from_msg(grasp.header.stamp),
                            'is the hand-eye calibration published?')
        pick = plan_pick(camera, pose_of(grasp.pose), grasp.opening,
                         tool_axes=self.tool_axes, tcp_offset=self.tcp_offset)
        message = to_moveit(pick, self.frame, grasp.score, self.fingers)
        self.node.get_logger().info(f'picking at {message.grasp_pose.pose.position}')
        self.grip(grasp.opening)
        self.go(pick.before, 'plan to the pre-grasp')
        self.go_straight(pick.grasp)
        self.grip(0.0)
        self.go_straight(pick.lifted)
        # Once more, because what was between the fingers may have slipped out on the way.
        closed = self.grip(0.0)
        return closed.stalled or abs(closed.position) > self.empty

    def find(self, failed: list):
        """Return the best grasp, knowing those that have lifted nothing."""
        answer = self.call(self.detect, DetectGrasp.Request(timeout=5.0, failed=failed))
        if not answer.success:
            raise PickError(answer.message)
        return answer.grasp

    def where(self, link: str, when: Time, hint: str) -> np.ndarray:
        """Pose of a link in the planning frame at that time (zero: the latest that is known)."""
        try:
            # In steps, because nobody else spins this node while it waits.
            for _ in range(50):
                rclpy.spin_once(self.node, timeout_sec=0.1)
                if self.buffer.can_transform(self.frame, link, when):
                    break
            found = self.buffer.lookup_transform(self.frame, link, when).transform
        except TransformException as error:
            raise PickError(f'no transform from {link} to {self.frame} ({error}); {hint}') \
                from None
        t, r = found.translation, found.rotation
        return matrix((t.x, t.y, t.z), (r.x, r.y, r.z, r.w))

    def go(self, pose: np.ndarray, what: str) -> None:
        """Plan to a pose and go there."""
        request = MotionPlanRequest(group_name=self.group, allowed_planning_time=5.0,
                                    num_planning_attempts=5, **SPEED)
        target = to_pose(pose)
        where = PositionConstraint(link_name=self.tool_link, weight=1.0)
        where.header.frame_id = self.frame
        where.constraint_region = BoundingVolume(
            primitives=[SolidPrimitive(type=SolidPrimitive.SPHERE, dimensions=[0.001])],
            primitive_poses=[Pose(position=target.position)])
        turned = OrientationConstraint(
            link_name=self.tool_link, orientation=target.orientation, weight=1.0,
            absolute_x_axis_tolerance=0.01, absolute_y_axis_tolerance=0.01,
            absolute_z_axis_tolerance=0.01)
        turned.header.frame_id = self.frame
        request.start_state.is_diff = True           # from where the robot is
        request.goal_constraints = [Constraints(position_constraints=[where],
                                                orientation_constraints=[turned])]
        self.act(self.move, MoveGroup.Goal(request=request), what)

    def go_straight(self, pose: np.ndarray) -> None:
        """Move the tool along a straight line."""
        request = GetCartesianPath.Request(
            group_name=self.group, link_name=self.tool_link, waypoints=[to_pose(pose)],
            max_step=0.005, avoid_collisions=True)
        request.header.frame_id = self.frame
        request.start_state.is_diff = True
        # Older versions of MoveIt have no such fields here and plan with full speed.
        known = all(hasattr(request, name) for name in SPEED)
        if known:
            for name, factor in SPEED.items():
                setattr(request, name, factor)
        answer = self.call(self.straight, request)
        if answer.fraction < 0.95:
            raise PickError(f'only {answer.fraction:.0%} of the straight line can be driven; the '
                            'object may stand too near to the end of the workspace')
        if not known:
            slow_down(answer.solution.joint_trajectory.points, min(SPEED.values()))
        self.act(self.execute, ExecuteTrajectory.Goal(trajectory=answer.solution),
                 'execute the straight line')

    def grip(self, opening: float):
        """Open or close, return where; many drivers take half the opening: adapt it here."""
        goal = GripperCommand.Goal()
        goal.command.position, goal.command.max_effort = opening / 2, 20.0
        return self.act(self.gripper, goal, 'move the gripper')

    def call(self, client, request, seconds: float = 15.0):
        """Call a service with a deadline."""
        if not client.wait_for_service(timeout_sec=seconds):
            raise PickError(f'no service {client.service_name}')
        return self.wait(client.call_async(request), seconds, client.service_name)

    def act(self, client, goal, what: str, seconds: float = 60.0):
        """Run an action to its end with a deadline, return its result."""
        if not client.wait_for_server(timeout_sec=15.0):
            raise PickError(f'cannot {what}: its action server is not there')
        handle = self.wait(client.send_goal_async(goal), 15.0, what)
        if not handle.accepted:
            raise PickError(f'cannot {what}: the goal was refused')
        result = self.wait(handle.get_result_async(), seconds, what).result
        code = getattr(result, 'error_code', None)
        if code is not None and code.val != MoveItErrorCodes.SUCCESS:
            raise PickError(f'cannot {what}: MoveIt error {code.val}')
        return result

    def wait(self, future, seconds: float, what: str):
        """Return the future's result."""
        rclpy.spin_until_future_complete(self.node, future, timeout_sec=seconds)
        if not future.done():
            raise PickError(f'{what}: no answer within {seconds:g} s')
        return future.result()


def slow_down(points, factor: float) -> None:
    """Let a robot take longer for trajectory_msgs/JointTrajectoryPoint ``points``: 1 / factor."""
    for point in points:
        when = point.time_from_start
        nanoseconds = round((when.sec * 10**9 + when.nanosec) / factor)
        when.sec, when.nanosec = divmod(nanoseconds, 10**9)
        point.velocities = [factor * v for v in point.velocities]
        point.accelerations = [factor ** 2 * a for a in point.accelerations]


def pose_of(pose) -> np.ndarray:
    """geometry_msgs/Pose -> (4, 4)."""
    p, q = pose.position, pose.orientation
    return matrix((p.x, p.y, p.z), (q.x, q.y, q.z, q.w))


def main() -> int:
    """Pick one object; the exit status."""
    if MISSING:
        print(f'{MISSING}: this example needs a ROS 2 installation with MoveIt: '
              'sudo apt-get install ros-$ROS_DISTRO-moveit ros-$ROS_DISTRO-control-msgs')
        return 2
    rclpy.init()
    try:
        Picker().run()
    except PickError as error:
        print(f'no pick: {error}')
        return 1
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())

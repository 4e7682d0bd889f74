"""
examples/moveit_pick.py over real DDS, in MoveIt's own messages, until the object is lifted.

What stands in for move_group, the robot's controllers and the robot itself does what it is told at
once, in free air, and writes it down; the grasp is then executed in the simulator.
"""

from pathlib import Path
import subprocess
import sys
import time

import numpy as np
import pytest
from ros_fixtures import RECTANGLE, StubDetector, rig, ros, wait_until  # noqa: F401

pytest.importorskip('moveit_msgs', reason='moveit_msgs is missing: sudo apt-get install '
                    'ros-$ROS_DISTRO-moveit (there are no wheels of it)')
pytest.importorskip('control_msgs', reason='control_msgs is missing: sudo apt-get install '
                    'ros-$ROS_DISTRO-control-msgs (there are no wheels of it)')
pytest.importorskip('tf2_ros', reason='tf2_ros is missing: it comes with every ROS 2 '
                    'installation (ros-$ROS_DISTRO-tf2-ros-py), not with the wheels')

from builtin_interfaces.msg import Time
from control_msgs.action import GripperCommand
from geometry_msgs.msg import TransformStamped
from moveit_msgs.action import ExecuteTrajectory, MoveGroup
from moveit_msgs.msg import MoveItErrorCodes
from moveit_msgs.srv import GetCartesianPath
from rclpy.action import ActionServer, GoalResponse
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from grasp_stn_ros.detector import GraspDetector
from grasp_stn_ros.rectangle import GraspRectangle
from grasp_stn_ros.ros.sim_camera import CameraPublisher
from grasp_stn_ros.simulation.gripper import GraspTrial
from grasp_stn_ros.simulation.objects import make_object
from grasp_stn_ros.simulation.scene import random_scene

EXAMPLES = Path(__file__).resolve().parents[1] / 'examples'
sys.path.insert(0, str(EXAMPLES))

from moveit_pick import TOOL_AXES, matrix, pose_of, quaternion  # noqa: E402

# Where the robot stands in the simulator's world: neither where its origin is, nor upright axes
# alike; its z axis is up, as the example assumes.
BASE = matrix((-0.35, 0.20, 0.05), (0.0, 0.0, np.sin(0.4), np.cos(0.4)))
TCP_OFFSET = 0.103
# Where the tool is before anything is picked.
START = matrix((0.3, 0.1, 0.6), (1.0, 0.0, 0.0, 0.0))
# What the arm is told for one grasp; the last closes the fingers on nothing where it has slipped.
ATTEMPT = ['grip', 'go', 'straight', 'grip', 'straight', 'grip']


class Robot:
    """Stands in for move_group, the gripper and the arm; ``steps`` is what they were told."""

    def __init__(self, node, group='arm', fraction=1.0, code=MoveItErrorCodes.SUCCESS,
                 accept=True, slips=0, stalls=False):
        """
        Fail as told.

        ``fraction`` of straight lines that can be driven, ``code`` of every plan; the first
        ``slips`` objects are lost while they are lifted; ``stalls``: something between the
        fingers is told by the effort alone.
        """
        self.node, self.group, self.fraction, self.code = node, group, fraction, code
        self._slips, self._stalls = slips, stalls
        self.steps = []
        self._lines = []
        goal = GoalResponse.ACCEPT if accept else GoalResponse.REJECT
        for kind, name, run in ((MoveGroup, 'move_action', self._plan),
                                (ExecuteTrajectory, 'execute_trajectory', self._execute),
                                (GripperCommand, 'gripper_cmd', self._grip)):
            ActionServer(node, kind, name, run, goal_callback=lambda _: goal)
        node.create_service(GetCartesianPath, 'compute_cartesian_path', self._straight)

    def _plan(self, handle):
        request, result = handle.request.request, MoveGroup.Result()
        constraints, = request.goal_constraints
        where, = constraints.position_constraints
        turned, = constraints.orientation_constraints
        region = where.constraint_region
        # What move_group refuses, or takes for something else, without a word of why.
        assert request.group_name == self.group and request.start_state.is_diff
        assert 0 < request.max_velocity_scaling_factor <= 1 and request.allowed_planning_time > 0
        assert where.link_name == turned.link_name == 'tool' and where.weight and turned.weight
        assert where.header.frame_id == turned.header.frame_id == 'base'
        assert len(region.primitives) == len(region.primitive_poses) == 1
        assert not region.primitive_poses[0].orientation.x
        pose = region.primitive_poses[0]
        pose.orientation = turned.orientation
        self.steps.append(('go', pose_of(pose)))
        result.error_code.val = self.code
        handle.succeed()
        return result

    def _straight(self, request, response):
        waypoint, = request.waypoints
        assert request.group_name == self.group and request.link_name == 'tool'
        assert request.header.frame_id == 'base' and request.start_state.is_diff
        assert 0 < request.max_step < 0.05 and request.avoid_collisions
        # Zero would be full speed.
        assert 0 < getattr(request, 'max_velocity_scaling_factor', 0.2) <= 0.2
        assert 0 < getattr(request, 'max_acceleration_scaling_factor', 0.2) <= 0.2
        self._lines.append(pose_of(waypoint))
        response.fraction, response.error_code.val = self.fraction, MoveItErrorCodes.SUCCESS
        response.solution.joint_trajectory.joint_names = [f'line {len(self._lines) - 1}']
        return response

    def _execute(self, handle):
        name, = handle.request.trajectory.joint_trajectory.joint_names
        self.steps.append(('straight', self._lines[int(name.split()[1])]))
        result = ExecuteTrajectory.Result()
        result.error_code.val = MoveItErrorCodes.SUCCESS
        handle.succeed()
        return result

    def _grip(self, handle):
        command = handle.request.command
        assert command.max_effort > 0
        lifted = bool(self.steps) and self.steps[-1][0] == 'straight' \
            and self.steps[-2][0] == 'grip'
        self.steps.append(('grip', command.position))
        handle.succeed()
        if command.position:
            return GripperCommand.Result(position=command.position, reached_goal=True)
        lost = lifted and self._slips > 0
        self._slips -= lost
        thickness = 0.0 if lost or self._stalls else 0.011
        return GripperCommand.Result(position=thickness, reached_goal=lost, stalled=(
            not lost and self._stalls))


def start(it, *parameters) -> subprocess.Popen:
    """Run the example in the namespace of the rig ``it``."""
    words = [word for parameter in (
        'group:=arm', 'tool_link:=tool', 'planning_frame:=base', 'gripper_action:=gripper_cmd',
        f'tcp_offset:={TCP_OFFSET}', *parameters) for word in ('-p', parameter)]
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / 'moveit_pick.py'), '--ros-args', '-r',
         f'__ns:={it.namespace}', *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(process: subprocess.Popen, take_image) -> tuple[int, str]:
    """Wait for the end of the example, calling ``take_image`` ten times a second."""
    due = 0.0

    def ended() -> bool:
        nonlocal due
        if time.monotonic() >= due:
            due = time.monotonic() + 0.1
            take_image()
        return process.poll() is not None

    try:
        wait_until(ended, 'the example to end', 100)
    finally:
        process.kill()
    return process.returncode, process.communicate()[0]


class Tf:
    """Says where the camera is at a stamp, and somewhere else a moment before and after."""

    def __init__(self, node, camera: np.ndarray | None):
        """``camera`` (4, 4) is its true pose in the robot's base; None: nobody knows."""
        self._publisher = node.create_publisher(TFMessage, '/tf', 100)
        self._camera = camera

    def say(self, stamp: Time) -> None:
        """Publish the true pose at ``stamp`` between two wrong ones, and where the tool is."""
        when = stamp.sec * 10**9 + stamp.nanosec
        for moment, error in ((-20_000_000, 0.3), (0, 0.0), (20_000_000, 0.3)) \
                if self._camera is not None else ():
            self._publish('camera_color_optical_frame', self._camera, error, when + moment)
        self._publish('tool', START, 0.0, when)

    def _publish(self, link: str, pose: np.ndarray, error: float, when: int) -> None:
        message = TransformStamped(child_frame_id=link, header=Header(
            frame_id='base', stamp=Time(sec=when // 10**9, nanosec=when % 10**9)))
        place, turn = message.transform.translation, message.transform.rotation
        place.x, place.y, place.z = map(float, pose[:3, 3] + error)
        turn.x, turn.y, turn.z, turn.w = map(float, quaternion(pose[:3, :3]))
        self._publisher.publish(TFMessage(transforms=[message]))


@pytest.mark.parametrize('axes', ['z_forward_y_closes', 'x_forward_y_closes'])
def test_the_object_is_lifted(rig, axes):  # noqa: F811
    rng = np.random.default_rng(4)
    scene = random_scene(rng, [make_object(rng, 'box')])
    try:
        view = scene.render()
        it = rig(GraspDetector(threads=1))
        robot = Robot(it.tester)
        camera = CameraPublisher(it.tester, np.random.default_rng(0))
        tf = Tf(it.tester, np.linalg.inv(BASE) @ scene.camera_pose)
        process = start(it, f'tool_axes:={axes}')
        code, output = finished(process, lambda: tf.say(camera.publish(view, scene).stamp))
        assert code == 0, output
        assert [name for name, _ in robot.steps] == ATTEMPT
        (opened, before, grasp, closed, lifted, still) = (value for _, value in robot.steps)
        assert closed == still == 0 < opened < 0.0425
        tip = grasp.copy()
        tip[:3, :3] = grasp[:3, :3] @ TOOL_AXES[axes].T
        tip[:3, 3] += TCP_OFFSET * tip[:3, 0]
        np.testing.assert_allclose(before[:3, 3], grasp[:3, 3] - 0.1 * tip[:3, 0], atol=1e-6)
        np.testing.assert_allclose(lifted[:3, 3], grasp[:3, 3] + [0, 0, 0.1], atol=1e-6)
        result = GraspTrial(scene).execute(BASE @ tip, 2 * opened, friction=0.5)
        assert result.lifted, result.outcome
    finally:
        scene.close()


@pytest.fixture
def example(rig):  # noqa: F811
    """Return a function that runs the example against a robot that fails in one way."""
    def run(detector=None, robot_known=True, camera_known=True, parameters=(), **failure):
        it = rig(detector or StubDetector())
        robot = Robot(it.tester, **failure)
        tf = Tf(it.tester, np.eye(4) if camera_known else None)

        def take_image():
            stamp = it.tester.get_clock().now().to_msg()
            it.camera.publish(stamp=stamp)
            if robot_known:
                tf.say(stamp)

        code, output = finished(start(it, *parameters), take_image)
        return robot, code, output
    return run


# Across the box, where RECTANGLE is along it.
TURNED = GraspRectangle(185.0, 110.0, np.pi / 2, 28.0, 8.0)


@pytest.mark.parametrize('stalls', [False, True])
def test_what_has_slipped_is_grasped_otherwise_from_where_the_arm_was(example, stalls):
    robot, code, output = example(StubDetector([RECTANGLE, TURNED], [0.9, 0.8]), slips=1,
                                  stalls=stalls)
    assert code == 0, output
    assert [name for name, _ in robot.steps] == [*ATTEMPT, 'go', *ATTEMPT]
    np.testing.assert_allclose(robot.steps[len(ATTEMPT)][1], START, atol=1e-6)
    first, second = (robot.steps[i][1] for i in (2, len(ATTEMPT) + 3))
    # The same place, turned by a right angle.
    np.testing.assert_allclose(first[:3, 3], second[:3, 3], atol=0.005)
    assert abs(first[:3, 1] @ second[:3, 1]) < 0.01
    assert 'nothing is held: going back for another grasp' in output


def test_it_is_given_up_after_as_many_attempts_as_the_parameter_says(example):
    robot, code, output = example(StubDetector([RECTANGLE, TURNED], [0.9, 0.8]), slips=9,
                                  parameters=['attempts:=2'])
    assert code == 1 and 'no pick: nothing is held after 2 attempts' in output
    assert [name for name, _ in robot.steps] == [*ATTEMPT, 'go', *ATTEMPT]


@pytest.mark.parametrize('failure, words, steps', [
    ({'fraction': 0.5}, 'no pick: only 50% of the straight line', ['grip', 'go']),
    ({'code': MoveItErrorCodes.PLANNING_FAILED},
     'no pick: cannot plan to the pre-grasp: MoveIt error', ['grip', 'go']),
    ({'accept': False}, 'no pick: cannot move the gripper: the goal was refused', []),
    ({'robot_known': False}, 'does the robot publish its state?', []),
    ({'camera_known': False}, 'is the hand-eye calibration published?', []),
    ({'detector': StubDetector(scores=(0.001,))}, 'no pick: NO_CANDIDATE', [])])
def test_what_fails_is_said_and_nothing_comes_after_it(example, failure, words, steps):
    robot, code, output = example(**failure)
    assert code == 1 and words in output
    assert [name for name, _ in robot.steps] == steps

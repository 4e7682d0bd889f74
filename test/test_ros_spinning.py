"""Entities that go while the executor is about to wait for them do not end the spinning."""

import threading

import rclpy
from rclpy.executors import MultiThreadedExecutor
from ros_fixtures import ros, wait_until  # noqa: F401
from std_msgs.msg import Header

from grasp_stn_ros.ros.spinning import Spinner


def test_spinning_survives_what_a_transition_destroys(ros):  # noqa: F811
    from rclpy.exceptions import InvalidHandle
    node = rclpy.create_node('spun', namespace='/spinning')
    executor = MultiThreadedExecutor(num_threads=2)
    executor.add_node(node)
    # The race itself, made certain: the first rounds find a destroyed handle.
    rounds, spin_once = [], executor.spin_once

    def spin(timeout_sec):
        rounds.append(timeout_sec)
        if len(rounds) < 3:
            raise InvalidHandle('destruction was requested')
        spin_once(timeout_sec)

    executor.spin_once = spin
    received = []
    node.create_subscription(Header, 'topic', received.append, 10)
    publisher = node.create_publisher(Header, 'topic', 10)
    ended = threading.Event()
    spinner = Spinner(executor, on_end=ended.set)
    wait_until(publisher.get_subscription_count, 'discovery')
    publisher.publish(Header(frame_id='still here'))
    wait_until(lambda: received, 'the message')
    assert not ended.is_set()
    assert spinner.stop(20.0)
    assert spinner.failure is None
    node.destroy_node()


def test_a_callback_that_does_not_return_does_not_hold_the_end(ros):  # noqa: F811
    node = rclpy.create_node('stuck', namespace='/spinning')
    executor = MultiThreadedExecutor(num_threads=2)
    executor.add_node(node)
    release, running = threading.Event(), threading.Event()

    def stuck():
        running.set()
        release.wait(60)

    node.create_timer(0.01, stuck)
    spinner = Spinner(executor)
    wait_until(running.is_set, 'the callback')
    assert not spinner.stop(0.1), 'it is still running, and that is said'
    release.set()
    assert spinner.stop(20.0)
    node.destroy_node()

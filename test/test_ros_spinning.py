"""Entities that go while the executor is about to wait for them do not end the spinning."""

from pathlib import Path
import subprocess
import sys
import threading

import pytest
import rclpy
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import SingleThreadedExecutor
from ros_fixtures import ros, wait_until  # noqa: F401
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from grasp_stn_ros.ros.spinning import (
    NotReturnedError,
    ServingExecutor,
    Spinner,
    StopRequest,
    run_until,
)


def test_spinning_survives_what_a_transition_destroys(ros):  # noqa: F811
    from rclpy.exceptions import InvalidHandle
    node = rclpy.create_node('spun', namespace='/spinning')
    executor = ServingExecutor()
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
    executor = ServingExecutor()
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


class Pair:
    """A node under test that serves ``trigger``, and another one that calls it."""

    def __init__(self, serve):
        self.server = rclpy.create_node('server', namespace='/serving')
        self.server.create_service(Trigger, 'trigger', serve,
                                   callback_group=ReentrantCallbackGroup())
        self.caller = rclpy.create_node('caller', namespace='/serving')
        self.client = self.caller.create_client(Trigger, 'trigger')
        self.executor = ServingExecutor()
        self.spinners = []
        for node, executor in ((self.server, self.executor),
                               (self.caller, SingleThreadedExecutor())):
            executor.add_node(node)
            self.spinners.append(Spinner(executor))
        wait_until(self.client.service_is_ready, 'the service')

    def close(self):
        for spinner in self.spinners:
            assert spinner.stop(20.0)
        self.server.destroy_node()
        self.caller.destroy_node()


def test_calls_that_wait_stop_neither_messages_nor_each_other(ros):  # noqa: F811
    released, served = threading.Event(), []

    def serve(request, response):
        served.append(threading.current_thread())
        released.wait(60)
        response.success = True
        return response

    pair = Pair(serve)
    received = []
    pair.server.create_subscription(Header, 'topic', lambda _: received.append(
        threading.current_thread()), 100)
    publisher = pair.caller.create_publisher(Header, 'topic', 100)
    wait_until(publisher.get_subscription_count, 'discovery')
    calls = [pair.client.call_async(Trigger.Request()) for _ in range(5)]
    wait_until(lambda: len(served) == 5, 'all calls to be served at once')
    assert not any(call.done() for call in calls)
    for _ in range(50):
        publisher.publish(Header())
    wait_until(lambda: len(received) == 50, 'the messages')
    # What rclpy's executor gets wrong: a task is taken once, however long it waits for its turn.
    assert len(set(served)) == 5 and len(set(received)) == 1
    released.set()
    wait_until(lambda: all(call.done() for call in calls), 'the answers')
    assert all(call.result().success for call in calls)
    wait_until(lambda: not pair.executor._serving, 'the threads to be forgotten')
    pair.close()


def test_what_a_callback_raises_ends_the_spinning_wherever_it_ran(ros):  # noqa: F811
    def serve(request, response):
        raise LookupError('in a thread of its own')

    pair = Pair(serve)
    ended = pair.spinners[0]
    pair.client.call_async(Trigger.Request())
    wait_until(lambda: ended.failure is not None, 'the failure')
    with pytest.raises(LookupError, match='of its own'):
        raise ended.failure
    pair.close()


def test_the_end_waits_for_calls_and_says_when_they_do_not_return(ros):  # noqa: F811
    released, running = threading.Event(), threading.Event()

    def serve(request, response):
        running.set()
        released.wait(60)
        return response

    pair = Pair(serve)
    pair.client.call_async(Trigger.Request())
    wait_until(running.is_set, 'the call')
    assert not pair.spinners[0].stop(0.1)
    released.set()
    pair.close()


def test_a_signal_may_come_at_any_instant_of_the_wait_for_it():
    """With threading.Event one of the first dozen never returns."""
    code = ('import random, signal, sys\n'
            'sys.path.insert(0, sys.argv[1])\n'
            'from grasp_stn_ros.ros.spinning import StopRequest\n'
            'for number in range(300):\n'
            '    stop = StopRequest()\n'
            '    signal.signal(signal.SIGALRM, lambda *_: stop.set())\n'
            '    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 3e-5))\n'
            '    stop.wait()\n'
            '    assert stop.is_set()\n')
    subprocess.run([sys.executable, '-c', code, str(Path(__file__).parent.parent)], check=True,
                   timeout=120)


def test_what_is_started_returns_and_raises_as_if_it_were_called():
    assert run_until(StopRequest(), 1.0, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        run_until(StopRequest(), 1.0, lambda: 1 // 0)


def test_after_a_stop_the_start_has_so_long_and_no_longer():
    stop, release = StopRequest(), threading.Event()
    stop.set()
    assert run_until(stop, 20.0, lambda: release.wait(0.05)) is False
    with pytest.raises(NotReturnedError):
        run_until(stop, 0.05, lambda: release.wait(60))
    release.set()

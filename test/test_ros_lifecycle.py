"""The managed node over real DDS: every transition, what it leaves behind, and how it fails."""

import json
import threading

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
import pytest
from rclpy.parameter import Parameter
from ros_fixtures import DEADLINE, StubDetector, rig, ros, wait_until  # noqa: F401

from grasp_stn_ros.reasons import Reason
from grasp_stn_ros.ros.grasp_node import GraspNode

CONFIGURE, CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
ACTIVATE, DEACTIVATE = Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE
UNCONFIGURED, INACTIVE = State.PRIMARY_STATE_UNCONFIGURED, State.PRIMARY_STATE_INACTIVE
ACTIVE, FINALIZED = State.PRIMARY_STATE_ACTIVE, State.PRIMARY_STATE_FINALIZED


class Manager:
    """Does what a lifecycle manager does: calls the services of the node."""

    def __init__(self, it):
        self.it = it
        self._change = it.tester.create_client(ChangeState, 'grasp_node/change_state')
        self._get = it.tester.create_client(GetState, 'grasp_node/get_state')
        assert self._change.wait_for_service(DEADLINE)
        assert self._get.wait_for_service(DEADLINE)

    def change(self, transition: int) -> bool:
        return self.it.answer(self._change.call_async(
            ChangeState.Request(transition=Transition(id=transition)))).success

    @property
    def state(self) -> int:
        return self.it.answer(self._get.call_async(GetState.Request())).current_state.id


def test_a_managed_node_waits_works_rests_and_ends(rig):  # noqa: F811
    it = rig(autostart=False, wait=False)
    manager = Manager(it)
    assert manager.state == UNCONFIGURED
    assert not it.detector.warm, 'nothing is loaded before configure'

    assert manager.change(CONFIGURE)
    assert manager.state == INACTIVE
    assert it.detector.warm
    assert not it.camera.publishers['color'].get_subscription_count()

    assert manager.change(ACTIVATE)
    assert manager.state == ACTIVE
    it.wait_for_discovery()
    it.camera.stream()
    assert it.answer(it.call()).success
    it.wait_for('grasp')

    waiting = it.call(timeout=60.0)
    it.camera.stop()
    threads = threading.enumerate()
    assert manager.change(DEACTIVATE)
    assert manager.state == INACTIVE
    it.answer(waiting)
    assert it.detector.suspended, 'the GPU is free'
    assert not [t for t in threads if t.name == 'inference' and t.is_alive()]
    wait_until(lambda: not it.camera.publishers['color'].get_subscription_count(),
               'the subscription to go')
    response = it.answer(it.call())
    assert (response.success, response.reason) == (False, Reason.NOT_ACTIVE)

    assert manager.change(ACTIVATE)
    wait_until(it.camera.publishers['color'].get_subscription_count, 'the subscription')
    it.camera.stream()
    wait_until(lambda: it.answer(it.call()).success, 'a grasp after the pause')
    assert manager.change(DEACTIVATE)
    assert manager.change(CLEANUP)
    assert manager.state == UNCONFIGURED
    assert manager.change(CONFIGURE)
    assert manager.change(Transition.TRANSITION_INACTIVE_SHUTDOWN)
    assert manager.state == FINALIZED


def test_a_request_that_waits_is_answered_by_deactivate(rig):  # noqa: F811
    it = rig()
    manager = Manager(it)
    waiting = it.call(timeout=60.0)
    wait_until(lambda: it.node.requests.tickets, 'the request')
    assert manager.change(DEACTIVATE)
    response = it.answer(waiting)
    assert response.reason == Reason.NOT_ACTIVE
    assert 'deactivated' in response.message


def test_configure_that_fails_says_why_and_can_be_repeated(rig):  # noqa: F811
    problems = [ValueError('no such weights'), ZeroDivisionError('a defect')]

    def factory(values):
        if problems:
            raise problems[0]
        return StubDetector()

    it = rig(factory, autostart=False, wait=False)
    manager = Manager(it)
    while problems:
        assert not manager.change(CONFIGURE)
        assert manager.state == UNCONFIGURED
        assert str(problems[0]) in it.node._diagnostics.failure
        problems.pop(0)
    assert manager.change(CONFIGURE)
    assert it.node._diagnostics.failure == ''


def test_warm_up_that_fails_leaves_nothing_behind(rig):  # noqa: F811
    detector = StubDetector()

    def broken():
        raise RuntimeError('no memory')

    detector.warm_up = broken
    it = rig(detector, autostart=False, wait=False)
    manager = Manager(it)
    assert not manager.change(CONFIGURE)
    assert (manager.state, it.node._detector, it.node._outputs) == (UNCONFIGURED, None, None)


@pytest.mark.parametrize('moving', [False, True])
def test_the_network_is_prepared_for_a_camera_that_moves(rig, moving):  # noqa: F811
    detector = StubDetector()
    rig(detector, moving_camera=moving)
    assert detector.warm and detector.warm_everywhere == [0, 1, 2][:3 * moving]


def test_a_signal_ends_the_preparation_for_a_camera_that_moves(ros):  # noqa: F811
    detector = StubDetector()
    with pytest.raises(KeyboardInterrupt):
        GraspNode(lambda values: detector, lambda: bool(detector.warm_everywhere),
                  namespace='interrupted',
                  parameter_overrides=[Parameter('moving_camera', value=True)])
    assert detector.warm_everywhere == [0]


def test_activate_that_fails_leaves_the_node_inactive(rig):  # noqa: F811
    detector = StubDetector()

    def broken():
        raise RuntimeError('the device is gone')

    detector.resume, works = broken, detector.resume
    it = rig(detector, autostart=False, wait=False)
    manager = Manager(it)
    assert manager.change(CONFIGURE)
    assert not manager.change(ACTIVATE)
    assert manager.state == INACTIVE
    assert 'the device is gone' in it.node._diagnostics.failure
    detector.resume = works
    assert manager.change(ACTIVATE)
    it.wait_for_discovery()
    it.camera.publish()
    it.wait_for('grasp')


def test_deactivate_that_fails_releases_all_and_can_be_configured_again(rig):  # noqa: F811
    detector = StubDetector()
    failures = [RuntimeError('the driver hung')]

    def suspend():
        if failures:
            raise failures.pop()

    detector.suspend = suspend
    it = rig(detector)
    manager = Manager(it)
    assert not manager.change(DEACTIVATE)
    # Neither active nor inactive would be true, so it is neither.
    assert manager.state == UNCONFIGURED
    assert 'the driver hung' in it.node._diagnostics.failure
    assert it.node._input is None
    assert manager.change(CONFIGURE)
    assert manager.change(ACTIVATE)
    it.wait_for_discovery()
    it.camera.stream()
    wait_until(lambda: it.answer(it.call()).success, 'a grasp')


def test_transitions_that_do_not_exist_are_refused(rig):  # noqa: F811
    it = rig()
    manager = Manager(it)
    assert not manager.change(CONFIGURE)
    assert not manager.change(CLEANUP)
    assert manager.state == ACTIVE


def test_a_model_with_another_preprocessing_is_refused_at_configure(rig, tmp_path):  # noqa: F811
    pytest.importorskip('torch', reason='torch is missing: run `make setup`')
    from grasp_stn_ros.detector import default_weights
    from grasp_stn_ros.ros.grasp_node import default_detector
    weights = tmp_path / 'other.safetensors'
    weights.write_bytes(default_weights().read_bytes())
    sidecar = json.loads(default_weights().with_suffix('.json').read_text())
    sidecar['preprocessing']['height_scale'] = 1.0
    weights.with_suffix('.json').write_text(json.dumps(sidecar))
    it = rig(default_detector, autostart=False, wait=False, model=str(weights))
    manager = Manager(it)
    assert not manager.change(CONFIGURE)
    assert manager.state == UNCONFIGURED
    assert 'preprocessing' in it.node._diagnostics.failure

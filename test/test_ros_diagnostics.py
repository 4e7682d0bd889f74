"""What /diagnostics says in each situation: level, the numbers, and what to do."""

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
import numpy as np
import pytest
from ros_fixtures import SIZE, StubDetector, rig, ros, wait_until  # noqa: F401

from grasp_stn_ros.reasons import GraspError, Reason
from grasp_stn_ros.ros import conversions, diagnostics

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class Listener:
    """The statuses of one node, as they come over DDS."""

    def __init__(self, it):
        self.name = f'{it.namespace.lstrip("/")}/grasp_node: grasp detection'
        self.received = []
        it.tester.create_subscription(DiagnosticArray, '/diagnostics', self._receive, 10)

    def _receive(self, array):
        self.received += [(array.header.stamp, s) for s in array.status if s.name == self.name]

    def wait_for(self, level, word=''):
        """Return (message, values) of the first new status of that level with ``word``."""
        status = wait_until(lambda: next(
            (s for _, s in list(self.received) if s.level == level and word in s.message), None),
            f'level {level} with {word!r}; got {[s.message for _, s in self.received]}')
        return status.message, {v.key: v.value for v in status.values}


def test_silence_then_work(rig):  # noqa: F811
    it = rig()
    listener = Listener(it)
    message, values = listener.wait_for(ERROR, 'color/image_raw')
    assert 'no publisher' in message or 'silent' in message
    assert values['state'] == 'active'
    it.camera.stream()
    topic = f'{it.namespace}/color/image_raw'
    listener.wait_for(OK, 'running')
    listener.received.clear()
    _, values = listener.wait_for(OK, 'running')
    assert (values['model'], values['device'], values['threads']) == ('stub', 'cpu', '1')
    assert values['last reason'] == 'OK'
    assert values['last reason for no grasp'] == 'none so far'
    # 20 Hz are published; a shared machine may be slower, never faster.
    assert 0 < float(values[f'rate {topic} (Hz)']) <= 25
    assert 0 < float(values['pair rate (Hz)']) <= 25
    assert 0 <= float(values[f'age {topic} (s)']) < 2
    assert 0 <= float(values['inference median (ms)']) <= float(values['inference p95 (ms)'])
    assert int(values['detections']) > 0
    for cause in ('busy', 'stale', 'no partner', 'negative stamp', 'lost in the middleware'):
        assert int(values[f'dropped: {cause}']) >= 0


def test_what_was_wrong_with_the_last_request_is_no_error_for_ever(rig, monkeypatch):  # noqa: F811
    monkeypatch.setattr(diagnostics, '_PAST_AFTER', 1.5)
    it = rig(mode='on_demand')
    listener = Listener(it)

    def foreign(messages):
        messages['depth'].header.frame_id = 'another'
        return messages

    it.camera.stream(change=foreign)
    assert it.answer(it.call()).reason == Reason.FRAME_MISMATCH
    listener.wait_for(ERROR, 'another')
    it.camera.stream()
    _, values = listener.wait_for(OK, 'running')
    assert values['last reason'] == 'FRAME_MISMATCH'


def test_the_log_says_why_nothing_comes(rig, monkeypatch, capfd):  # noqa: F811
    monkeypatch.setattr(diagnostics, '_LOGGED_AFTER', 1.0)
    it = rig()
    log = []

    def told(text):
        log.append(capfd.readouterr().err)
        return text in ''.join(log)

    # Colour and depth come, camera_info never does.
    it.camera.stream(only=('color', 'depth'))
    info = f'{it.namespace}/color/camera_info'
    wait_until(lambda: told(f'no images to work on: nothing arrived on {info} (1 publisher'),
               'the log')


def test_drops_are_counted_by_cause(rig):  # noqa: F811
    it = rig(maximum_frame_age=5.0)
    listener = Listener(it)
    # Colour without partners; more of them than the synchronizer keeps.
    for number in range(15):
        it.camera.publish(only=('color',))
        # One by one: the queue of the subscription is shorter than all of them.
        wait_until(lambda sent=number + 1: it.node._input.counts[
            f'{it.namespace}/color/image_raw'] == sent, 'delivery')

    def negative(messages):
        for message in messages.values():
            message.header.stamp.sec = -5
        return messages

    def old(messages):
        for message in messages.values():
            message.header.stamp.sec -= 10
        return messages

    it.camera.publish(negative)
    it.camera.publish(old)
    it.wait_for('stages', lambda m: m.reason == Reason.STALE_FRAME)
    listener.received.clear()
    wait_until(lambda: any(
        {v.key: v.value for v in s.values}['dropped: stale'] == '1'
        for _, s in list(listener.received)), 'the count')
    values = {v.key: v.value for v in listener.received[-1][1].values}
    assert values['dropped: negative stamp'] == '3'
    # 15 without a partner; the jump back in time has emptied the queue.
    assert int(values['dropped: no partner']) == 15
    assert values['clock jumps'] == '1'


@pytest.mark.parametrize('reason, level', [(Reason.OUT_OF_MEMORY, ERROR), (Reason.NO_DEPTH, WARN)])
def test_a_reason_is_a_level_with_what_to_do(rig, reason, level):  # noqa: F811
    it = rig(StubDetector(error=GraspError(reason)))
    listener = Listener(it)
    it.camera.stream()
    message, values = listener.wait_for(level, reason.name)
    assert reason.sentence in message
    assert values['last reason'] == reason.name
    assert reason.name in values['last reason for no grasp']


def test_a_wrong_clock_is_a_warning(rig):  # noqa: F811
    it = rig()
    listener = Listener(it)

    def other_clock(messages):
        for message in messages.values():
            message.header.stamp.sec -= 1000
        return messages

    it.camera.stream(change=other_clock)
    message, _ = listener.wait_for(WARN, 'use_sim_time')
    assert '1000' in message


def nameless(messages):
    for message in messages.values():
        message.header.frame_id = ''
    return messages


def test_images_without_a_frame_are_a_warning_that_names_the_parameter(rig, capfd):  # noqa: F811
    it = rig()
    listener = Listener(it)
    it.camera.stream(change=nameless)
    message, _ = listener.wait_for(WARN, 'frame_id')
    assert 'set the parameter frame_id' in message
    assert capfd.readouterr().err.count(message) == 1
    it.camera.stream()
    listener.wait_for(OK, 'running')


def test_images_without_a_frame_are_right_where_the_parameter_names_it(rig):  # noqa: F811
    it = rig(frame_id='camera')
    listener = Listener(it)
    it.camera.stream(change=nameless)
    listener.wait_for(OK, 'running')
    assert it.wait_for('grasp').header.frame_id == 'camera'


def test_a_change_of_the_calibration_is_counted_and_logged(rig, capfd):  # noqa: F811
    it = rig()
    listener = Listener(it)
    it.camera.publish()
    wait_until(lambda: it.node._input.pairs == 1, 'the first pair')

    def zoomed(messages):
        messages['info'].k[0] *= 1.5
        messages['info'].k[4] *= 1.5
        return messages

    before = it.wait_for('grasp').pose.position.x
    it.camera.publish(zoomed)
    it.wait_for('grasp', lambda m: abs(m.pose.position.x - before / 1.5) < 1e-6)
    wait_until(lambda: any({v.key: v.value for v in s.values}['camera_info changes'] == '1'
                           for _, s in list(listener.received)), 'the count')
    assert 'K [375, 0, 160, 0, 375, 120, 0, 0, 1];' in capfd.readouterr().err


def test_losses_are_told_beside_other_troubles_and_once(rig):  # noqa: F811
    detector = StubDetector()
    detector.fallback = 'cuda is out of memory, the network runs on the CPU'
    it = rig(detector)
    it.camera.stream()
    listener = Listener(it)
    listener.wait_for(WARN, 'runs on the CPU')
    it.node._input._gates[0].reported_lost += 7
    listener.wait_for(WARN, '7 messages were lost')
    listener.received.clear()
    listener.wait_for(WARN, 'runs on the CPU')


def test_fallback_of_the_device_is_a_warning(rig):  # noqa: F811
    detector = StubDetector()
    detector.fallback = 'cuda is out of memory, the network runs on the CPU'
    it = rig(detector)
    it.camera.stream()
    Listener(it).wait_for(WARN, 'runs on the CPU')


def test_a_node_that_could_not_be_configured_says_so(rig):  # noqa: F811
    def factory(values):
        raise ValueError('the weights are missing; copy them')

    it = rig(factory, autostart=False, wait=False)
    listener = Listener(it)
    message, values = listener.wait_for(OK, 'unconfigured')
    it.node.trigger_configure()
    message, _ = listener.wait_for(ERROR, 'configure failed')
    assert 'copy them' in message


def test_nan_only_depth_is_named_without_asking_the_detector(rig):  # noqa: F811
    it = rig()
    listener = Listener(it)

    def blind(messages):
        messages['depth'] = conversions.depth_message(
            np.full((SIZE[1], SIZE[0]), np.nan, np.float32), '32FC1', messages['color'].header)
        return messages

    it.camera.stream(change=blind)
    response = it.answer(it.call())
    assert response.reason == Reason.NO_DEPTH
    assert 'not one pixel' in response.message
    assert not it.detector.calls
    listener.wait_for(WARN, 'not one pixel')


def test_depth_in_millimetres_as_32fc1_is_named(rig):  # noqa: F811
    it = rig()

    def millimetres(messages):
        messages['depth'] = conversions.depth_message(
            np.full((SIZE[1], SIZE[0]), 812.5, np.float32), '32FC1', messages['color'].header)
        return messages

    it.camera.stream(change=millimetres)
    response = it.answer(it.call())
    assert response.reason == Reason.NO_DEPTH
    assert '812.5 to 812.5, 32FC1 is metres' in response.message

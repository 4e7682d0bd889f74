"""Record, view and doctor beside a running node: real messages over real DDS."""

import importlib
import os

from click.testing import CliRunner
import numpy as np
import pytest
from ros_fixtures import (  # noqa: F401
    BOX_DEPTH,
    RECTANGLE,
    StubDetector,
    box_scene,
    rig,
    ros,
    wait_until,
)

pytest.importorskip('mcap_ros2', reason='mcap-ros2-support is missing: run `make setup`')

from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from test_ros_guards import compress, compressed_rig

from grasp_stn_interfaces.msg import GraspStages
from grasp_stn_ros.cli_doctor import doctor as doctor_command
from grasp_stn_ros.doctor import machine
from grasp_stn_ros.doctor.findings import Level
from grasp_stn_ros.reasons import Reason
from grasp_stn_ros.recording import definitions
from grasp_stn_ros.recording.reader import Recording, RecordingError
from grasp_stn_ros.recording.replay import AsNode, compare
from grasp_stn_ros.recording.writer import STAGES, RecordingWriter, stages_fields
from grasp_stn_ros.rectangle import GraspRectangle
from grasp_stn_ros.ros import conversions, doctor, parameters, recorder, topics
from grasp_stn_ros.ros.doctor import Options, examine


def by_name(findings) -> dict:
    return {f.name: f for f in findings}


@pytest.mark.parametrize('name', sorted(definitions._FIELDS))
def test_definitions_are_those_of_ros(name):
    installed = recorder.definition(name)
    assert definitions.fields(installed) == definitions.fields(definitions.known(name))


def test_what_is_written_without_ros_is_what_ros_writes(rig):  # noqa: F811
    each = rig()
    from ros_fixtures import INTRINSICS

    from grasp_stn_ros.rgbd import RgbdFrame
    detection = each.detector.detect(RgbdFrame(*box_scene(), INTRINSICS))
    expected = conversions.stages_message(detection, Header(frame_id='f'))
    from mcap_ros2._dynamic import serialize_dynamic
    encode = serialize_dynamic(STAGES, definitions.schema(STAGES))[STAGES]
    data = encode(stages_fields(detection, {'stamp': {'sec': 0, 'nanosec': 0},
                                            'frame_id': 'f'}))
    # By way of the wire, which has 32 bits where Python has 64.
    assert deserialize_message(data, GraspStages) == deserialize_message(
        serialize_message(expected), GraspStages)


def test_a_running_node_is_recorded(rig, tmp_path):  # noqa: F811
    each = rig(gripper__maximum_opening=0.07)
    each.camera.stream()
    each.wait_for('stages')
    path = tmp_path / 'node.mcap'
    count = recorder.record(path, f'{each.namespace}/grasp_node', 3.0, True, lambda text: None)
    recording = Recording(path)
    assert recording.parameters['gripper.maximum_opening'] == 0.07
    assert recording.topics['color'] == f'{each.namespace}/color/image_raw'
    moments = list(recording.frames())
    assert count > 3 * len(moments) > 0
    found = [m for m in moments if m.detection is not None]
    assert found, 'no image with what was found in it'
    best = found[0].detection.best
    # Box top at 0.75 m, rectangle centred at (185, 110), f = 250.
    np.testing.assert_allclose(best.grasp.surface, [0.075, -0.03, BOX_DEPTH], atol=1e-3)
    assert found[0].frame.depth[110, 185] == pytest.approx(BOX_DEPTH)
    topics = {m.topic.rpartition('/')[2] for m in recording.messages()}
    assert {'markers', 'grasp', 'stages'} <= topics


def test_a_node_with_compressed_inputs_is_recorded_seen_and_examined(rig, tmp_path):  # noqa: F811
    pytest.importorskip('rerun', reason='rerun-sdk is missing: run `make setup`')
    from grasp_stn_ros.ros.view_source import watch
    from grasp_stn_ros.viewing.scene import Scene
    each = compressed_rig(rig)
    each.camera.stream(change=compress)
    each.wait_for('stages')
    name, path = f'{each.namespace}/grasp_node', tmp_path / 'node.mcap'
    recorder.record(path, name, 3.0, False, lambda text: None)
    recording = Recording(path)
    assert recording.topics['color'] == f'{each.namespace}/color/image_raw/compressed'
    assert recording.topics['depth'] == f'{each.namespace}/depth/image_rect_raw/compressedDepth'
    frame = next(m for m in recording.frames() if m.detection is not None).frame
    assert frame.depth[110, 185] == pytest.approx(BOX_DEPTH)
    moments = watch(name, Scene(), lambda text: None)
    shown = next(moments)
    moments.close()
    np.testing.assert_array_equal(shown.frame.rgb, frame.rgb)
    found = by_name(examine(Options(name, seconds=2.0)))
    for check in ('topic.color', 'topic.depth', 'encoding.color', 'encoding.depth', 'size',
                  'camera_info', 'stamp.pairs'):
        assert found[check].level is Level.OK, found[check]
    assert 'jpeg compressed' in found['encoding.color'].message


LEFT, RIGHT = RECTANGLE, GraspRectangle(185.0, 100.0, np.pi / 4, 20.0, 8.0)


class Flickering(StubDetector):
    """Two grasps, of which now one and now the other is better, as the image says."""

    def detect(self, frame, region=None, minimum_score=0.0, need_pose=True, mask=None):
        even = frame.rgb[0, 0, 0] % 2 == 0
        self.rectangles, self.scores = ((LEFT, RIGHT) if even else (RIGHT, LEFT)), (0.82, 0.78)
        return super().detect(frame, region, minimum_score, need_pose)


def numbered(messages: dict) -> dict:
    messages['color'].data[0] = messages['color'].header.stamp.nanosec // 50_000_000 % 256
    return messages


@pytest.mark.parametrize('values, forbidden, gap', [
    # The camera looks down: y in the base is 0.03 m for the left one and 0.06 m for the other.
    ({'target_frame': 'base', 'camera_pose': [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0],
      'workspace__minimum': [-1.0, 0.045, -1.0], 'workspace__maximum': [1.0, 1.0, 1.0]},
     Reason.OUTSIDE_WORKSPACE, ''),
    ({'maximum_depth': 0.7}, Reason.OUTSIDE_DEPTH, ''),
    ({'support_margin': 0.05}, Reason.SUPPORT_COLLISION, ''),
    ({'mask_topic': 'mask'}, Reason.MASKED, 'mask_topic'),
    ({'stability__enabled': True}, None, 'stability.enabled')])
def test_a_replay_finds_what_the_node_found(rig, tmp_path, values, forbidden, gap):  # noqa: F811
    each = rig(Flickering(), **values)
    mask = np.zeros((240, 320), np.uint8)
    mask[:105] = 255
    masks = each.tester.create_publisher(Image, 'mask', 5)

    def publish(messages):
        masks.publish(conversions.image_message(mask, 'mono8', messages['color'].header))
        return numbered(messages)

    each.camera.stream(change=publish)
    each.wait_for('stages', lambda m: m.reason != Reason.MASKED or m.candidates)
    path = tmp_path / 'node.mcap'
    recorder.record(path, f'{each.namespace}/grasp_node', 1.0, False, lambda text: None)
    recording = Recording(path)
    moments = [m for m in recording.frames() if m.detection is not None]
    assert moments
    if forbidden:
        assert any(c.reason == forbidden for m in moments for c in m.detection.candidates)
    node = AsNode(recording.parameters)
    again = node.again(Flickering())
    for moment in moments:
        difference = compare(again(moment), node.recorded(moment))
        assert difference['identical'], difference
    assert [g.partition(':')[0] for g in node.gaps] == ([gap] if gap else [])


# Two endings alike, and one that the parameters do not have.
REALSENSE = {'color/image_raw': 'camera/color/image_raw',
             'depth/image_rect_raw': 'camera/aligned_depth_to_color/image_raw',
             'color/camera_info': 'camera/color/camera_info',
             'grasp_node/stages': 'found/stages'}


def test_a_node_with_remapped_topics_is_recorded_seen_and_examined(rig, tmp_path):  # noqa: F811
    pytest.importorskip('rerun', reason='rerun-sdk is missing: run `make setup`')
    from grasp_stn_ros.ros.view_source import watch
    from grasp_stn_ros.viewing.scene import Scene
    each = rig(remap=REALSENSE)
    each.camera.stream()
    each.wait_for('stages')
    name, path = f'{each.namespace}/grasp_node', tmp_path / 'node.mcap'
    recorder.record(path, name, 1.0, False, lambda text: None)
    recording = Recording(path)
    topics = [f'{each.namespace}/{topic}' for topic in REALSENSE.values()]
    assert list(recording.topics.values()) == topics
    assert any(m.detection is not None for m in recording.frames())
    moments = watch(name, Scene(), lambda text: None)
    assert next(moments).frame.depth[110, 185] == pytest.approx(BOX_DEPTH)
    moments.close()
    found = by_name(examine(Options(name, seconds=1.0)))
    for check in ('topic.color', 'topic.depth', 'topic.camera_info', 'size', 'results'):
        assert found[check].level is Level.OK, found[check]


def test_the_node_tells_its_topics_and_nobody_else(rig):  # noqa: F811
    from rclpy.parameter import Parameter
    each = rig(wait=False, autostart=False, topics__depth='/elsewhere',
               color_transport='compressed', depth_topic='~/depth')
    told = {name: p.value for name, p in each.node.get_parameters_by_prefix('topics').items()}
    assert told == topics.resolved(f'{each.namespace}/grasp_node', parameters.values(each.node))
    assert told['color'] == f'{each.namespace}/color/image_raw/compressed'
    assert told['depth'] == f'{each.namespace}/grasp_node/depth'
    assert told['grasp'] == f'{each.namespace}/grasp_node/grasp'
    assert told['diagnostics'] == '/diagnostics'
    result = each.node.set_parameters([Parameter('topics.depth', value='/elsewhere')])[0]
    assert not result.successful


def test_a_name_that_is_no_topic_is_refused_at_the_start(ros):  # noqa: F811
    from rclpy.parameter import Parameter

    from grasp_stn_ros.ros.grasp_node import GraspNode
    with pytest.raises(ValueError, match='color_topic'):
        GraspNode(lambda _: None, namespace='/refused',
                  parameter_overrides=[Parameter('color_topic', value='no topic')])


def test_a_node_that_is_not_there_is_named(ros, tmp_path, monkeypatch):  # noqa: F811
    from grasp_stn_ros.ros import graph
    monkeypatch.setattr(graph.find, '__defaults__', (0.5,))
    with pytest.raises(RecordingError, match='NO_NODE: there is no node /nobody'):
        recorder.record(tmp_path / 'x.mcap', 'nobody', 1.0, False, lambda text: None)
    assert not list(tmp_path.iterdir())


def test_the_viewer_follows_a_running_node(rig):  # noqa: F811
    pytest.importorskip('rerun', reason='rerun-sdk is missing: run `make setup`')
    from grasp_stn_ros.ros.view_source import watch
    from grasp_stn_ros.viewing.scene import Scene
    each = rig(gripper__finger_thickness=0.011, approach_offset=0.07)
    each.camera.stream()
    scene = Scene()
    moments = watch(f'{each.namespace}/grasp_node', scene, lambda text: None)
    shown = next(moments)
    moments.close()
    assert scene.gripper.finger_thickness == 0.011 and scene.approach_offset == 0.07
    assert shown.detection.best.grasp.opening == pytest.approx(0.06, abs=1e-3)
    scene.log(shown)


def test_stages_of_another_version_do_not_end_the_viewer(rig, monkeypatch):  # noqa: F811
    pytest.importorskip('rerun', reason='rerun-sdk is missing: run `make setup`')
    from grasp_stn_ros.ros import view_source
    from grasp_stn_ros.viewing.scene import Scene
    monkeypatch.setattr(view_source, '_PATIENCE', 0.5)
    each = rig(mode='on_demand')
    stages = each.tester.create_publisher(GraspStages, 'grasp_node/stages', 10)
    said: list[str] = []

    def publish(messages):
        stages.publish(GraspStages(header=messages['color'].header, best=-1,
                                   reason=Reason.NO_DEPTH if said else 200))
        return messages

    each.camera.stream(change=publish)
    moments = view_source.watch(f'{each.namespace}/grasp_node', Scene(), said.append)
    shown = next(moments)
    moments.close()
    assert shown.detection.reason == Reason.NO_DEPTH
    assert '200 is not a valid Reason' in said[0]


def test_the_doctor_knows_not_every_reason(rig):  # noqa: F811
    each = rig(mode='on_demand')
    stages = each.tester.create_publisher(GraspStages, 'grasp_node/stages', 10)
    each.camera.stream(change=lambda messages: stages.publish(
        GraspStages(reason=200, message='of tomorrow')) or messages)
    found = by_name(examine(Options(f'{each.namespace}/grasp_node', seconds=1.0)))['results']
    assert 'reason 200' in found.message and found.remedy == 'of tomorrow'


def test_a_healthy_camera_and_node(rig):  # noqa: F811
    each = rig()
    each.camera.stream()
    each.wait_for('stages')
    found = by_name(examine(Options(f'{each.namespace}/grasp_node', seconds=2.0)))
    errors = [f for f in found.values() if f.level is Level.ERROR]
    assert not errors
    for name in ('node', 'topic.color', 'encoding.depth', 'size', 'frame', 'camera_info',
                 'stamp.pairs', 'depth.valid', 'dds.profile'):
        assert found[name].level is Level.OK, found[name]
    assert 'grasp in 100%' in found['results'].message


def test_the_doctor_advises_commands_that_exist(ros, monkeypatch, tmp_path):  # noqa: F811
    def advice():
        return by_name(examine(Options('/nobody', seconds=0.1)))['node'].remedy

    monkeypatch.setattr(doctor, '_DISCOVERY', 0.1)
    monkeypatch.setenv('PATH', str(tmp_path))
    assert 'ros2' not in advice()
    assert 'grasp_node' in advice()
    (tmp_path / 'ros2').touch(0o755)
    assert advice().startswith('ros2 launch grasp_stn_ros')


def spoilt(messages: dict) -> dict:
    messages['depth'] = conversions.depth_message(np.full((120, 160), np.nan, np.float32),
                                                  '32FC1', messages['depth'].header)
    messages['depth'].header.frame_id = 'depth_frame'
    messages['info'].k = [0.0] * 9
    messages['color'].encoding = '8UC3'
    return messages


def test_each_fault_of_a_camera_is_named_with_a_remedy(rig):  # noqa: F811
    each = rig()
    each.camera.stream(change=spoilt)
    wait_until(lambda: each.camera.published > 2, 'images')
    found = by_name(examine(Options(f'{each.namespace}/grasp_node', seconds=2.0)))
    for name, text in (('size', 'not aligned'), ('encoding.color', 'rgb8 or bgr8'),
                       ('camera_info', 'uncalibrated'), ('depth.valid', 'not one pixel')):
        assert found[name].level is Level.ERROR and text in found[name].message, found[name]
        assert found[name].remedy
    assert found['results'].level is Level.WARNING


def test_a_silent_camera_is_named_without_a_node(ros, monkeypatch):  # noqa: F811
    doctor = importlib.import_module('grasp_stn_ros.ros.doctor')
    monkeypatch.setattr(doctor, '_DISCOVERY', 0.5)
    found = by_name(examine(Options('/nobody', {'color': '/no/such/topic'}, 0.5)))
    assert found['node'].level is Level.NOTE and 'NO_NODE' in found['node'].message
    assert 'nobody publishes /no/such/topic' in found['topic.color'].message


def test_what_killed_processes_left_is_worth_a_note_and_a_remedy(tmp_path, monkeypatch):
    def segment(name):
        with open(tmp_path / name, 'wb') as file:
            file.truncate(300 << 20)
        (tmp_path / f'{name}_el').touch()
        os.utime(tmp_path / f'{name}_el', (1e9, 1e9))

    assert next(machine.check_shared_memory(tmp_path)).level is Level.OK
    segment('fastdds_0123456789abcdef')
    found = next(machine.check_shared_memory(tmp_path))
    assert found.level is Level.NOTE and '300 MiB are left of 1 killed' in found.message
    assert '--clean' in found.remedy
    monkeypatch.setattr(machine.shared_memory, 'FOLDER', tmp_path)
    done = CliRunner().invoke(doctor_command, ['--clean', '--no-ros', '--json'])
    assert '300 MiB' in done.stderr and not list(tmp_path.iterdir())


def test_profiles_of_dds(tmp_path):
    def level(environ):
        return next(machine.check_dds(environ, 'rmw_fastrtps_cpp', 'own.xml')).level

    small = tmp_path / 'small.xml'
    small.write_text('<dds><segment_size>524288</segment_size></dds>')
    (tmp_path / 'broken.xml').write_text('<dds>')
    assert level({}) is Level.WARNING
    assert level({'FASTDDS_BUILTIN_TRANSPORTS': 'LARGE_DATA'}) is Level.OK
    assert level({'FASTDDS_DEFAULT_PROFILES_FILE': str(small)}) is Level.WARNING
    assert level({'FASTDDS_DEFAULT_PROFILES_FILE': str(tmp_path / 'broken.xml')}) is Level.ERROR
    assert level({'FASTRTPS_DEFAULT_PROFILES_FILE': str(tmp_path / 'none.xml')}) is Level.ERROR


def test_a_writer_with_a_bad_name_leaves_nothing(tmp_path):
    with pytest.raises(RecordingError, match='CANNOT_WRITE'):
        RecordingWriter(tmp_path / 'no folder' / 'x.mcap')

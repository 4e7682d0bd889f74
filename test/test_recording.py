"""Recordings: written, read, detected in again, compared; what is wrong with a file is named."""

import json
import random

from click.testing import CliRunner
import cv2
import numpy as np
import pytest

pytest.importorskip('mcap_ros2', reason='mcap-ros2-support is missing: run `make setup`')

from grasp_stn_ros import retry
from grasp_stn_ros.cli import main
from grasp_stn_ros.detection import Candidate, Detection, Grasp
from grasp_stn_ros.detector import GraspDetector, find_weights
from grasp_stn_ros.names import table_weights
from grasp_stn_ros.node_settings import detector_settings
from grasp_stn_ros.reasons import Reason
from grasp_stn_ros.recording import definitions
from grasp_stn_ros.recording.reader import Moment, Recording, RecordingError
from grasp_stn_ros.recording.replay import AsNode, Side, compare, rows
from grasp_stn_ros.recording.writer import (
    CAMERA_INFO,
    IMAGE,
    POSE,
    STAGES,
    TOPICS,
    RecordingWriter,
    camera_info_fields,
    header_fields,
    image_fields,
    stages_fields,
)
from grasp_stn_ros.rectangle import GraspRectangle
from grasp_stn_ros.rgbd import CameraIntrinsics, RgbdFrame

SCENES = 3


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope='module')
def recorded(tmp_path_factory):
    """Simulated scenes and what the shipped model found in them."""
    path = tmp_path_factory.mktemp('recordings') / 'three.mcap'
    result = run('record', path, '--simulate', SCENES, '--seed', 31337, '--threads', 1)
    assert result.exit_code == 0, result.output
    return path


def test_the_same_model_finds_the_same_again(recorded, tmp_path):
    result = run('replay', recorded, '--threads', 1, '--json', tmp_path / 'r.json',
                 '--exit-code')
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / 'r.json').read_text())
    summary = report['summary']
    assert (summary['n'], summary['compared'], summary['identical']) == (SCENES,) * 3
    assert summary['grasps'] >= 1 and report['b'] == 'recorded' and report['damage'] is None
    assert report['machine'] and report['command']
    assert f'{SCENES} of {SCENES} identical' in ' '.join(result.output.split())


def test_two_models_are_told_apart(recorded):
    other = find_weights(table_weights('simulated', 'regression'))
    result = run('replay', recorded, '--threads', 1, '--against', other, '--json', '-')
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    summary = report['summary']
    assert (report['a'], report['b']) == ('multi_stage_stn', other.stem)
    assert summary['identical'] == 0
    outcomes = ('same_grasp', 'other_grasp', 'only_a', 'only_b', 'neither')
    assert sum(summary[o] for o in outcomes) == SCENES
    differ = summary['other_grasp'] + summary['only_a'] + summary['only_b']
    status = run('replay', recorded, '--threads', 1, '--against', other, '--exit-code').exit_code
    assert status == (1 if differ else 0)


def detection(rectangle=None, score=0.5) -> Detection:
    if rectangle is None:
        return Detection((), None, Reason.NO_CANDIDATE, '')
    best = Candidate((rectangle.x, rectangle.y), score, rectangle.theta, rectangle, score)
    return Detection((best,), best, Reason.OK, '')


def test_what_counts_as_another_grasp():
    a = GraspRectangle(100.0, 100.0, 0.0, 40.0, 20.0)
    moved = GraspRectangle(110.0, 100.0, 0.0, 40.0, 20.0)      # IoU 30 / 50
    turned = GraspRectangle(100.0, 100.0, np.radians(40), 40.0, 20.0)
    assert compare(detection(a), detection(a))['identical']
    difference = compare(detection(a), detection(moved, 0.7))
    assert difference['outcome'] == 'same grasp' and not difference['identical']
    assert difference['iou'] == pytest.approx(0.6) and difference['distance'] == 10.0
    assert difference['score'] == pytest.approx(0.2)
    assert compare(detection(a), detection(turned))['outcome'] == 'other grasp'
    assert compare(detection(a), detection())['outcome'] == 'only A'
    assert compare(detection(), detection(a))['outcome'] == 'only B'
    assert compare(detection(), detection())['identical']


def test_a_recording_that_breaks_off_is_used_as_far_as_it_goes(recorded, tmp_path):
    whole = recorded.read_bytes()
    path = tmp_path / 'cut.mcap'
    path.write_bytes(whole[:int(len(whole) * 0.7)])
    result = run('replay', path, '--threads', 1)
    assert result.exit_code == 1
    assert 'TRUNCATED_RECORDING' in result.output and 'identical' in result.output


def test_damage_in_the_middle_is_named(recorded, tmp_path):
    content = bytearray(recorded.read_bytes())
    middle = len(content) // 2
    content[middle:middle + 64] = bytes(64)
    path = tmp_path / 'damaged.mcap'
    path.write_bytes(content)
    recording = Recording(path)
    assert len(list(recording.frames())) < SCENES
    assert recording.damage.startswith('CORRUPT_RECORDING')


def test_whatever_is_in_a_file_it_is_read_or_named(recorded, tmp_path):
    whole = recorded.read_bytes()
    path = tmp_path / 'noise.mcap'
    draw = random.Random(1)
    for _ in range(12):
        content = bytearray(whole)
        # Damage where the structure is: the start, and the index at the end.
        for place in (draw.randrange(8, 3000), len(content) - draw.randrange(9, 3000)):
            content[place] ^= 1 << draw.randrange(8)
        path.write_bytes(content[:draw.choice([len(content), draw.randrange(len(content))])])
        try:
            recording = Recording(path)
            count = len(list(recording.frames()))
        except RecordingError as error:
            assert str(error).split(':')[0].isupper()
        else:
            assert count == SCENES or recording.damage


@pytest.mark.parametrize('content, name', [
    (b'', 'EMPTY_FILE'), (b'hello', 'NOT_MCAP'), (b'SQLite format 3\0', 'ros2 bag convert'),
    (b'\x89MCAP0\r\n', 'TRUNCATED_RECORDING')])
def test_files_that_are_no_recordings_are_named(content, name, tmp_path):
    path = tmp_path / 'x.mcap'
    path.write_bytes(content)
    for command in ('replay', 'view'):
        result = run(command, path, *(['--no-open'] if command == 'view' else []))
        assert result.exit_code == 1 and name in result.output, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)


def test_nothing_is_overwritten(recorded):
    before = recorded.read_bytes()
    result = run('record', recorded, '--simulate', 1)
    assert result.exit_code == 1 and 'FILE_EXISTS' in result.output
    assert recorded.read_bytes() == before
    assert 'BAD_NAME' in run('record', 'x.bag', '--simulate', 1).output


@pytest.mark.parametrize('options, saved', [(['--model', 'nothere.safetensors'], False),
                                            (['--candidates', '4'], True)])
def test_a_recording_has_what_it_is_of_or_is_not_there(tmp_path, options, saved):
    path = tmp_path / 'r.mcap'
    result = run('record', path, '--simulate', 1, '--threads', 1, *options)
    assert (result.exit_code == 0) == saved == path.exists(), result.output
    if saved:
        assert Recording(path).parameters['candidates'] == 4


def test_a_camera_that_starts_late_is_found(tmp_path):
    path = somebody_elses(tmp_path / 'late.mcap', before=450)
    assert Recording(path)._guess() == {'color': '/cam/rgb/image', 'depth': '/cam/aligned/image',
                                        'camera_info': '/cam/rgb/camera_info'}
    # Also where the file has no end that lists its topics.
    path.write_bytes(path.read_bytes()[:-40])
    assert Recording(path)._guess()['color'] == '/cam/rgb/image'


def somebody_elses(path, depth_encoding='16UC1', delay=0, before=0):
    """A recording with other topics, infrared in between, and no notes of ours."""
    rng = np.random.default_rng(0)
    frame = RgbdFrame(rng.integers(0, 255, (48, 64, 3), np.uint8),
                      np.full((48, 64), 0.5, np.float32), CameraIntrinsics(60, 60, 32, 24))
    with RecordingWriter(path) as writer:
        for index in range(before):
            time = 999_000_000_000 + index * 1_000_000
            writer.message('/robot/pose', POSE, {'header': header_fields(time, 'base'), 'pose': {
                'position': dict.fromkeys('xyz', 0.0),
                'orientation': dict.fromkeys('xyzw', 0.5)}}, time)
        for index in range(4):
            time = 1_000_000_000_000 + index * 33_000_000
            head = header_fields(time, 'cam_optical_frame')
            grey = rng.integers(0, 255, (48, 64), np.uint8)
            writer.message('/cam/infra1/image', IMAGE, image_fields(grey, 'mono8', head), time)
            writer.message('/cam/rgb/image', IMAGE, image_fields(frame.rgb, 'bgr8', head), time)
            late = header_fields(time + delay, 'cam_optical_frame')
            writer.message('/cam/aligned/image', IMAGE, image_fields(
                np.full((48, 64), 500 + index, '<u2'), depth_encoding, late), time)
            writer.message('/cam/rgb/camera_info', CAMERA_INFO,
                           camera_info_fields(frame, head), time)
    return path


def test_topics_of_others_are_found_and_paired(tmp_path):
    recording = Recording(somebody_elses(tmp_path / 'b.mcap', delay=5_000_000),
                          {'depth': '/cam/aligned/image'})
    recording.topics = {**recording._guess()}     # what it finds without our notes
    assert recording.topics == {'color': '/cam/rgb/image', 'depth': '/cam/aligned/image',
                                'camera_info': '/cam/rgb/camera_info'}
    moments = list(recording.frames())
    # The depth that is 5 ms later, not the one 28 ms earlier.
    depths = [float(m.frame.depth[0, 0]) for m in moments]
    np.testing.assert_allclose(depths, [0.5, 0.501, 0.502, 0.503], atol=1e-6)


def compressed_camera(path, depth_format='16UC1; compressedDepth png', raw=False):
    """A recording of one moment as image_transport publishes it, and the raw colour if asked."""
    rng = np.random.default_rng(3)
    frame = RgbdFrame(rng.integers(0, 255, (48, 64, 3), np.uint8), None,
                      CameraIntrinsics(60, 60, 32, 24))
    head, kind = header_fields(10**12), 'sensor_msgs/msg/CompressedImage'
    color = cv2.imencode('.png', frame.rgb[..., ::-1])[1].tobytes()
    depth = bytes(range(64)) if depth_format.endswith('rvl') else \
        cv2.imencode('.png', np.full((48, 64), 612, np.uint16))[1].tobytes()
    with RecordingWriter(path) as writer:
        for topic, label, data in (
                ('/cam/depth/image/compressedDepth', depth_format, bytes(12) + depth),
                ('/cam/rgb/image/compressed', 'rgb8; png compressed bgr8', color)):
            writer.message(topic, kind, {'header': head, 'format': label, 'data': data}, 10**12)
        if raw:
            writer.message('/cam/rgb/image', IMAGE, image_fields(frame.rgb, 'rgb8', head), 10**12)
        for name in ('depth', 'rgb'):
            writer.message(f'/cam/{name}/camera_info', CAMERA_INFO,
                           camera_info_fields(frame, head), 10**12)
    recording = Recording(path)
    recording.topics = recording._guess()       # what it finds without our notes
    return recording, frame


def test_compressed_images_are_read(tmp_path):
    recording, frame = compressed_camera(tmp_path / 'a.mcap')
    assert recording.topics == {'color': '/cam/rgb/image/compressed',
                                'depth': '/cam/depth/image/compressedDepth',
                                'camera_info': '/cam/rgb/camera_info'}
    (moment,) = recording.frames()
    np.testing.assert_array_equal(moment.frame.rgb, frame.rgb)
    assert moment.frame.depth == pytest.approx(np.full((48, 64), 0.612))
    both, _ = compressed_camera(tmp_path / 'b.mcap', raw=True)
    assert both.topics['color'] == '/cam/rgb/image'
    replayed = run('replay', tmp_path / 'a.mcap', '--threads', 1, '--color',
                   '/cam/rgb/image/compressed', '--depth', '/cam/depth/image/compressedDepth',
                   '--camera-info', '/cam/rgb/camera_info')
    assert replayed.exit_code == 0 \
        and '1 images, 0 unreadable' in ' '.join(replayed.output.split())


def test_depth_that_is_compressed_otherwise_is_named(tmp_path):
    recording, _ = compressed_camera(tmp_path / 'a.mcap', '16UC1; compressedDepth rvl')
    (moment,) = recording.frames()
    assert 'compressedDepth.format to png' in moment.frame
    recording, _ = compressed_camera(tmp_path / 'b.mcap', '16UC1; png compressed ')
    (moment,) = recording.frames()
    assert 'compressedDepth' in moment.frame


@pytest.mark.parametrize('change', [
    {'failed': [{'orientation': {'w': 0.0}}]}, {'reason': 200}, {'stage_names': ['one', 'more']},
    {'candidates': [{'rectangle': {'x': 1.0, 'y': 1.0, 'opening': 0.0}}]},
    {'candidates': [{'reason': 200, 'rectangle': {'opening': 9.0, 'jaw': 9.0}}]}])
def test_stages_that_cannot_be_are_named_and_the_image_is_read(change, tmp_path):
    path = tmp_path / 'a.mcap'
    frame = RgbdFrame(np.zeros((48, 64, 3), np.uint8), np.full((48, 64), 0.5, np.float32),
                      CameraIntrinsics(60, 60, 32, 24))
    fields = stages_fields(detection(), header_fields(10**12))
    with RecordingWriter(path) as writer:
        writer.frame(frame, None, 10**12)
        writer.message(TOPICS['stages'], STAGES, {**fields, **change}, 10**12)
    recording = Recording(path)
    (moment,) = recording.frames()
    assert moment.detection is None and moment.frame.size == (64, 48)
    assert recording.damage.startswith('CORRUPT_MESSAGE') and 'GraspStages' in recording.damage


def test_stamps_too_far_apart_are_no_pairs(tmp_path):
    path = somebody_elses(tmp_path / 'c.mcap', delay=10_000_000_000)
    result = run('replay', path, '--color', '/cam/rgb/image', '--depth', '/cam/aligned/image',
                 '--camera-info', '/cam/rgb/camera_info', '--threads', 1)
    assert result.exit_code == 1 and 'NO_PAIRS' in result.output


@pytest.mark.parametrize('whole', [True, False])
def test_a_named_topic_that_is_not_there_is_not_a_matter_of_stamps(whole, tmp_path, monkeypatch):
    path = somebody_elses(tmp_path / 'd.mcap')
    if not whole:
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(RecordingError, match='NO_TOPIC: .* has no message on /foo. It has: .*'
                                             r'/cam/rgb/image \(sensor_msgs/msg/Image\)'):
        Recording(path, {'color': '/foo'})
    # What comes later than the survey is there all the same.
    monkeypatch.setattr('grasp_stn_ros.recording.reader._SURVEYED', 1)
    assert Recording(path, {'color': '/cam/rgb/image', 'depth': '/cam/aligned/image',
                            'camera_info': '/cam/rgb/camera_info'}).topics['depth']
    # Without this every message of it is one that cannot be decoded as an image.
    with pytest.raises(RecordingError, match='WRONG_TYPE: /cam/rgb/camera_info in .*CameraInfo, '
                                             'expected .*Image .* for --color'):
        Recording(path, {'color': '/cam/rgb/camera_info'})


def test_parameters_of_the_node_are_those_of_the_detector():
    settings = detector_settings({'gripper.maximum_opening': 0.05, 'gripper.unknown': 1,
                                  'approach': 'optical_axis', 'mode': 'continuous'})
    assert settings['gripper'].maximum_opening == 0.05
    assert settings['approach'] == 'optical_axis'
    # What a recording from before does not say, and -1, is the model's own number.
    assert settings['middle_weight'] is None
    assert detector_settings({'middle_weight': -1.0})['middle_weight'] is None
    assert detector_settings({'middle_weight': 0.0})['middle_weight'] == 0.0


NEAR = GraspRectangle(32.0, 24.0, 0.0, 12.0, 6.0)
FAR = GraspRectangle(20.0, 24.0, 0.0, 12.0, 6.0)
FLOOR = RgbdFrame(np.zeros((48, 64, 3), np.uint8), np.full((48, 64), 0.5, np.float32),
                  CameraIntrinsics(60, 60, 32, 24))


def found(*reasons, best=0, reason=Reason.OK) -> Detection:
    """Two grasps straight down, with these reasons."""
    candidates = []
    for number, (rectangle, why) in enumerate(zip((NEAR, FAR), reasons, strict=False)):
        x = (rectangle.x - 32) / 120
        grasp = Grasp(np.array([x, 0.0, 0.52]), np.array([[0, 1.0, 0], [0, 0, 1], [1, 0, 0]]),
                      0.05, 0.02, np.array([x, 0.0, 0.5]), np.array([0, 0, -1.0]))
        candidates.append(Candidate((rectangle.x, rectangle.y), 0.9, 0.0, rectangle,
                                    0.9 - 0.1 * number, grasp, why))
    return Detection(tuple(candidates), candidates[best] if best is not None else None, reason, '')


class TheSame:
    """A detector that finds both grasps in every image."""

    def detect(self, frame, region, minimum_score):
        return found(Reason.OK, Reason.OK)


TF = {'target_frame': 'base', 'workspace.minimum': [-1.0, -1.0, -1.0],
      'workspace.maximum': [1.0, 1.0, 0.1]}


@pytest.mark.parametrize('parameters, recorded, again, gap', [
    # Forbidden then and now.
    ({'maximum_depth': 0.4}, found(Reason.OUTSIDE_DEPTH, Reason.OUTSIDE_DEPTH, best=None,
                                   reason=Reason.OUTSIDE_DEPTH), None, ''),
    ({'workspace.minimum': [-1, -1, -1], 'workspace.maximum': [-0.05, 1, 1]},
     found(Reason.OUTSIDE_WORKSPACE, Reason.OK, best=1), FAR, ''),
    # The camera looks down from 1 m: z in the base is 1 - 0.52.
    ({**TF, 'camera_pose': [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0]},
     found(Reason.OUTSIDE_WORKSPACE, Reason.OUTSIDE_WORKSPACE, best=None,
           reason=Reason.OUTSIDE_WORKSPACE), None, ''),
    ({**TF, 'target_frame': 'camera'},
     found(Reason.OUTSIDE_WORKSPACE, Reason.OUTSIDE_WORKSPACE, best=None,
           reason=Reason.OUTSIDE_WORKSPACE), None, ''),
    # What is not in the recording.
    (TF, found(Reason.OUTSIDE_WORKSPACE, Reason.OK, best=1), NEAR, 'target_frame'),
    (TF, found(Reason.OK, Reason.OK, best=None, reason=Reason.NO_TRANSFORM), NEAR,
     'NO_TRANSFORM'),
    ({'mask_topic': 'mask'}, found(Reason.MASKED, Reason.OK, best=1), NEAR, 'mask_topic'),
    ({'mask_topic': 'mask', 'maximum_depth': 0.4}, found(
        Reason.MASKED, Reason.OUTSIDE_DEPTH, best=None, reason=Reason.MASKED), None, 'mask_topic'),
    ({'stability.enabled': True}, found(Reason.OK, Reason.OK, best=1), NEAR, 'stability'),
    ({}, found(Reason.OK, Reason.OK, best=None, reason=Reason.STALE_FRAME), NEAR, 'STALE_FRAME'),
    # A difference is one.
    ({}, found(Reason.TOO_WIDE, Reason.OK, best=1), 'differs', '')])
def test_what_the_node_applied_is_applied_again_or_named(parameters, recorded, again, gap):
    node = AsNode(parameters)
    moment = Moment('', 0.0, FLOOR, recorded, 'camera', 'camera')
    a, b = node.again(TheSame())(moment), node.recorded(moment)
    assert compare(a, b)['identical'] is (again != 'differs')
    if again != 'differs':
        assert (b.best and b.best.rectangle) == again
    assert (gap in node.gaps[-1]) if gap else not node.gaps


def test_what_had_failed_is_known_again(tmp_path):
    failed = np.eye(4)
    nearest = found(Reason.OK, Reason.OK).best.grasp
    failed[:3, :3], failed[:3, 3] = nearest.rotation, nearest.position
    then = retry.after_failures(found(Reason.OK, Reason.OK), [failed], 0.2)
    assert then.best.rectangle == FAR
    path = tmp_path / 'failed.mcap'
    with RecordingWriter(path) as writer:
        writer.frame(FLOOR, then, 10**12)
    (moment,) = Recording(path).frames()
    node = AsNode({})
    again, recorded = node.again(TheSame())(moment), node.recorded(moment)
    assert again.best.rectangle == FAR and compare(again, recorded)['outcome'] == 'same grasp'
    np.testing.assert_allclose(again.failed, [failed], atol=1e-12)


def test_recordings_from_before_failures_were_known_are_read(tmp_path, monkeypatch):
    name, line = 'grasp_stn_interfaces/GraspStages', 'geometry_msgs/Pose[] failed\n'
    assert line in definitions.known(name)
    monkeypatch.setitem(definitions._FIELDS, name, definitions.known(name).replace(line, ''))
    path = tmp_path / 'old.mcap'
    with RecordingWriter(path) as writer:
        writer.frame(FLOOR, found(Reason.OK, Reason.OK), 10**12)
    recording = Recording(path)
    (moment,) = recording.frames()
    assert moment.detection.best.rectangle == NEAR and moment.detection.failed == ()
    assert not recording.damage


@pytest.mark.parametrize('reason', [Reason.STALE_FRAME, Reason.MASKED, Reason.OUT_OF_MEMORY])
def test_an_image_that_the_node_did_not_look_at_is_not_compared(reason):
    node = AsNode({'mask_topic': 'mask'})
    moment = Moment('', 0.0, FLOOR, Detection((), None, reason, ''), 'camera', 'camera')
    a, b = Side('a', node.again(TheSame())), Side('recorded', node.recorded)
    (row,) = rows([moment], a, b)
    assert row['b'] is None and 'difference' not in row
    assert node.gaps[-1].startswith(reason.name)


def test_frames_and_depth_are_refused_as_the_node_refuses_them():
    detect = AsNode({'frame_mismatch': 'refuse'}).again(TheSame())
    assert detect(Moment('', 0.0, FLOOR, None, 'a', 'b')).reason == Reason.FRAME_MISMATCH
    assert detect(Moment('', 0.0, FLOOR, None, 'a', 'a')).reason == Reason.OK
    assert AsNode({}).again(TheSame())(Moment('', 0.0, FLOOR, None, 'a', 'b')).best
    blind = RgbdFrame(FLOOR.rgb, np.full((48, 64), np.nan, np.float32), FLOOR.intrinsics)
    assert detect(Moment('', 0.0, blind, None, 'a', 'a')).reason == Reason.NO_DEPTH


@pytest.mark.parametrize('parameters', [
    {'workspace.minimum': [1, 1, 1], 'workspace.maximum': [0, 0, 0]}, {'region': [1, 2]},
    {'gripper.jaw_size': 'wide'}, {'maximum_depth': None}, {'gripper.jaw_size': -1.0}])
def test_recorded_parameters_that_cannot_be_are_named(parameters):
    with pytest.raises(RecordingError, match='BAD_PARAMETERS'):
        AsNode(parameters)


def test_region_and_candidates_are_the_recorded_ones(tmp_path):
    pytest.importorskip('rerun', reason='rerun-sdk is missing: run `make setup`')
    from grasp_stn_ros.cli_view import _recording
    from grasp_stn_ros.viewing.scene import Scene
    from grasp_stn_ros.viewing.sources import from_simulator
    (named,) = from_simulator(1, 31337, None)
    frame, path = named.read(), tmp_path / 'a.mcap'
    x, y = (side // 2 - 100 for side in frame.size)
    model = {'model': 'default', 'device': 'cpu', 'threads': 1, 'candidates': 0, 'system': None}
    parameters = {'region': [x, y, 200, 200], 'candidates': 2, 'minimum_depth': 0.1}
    detector = GraspDetector(threads=1, device='cpu', candidates=2)
    with RecordingWriter(path, parameters=parameters) as writer:
        writer.frame(frame, detector.detect(frame, (x, y, 200, 200)), 10**12)
    result = run('replay', path, '--threads', 1, '--device', 'cpu', '--exit-code', '--json', '-')
    report = json.loads(result.stdout)
    assert report['summary']['identical'] == 1 and report['not_reproduced'] == []
    assert report['frames'][0]['a']['candidates'] <= 2
    (shown,) = _recording(path, False, model, None, Scene())
    assert shown.detection.region == pytest.approx((x, y, 200, 200))
    assert 0 < len(shown.detection.candidates) <= 2


def test_a_definition_brings_those_that_it_needs():
    text = definitions.schema('grasp_stn_interfaces/msg/GraspStages')
    assert text.startswith('std_msgs/Header header\nGraspCandidate[] candidates')
    for name in ('std_msgs/Header', 'builtin_interfaces/Time', 'geometry_msgs/Quaternion',
                 'grasp_stn_interfaces/GraspRectangle'):
        assert text.count(f'MSG: {name}\n') == 1
    with pytest.raises(KeyError, match='no definition'):
        definitions.schema('some_msgs/msg/Other')

"""The command line with the shipped weights: files in, grasps, pictures and errors out."""

import json
import math

from click.testing import CliRunner
import cv2
import mujoco
import numpy as np
import pytest
from real_data import CORNELL, needs_cornell
import yaml

from grasp_stn_ros.cli import main
from grasp_stn_ros.cli_doctor import _print
from grasp_stn_ros.data.cornell import CornellDataset
from grasp_stn_ros.detector import GraspDetector, default_weights
from grasp_stn_ros.doctor.findings import ok, warning
from grasp_stn_ros.image_files import parse_list_line, read_depth
from grasp_stn_ros.node_settings import known_grippers, read_gripper
from grasp_stn_ros.reasons import GraspError, Reason
from grasp_stn_ros.rgbd import CameraIntrinsics
from grasp_stn_ros.simulation.labels import open_scene
from grasp_stn_ros.stn import checkpoint

SEED = 31337  # neither training, validation nor test


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope='module')
def scene_files(tmp_path_factory):
    """Files of one simulated scene: colour, depth as PNG and TIFF, the mask, intrinsics."""
    folder = tmp_path_factory.mktemp('scene files')     # the space is meant
    scene = open_scene(SEED, 4, objects=1)
    frame, mask = scene.frame, scene.render().segmentation
    scene.close()
    cv2.imwrite(str(folder / 'rgb.png'), frame.rgb[..., ::-1])
    millimetres = np.nan_to_num(frame.depth * 1000, nan=0).astype(np.uint16)
    cv2.imwrite(str(folder / 'depth.png'), millimetres)
    cv2.imwrite(str(folder / 'depth.tiff'), np.nan_to_num(frame.depth, nan=0))
    return folder, mask, frame.intrinsics


def camera(intrinsics):
    return [intrinsics.fx, intrinsics.fy, intrinsics.cx, intrinsics.cy]


@pytest.mark.parametrize('depth', ['depth.png', 'depth.tiff'])
def test_detect_finds_the_object_and_its_pose(scene_files, depth):
    folder, mask, intrinsics = scene_files
    result = run('detect', folder / 'rgb.png', folder / depth, '--intrinsics',
                 *camera(intrinsics), '--json')
    assert result.exit_code == 0, result.output
    record = json.loads(result.output)
    assert record['success'] and record['reason'] == 'OK'
    near = cv2.dilate((mask > 0).astype(np.uint8), np.ones((25, 25)))
    assert near[round(record['y']), round(record['x'])]
    assert -math.pi / 2 <= record['theta'] < math.pi / 2
    assert record['opening'] > record['jaw'] > 0 and 0 <= record['score'] <= 1
    assert len(record['candidates']) >= 1 and record['milliseconds'] > 0
    assert record['candidates'][0]['score'] == record['score']
    position = np.array(record['grasp']['position'])
    projected = intrinsics.project(position)
    assert np.hypot(*(projected - [record['x'], record['y']])) < 30
    assert np.linalg.norm(record['grasp']['quaternion']) == pytest.approx(1)


def test_detect_in_a_region(scene_files):
    folder, mask, _ = scene_files
    rows, columns = np.nonzero(mask)
    left, top = max(0, int(columns.mean()) - 100), max(0, int(rows.mean()) - 100)
    region = (left, top, min(200, 640 - left), min(200, 480 - top))
    record = json.loads(run('detect', folder / 'rgb.png', folder / 'depth.png', '--json',
                            '--region', *region).output)
    assert record['candidates']
    for candidate in record['candidates']:
        assert left - 0.5 <= candidate['x'] <= left + region[2]
        assert top - 0.5 <= candidate['y'] <= top + region[3]
    refused = json.loads(run('detect', folder / 'rgb.png', '--json', '--region', 600, 0, 100,
                             100).output)
    assert refused['reason'] == 'INVALID_REQUEST'


def test_depth_that_allows_no_pose_is_said(scene_files):
    folder, _, intrinsics = scene_files
    millimetres = cv2.imread(str(folder / 'depth.png'), cv2.IMREAD_UNCHANGED)
    uneven = np.random.default_rng(0).integers(400, 4000, millimetres.shape).astype(np.uint16)
    made = {'zeros.png': (np.zeros_like(millimetres), 'NO_DEPTH'),
            'millimetres.tiff': (millimetres.astype(np.float32), 'NO_DEPTH'),
            'uneven.png': (uneven, 'NO_SUPPORT_PLANE')}
    for name, (image, _) in made.items():
        cv2.imwrite(str(folder / name), image)
    (folder / 'bad.txt').write_text('\n'.join(f'"{folder}/rgb.png" {name}' for name in made))
    arguments = ['detect', '--list', folder / 'bad.txt', '--intrinsics', *camera(intrinsics),
                 '--minimum-score', 0]
    records = map(json.loads, run(*arguments, '--json').stdout.splitlines())
    said = run(*arguments).stdout.splitlines()
    for (_, reason), record, line in zip(made.values(), records, said, strict=True):
        assert (record['success'], record['reason'], record['grasp']) == (False, reason, None)
        assert Reason[reason].sentence in record['message']
        assert {c['reason'] for c in record['candidates']} == {reason}
        assert f'rgb.png: no pose: {reason}: {Reason[reason].sentence}' in line


def test_poses_are_for_the_gripper_and_the_approach_that_are_named(scene_files):
    folder, _, intrinsics = scene_files
    narrow = folder / 'narrow.yaml'
    narrow.write_text('/**:\n  ros__parameters:\n    gripper: {maximum_opening: 0.005}\n')
    arguments = ['detect', folder / 'rgb.png', folder / 'depth.png', '--intrinsics',
                 *camera(intrinsics), '--json']
    refused = json.loads(run(*arguments, '--gripper', narrow).output)
    assert not refused['success'] and 'TOO_WIDE' in {c['reason'] for c in refused['candidates']}
    # A table that fills the image is a support plane, and one seen at a slant is approached so.
    for options, straight in ([], False), (['--approach', 'optical_axis'], True), \
            (['--approach', 'direction', '--approach-direction', 0, 0, 2], True):
        record = json.loads(run(*arguments, '--gripper', 'robotiq_2f_140', *options).output)
        x, y, z, w = record['grasp']['quaternion']
        # The third element of the first column: how much of the approach is along z.
        assert (2 * (x * z - w * y) == pytest.approx(1, abs=1e-9)) == straight


def test_grippers_are_those_of_the_launch_files(tmp_path):
    known = known_grippers()
    for name, path in known.items():
        lengths = yaml.safe_load(path.read_text())['/**']['ros__parameters']['gripper']
        assert read_gripper(name) == read_gripper(str(path))
        assert read_gripper(name).maximum_opening == lengths['maximum_opening']
    assert {'robotiq_2f_85', 'franka_hand'} <= set(known)
    # Both of the ways to write them that ROS reads, among other parameters.
    for content in ('gripper.jaw_size: 0.03', 'gripper: {jaw_size: 0.03}'):
        (tmp_path / 'node.yaml').write_text(
            f'grasp_node:\n  ros__parameters:\n    minimum_score: 0.5\n    {content}\n')
        assert read_gripper(str(tmp_path / 'node.yaml')).jaw_size == 0.03
    for content in ('', 'a: 1', '/**: {ros__parameters: {gripper: {maximum_opening: 2}}}',
                    '/**: {ros__parameters: {gripper: {maximal_opening: 0.1}}}', '[', '- x'):
        (tmp_path / 'g.yaml').write_text(content)
        with pytest.raises(ValueError, match='g.yaml is no description of a gripper'):
            read_gripper(str(tmp_path / 'g.yaml'))


def test_without_depth_or_camera_it_is_said_that_there_is_no_pose(scene_files):
    folder, _, intrinsics = scene_files
    colour, depth = folder / 'rgb.png', folder / 'depth.png'
    lines = [f'"{colour}"', f'"{colour}" "{depth}"',
             f'"{colour}" ' + ' '.join(map(str, camera(intrinsics)))]
    (folder / 'list.txt').write_text('\n'.join(lines))
    said = run('detect', '--list', folder / 'list.txt').output.splitlines()
    assert said[1::2] == ['  no pose: no depth image and no --intrinsics',
                          '  no pose: no --intrinsics', '  no pose: no depth image']
    assert all('theta' in line for line in said[::2])


def test_a_mask_says_where_the_object_is(scene_files, tmp_path):
    folder, _, intrinsics = scene_files
    mask = np.zeros(cv2.imread(str(folder / 'rgb.png')).shape[:2], np.uint8)

    def detected(mask):
        cv2.imwrite(str(tmp_path / 'mask.png'), mask)
        result = run('detect', folder / 'rgb.png', folder / 'depth.png', '--json', '--intrinsics',
                     *camera(intrinsics), '--mask', tmp_path / 'mask.png')
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    assert detected(mask)['reason'] == 'MASKED'
    everywhere = detected(mask + 255)
    assert everywhere['success']
    x, y = round(everywhere['x']), round(everywhere['y'])
    mask[y - 15:y + 15, x - 15:x + 15] = 255
    found = detected(mask)
    assert found['success'] and np.hypot(found['x'] - x, found['y'] - y) < 25
    for other, message in ((folder / 'rgb.png', 'one channel of 8 bits'),
                           (tmp_path / 'none.png', 'missing or no image')):
        refused = run('detect', folder / 'rgb.png', '--mask', other)
        assert refused.exit_code != 0 and message in refused.output


@pytest.mark.parametrize('system', [(), ('--system', 'regression')])
def test_a_mask_holds_where_there_is_no_pose(scene_files, tmp_path, system):
    folder, *_ = scene_files
    mask = np.full(cv2.imread(str(folder / 'rgb.png')).shape[:2], 255, np.uint8)

    def detected():
        cv2.imwrite(str(tmp_path / 'mask.png'), mask)
        result = run('detect', folder / 'rgb.png', '--json', *system, '--minimum-score', 0.0,
                     '--mask', tmp_path / 'mask.png')
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    found = detected()
    assert found['success'] and found['grasp'] is None
    x, y = round(found['x']), round(found['y'])
    # Allowed everywhere but there.
    mask[y - 40:y + 40, x - 40:x + 40] = 0
    other = detected()
    assert other['reason'] == 'MASKED' or np.hypot(other['x'] - x, other['y'] - y) > 25
    mask[:] = 0
    assert detected()['reason'] == 'MASKED'


def test_detect_needs_nothing_but_colour(scene_files):
    folder, mask, _ = scene_files
    record = json.loads(run('detect', folder / 'rgb.png', '--json').output)
    assert record['success'] and record['grasp'] is None
    near = cv2.dilate((mask > 0).astype(np.uint8), np.ones((25, 25)))
    assert near[round(record['y']), round(record['x'])]
    # The jaws that are fitted follow the size that is told.
    small, large = (json.loads(run('detect', folder / 'rgb.png', '--json', '--jaw-pixels',
                                   pixels).output)['jaw'] for pixels in (10, 24))
    assert small < large
    assert run('detect', folder / 'rgb.png', '--jaw-pixels', 0).exit_code == 2


@pytest.mark.parametrize('depths', [(False,), (True, False)])
def test_what_the_images_need_is_warmed_up_and_nothing_else(scene_files, depths, monkeypatch):
    folder, _, _ = scene_files
    warmed, seen, parts = [], [], []
    original, detect = GraspDetector.warm_up_for, GraspDetector.detect
    busy = []

    def warm_up_for(self, frame, *arguments):
        busy.append(frame)
        original(self, frame, *arguments)
        busy.pop()
        warmed.append(frame.depth is not None)

    def count(detector):
        networks = {detector._model.for_images(depth) for depth in (True, False)}
        return sum(len(network.tracer._parts) for network in networks)

    def watched(self, frame, *arguments, **named):
        if busy:
            return detect(self, frame, *arguments, **named)
        before = count(self)
        found = detect(self, frame, *arguments, **named)
        seen.append(frame.depth is not None)
        parts.append((before, count(self)))
        return found

    monkeypatch.setattr(GraspDetector, 'warm_up_for', warm_up_for)
    monkeypatch.setattr(GraspDetector, 'detect', watched)
    (folder / 'warm.txt').write_text('\n'.join(
        f'"{folder}/rgb.png"' + f' "{folder}/depth.png"' * depth for depth in depths))
    assert run('detect', '--list', folder / 'warm.txt', '--device', 'cpu').exit_code == 0
    assert warmed == seen == list(depths)
    assert all(before == after for before, after in parts), 'images have nothing left to trace'
    assert [after for _, after in parts] == [5 * (i + 1) for i in range(len(depths))]


def test_candidates_option_sets_k(scene_files):
    folder, _, _ = scene_files
    record = json.loads(run('detect', folder / 'rgb.png', folder / 'depth.png', '--json',
                            '--candidates', 9).output)
    assert 4 < len(record['candidates']) <= 9


def test_stages_picture_shows_five_panels(scene_files, tmp_path):
    folder, _, _ = scene_files
    result = run('detect', folder / 'rgb.png', folder / 'depth.png', '--stages',
                 tmp_path / 'new folder' / 'stages.png')
    assert result.exit_code == 0, result.output
    picture = cv2.imread(str(tmp_path / 'new folder' / 'stages.png'))
    assert picture.shape == (360, 5 * 360, 3)
    panels = np.split(picture[30:], 5, axis=1)
    for panel in panels[1:]:
        assert np.abs(panel.astype(int) - panels[0]).max() > 60
    refused = run('detect', folder / 'rgb.png', '--stages', tmp_path / 'stages.exe')
    assert refused.exit_code != 0 and 'written as .png or .jpg' in refused.output


def test_list_of_many_with_broken_ones_in_between(scene_files, tmp_path):
    folder, _, intrinsics = scene_files
    (tmp_path / 'broken.png').write_bytes(b'no image')
    lines = ['# a comment', '', f'"{folder}/rgb.png" "{folder}/depth.png" '
             + ' '.join(map(str, camera(intrinsics))),
             f'"{folder}/rgb.png"', 'broken.png', 'missing.png',
             f'"{folder}/rgb.png","{folder}/rgb.png"', 'a b c d', '"unclosed']
    (tmp_path / 'list.txt').write_text('\n'.join(lines))
    result = run('detect', '--list', tmp_path / 'list.txt', '--json')
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [r['success'] for r in records] == [True, True] + [False] * 5
    assert [r['reason'] for r in records[2:]] == ['INVALID_IMAGE', 'INVALID_IMAGE',
                                                  'INVALID_DEPTH', 'INVALID_REQUEST',
                                                  'INVALID_REQUEST']
    assert 'line 8' in records[5]['message']
    assert records[0]['grasp'] is not None and records[1]['grasp'] is None
    keys = {'image', 'success', 'reason', 'x', 'y', 'theta', 'opening', 'jaw', 'score',
            'candidates', 'milliseconds'}
    assert all(keys <= set(r) for r in records)
    assert result.exit_code == 1


def test_list_lines(tmp_path):
    line = parse_list_line('a.png, b.png, 500, 501, 320, 240', tmp_path)
    assert line.rgb == tmp_path / 'a.png' and line.depth == tmp_path / 'b.png'
    assert line.intrinsics == CameraIntrinsics(500, 501, 320, 240)
    line = parse_list_line('a.png 500 501 320 240', tmp_path)
    assert line.depth is None and line.intrinsics.fy == 501
    with pytest.raises(ValueError, match='3 fields'):
        parse_list_line('a b c', tmp_path)


def test_depth_files_of_other_types_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / 'depth.png'), np.zeros((48, 64), np.uint8))
    with pytest.raises(GraspError, match='expected 16-bit millimetres') as error:
        read_depth(tmp_path / 'depth.png')
    assert error.value.reason is Reason.INVALID_DEPTH


def test_depth_out_of_simulated_data_has_its_unit(tmp_path):
    raw = np.full((48, 64), 8000, np.uint16)
    cv2.imwrite(str(tmp_path / 'depth.png'), raw)
    assert read_depth(tmp_path / 'depth.png')[0, 0] == np.float32(8.0)
    for settings, metres in (({'units': {'depth_png': 1e-4}}, 0.8), ({'units': None}, 8.0),
                             ({'units': {'depth_png': 'mm'}}, 8.0), ([], 8.0)):
        (tmp_path / 'dataset.json').write_text(json.dumps(settings))
        assert read_depth(tmp_path / 'depth.png')[0, 0] == pytest.approx(metres)


@pytest.mark.parametrize('arguments, message', [
    (['detect'], 'give an RGB image or --list'),
    (['detect', 'x.png', '--model', 'nowhere.safetensors'],
     'nowhere.safetensors is missing'),
    (['detect', 'x.png', '--trained-on', 'simulated'], '--system, which is not given'),
    (['detect', 'x.png', '--gripper', 'hand'], 'none of the grippers franka_hand, '),
    (['detect', 'x.png', '--approach-direction', '0', '0', '1'], '--approach direction'),
    (['detect', 'x.png', '--device', 'tpu'], 'expected auto, cpu'),
    (['detect', 'x.png', '--intrinsics', '0', '0', '0', '0'], 'uncalibrated'),
    (['simulate', '--scenes', '1', '--out', 'x', '--shard', '3/2'], 'between 0 and N - 1'),
    (['train', '--data', '.', '--out', 'x'], 'dataset.json is missing'),
    (['detect', 'x.png'], 'x.png: no grasp, INVALID_IMAGE: x.png is missing'),
    (['simulate', '--scenes', '1', '--out', '/dev/null'], 'CANNOT_WRITE: /dev/null')])
def test_errors_say_what_to_do(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code not in (0, None) and message in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


@pytest.mark.parametrize('command', ['view', 'replay'])
def test_examples_in_the_help_have_lines_of_their_own(command):
    lines = [line.strip() for line in run(command, '--help').output.splitlines()]
    assert not any('\\b' in line or '\b' in line for line in lines)
    assert sum(line.startswith(f'grasp_stn {command} ') for line in lines) >= 2
    assert not any(line.count(f'grasp_stn {command} ') > 1 for line in lines)


def test_what_the_doctor_says_to_do_can_be_copied(capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '80')
    remedy = f'export PROFILE=/{"folder/" * 20}file.xml for [all] of them'
    _print([ok('fine', 'as it is'), warning('dds.profile', 'too small', remedy)])
    printed = capsys.readouterr().out
    assert f'  dds.profile: {remedy}\n' in printed and 'too small' in printed
    assert '1 warnings' in printed and 'fine:' not in printed


def test_simulate_and_evaluate(tmp_path, monkeypatch):
    assert run('simulate', '--scenes', 2, '--seed', SEED, '--out', tmp_path / 'd').exit_code == 0
    again = run('simulate', '--scenes', 2, '--seed', SEED, '--out', tmp_path / 'd')
    assert '0 new images' in again.output
    other = run('simulate', '--scenes', 2, '--seed', SEED + 1, '--out', tmp_path / 'd')
    assert other.exit_code == 1 and 'other settings' in other.output
    result = run('evaluate', 'accuracy', '--data', tmp_path / 'd', '--middle-weight', 10,
                 '--json', tmp_path / 'a.json')
    assert result.exit_code == 0, result.output
    accuracy = json.loads((tmp_path / 'a.json').read_text())
    assert accuracy['images'] == 2 and accuracy['middle_weight'] == 10
    assert not accuracy['jaw_told']
    told = []
    detect = GraspDetector.detect

    def listen(*arguments, **options):
        told.append(options.get('jaw_pixels'))
        return detect(*arguments, **options)

    monkeypatch.setattr(GraspDetector, 'detect', listen)
    for options in ([], ['--tell-jaw']):
        result = run('evaluate', 'accuracy', '--data', tmp_path / 'd', '--modality', 'rgb',
                     '--json', tmp_path / 'a.json', *options)
        assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / 'a.json').read_text())['jaw_told']
    half = len(told) // 2
    assert half and told[:half] == [None] * half
    assert all(5 < pixels < 40 for pixels in told[half:])
    for path in (tmp_path / 'd').glob('0*.json'):
        labels = json.loads(path.read_text())
        for label in labels['grasps']:
            label['successes'] = 0
        path.write_text(json.dumps(labels))
    result = run('evaluate', 'accuracy', '--data', tmp_path / 'd', '--json', tmp_path / 'n.json')
    assert result.exit_code == 1 and 'NO_LABELS' in result.output
    assert not (tmp_path / 'n.json').exists()
    result = run('evaluate', 'lift', '--scenes', 2, '--seed', SEED, '--json', tmp_path / 'l.json')
    assert result.exit_code == 0, result.output
    lift = json.loads((tmp_path / 'l.json').read_text())
    assert lift['n'] == 2 and len(lift['rows']) == 2 and 0 <= lift['baseline'] <= 1
    result = run('evaluate', 'lift', '--scenes', 2, '--seed', SEED, '--domain', 'wide',
                 '--worst', tmp_path / 'w.png', '--json', tmp_path / 'w.json')
    assert result.exit_code == 0, result.output
    wide = json.loads((tmp_path / 'w.json').read_text())
    assert (lift['domain'], wide['domain']) == ('basic', 'wide')
    scores = [[row['score'] for row in result['rows']] for result in (lift, wide)]
    assert scores[0] != scores[1], 'the same cameras'
    assert (tmp_path / 'w.png').exists()
    for judge in ('lift', 'clutter'):
        for picture in ('w', 'w.pdf'):
            refused = run('evaluate', judge, '--scenes', 1, '--worst', tmp_path / picture)
            assert refused.exit_code == 2 and 'written as .png or .jpg' in refused.output
        result = run('evaluate', judge, '--scenes', 1, '--seed', SEED, '--gripper', 'wsg_50',
                     '--json', tmp_path / 'g.json')
        assert result.exit_code == 0, result.output
        assert json.loads((tmp_path / 'g.json').read_text())['gripper']['maximum_opening'] == 0.11


def test_shipped_weights_are_whole_small_and_documented():
    path = default_weights()
    _, sidecar = checkpoint.load(path)
    assert path.stat().st_size < 25e6
    assert sidecar['licence'] == 'Apache-2.0'
    assert path.with_suffix('.md').exists()         # the model card
    for key in ('training', 'metrics', 'data'):
        assert sidecar[key], key


class _Doubtful:
    """A detector for which no score is high enough."""

    def __init__(self, detector):
        self._detector, self.gripper = detector, detector.gripper

    def detect(self, frame):
        return self._detector.detect(frame, minimum_score=1.0)


def test_shipped_model_lifts_in_most_scenes():
    """A floor, not the figure: that comes from `grasp_stn evaluate lift`."""
    from grasp_stn_ros.evaluation.lift import run_scene
    detector = GraspDetector()
    rows = [run_scene(detector, SEED, index) for index in range(12)]
    # Where no score is high enough, what would have lifted is found all the same.
    index = next(row['scene'] for row in rows if row['outcome'] == 'lifted')
    row = run_scene(_Doubtful(detector), SEED, index)
    assert row['outcome'] == 'no grasp: NO_CANDIDATE' and row['any_candidate_lifts']
    assert sum(row['outcome'] == 'lifted' for row in rows) >= 6


def test_empty_tables_have_no_grasp():
    detector = GraspDetector()
    for index in range(4):
        scene = open_scene(SEED, index, objects=1)
        joint = scene.model.body_jntadr[scene._bodies[0]]
        scene.data.qpos[scene.model.jnt_qposadr[joint]] += 20.0      # off the table, out of sight
        mujoco.mj_forward(scene.model, scene.data)
        frame, _ = scene.observe(np.random.default_rng(index))
        scene.close()
        assert detector.detect(frame).reason is Reason.NO_CANDIDATE


@needs_cornell
def test_real_images_give_grasps_on_the_object(tmp_path):
    """Every fifth RGB-D image of Cornell, uncropped; no training has seen real images."""
    data = CornellDataset(CORNELL)
    chosen = [i for i, present in enumerate(data.has_depth) if present][::5]
    lines, labels = [], []
    for index in chosen:
        sample = data[index]
        depth = tmp_path / f'{sample.name}.png'
        cv2.imwrite(str(depth), np.nan_to_num(sample.frame.depth * 1000).astype(np.uint16))
        rgb = tmp_path / f'{sample.name}_rgb.png'
        cv2.imwrite(str(rgb), sample.frame.rgb[..., ::-1])
        lines.append(' '.join(map(str, [rgb, depth, *camera(sample.frame.intrinsics)])))
        labels.append(sample.rectangles[sample.success > 0.5, :2])
    (tmp_path / 'list.txt').write_text('\n'.join(lines))
    # One of the objects is held where the default gripper does not open so far.
    (tmp_path / 'wide.yaml').write_text(
        '/**:\n  ros__parameters:\n    gripper: {maximum_opening: 0.15}\n')
    result = run('detect', '--list', tmp_path / 'list.txt', '--json', '--gripper',
                 tmp_path / 'wide.yaml')
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(records) == len(chosen) and all(r['success'] for r in records)
    on_object = [min(np.hypot(*(centres - [r['x'], r['y']]).T)) < 50
                 for r, centres in zip(records, labels, strict=True)]
    assert np.mean(on_object) >= 0.5, f'{sum(on_object)} of {len(on_object)}'

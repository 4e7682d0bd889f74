"""The viewer: what is logged, where frames come from, and a real browser that shows it."""

import subprocess
import sys

from click.testing import CliRunner
import cv2
import numpy as np
import pytest

pytest.importorskip('rerun', reason='rerun-sdk is missing: run `make setup`')

from grasp_stn_ros.cli import main
from grasp_stn_ros.detection import Candidate, Detection
from grasp_stn_ros.drawing import approach_path, gripper_boxes, point_cloud
from grasp_stn_ros.grasp_pose import Gripper, rectangle_to_grasp
from grasp_stn_ros.reasons import Reason
from grasp_stn_ros.rectangle import GraspRectangle
from grasp_stn_ros.rgbd import CameraIntrinsics, RgbdFrame
from grasp_stn_ros.viewing.browser import BrowserError, find_chromium, take_picture
from grasp_stn_ros.viewing.scene import Scene, Shown, candidate_table, label_positions
from grasp_stn_ros.viewing.server import Page, arrange, saving
from grasp_stn_ros.viewing.sources import SourceError, from_folder


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def box_on_table() -> Shown:
    """A red box of 60 x 24 mm, 50 mm high, 0.75 m below the camera, with its grasp."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(60, 160, (240, 320, 3), np.uint8)
    depth = np.full((240, 320), 0.8, np.float32)
    rgb[98:123, 177:194], depth[98:123, 177:194] = (200, 40, 40), 0.75
    frame = RgbdFrame(rgb, depth, CameraIntrinsics(250.0, 250.0, 160.0, 120.0))
    rectangle = GraspRectangle(185.0, 110.0, 0.0, 20.0, 8.0)
    grasp = rectangle_to_grasp(rectangle, frame, Gripper(), np.array([0.0, 0.0, 1.0]))
    best = Candidate((185.0, 110.0), 0.8, 0.0, rectangle, 0.9, grasp, finger_depth=0.025)
    other = Candidate((60.0, 60.0), 0.3, 0.7, GraspRectangle(60.0, 60.0, 0.7, 30.0, 10.0), 0.2,
                      None, Reason.TOO_FLAT)
    return Shown('a box', frame, Detection((best, other), best, Reason.OK, '', {'network': 5.0}),
                 1e9)


def empty() -> Shown:
    shown = box_on_table()
    return Shown('colour only', RgbdFrame(shown.frame.rgb),
                 Detection((), None, Reason.NO_CANDIDATE, ''))


def test_the_gripper_is_drawn_with_its_real_opening():
    grasp = box_on_table().detection.best.grasp
    left, right, palm = gripper_boxes(grasp, Gripper())
    inner = np.linalg.norm(left.centre - right.centre) - left.size[1]
    assert inner == pytest.approx(grasp.opening) == pytest.approx(0.06, abs=1e-4)
    assert palm.size[1] == pytest.approx(grasp.opening + 2 * Gripper().finger_thickness)
    np.testing.assert_allclose(np.diff(approach_path(grasp), axis=0), [[0, 0, 0.1]], atol=1e-9)


@pytest.mark.parametrize('offset, way', [(0.25, [0, 0, 0.25]), (0.0, None)])
def test_the_way_to_the_grasp_is_as_long_as_the_node_says(offset, way, monkeypatch):
    scene, logged = Scene(), {}
    scene.approach_offset = offset
    monkeypatch.setattr(scene.recording, 'log', lambda path, what, **_: logged.update(
        {path: what}))
    scene.log(box_on_table())
    vectors = logged['space/approach'].vectors.as_arrow_array().to_pylist()
    assert vectors == ([pytest.approx(way)] if way else [])


def test_the_cloud_lies_where_the_camera_sees_it():
    frame = box_on_table().frame
    points, colours = point_cloud(frame, maximum=10**6)
    assert len(points) == 320 * 240
    row = 98 * 320 + 177
    np.testing.assert_allclose(points[row], [17 / 250 * 0.75, -22 / 250 * 0.75, 0.75], rtol=1e-5)
    assert tuple(colours[row]) == (200, 40, 40)
    assert len(point_cloud(frame, maximum=5000)[0]) <= 5000
    assert len(point_cloud(empty().frame)[0]) == 0


def test_labels_do_not_cover_each_other():
    at = np.array([[300.0, 200.0], [304.0, 203.0], [310.0, 199.0], [300.0, 400.0]])
    labels = label_positions(at, (640, 480))
    heights = np.sort(labels[:, 1])
    assert np.diff(heights).min() >= 34.0 - 1e-9
    assert (labels[:, 0] > 310).all() and (np.argsort(labels[:, 1]) == [2, 0, 1, 3]).all()
    assert (label_positions(at + [320, 0], (640, 480))[:, 0] < 620).all()


def test_a_recording_of_the_viewer_has_every_layer(tmp_path):
    path = tmp_path / 'scene.rrd'
    scene = Scene()
    with saving(scene, path):
        for shown in (box_on_table(), empty()):
            scene.log(shown)
        arrange(scene, box_on_table())
        scene.recording.flush()
    scene.recording.disconnect()
    printed = subprocess.run([sys.executable, '-m', 'rerun', 'rrd', 'print', str(path)],
                             check=False, capture_output=True, text=True, timeout=120)
    assert printed.returncode == 0, printed.stderr
    stages = ('stage_1_locations', 'stage_2_angles', 'stage_3_rectangles', 'stage_4_scores')
    wanted = ['/image/colour', '/depth/image', '/space/cloud', '/space/gripper',
              '/space/approach', '/space/failed', '/candidates', '/outcome', '/plots/best_score',
              '/times/network',
              *(f'/{where}/{stage}' for where in ('image', 'space') for stage in stages)]
    missing = [name for name in wanted if name not in printed.stdout]
    assert not missing
    with pytest.raises(SourceError, match='FILE_EXISTS'), saving(Scene(), path):
        pass
    assert path.exists()


def test_a_recording_that_fails_leaves_nothing(tmp_path):
    scene = Scene()
    with pytest.raises(ValueError, match='half way'), saving(scene, tmp_path / 'scene.rrd'):
        scene.log(box_on_table())
        raise ValueError('half way')
    assert not list(tmp_path.iterdir())


def test_the_table_says_what_became_of_each_candidate():
    table = candidate_table(box_on_table())
    best, other = table.splitlines()[-2:]
    assert best.startswith('| **best** | (185, 110) 0.80 | 0° |') and '60 mm | 25 mm | OK' in best
    assert other.startswith('| 2 | (60, 60) 0.30 | 40° |') and '- | - | TOO_FLAT' in other
    assert 'NO_CANDIDATE' in candidate_table(empty())


def test_images_of_a_folder_find_their_depth(tmp_path):
    size = {'a': 64, 'b': 48}
    for folder, width in size.items():
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / '12_rgb.png'), np.zeros((40, width, 3), np.uint8))
    cv2.imwrite(str(tmp_path / 'b' / '12_depth.png'), np.full((40, 48), 700, np.uint16))
    cv2.imwrite(str(tmp_path / 'c.bmp'), np.zeros((40, 40, 3), np.uint8))
    frames = {named.name: named.read() for named in from_folder(tmp_path, None)}
    assert list(frames) == ['a/12_rgb.png', 'b/12_rgb.png', 'c.bmp']
    # The depth of the other folder is that of another image.
    assert frames['a/12_rgb.png'].depth is None
    assert frames['b/12_rgb.png'].depth == pytest.approx(np.full((40, 48), 0.7))


@pytest.mark.parametrize('arguments, message', [
    ([], 'give one of SOURCE'), (['--simulate', '1', '--node'], 'give one of SOURCE'),
    (['nowhere.png'], 'NO_FILE'), (['--simulate', '1', '--save', 'x.bin'], '.rrd'),
    (['--simulate', '1', '--recorded'], 'for an MCAP file'),
    (['--node', '--approach', 'optical_axis'], 'of their own'),
    (['--simulate', '1', '--gripper', 'hand'], 'none of the grippers'),
    (['--simulate', '1', '--save', 'x.rrd', '--screenshot', 'x.png'], 'not both')])
def test_wrong_input_is_named(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run('view', *arguments)
    assert result.exit_code != 0 and message in result.output
    assert isinstance(result.exception, SystemExit)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_images_is_named(tmp_path):
    for options in (['--no-open'], ['--save', tmp_path / 'x.rrd']):
        result = run('view', tmp_path, *options)
        assert result.exit_code == 1 and 'NO_IMAGES' in result.output
        assert 'viewer:' not in result.output and not list(tmp_path.iterdir())


def test_depth_without_a_camera_is_said_to_give_no_poses(tmp_path):
    frame = box_on_table().frame
    cv2.imwrite(str(tmp_path / '1_rgb.png'), frame.rgb)
    cv2.imwrite(str(tmp_path / '1_depth.png'), (frame.depth * 1000).astype(np.uint16))
    result = run('view', tmp_path, '--save', tmp_path / 'x.rrd', '--threads', 1)
    assert result.exit_code == 0, result.output
    assert result.output.count('no --intrinsics: no poses and nothing in 3-D') == 1
    outside = run('view', tmp_path, '--save', tmp_path / 'y.rrd', '--region', 300, 0, 100, 100)
    assert outside.exit_code == 1 and 'INVALID_REQUEST' in outside.output
    assert 'nothing to show' in outside.output and not (tmp_path / 'y.rrd').exists()
    # One that does not fit leaves the others.
    cv2.imwrite(str(tmp_path / '2_rgb.png'), cv2.resize(frame.rgb, (640, 480)))
    some = run('view', tmp_path, '--save', tmp_path / 'y.rrd', '--region', 340, 0, 200, 200)
    assert some.exit_code == 0 and '1_rgb.png: INVALID_REQUEST' in some.output, some.output
    assert (tmp_path / 'y.rrd').stat().st_size > 0


@pytest.mark.timeout(600)
def test_a_browser_shows_it(tmp_path):
    try:
        find_chromium()
    except BrowserError as error:
        pytest.skip(str(error))
    scene = Scene()
    page = Page(scene)
    shown = box_on_table()
    scene.log(shown)
    arrange(scene, shown, paused=True)
    scene.recording.flush()
    # Generous: the viewer is compiled and drawn on the CPU.
    take_picture(page.picture_address, tmp_path / 'page.png', 500.0, (900, 600))
    picture = cv2.imread(str(tmp_path / 'page.png')).astype(int)
    assert picture.shape == (600, 900, 3)
    blue, green, red = np.moveaxis(picture, -1, 0)
    space = np.s_[:370, :450]
    assert ((green > 1.6 * red) & (green > 1.6 * blue) & (green > 90))[space].sum() > 100, \
        'no gripper in the 3-D view'
    boxes = (red > 150) & (green < 90) & (blue < 90)
    assert boxes[:, 450:].sum() > 200, 'no red box in the images'

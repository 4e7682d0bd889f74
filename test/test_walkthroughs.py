"""The walkthroughs of docs/walkthroughs.md, as far as a test can go: no ROS, and a trainer."""

import json

from click.testing import CliRunner
import cv2
import numpy as np
import pytest

from grasp_stn_ros.cli import main
from grasp_stn_ros.simulation.labels import open_scene


def grasp_stn(*arguments) -> str:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """Ten RGB-D photographs of the kind that a user brings, with labels from CVAT."""
    folder = tmp_path_factory.mktemp('photos')
    boxes = []
    for number in range(5):
        scene = open_scene(7, number, 1)
        frame = scene.frame
        scene.close()
        millimetres = np.nan_to_num(frame.depth * 1e3).round().astype(np.uint16)
        # Twice, because the folds want ten images; the content does not matter here.
        for copy in 'ab':
            cv2.imwrite(str(folder / f'{number}{copy}_rgb.png'), frame.rgb[..., ::-1])
            cv2.imwrite(str(folder / f'{number}{copy}_depth.png'), millimetres)
            boxes.append(f'<image name="{number}{copy}_rgb.png" width="640" height="480">'
                         '<box label="grasp" xtl="300" ytl="230" xbr="340" ybr="250" '
                         'rotation="20"/></image>')
    (folder / 'labels.xml').write_text(f'<annotations>{"".join(boxes)}</annotations>')
    return folder, frame.intrinsics


def test_without_ros_an_image_file_becomes_a_pose_and_a_picture(photos, tmp_path):
    folder, camera = photos
    output = grasp_stn('detect', folder / '0a_rgb.png', folder / '0a_depth.png', '--intrinsics',
                       camera.fx, camera.fy, camera.cx, camera.cy, '--stages',
                       tmp_path / 'stages.png', '--json', '--threads', 1)
    record = json.loads(output)
    assert record['success'] and record['grasp']['opening'] > 0
    assert cv2.imread(str(tmp_path / 'stages.png')).shape[1] > 1000
    # Without depth there is a rectangle and a sentence, and no pose.
    alone = json.loads(grasp_stn('detect', folder / '0a_rgb.png', '--json', '--threads', 1))
    assert alone['grasp'] is None


def test_a_trainer_gets_from_own_photographs_to_a_judged_model(photos, tmp_path):
    folder, camera = photos
    grasp_stn('annotate', folder, '--out', tmp_path / 'mine', '--import', folder / 'labels.xml',
              '--no-page', '--intrinsics', camera.fx, camera.fy, camera.cx, camera.cy)
    grasp_stn('train', '--data', tmp_path / 'mine', '--fold', 0, '--out', tmp_path / 'run',
              '--images', 8, '--batch', 2, '--measure-every', 0)
    split = json.loads((tmp_path / 'run' / 'split.json').read_text())
    assert len(split['test']) == 2
    output = tmp_path / 'accuracy.json'
    grasp_stn('evaluate', 'accuracy', '--data', tmp_path / 'mine', '--split',
              tmp_path / 'run' / 'split.json', '--model', tmp_path / 'run' / 'model.safetensors',
              '--json', output, '--threads', 1)
    result = json.loads(output.read_text())
    assert result['n'] == 2 and np.isfinite(result['plain'])

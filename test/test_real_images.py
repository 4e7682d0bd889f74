"""The script that judges real pictures, on a checkout with one simulated picture."""

import json

from click.testing import CliRunner
import cv2
import numpy as np
import pytest
from script_files import load_script

from grasp_stn_ros.evaluation.benchmark import frames
from grasp_stn_ros.rectangle import GraspRectangle


@pytest.fixture(scope='module')
def script():
    """Import the script."""
    return load_script('judge_real_images')


def test_measure_tells_what_is_held_from_what_is_hit(script):
    """A bar between the jaws is held; where the jaws stand on it, they are not free."""
    mask = np.zeros((100, 100), bool)
    mask[40:60] = True
    across = script.measure(GraspRectangle(50, 50, np.pi / 2, 30, 10), mask)
    assert across['held'] > 0.95 and across['under_jaws'] == 0.0
    along = script.measure(GraspRectangle(50, 50, 0.0, 30, 10), mask)
    assert along['held'] > 0.95 and along['under_jaws'] > 0.95
    beside = script.measure(GraspRectangle(50, 20, 0.0, 30, 10), mask)
    assert beside == {'held': 0.0, 'under_jaws': 0.0}


def test_one_picture_from_files_to_sheet_and_json(script, tmp_path):
    """The whole way, from GQ-CNN's folders to the JSON; a missing picture is named."""
    frame = frames()[0]
    calibration = tmp_path / 'data/calib/primesense'
    folder = tmp_path / 'data/examples/single_object/primesense'
    phoxi = tmp_path / 'data/calib/phoxi'
    for path in (calibration, folder, phoxi):
        path.mkdir(parents=True)
    numbers = {f'_{k}': getattr(frame.intrinsics, k) for k in ('fx', 'fy', 'cx', 'cy')}
    (calibration / 'primesense.intr').write_text(json.dumps(numbers))
    (phoxi / 'phoxi.intr').write_text(json.dumps(numbers))
    np.save(folder / 'depth_0.npy', np.nan_to_num(frame.depth)[..., None])
    cv2.imwrite(str(folder / 'color_0.png'), frame.rgb[..., ::-1])
    arguments = ['--gqcnn', str(tmp_path), '--sheet', str(tmp_path / 'sheet.png'),
                 '--json', str(tmp_path / 'real.json')]
    missing = CliRunner().invoke(script.main, arguments)
    assert missing.exit_code == 1 and 'depth_0.npy has no colour or no mask' in missing.output
    cv2.imwrite(str(folder / 'segmask_0.png'), np.full(frame.depth.shape, 255, np.uint8))
    done = CliRunner().invoke(script.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / 'real.json').read_text())
    assert result['n'] == 1 and result['rows'][0]['reason'] == 'OK'
    assert set(result['cameras']) == {'rgbd', 'depth', 'rgb', 'rgb, jaws told'}
    assert result['cameras']['rgbd']['primesense, single object']['on_object'] == 1
    assert cv2.imread(str(tmp_path / 'sheet.png')).shape[2] == 3

"""Jacquard: layout, units and direction of the angle, depth, broken files."""

import math

import cv2
import numpy as np
import pytest

from grasp_stn_ros.data.jacquard import JacquardDataset, read_grasps
from grasp_stn_ros.data.open import open_dataset
from grasp_stn_ros.data.sample import DataError
from grasp_stn_ros.rectangle import angle_distance


def write_view(folder, number, grasps='100.5;60.25;30.0;40.0;12.0\n'):
    """Write all files of one view of the object that ``folder`` is named after, 160x120."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f'{folder}/{number}_{folder.name}'
    rgb = np.zeros((120, 160, 3), np.uint8)
    rgb[..., 2] = 200
    mask = np.zeros((120, 160), np.uint8)
    mask[30:60, 40:80] = 255
    stereo = np.full((120, 160), 1.5, np.float32)
    stereo[5, 6], stereo[7, 8] = -1.0, 0.0
    cv2.imwrite(f'{stem}_RGB.png', rgb)
    cv2.imwrite(f'{stem}_mask.png', mask)
    cv2.imwrite(f'{stem}_stereo_depth.tiff', stereo)
    cv2.imwrite(f'{stem}_perfect_depth.tiff', np.full((120, 160), 1.25, np.float32))
    with open(f'{stem}_grasps.txt', 'w') as file:
        file.write(grasps)


@pytest.fixture
def root(tmp_path):
    """Two objects in two parts of the download, three views."""
    write_view(tmp_path / 'part_0' / 'b2', 0)
    write_view(tmp_path / 'part_0' / 'b2', 1)
    write_view(tmp_path / 'part_1' / 'a1', 0)
    return tmp_path


def test_layout(root):
    data = JacquardDataset(root)
    assert data.names == ['0_a1', '0_b2', '1_b2']
    assert data.object_ids == ['a1', 'b2', 'b2']
    sample = data[2]
    assert sample.name == '1_b2' and sample.objects == ('b2',)
    assert sample.frame.rgb[0, 0].tolist() == [200, 0, 0] and sample.frame.intrinsics is None
    assert np.allclose(sample.rectangles, [[100.5, 60.25, math.radians(30), 40, 12]])
    assert sample.success.tolist() == [1.0]
    assert data.mask(0).sum() == 30 * 40
    # The folder of one part is a data set as well.
    assert JacquardDataset(root / 'part_0').names == ['0_b2', '1_b2']
    assert len(JacquardDataset(root, limit=2)) == 2


def test_angles_are_degrees_towards_positive_y(tmp_path):
    path = tmp_path / 'g_grasps.txt'
    path.write_text('50;50;45;20;10\n50;50;-170.0;20;10\n\n50;50;90;20;10;\n')
    grasps = read_grasps(path)
    # 45 degrees: to the right and down.
    assert np.allclose([np.cos(grasps[0, 2]), np.sin(grasps[0, 2])], [0.5 ** 0.5, 0.5 ** 0.5])
    assert np.allclose(angle_distance(grasps[:, 2], np.radians([45, 10, 90])), 0)


def test_kinds_of_depth(root):
    stereo = JacquardDataset(root)[0].frame.depth
    assert np.argwhere(np.isnan(stereo)).tolist() == [[5, 6], [7, 8]]
    assert stereo[50, 50] == 1.5
    assert JacquardDataset(root, 'perfect')[0].frame.depth[50, 50] == 1.25
    assert JacquardDataset(root, None)[0].frame.depth is None
    with pytest.raises(ValueError, match='choose stereo, perfect'):
        JacquardDataset(root, 'radar')


@pytest.mark.parametrize('name, content, message', [
    ('0_b2_grasps.txt', b'1;2;3;4\n', r'0_b2_grasps.txt, line 1: expected x;y;theta'),
    ('0_b2_grasps.txt', b'9;9;0;5;5\n1;2;3;-4;5\n', r'0_b2_grasps.txt, line 2: .*not a grasp'),
    ('0_b2_RGB.png', b'', '0_b2_RGB.png is cut off'),
    ('0_b2_RGB.png', None, '0_b2_RGB.png is missing'),
    ('0_b2_stereo_depth.tiff', b'II*', '0_b2_stereo_depth.tiff is missing or no image'),
    ('0_b2_stereo_depth.tiff', None, '0_b2_stereo_depth.tiff is missing or no image')])
def test_broken_files_are_named_and_refused_or_skipped(root, name, content, message):
    path = root / 'part_0' / 'b2' / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        JacquardDataset(root)[1]
    data = JacquardDataset(root, strict=False)
    assert data.names == ['0_a1', '1_b2']
    assert len(data.problems) == 1 and name in data.problems[0]


def test_sizes_must_agree(root):
    path = root / 'part_1' / 'a1' / '0_a1_stereo_depth.tiff'
    cv2.imwrite(str(path), np.ones((60, 80), np.float32))
    with pytest.raises(DataError, match=r'0_a1_stereo_depth.tiff: SIZE_MISMATCH'):
        JacquardDataset(root)[0]


def test_folders_that_cannot_be_used(root, tmp_path_factory):
    with pytest.raises(DataError, match='is no Jacquard data set'):
        JacquardDataset(tmp_path_factory.mktemp('empty'))
    (root / 'part_1' / 'a1' / '0_a1_mask.png').unlink()
    with pytest.raises(DataError, match='0_a1_mask.png is missing'):
        JacquardDataset(root).mask(0)
    for path in root.rglob('*_RGB.png'):
        path.unlink()
    with pytest.raises(DataError, match='no view of .* can be used'):
        JacquardDataset(root, strict=False)


def test_opened_by_its_folder(root):
    assert isinstance(open_dataset(root), JacquardDataset)
    with pytest.raises(DataError, match='Jacquard and cannot be joined'):
        open_dataset(root, root)

"""Cornell: labels, objects, point clouds, what the depth means, broken files, the real images."""


import cv2
import numpy as np
import pytest
from real_data import CORNELL, needs_cornell

from grasp_stn_ros.data.cornell import (
    KINECT_V1,
    PUBLIC_IMAGES,
    REGION,
    ROBOT_BASE,
    CornellDataset,
    cornell_view,
    distance_to_z,
    read_point_cloud,
    read_rectangles,
)
from grasp_stn_ros.data.sample import DataError
from grasp_stn_ros.rectangle import GraspRectangle
from grasp_stn_ros.support_plane import fit_support_plane

# 20 px along (4, 3) / 5 and 10 px across, around (310, 200).
POSITIVE = '305 190 \n321 202 \n315 210 \n299 198 \n'
NEGATIVE = '100 100\n140 100\n140 110\n100 110\n'


def plane_depth():
    """z of a tilted table that the camera looks down on, and a box: (480, 640) metres."""
    columns, rows = np.meshgrid(np.arange(640), np.arange(480))
    rays = KINECT_V1.rays(np.stack([columns, rows], axis=-1))
    z = 0.73 / (rays @ [0.1, 0.6, 0.79])
    z[200:260, 250:330] -= 0.08
    return z, rays * z[..., None]


def write_point_cloud(path, points, keep, bent=0.0):
    """Official form of camera points (H, W, 3), seen from a robot's base; mm, three decimals."""
    turn = cv2.Rodrigues(np.array([0.3, -1.2, 0.8]))[0]
    base = (points - ROBOT_BASE) @ turn.T * 1e3
    base[..., 0] += bent * base[..., 1] ** 2
    index = np.flatnonzero(keep)
    table = np.column_stack([base.reshape(-1, 3)[index], np.zeros(len(index)), index])
    header = ('# .PCD v.7 - Point Cloud Data file format\nFIELDS x y z rgb index\nSIZE 4 4 4 4 4\n'
              f'TYPE F F F F U\nCOUNT 1 1 1 1 1\nWIDTH {len(table)}\nHEIGHT 1\n'
              f'VIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(table)}\nDATA ascii')
    np.savetxt(path, table, fmt='%.3f %.3f %.3f %d %d', header=header, comments='')
    return base


def write_image(folder, number, *, end='r.png', positive=POSITIVE, negative=None):
    """Write colour and labels of one image."""
    folder.mkdir(exist_ok=True)
    rgb = np.zeros((480, 640, 3), np.uint8)
    rgb[..., 2] = 200                   # BGR: a red image
    assert cv2.imwrite(str(folder / f'pcd{number}{end}'), rgb)
    if positive is not None:
        (folder / f'pcd{number}cpos.txt').write_text(positive)
    if negative is not None:
        (folder / f'pcd{number}cneg.txt').write_text(negative)


@pytest.fixture
def root(tmp_path):
    """Two images of the official kind without depth, one JPEG with 16-bit depth."""
    write_image(tmp_path / '01', '0100', negative=NEGATIVE)
    write_image(tmp_path / '02', '0250')
    write_image(tmp_path / '10', '1001', end='r.jpg')
    distance = np.full((480, 640), 1500, np.uint16)
    distance[10, 20] = 0
    cv2.imwrite(str(tmp_path / '10' / 'pcd1001d.png'), distance)
    return tmp_path


def test_images_and_labels(root):
    data = CornellDataset(root)
    assert data.names == ['0100', '0250', '1001']
    assert data.has_depth == [False, False, True]
    sample = data[0]
    assert sample.name == '0100' and sample.frame.depth is None and sample.objects == ()
    assert sample.frame.rgb[0, 0].tolist() == [200, 0, 0]
    assert sample.success.tolist() == [1.0, 0.0]
    assert np.allclose(sample.rectangles, [[310, 200, np.arctan2(3, 4), 20, 10],
                                           [120, 105, 0, 40, 10]])
    assert sample.graspable() == [GraspRectangle(*sample.rectangles[0])]
    assert (sample.region, sample.jaw_pixels) == (REGION, 27.0) and data.region == REGION


def test_nan_rectangles_are_skipped_and_counted(root):
    (root / '01' / 'pcd0100cpos.txt').write_text('1 2\n3 2\nNaN NaN\n1 4\n' + POSITIVE)
    data = CornellDataset(root)
    assert data.nan_rectangles == 1
    assert np.allclose(data[0].rectangles[:, 0], [310, 120])


def test_a_file_of_nothing_but_nan_has_no_rectangles(tmp_path):
    path = tmp_path / 'cpos.txt'
    path.write_text('NaN NaN\n' * 4)
    rectangles, skipped = read_rectangles(path)
    assert rectangles.shape == (0, 5) and skipped == 1


@pytest.mark.parametrize('table, content', [
    ('objects.csv', 'image,folder,object_id,object_name\n0100,01,7,Mug\n0250,02,8,Mug\n'
                    '1001,10,7,Mug\n'),
    ('z.txt', '100 7 Mug pcdb0002r.png 1\n100 7 Mug pcdb0002r.png 1\n250 8 Mug x 1\n'
              '1001 7 Mug x 1\n'),
    ('processedData/z.txt', '100 7 Mug\n250 8 Mug\n1001 7 Mug\n')])
def test_objects(root, table, content):
    with pytest.raises(DataError, match=r'3 images is unknown \(first: 0100\)'):
        _ = CornellDataset(root).object_ids
    (root / table).parent.mkdir(exist_ok=True)
    (root / table).write_text(content)
    data = CornellDataset(root)
    assert data.object_ids == ['7', '8', '7']
    # Two different mugs have different names.
    assert [data[i].objects for i in range(3)] == [('Mug_7',), ('Mug_8',), ('Mug_7',)]


@pytest.mark.parametrize('table', ['objects.csv', 'z.txt'])
def test_a_broken_table_of_objects_is_named(root, table):
    (root / table).write_text('image\n100\n')
    with pytest.raises(DataError, match=table):
        CornellDataset(root)


def break_label_count(root):
    (root / '02' / 'pcd0250cpos.txt').write_text('1 2\n3 4\n')
    return 'pcd0250cpos.txt has 2 lines'


def break_label_text(root):
    (root / '02' / 'pcd0250cpos.txt').write_text('1 2\n3 four\n')
    return 'pcd0250cpos.txt is no file of'


def break_label_area(root):
    (root / '02' / 'pcd0250cpos.txt').write_text(POSITIVE + '1 2\n' * 4)
    return 'pcd0250cpos.txt, line 5: not a grasp rectangle'


def remove_labels(root):
    (root / '02' / 'pcd0250cpos.txt').unlink()
    return 'pcd0250cpos.txt is missing'


def remove_image(root):
    (root / '02' / 'pcd0250r.png').unlink()
    return 'pcd0250r.png or r.jpg is missing'


def cut_png(root):
    path = root / '02' / 'pcd0250r.png'
    path.write_bytes(path.read_bytes()[:-30])
    return 'pcd0250r.png is cut off'


def empty_png(root):
    (root / '02' / 'pcd0250r.png').write_bytes(b'')
    return 'pcd0250r.png is cut off'


def wrong_size(root):
    cv2.imwrite(str(root / '02' / 'pcd0250r.png'), np.zeros((240, 320, 3), np.uint8))
    return 'pcd0250r.png has 320x240 pixels'


def eight_bit_depth(root):
    cv2.imwrite(str(root / '02' / 'pcd0250d.png'), np.zeros((480, 640), np.uint8))
    return r'pcd0250d.png has shape \(480, 640\) and type uint8'


def small_depth(root):
    cv2.imwrite(str(root / '02' / 'pcd0250d.png'), np.full((240, 320), 1500, np.uint16))
    return 'pcd0250d.png: SIZE_MISMATCH'


def no_cloud(root):
    (root / '02' / 'pcd0250.txt').write_text('no header')
    return 'pcd0250.txt is no point cloud'


def cut_cloud(root):
    (root / '02' / 'pcd0250.txt').write_text('FIELDS x y z rgb index\nDATA ascii\n1 2 3 0')
    return 'pcd0250.txt is no point cloud'


@pytest.mark.parametrize('damage', [
    break_label_count, break_label_text, break_label_area, remove_labels, remove_image, cut_png,
    empty_png, wrong_size, eight_bit_depth, small_depth, no_cloud, cut_cloud])
def test_broken_files_are_named_and_refused_or_skipped(root, damage):
    message = damage(root)
    with pytest.raises(DataError, match=message):
        CornellDataset(root)[1]
    data = CornellDataset(root, strict=False)
    assert data.names == ['0100', '1001']
    assert len(data.problems) == 1
    with pytest.raises(DataError, match=message):
        raise DataError(data.problems[0])


def test_cut_jpeg(root):
    path = root / '10' / 'pcd1001r.jpg'
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r'pcd1001r.jpg is cut off'):
        CornellDataset(root)[2]


def test_folders_that_cannot_be_used(root, tmp_path_factory):
    with pytest.raises(DataError, match='is no Cornell data set'):
        CornellDataset(tmp_path_factory.mktemp('empty'))
    for path in root.glob('*/*r.*'):
        path.write_bytes(b'')
    with pytest.raises(DataError, match='no image of .* can be used'):
        CornellDataset(root, strict=False)


def test_cache_and_limit(root):
    data = CornellDataset(root, cache=True, limit=2)
    assert len(data) == 2
    first = data[0]
    (root / '01' / 'pcd0100r.png').unlink()
    assert data[0] is first


def test_distance_to_the_base_becomes_z():
    z, points = plane_depth()
    distance = np.linalg.norm(points - ROBOT_BASE, axis=-1).astype(np.float32)
    assert np.allclose(distance_to_z(distance), z, atol=1e-4)


def test_distance_to_the_camera_becomes_z_along_the_ray():
    # At the pixel whose ray is (0.6, 0, 1) up to rounding, 1 m along it is 0.857 m deep.
    distance = np.ones((480, 640), np.float32)
    z = distance_to_z(distance, origin=(0, 0, 0))
    ray = KINECT_V1.rays(np.array([635, 240]))
    assert z[240, 635] == pytest.approx(1 / np.linalg.norm(ray), abs=1e-6)
    assert z[240, 635] == pytest.approx(0.857, abs=2e-3)


def test_holes_and_impossible_distances_stay_holes():
    distance = np.full((480, 640), 1.5, np.float32)
    distance[10, 20] = np.nan
    # The axis passes the base at 0.86 m: no point on it is as near as 0.1 m.
    distance[240, 320] = 0.1
    z = distance_to_z(distance)
    assert np.argwhere(np.isnan(z)).tolist() == [[10, 20], [240, 320]]


def test_sixteen_bit_depth_of_the_data_set(root):
    depth = CornellDataset(root)[2].frame.depth
    assert np.isnan(depth[10, 20]) and np.isfinite(depth).sum() == 480 * 640 - 1
    point = KINECT_V1.rays(np.array([400, 300])) * depth[300, 400]
    assert np.linalg.norm(point - ROBOT_BASE) == pytest.approx(1.5, abs=1e-5)


def test_official_point_cloud(root):
    z, points = plane_depth()
    keep = np.zeros((480, 640), bool)
    keep[::4, ::3] = True
    base = write_point_cloud(root / '01' / 'pcd0100.txt', points, keep)
    # Another project's depth image beside it is not needed.
    cv2.imwrite(str(root / '01' / 'pcd0100d.tiff'), np.full((480, 640), 9, np.float32))
    depth = CornellDataset(root)[0].frame.depth
    assert (np.isfinite(depth) == keep).all()
    assert np.allclose(depth[keep], z[keep], atol=5e-4)
    # The two ways agree: with the point cloud itself, and with the distances made of it.
    (root / '01' / 'pcd0100.txt').unlink()
    distance = np.where(keep, np.linalg.norm(base, axis=-1) / 1e3, 0).astype(np.float32)
    cv2.imwrite(str(root / '01' / 'pcd0100d.tiff'), distance)
    other = CornellDataset(root)[0].frame.depth
    assert np.allclose(other[keep], depth[keep], atol=1e-3)


def test_point_clouds_that_do_not_fit_are_refused(tmp_path):
    points = plane_depth()[1]
    keep = np.zeros((480, 640), bool)
    keep[::8, ::8] = True
    path = tmp_path / 'pcd0100.txt'
    write_point_cloud(path, points, keep, bent=5e-4)
    with pytest.raises(DataError, match=r'pcd0100.txt: points and pixels do not fit'):
        read_point_cloud(path)
    keep[:, 8:] = False
    write_point_cloud(path, points, keep)
    with pytest.raises(DataError, match=r'pcd0100.txt has 60 points'):
        read_point_cloud(path)
    path.write_text(path.read_text().split('ascii')[0] + 'ascii\n' + '1 2 3 0 400000\n' * 200)
    with pytest.raises(DataError, match='index 400000, outside 640x480'):
        read_point_cloud(path)


def test_published_lines_of_a_real_point_cloud():
    # pcd0100.txt, index 25547 and 25548: pixels (587, 39) and (588, 39), the same z.
    first, second = [1.924064, -0.647111, -0.1194176], [1.924412, -0.649678, -0.1197147]
    z = KINECT_V1.fx * np.linalg.norm(np.subtract(second, first))
    distance = np.full((480, 640), np.linalg.norm(first), np.float32)
    assert distance_to_z(distance)[39, 587] == pytest.approx(z, rel=0.005)


def test_the_test_view_is_fixed_and_not_resampled():
    view = cornell_view()
    assert view.scale == pytest.approx(1.0) and view.size == 400
    assert np.allclose(view.to_view([REGION[0], REGION[1]]), [0, 0])
    assert np.allclose(cornell_view(200).to_view([303.5, 273.5]), [99.5, 99.5])


@pytest.fixture(scope='module')
def real():
    return CornellDataset(CORNELL)


@needs_cornell
def test_real_labels(real):
    assert 0 < len(real) <= PUBLIC_IMAGES
    assert real.problems == []
    assert len(real.object_ids) == len(real)
    view = cornell_view()
    count = 0
    for index in range(len(real)):
        rectangles, success = real.rectangles(index)
        assert success.max() == 1.0, f'{real.names[index]} has no grasp that works'
        for rectangle in rectangles[success == 1.0]:
            corners = view.to_view(GraspRectangle(*rectangle).corners)
            assert (corners > 0).all() and (corners < view.size - 1).all(), real.names[index]
            count += 1
    assert count > 5 * len(real)


@needs_cornell
def test_openings_of_real_labels_run_across_long_objects(real):
    # A remote control that lies along the image's y axis.
    rectangles, success = real.rectangles(real.names.index('0100'))
    angles = np.abs(rectangles[success == 1.0, 2])
    assert (angles < np.radians(20)).all()


@needs_cornell
def test_real_tables_are_flat(real):
    with_depth = np.flatnonzero(real.has_depth)
    columns, rows = np.meshgrid(np.arange(640), np.arange(480))
    rays = KINECT_V1.rays(np.stack([columns, rows], axis=-1))
    for index in (with_depth[0], with_depth[-1]):
        frame = real[int(index)].frame
        plane = fit_support_plane(frame.depth, frame.intrinsics)
        height = (rays * frame.depth[..., None]) @ plane.normal + plane.offset
        # A stripe of the table in front of the wall, where no object lies.
        stripe = np.abs(height[170:200, 150:450])
        assert np.median(stripe) < 0.003, real.names[index]
        assert np.percentile(stripe, 95) < 0.008, real.names[index]

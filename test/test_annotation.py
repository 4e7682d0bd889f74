"""Labels on own images: import, the page in a real browser, and what the reader makes of it."""

import json
from pathlib import Path
import sys
from threading import Thread
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from click.testing import CliRunner
import cv2
import numpy as np
import pytest
from test_image_files import jpeg

from grasp_stn_ros.annotation import formats
from grasp_stn_ros.annotation.server import AnnotationServer
from grasp_stn_ros.annotation.store import ConflictError, CornellFolder, Label, find_pictures
from grasp_stn_ros.cli import main
from grasp_stn_ros.data.augmentation import Augmentation, FixedView
from grasp_stn_ros.data.cornell import CornellDataset
from grasp_stn_ros.data.open import open_dataset
from grasp_stn_ros.data.sample import DataError
from grasp_stn_ros.rectangle import GraspRectangle
from grasp_stn_ros.rgbd import CameraIntrinsics
from grasp_stn_ros.viewing.browser import BrowserError, HeadlessPage, find_chromium

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'scripts'))

MATRIX = CameraIntrinsics(400.0, 401.0, 159.5, 119.5)
GRASP = Label(GraspRectangle(100.0, 80.0, 0.3, 40.0, 16.0), True)
FAILS = Label(GraspRectangle(60.0, 50.0, -1.2, 30.0, 12.0), False)


@pytest.fixture
def photos(tmp_path):
    """Two photographs of 320x240 with depth and one without, as people's folders look."""
    for number in (1, 2, 3):
        rgb = np.full((240, 320, 3), 40 * number, np.uint8)
        cv2.imwrite(str(tmp_path / f'{number}_rgb.png'), rgb)
        if number < 3:
            cv2.imwrite(str(tmp_path / f'{number}_depth.png'),
                        np.full((240, 320), 700 + number, np.uint16))
    return tmp_path


@pytest.fixture
def store(photos):
    return CornellFolder(photos / 'labelled', find_pictures(photos), MATRIX)


def test_colour_and_depth_find_each_other(tmp_path):
    for name in ('rgb/7.jpg', 'depth/7.png', 'cup-color.png', 'cup-depth.tiff', 'alone.png',
                 '.hidden.png', 'notes.txt'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = {p.name: (p.rgb.name, p.depth and p.depth.name) for p in find_pictures(tmp_path)}
    assert found == {'7': ('7.jpg', '7.png'), 'cup': ('cup-color.png', 'cup-depth.tiff'),
                     'alone': ('alone.png', None)}
    (tmp_path / 'cup.jpg').touch()
    with pytest.raises(DataError, match=r'cup-color\.png and .*cup\.jpg have the same name'):
        find_pictures(tmp_path)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(DataError, match='no images'):
        find_pictures(tmp_path / 'empty')


@pytest.mark.parametrize('colour, depth, name', [
    ('rgb1.png', 'depth1.png', 'rgb1'), ('images/1.png', 'depth/1.tiff', 'images/1'),
    ('left/1.jpg', 'left_depth/1.png', 'left/1'), ('a/rgb/1.png', 'a/depth/1.png', 'a/1'),
    ('1.png', 'depths/1.png', '1'), ('01/pcd0001r.png', '01/pcd0001d.tiff', '01/pcd0001'),
    ('a/1_rgb.png', 'b/1_depth.png', None), ('1_rgb.png', '1_depth.jpg', None)])
def test_names_that_belong_together(tmp_path, colour, depth, name):
    for path in (colour, depth):
        (tmp_path / path).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / path).touch()
    (found,) = find_pictures(tmp_path)
    assert found.rgb == tmp_path / colour
    assert found.depth == (tmp_path / depth if name else None)
    assert name in (None, found.name)


def test_what_is_saved_is_what_the_cornell_reader_reads(store):
    store.save('2', [GRASP, FAILS], 'red mug')
    store.save('3', [GRASP])
    data = CornellDataset(store.root)
    assert data.names == ['0000', '0001'] and data.has_depth == [True, False]
    sample = data[0]
    assert sample.rectangles == pytest.approx(
        np.array([label.rectangle.as_array() for label in (GRASP, FAILS)]), abs=2e-3)
    assert sample.success.tolist() == [1.0, 0.0]
    assert sample.objects == ('red mug_red_mug',)
    # z as the camera measured it, not the distance to the robot of the public set.
    assert np.allclose(sample.frame.depth, 0.702)
    assert sample.frame.intrinsics == MATRIX and sample.frame.size == (320, 240)
    assert data.region is None and type(open_dataset(store.root)) is CornellDataset
    again = CornellFolder(store.root, store.pictures)
    assert again.counts() == {'1': (0, 0), '2': (1, 1), '3': (1, 0)}
    assert again.load('2').thing == 'red mug'


def test_own_images_are_trained_on_at_the_scale_at_which_they_are_tested(store):
    store.save('2', [GRASP])
    sample = CornellDataset(store.root)[0]
    # The region and the jaws of the public set say nothing about these.
    assert sample.region is None and sample.jaw_pixels is None
    as_in_use = Augmentation(log_scale=0.0, turn=False, mirror=False, no_jaw=0.0)
    _, rectangles, _, jaw = as_in_use(sample, np.random.default_rng(0))
    tested = FixedView()(sample, np.random.default_rng(0))[1]
    assert rectangles[0, 2:] == pytest.approx(tested[0, 2:])
    assert tested[0, 3] == pytest.approx(40 * 400 / 240, rel=1e-3) and jaw == 0.0


def test_labels_of_an_image_of_the_same_name_elsewhere_stay(photos, store, tmp_path_factory):
    store.save('1', [GRASP])
    elsewhere = tmp_path_factory.mktemp('day2')
    cv2.imwrite(str(elsewhere / '1_rgb.png'), np.full((240, 320, 3), 9, np.uint8))
    other = CornellFolder(store.root, find_pictures(elsewhere), MATRIX)
    with pytest.raises(DataError, match='is not the image 1 that .*labelled has labels of'):
        other.load('1')
    with pytest.raises(DataError, match='is not the image 1'):
        other.save('1', [FAILS], overwrite=True)
    assert store.load('1').labels[0].success


def test_depth_out_of_simulated_data_is_copied_in_metres(photos):
    (photos / 'dataset.json').write_text(json.dumps({'units': {'depth_png': 1e-4}}))
    store = CornellFolder(photos / 'labelled', find_pictures(photos), MATRIX)
    cv2.imwrite(str(photos / '1_depth.png'), np.full((240, 320), 7010, np.uint16))
    store.save('1', [GRASP])
    assert np.allclose(CornellDataset(store.root)[0].frame.depth, 0.701)


def test_copies_are_no_new_images_however_their_folder_is_spelled(photos, store, monkeypatch):
    store.save('1', [GRASP])
    monkeypatch.chdir(photos.parent)
    for folder, out in ((photos.name, store.root), (photos, f'{photos.name}/labelled')):
        said = CliRunner().invoke(main, ['annotate', str(folder), '--out', str(out), '--no-page'])
        assert '3 images, 2 with depth' in said.output


def test_labels_of_others_are_not_replaced_unasked(store):
    version = store.save('1', [GRASP])
    theirs = CornellFolder(store.root, store.pictures)
    theirs.save('1', [FAILS], version=version)
    with pytest.raises(ConflictError, match='changed by somebody else'):
        store.save('1', [GRASP], version=version)
    assert [label.success for label in store.load('1').labels] == [False]
    store.save('1', [GRASP], version=version, overwrite=True)
    assert [label.success for label in theirs.load('1').labels] == [True]


def test_an_interrupted_save_is_completed(store, monkeypatch):
    import grasp_stn_ros.annotation.store as module
    write = module.write_atomically

    def cut_off(path, content):
        if path.name.endswith('r.png'):
            raise OSError(28, 'No space left on device', str(path))
        write(path, content)

    monkeypatch.setattr(module, 'write_atomically', cut_off)
    with pytest.raises(OSError, match='No space'):
        store.save('1', [GRASP])
    monkeypatch.undo()
    again = CornellFolder(store.root, store.pictures)
    assert again.load('1').labels == ()
    again.save('1', [GRASP])
    assert len(CornellDataset(store.root)) == 1


def test_what_the_reader_would_refuse_is_refused_at_once(photos, store):
    outside = Label(GraspRectangle(400, 80, 0, 40, 16), True)
    with pytest.raises(DataError, match='outside the image of 320x240'):
        store.save('1', [outside])
    cv2.imwrite(str(photos / '2_depth.png'), np.zeros((480, 640), np.uint16))
    with pytest.raises(DataError, match='aligned'):
        store.save('2', [GRASP])
    store.save('1', [GRASP])
    cv2.imwrite(str(photos / '3_rgb.png'), np.zeros((480, 640, 3), np.uint8))
    with pytest.raises(DataError, match='folder of its own'):
        store.save('3', [GRASP])
    with pytest.raises(DataError, match='another camera'):
        CornellFolder(store.root, store.pictures, CameraIntrinsics(1, 1, 1, 1))
    (store.root / 'sources.csv').unlink()
    with pytest.raises(DataError, match='from elsewhere'):
        CornellFolder(store.root, store.pictures)


def test_a_folder_in_cornell_format_is_labelled_in_place(store):
    store.save('1', [GRASP])
    root = store.root
    inside = CornellFolder(root, find_pictures(root))
    assert [p.name for p in inside.pictures] == ['01/pcd0000']
    before = inside.load('01/pcd0000')
    inside.save('01/pcd0000', [*before.labels, FAILS], version=before.version)
    assert CornellDataset(root)[0].success.tolist() == [1.0, 0.0]


def test_naming_an_object_keeps_the_names_of_the_official_table(tmp_path):
    (tmp_path / '01').mkdir()
    for number in (100, 101, 102):
        cv2.imwrite(str(tmp_path / '01' / f'pcd0{number}r.png'), np.zeros((480, 640, 3), np.uint8))
        (tmp_path / '01' / f'pcd0{number}cpos.txt').write_text('')
    (tmp_path / 'z.txt').write_text('100 7 mug x\n101 7 mug x\n102 8 plate x\n')
    folder = CornellFolder(tmp_path, find_pictures(tmp_path))
    before = folder.load('01/pcd0101')
    assert before.thing == 'mug'
    version = folder.save('01/pcd0101', [GRASP], before.thing, before.version)
    assert not (tmp_path / 'objects.csv').exists(), 'nothing was named'
    version = folder.save('01/pcd0101', [GRASP], 'blue cup', version)
    assert CornellDataset(tmp_path).object_ids == ['7', 'blue_cup', '8']
    assert folder.load('01/pcd0102').thing == 'plate'
    folder.save('01/pcd0101', [GRASP], '', version)
    assert folder.load('01/pcd0101').thing == '' and folder.load('01/pcd0100').thing == 'mug'


# ------------------------------------------------------------------ import
CVAT = """<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>
<image id="0" name="1_rgb.png" width="320" height="240">
<box label="grasp" xtl="80.5" ytl="72.5" xbr="120.5" ybr="88.5" rotation="30.0" occluded="0"/>
<box label="bad" xtl="50.5" ytl="40.5" xbr="70.5" ybr="50.5"/>
<polyline label="grasp" points="1,1;2,2"/>
</image>
<image id="1" name="elsewhere.png" width="320" height="240">
<box label="grasp" xtl="80" ytl="72" xbr="120" ybr="88"/></image></annotations>"""


def labelme(points, label='grasp'):
    return json.dumps({'imagePath': '..\\2_rgb.png', 'imageWidth': 320, 'imageHeight': 240,
                       'shapes': [{'label': label, 'shape_type': 'polygon', 'points': points}]})


def test_cvat_boxes_turn_clockwise(photos):
    (photos / 'a.xml').write_text(CVAT)
    first, _ = formats.read_labels(photos / 'a.xml')
    turned, upright = first.labels
    assert turned.rectangle.as_array() == pytest.approx([100, 80, np.radians(30), 40, 16])
    assert turned.success and not upright.success
    assert first.problems == ('1_rgb.png, shape 3 (grasp): a polyline, expected a rotated box or '
                              'a polygon of 4 points',)
    shorter = formats.read_labels(photos / 'a.xml', 'shorter')[0].labels[0].rectangle
    assert shorter.as_array() == pytest.approx([100, 80, np.radians(-60), 16, 40])


@pytest.mark.parametrize('order', [[0, 1, 2, 3], [2, 3, 0, 1], [1, 0, 3, 2], [3, 2, 1, 0]])
def test_labelme_polygons_from_any_corner(tmp_path, order):
    path = tmp_path / 'b.json'
    path.write_text(labelme((GRASP.rectangle.corners[order] + 0.5).tolist()))
    (image,) = formats.read_labels(path)
    assert image.name == '../2_rgb.png' and not image.problems
    assert image.labels[0].rectangle.as_array() == pytest.approx(GRASP.rectangle.as_array())


@pytest.mark.parametrize('points', [[[0, 0], [9, 0], [9, 9]], [[0, 0], [30, 0], [0, 20], [30, 20]],
                                    [[0, 0], [30, 0], [60, 20], [0, 20]],
                                    [[0, 0], [30, 0], [float('nan'), 20], [0, 20]]])
def test_what_is_no_rectangle_is_named(tmp_path, points):
    (tmp_path / 'b.json').write_text(labelme(points))
    (image,) = formats.read_labels(tmp_path)
    assert not image.labels and len(image.problems) == 1


@pytest.mark.parametrize('kind', ['circle', 'line'])
def test_two_points_are_a_rectangle_only_where_they_are_its_corners(tmp_path, kind):
    shapes = [{'label': 'grasp', 'shape_type': each, 'points': [[10, 10], [50, 30]]}
              for each in (kind, 'rectangle')]
    (tmp_path / 'b.json').write_text(json.dumps({'imagePath': 'a.png', 'shapes': shapes}))
    (image,) = formats.read_labels(tmp_path)
    assert len(image.labels) == 1
    assert f'shape 1 (grasp): a {kind}, expected' in image.problems[0]


# A box of 40 x 16 around (100.5, 80.5) in the tool's pixels, turned by 30 degrees.
COCO = {'images': [{'id': 7, 'file_name': '1_rgb.png', 'width': 320, 'height': 240},
                   {'id': 8, 'file_name': 'sub\\2_rgb.png', 'width': 320, 'height': 240}],
        'categories': [{'id': 1, 'name': 'grasp'}, {'id': 2, 'name': 'Bad'}],
        'annotations': [
            {'id': 1, 'image_id': 7, 'category_id': 1, 'segmentation': [],
             'bbox': [80.5, 72.5, 40, 16], 'attributes': {'occluded': False, 'rotation': 30.0}},
            # (100.5, 80.5) -+ 20 (4, 3) / 5 -+ 5 (-3, 4) / 5, first edge along (4, 3).
            {'id': 2, 'image_id': 7, 'category_id': 2, 'bbox': [81.5, 64.5, 38, 32],
             'segmentation': [[87.5, 64.5, 119.5, 88.5, 113.5, 96.5, 81.5, 72.5]]},
            {'id': 3, 'image_id': 7, 'category_id': 1, 'bbox': [1, 1, 9, 9],
             'segmentation': {'counts': 'abc', 'size': [240, 320]}},
            {'id': 4, 'image_id': 7, 'category_id': 1, 'bbox': [1, 1, 9, 9],
             'segmentation': [[1, 1, 9, 1, 9, 9]]},
            {'id': 5, 'image_id': 8, 'category_id': 1, 'bbox': [80.5, 72.5, 40, 16],
             'segmentation': [[80.5, 72.5, 120.5, 72.5, 120.5, 88.5, 80.5, 88.5]],
             'attributes': {'rotation': 90}}]}


def test_coco_polygons_and_boxes_that_are_turned(tmp_path):
    (tmp_path / 'coco.json').write_text(json.dumps(COCO))
    first, second = formats.read_labels(tmp_path / 'coco.json')
    box, polygon = first.labels
    assert box.rectangle.as_array() == pytest.approx([100, 80, np.radians(30), 40, 16])
    assert polygon.rectangle.as_array() == pytest.approx([100, 80, np.arctan2(3, 4), 40, 10])
    assert box.success and not polygon.success and first.size == (320, 240)
    assert first.problems == (
        '1_rgb.png, shape 3 (grasp): a mask, expected a rotated box or a polygon of 4 points',
        '1_rgb.png, shape 4 (grasp): 3 points, expected the 4 corners of a rectangle')
    # The polygon is the box before it was turned.
    assert second.name == 'sub/2_rgb.png'
    assert second.labels[0].rectangle.as_array() == pytest.approx([100, 80, -np.pi / 2, 40, 16])
    shorter = formats.read_labels(tmp_path, 'shorter')[0].labels[1].rectangle
    assert shorter.as_array() == pytest.approx([100, 80, np.arctan2(3, 4) - np.pi / 2, 10, 40])


def label_studio(image, *results, **task):
    return {'id': 3, 'data': {'image': image},
            'annotations': [{'result': [{'original_width': 320, 'original_height': 240, **r}
                                        for r in results]}], **task}


def box_of(label, x, y, width, height, **more):
    return {'type': 'rectanglelabels', 'value': {'x': x, 'y': y, 'width': width,
                                                 'height': height, 'rectanglelabels': [label],
                                                 **more}}


def test_label_studio_boxes_turn_about_their_corner(tmp_path):
    # 12.5 % of 320 are 40 px, 5 % of 240 are 12 px; the corner is at (96, 60). Turned by 90
    # degrees clockwise, the upper edge goes down from there and the box lies to the left of it.
    turned = box_of('grasp', 30, 25, 12.5, 5, rotation=90)
    upright = box_of('bad', 30, 25, 12.5, 5)
    # The corner stays at (96, 60), the upper edge runs along (4, 3) / 5, the height along (-3, 4):
    # the middle is (96, 60) + 20 (4, 3) / 5 + 6 (-3, 4) / 5.
    slanted = box_of('grasp', 30, 25, 12.5, 5, rotation=np.degrees(np.arctan2(3, 4)))
    # The same corners as those of the box that is turned by 90 degrees.
    polygon = {'type': 'polygonlabels', 'value': {
        'polygonlabels': ['grasp'],
        'points': [[30, 25], [30, 100 * 100 / 240], [26.25, 100 * 100 / 240], [26.25, 25]]}}
    ellipse = {'type': 'ellipselabels', 'value': {'ellipselabels': ['grasp'], 'x': 1, 'y': 1}}
    choice = {'type': 'choices', 'value': {'choices': ['sharp']}}
    on_a_turned_image = {**upright, 'image_rotation': 90}
    (tmp_path / 'c.json').write_text(json.dumps([
        label_studio('/data/upload/4/0f1e2d3c-1_rgb.png', turned, upright, slanted, polygon,
                     ellipse, choice, on_a_turned_image),
        label_studio('/data/local-files/?d=photos%2F2_rgb.png',
                     {'id': 'a', 'type': 'rectangle', 'value': {**upright['value']}},
                     {'id': 'a', 'type': 'labels', 'value': {'labels': ['fail']}}),
        label_studio('s3://bucket/some%20photos/3_rgb.png', turned, annotations=[
            {'was_cancelled': True, 'result': [turned]}])]))
    first, second, third = formats.read_labels(tmp_path / 'c.json')
    assert (first.name, first.size) == ('1_rgb.png', (320, 240))
    found = [label.rectangle.as_array() for label in first.labels]
    assert found[0] == pytest.approx([89.5, 79.5, -np.pi / 2, 40, 12])
    assert found[1] == pytest.approx([115.5, 65.5, 0, 40, 12])
    assert found[2] == pytest.approx([107.9, 76.3, np.arctan2(3, 4), 40, 12])
    assert found[3] == pytest.approx(found[0])
    assert [label.success for label in first.labels] == [True, False, True, True]
    assert len(first.problems) == 2 and 'an image turned by 90' in first.problems[1]
    assert second.name == 'photos/2_rgb.png' and not second.labels[0].success
    assert third.name == '/some photos/3_rgb.png' and not third.labels


@pytest.mark.parametrize('change', [
    {'images': [{'id': 7}]}, {'categories': []}, {'annotations': [{'image_id': 1}]},
    {'annotations': [{**COCO['annotations'][0], 'image_id': 99}]},
    {'annotations': [{**COCO['annotations'][0], 'bbox': [1, 2, 3]}]},
    {'annotations': [{**COCO['annotations'][0], 'segmentation': [[1, 2, 3]]}]},
    {'annotations': {'a': 1}}, {'images': None}])
def test_broken_coco_files_are_named(tmp_path, change):
    (tmp_path / 'a.json').write_text(json.dumps({**COCO, **change}))
    with pytest.raises(DataError, match=r'a\.json'):
        formats.read_labels(tmp_path / 'a.json')


@pytest.mark.parametrize('task', [
    {'image': '1_rgb.png', 'label': []}, {'annotations': [], 'data': {'image': 3}},
    {'annotations': [], 'data': {}}, label_studio('1.png', {'type': 'rectanglelabels'}),
    label_studio('1.png', box_of('grasp', 'wide', 1, 1, 1)), label_studio('1.png', annotations=3),
    {'annotations': [{'result': [box_of('grasp', 1, 1, 1, 1)]}], 'data': {'image': 'a.png'}}])
def test_broken_label_studio_files_are_named(tmp_path, task):
    (tmp_path / 'a.json').write_text(json.dumps([task]))
    with pytest.raises(DataError, match=r'a\.json'):
        formats.read_labels(tmp_path / 'a.json')


def test_files_of_another_kind_are_named(tmp_path):
    for name, text in (('a.xml', '<html/>'), ('b.xml', 'no xml'), ('c.json', '[1]'),
                       ('d.txt', 'x'), ('e.json', '{}'), ('f.json', '[' * 100_000)):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=name):
            formats.read_labels(tmp_path / name)


def test_the_command_imports_and_says_what_it_did_not(photos):
    (photos / 'a.xml').write_text(CVAT)
    (photos / 'b.json').write_text(labelme((GRASP.rectangle.corners + 0.5).tolist()))
    arguments = ['annotate', str(photos), '--import', str(photos / 'a.xml'), '--import',
                 str(photos / 'b.json'), '--no-page', '--intrinsics', '400', '401', '159.5',
                 '119.5']
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert '3 images, 2 with depth' in result.output
    assert 'elsewhere.png: no such image' in result.output and 'a polyline' in result.output
    data = CornellDataset(photos / 'labelled')
    assert len(data) == 2 and data[0].success.tolist() == [1.0, 0.0]
    again = CliRunner().invoke(main, arguments)
    assert again.output.count('has labels already') == 2
    blind = CliRunner().invoke(main, ['annotate', str(photos), '--no-page', '--out',
                                      str(photos / 'other')])
    assert 'no --intrinsics: no poses' in blind.output
    for output in (result.output, again.output):
        assert 'no --intrinsics' not in output
    (photos / 'empty').mkdir()
    refused = CliRunner().invoke(main, ['annotate', str(photos / 'empty'), '--no-page'])
    assert refused.exit_code == 1 and 'empty has no images' in refused.output


@pytest.mark.parametrize('names, kept', [
    (['day2/1_rgb.png', 'day1/1_rgb.png'], 'day1/1_rgb.png'),
    (['day2/1_rgb.png', 'day3/1_rgb.png'], None), (['task/1_rgb.png'], 'task/1_rgb.png')])
def test_two_images_are_not_imported_as_one(photos, tmp_path_factory, names, kept):
    folder = tmp_path_factory.mktemp('photos') / 'day1'
    folder.mkdir()
    (folder / '1_rgb.png').write_bytes((photos / '1_rgb.png').read_bytes())
    store = CornellFolder(folder.parent / 'labelled', find_pictures(folder.parent), MATRIX)
    moved = [Label(GraspRectangle(50.0 + 10 * i, 80.0, 0.3, 40.0, 16.0), True)
             for i in range(len(names))]
    done, problems = formats.import_labels(store, [
        formats.ImportedImage(name, None, (label,), ())
        for name, label in zip(names, moved, strict=True)])
    assert done == (kept is not None)
    assert len(problems) == len(names) - done
    assert all('is not meant alone' in problem for problem in problems)
    if kept:
        (label,) = store.load('day1/1').labels
        assert label.rectangle.x == pytest.approx(50.0 + 10 * names.index(kept))


def test_labels_of_another_size_are_not_imported(photos, store):
    (photos / 'a.xml').write_text(CVAT.replace('width="320"', 'width="640"'))
    done, problems = formats.import_labels(store, formats.read_labels(photos / 'a.xml'))
    assert done == 0 and store.counts()['1'] == (0, 0)
    assert any('was labelled with 640x240 pixels' in p and '320x240' in p for p in problems)


def test_labels_on_an_image_that_the_other_program_has_turned_are_not_imported(photos, store):
    picture = photos / '1_rgb.png'
    rgb = np.zeros((240, 320, 3), np.uint8)
    rgb[:100] = 200
    # Half a turn: the size does not tell.
    (photos / '1_rgb.jpg').write_bytes(jpeg(rgb, 3))
    picture.unlink()
    (photos / 'a.xml').write_text(CVAT.replace('1_rgb.png', '1_rgb.jpg'))
    turned = CornellFolder(store.root, find_pictures(photos))
    done, problems = formats.import_labels(turned, formats.read_labels(photos / 'a.xml'))
    assert done == 0 and any('EXIF' in problem for problem in problems)


# ------------------------------------------------------------------ the page
@pytest.fixture
def server(store):
    with AnnotationServer(store) as listening:
        thread = Thread(target=listening.serve_forever, kwargs={'poll_interval': 0.02})
        thread.start()
        yield listening
        listening.shutdown()
        thread.join()


def put(server, name, body, **headers):
    request = Request(f'{server.url}api/labels?name={name}', json.dumps(body).encode(), headers,
                      method='PUT')
    try:
        with urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)


def test_the_server_answers_errors_by_name(server):
    good = {'labels': [{'x': 100, 'y': 80, 'theta': 0, 'opening': 40, 'jaw': 16,
                        'success': True}], 'version': ''}
    assert put(server, 'nothing', good)[0] == 404
    assert put(server, '1', {'labels': [{'x': 1}]})[0] == 400
    assert put(server, '1', {**good, 'labels': [{**good['labels'][0], 'opening': -1}]})[0] == 400
    assert put(server, '1', [])[0] == 400
    # Another site, open in the same browser, must not write here.
    assert put(server, '1', good, Origin='http://evil.example')[0] == 403
    assert put(server, '1', good, Host='evil.example')[0] == 403
    assert put(server, '1', good)[0] == 200
    status, answer = put(server, '1', good)
    assert status == 409 and 'overwrite' in answer['error']
    assert server.server_address[0] == '127.0.0.1'


def test_rectangles_are_drawn_in_a_real_browser(server):
    try:
        find_chromium()
    except BrowserError as error:
        pytest.skip(str(error))
    from make_pictures import draw_rectangle
    with HeadlessPage(server.url, (1000, 700)) as page:
        page.wait_for('picture.width')
        # From jaw to jaw along (4, 3) / 5, then 8 px across: 40 long, 16 high, around (100, 80).
        draw_rectangle(page, (84, 68), (116, 92), (104.8, 73.6))
        page.key('s')
        page.wait_for("$('message').textContent === 'saved'")
        label = server.folder.load('1').labels[0]
        assert label.success and label.rectangle.as_array() == pytest.approx(
            [100, 80, np.arctan2(3, 4), 40, 16], abs=1.0)
        page.key('g')
        page.key('d')
        page.wait_for("kind === 'depth'")
        page.key('n')                                   # saves, and shows the next image
        page.wait_for("$('name').textContent === '2'")
        assert [la.success for la in server.folder.load('1').labels] == [False]
        # Somebody else labels the same image meanwhile: the page asks before it overwrites.
        server.folder.save('2', [FAILS])
        draw_rectangle(page, (84, 68), (116, 92), (104.8, 73.6))
        page.key('s')
        page.wait_for("$('message').textContent === 'saved'")
        assert 'Overwrite' in page.dialogs[0]
        assert [la.success for la in server.folder.load('2').labels] == [True]
        picture = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
        colours = picture.reshape(-1, 3)
        assert (np.abs(colours.astype(int) - [83, 200, 0]).max(axis=1) < 30).sum() > 100
    assert len(CornellDataset(server.folder.root, strict=False)) == 2

"""A mask of where to look: candidates of the shipped network start there, all K of them."""

import json

from click.testing import CliRunner
import numpy as np
import pytest
from script_files import load_script

pytest.importorskip('torch', reason='torch is missing: run `make setup`')
pytest.importorskip('mujoco', reason='mujoco is missing: run `make setup`')

from grasp_stn_ros.detector import GraspDetector, find_weights
from grasp_stn_ros.names import table_weights
from grasp_stn_ros.preprocessing import View
from grasp_stn_ros.reasons import GraspError, Reason
from grasp_stn_ros.rgbd import RgbdFrame
from grasp_stn_ros.simulation.labels import open_scene
from grasp_stn_ros.stn.trunk import Trunk


@pytest.fixture(scope='module')
def detector():
    return GraspDetector(device='cpu', threads=1)


@pytest.fixture(scope='module')
def table():
    """A frame of five objects, and the mask of each that is seen."""
    scene = open_scene(1002, 3, objects=5)
    try:
        frame, rendered = scene.observe(np.random.default_rng(0))
    finally:
        scene.close()
    masks = [rendered.segmentation == i + 1 for i in range(5)]
    masks = [mask for mask in masks if mask.sum() > 150]
    assert len(masks) >= 3
    return frame, masks


def all_near(mask, found, detector, frame):
    """
    Whether all locations lie within a diagonal of a cell of the location map from the mask.

    A cell that touches the mask has one, anywhere in it; the smaller the view, the coarser.
    """
    view, _ = detector._at_scale(View.of_region(*found.region), frame, None)
    rows, columns = np.nonzero(mask)
    return all(np.hypot(columns - c.location[0], rows - c.location[1]).min()
               <= 2 ** 0.5 * Trunk.STRIDE / view.scale for c in found.candidates)


@pytest.mark.parametrize('with_depth', [True, False])
def test_all_candidates_start_on_the_object_that_was_asked_for(detector, table, with_depth):
    frame, masks = table
    if not with_depth:
        frame = RgbdFrame(frame.rgb)
    for mask in masks:
        found = detector.detect(frame, mask=mask)
        assert len(found.candidates) >= 3
        assert all_near(mask, found, detector, frame)


def test_a_mask_of_everything_changes_nothing(detector, table):
    frame, _ = table
    free = detector.detect(frame)
    masked = detector.detect(frame, mask=np.full(frame.rgb.shape[:2], 255, np.uint8))
    assert [c.rectangle for c in masked.candidates] == [c.rectangle for c in free.candidates]


def test_a_mask_of_nothing_leaves_no_candidate(detector, table):
    frame, _ = table
    found = detector.detect(frame, mask=np.zeros(frame.rgb.shape[:2], bool))
    assert (found.candidates, found.best, found.reason) == ((), None, Reason.MASKED)


def test_a_mask_of_another_size_is_refused_by_name(detector, table):
    frame, masks = table
    with pytest.raises(GraspError) as caught:
        detector.detect(frame, mask=masks[0][:-1])
    assert caught.value.reason is Reason.SIZE_MISMATCH


def test_a_region_and_turned_views_see_the_mask_where_it_is(table):
    frame, masks = table
    rows, columns = np.nonzero(masks[0])
    x, y = max(int(columns.mean()) - 100, 0), max(int(rows.mean()) - 100, 0)
    turned = GraspDetector(device='cpu', threads=1, turns=4)
    for found in (turned.detect(frame, mask=masks[0]),
                  turned.detect(frame, region=(x, y, 200, 200), mask=masks[0])):
        assert found.candidates
        assert all_near(masks[0], found, turned, frame)


def test_objects_are_asked_for_by_their_masks(tmp_path):
    script = load_script('ask_for_objects')
    run = CliRunner().invoke(script.main, ['--scenes', '2', '--seed', '1002', '--json',
                                           str(tmp_path / 'masks.json')])
    assert run.exit_code == 0, run.output
    result = json.loads((tmp_path / 'masks.json').read_text())
    assert 6 <= result['n'] == len(result['rows']) <= 10
    ways = result['ways']
    assert ways['proposed there']['grasps'] >= ways['only afterwards']['grasps'] > 0
    assert all(way['lifted'] <= way['grasps'] for way in ways.values())


def test_systems_that_cannot_be_told_where_to_look_look_everywhere(table):
    frame, masks = table
    regression = GraspDetector(find_weights(table_weights('simulated', 'regression')),
                               device='cpu', threads=1)
    assert [c.rectangle for c in regression.detect(frame, mask=masks[0]).candidates] == \
        [c.rectangle for c in regression.detect(frame).candidates]

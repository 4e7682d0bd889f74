"""Markers that RViz accepts: scales, quaternions, ids, and nothing left over."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ros_fixtures import BOX_DEPTH, INTRINSICS, RECTANGLE, StubDetector, box_scene
from rviz_rules import problems
from std_msgs.msg import Header
from visualization_msgs.msg import Marker
import yaml

from grasp_stn_ros.drawing import PRE_GRASP_DISTANCE
from grasp_stn_ros.grasp_pose import Gripper
from grasp_stn_ros.rectangle import GraspRectangle
from grasp_stn_ros.rgbd import RgbdFrame
from grasp_stn_ros.ros import markers
from grasp_stn_ros.ros.markers import MarkerBuilder
from grasp_stn_ros.ros.parameters import PARAMETERS

HEADER = Header(frame_id='camera')
OTHER = GraspRectangle(60.0, 60.0, 0.7, 30.0, 10.0)    # on the table: no grasp, TOO_WIDE or flat


def frame() -> RgbdFrame:
    return RgbdFrame(*box_scene(), INTRINSICS)


# Of a grasp that has failed: at the box, seen from the camera.
POSE = np.array([[0.0, 1, 0, 0.02], [0, 0, 1, -0.01], [1, 0, 0, BOX_DEPTH], [0, 0, 0, 1]])


def detect(rectangles=(RECTANGLE, OTHER), scores=(0.9, 0.4)):
    return StubDetector(rectangles, scores).detect(frame())


def points(marker: Marker) -> np.ndarray:
    return np.array([[p.x, p.y, p.z] for p in marker.points])


def test_every_marker_is_valid_and_unique():
    detection = replace(detect(), failed=(POSE,))
    array = MarkerBuilder(Gripper()).build(detection, frame(), HEADER, 0.25)
    assert not problems(array)
    for marker in array.markers:
        assert marker.action == Marker.ADD
        assert marker.header == HEADER
        assert marker.lifetime.sec == 0
        assert marker.lifetime.nanosec == 250_000_000
    ids = [(m.ns, m.id) for m in array.markers]
    assert len(set(ids)) == len(ids)
    assert {ns for ns, _ in ids} == set(markers.NAMESPACES)


def test_arrays_stay_valid_while_candidates_come_and_go():
    """What is deleted is in the same array as what is added; RViz reads both."""
    builder = MarkerBuilder(Gripper())
    for rectangles in ((RECTANGLE, OTHER), (OTHER,), (), (RECTANGLE,), (OTHER, RECTANGLE)):
        scores = tuple(0.9 - 0.1 * i for i in range(len(rectangles)))
        array = builder.build(detect(rectangles, scores), frame(), HEADER, 0.0)
        assert array.markers and not problems(array)


@pytest.mark.parametrize('spoil, problem', [
    (lambda m: setattr(m.scale, 'x', 0.0), 'not positive'),
    (lambda m: setattr(m.pose.orientation, 'w', 0.5), 'not normalized'),
    (lambda m: setattr(m.pose.position, 'y', float('nan')), 'nans'),
    (lambda m: setattr(m.color, 'a', 0.0), 'transparent'),
    (lambda m: setattr(m, 'id', 1), 'the same ns and id twice'),
    (lambda m: setattr(m, 'header', Header()), 'frame_id')])
def test_the_rules_see_what_they_look_for(spoil, problem):
    array = MarkerBuilder(Gripper()).build(detect(), frame(), HEADER, 1.0)
    spoil(next(m for m in array.markers if (m.ns, m.id) == (markers.LOCATIONS, 0)))
    assert any(problem in text for text in problems(array))


def test_rviz_has_a_switch_for_every_layer():
    root = Path(__file__).resolve().parent.parent
    config = yaml.safe_load((root / 'config' / 'grasp.rviz').read_text())
    displays = {d['Name']: d for d in config['Visualization Manager']['Displays']}
    assert set(displays['Stages']['Namespaces']) == set(markers.NAMESPACES)
    assert all(displays['Stages']['Namespaces'].values())
    assert {'Cloud', 'Image', 'Stages', 'Grasp'} <= set(displays)


def test_stages_lie_where_the_rectangle_is():
    """Box top at 0.75 m, rectangle of 20 x 8 px centred at (185, 110), f = 250."""
    array = MarkerBuilder(Gripper()).build(detect(), frame(), HEADER, 1.0)
    by_id = {(m.ns, m.id): m for m in array.markers}
    sphere = by_id[markers.LOCATIONS, 0].pose.position
    np.testing.assert_allclose([sphere.x, sphere.y, sphere.z], [0.075, -0.03, BOX_DEPTH],
                               atol=1e-6)
    jaws = points(by_id[markers.RECTANGLES, 1])
    np.testing.assert_allclose(np.sort(np.unique(jaws[:, 0].round(6))), [0.045, 0.105])
    np.testing.assert_allclose(np.sort(np.unique(jaws[:, 1].round(6))), [-0.042, -0.018])
    thin, thick = by_id[markers.RECTANGLES, 0], by_id[markers.RECTANGLES, 1]
    assert thick.scale.x > 2 * thin.scale.x
    # The other candidate has no grasp; it lies on the table all the same.
    assert by_id[markers.LOCATIONS, 1].pose.position.z == pytest.approx(0.80)


def test_the_best_is_drawn_as_a_gripper_at_its_pose():
    array = MarkerBuilder(Gripper()).build(detect(), frame(), HEADER, 1.0)
    left, right, palm = [m for m in array.markers if m.ns == markers.BEST]
    # Opening 60 mm along x, jaws 8 mm thick outside of it, tips at z = 0.772.
    assert left.pose.position.x == pytest.approx(0.075 - 0.034)
    assert right.pose.position.x == pytest.approx(0.075 + 0.034)
    for jaw in (left, right):
        assert jaw.pose.position.z + jaw.scale.x / 2 == pytest.approx(0.772)
        assert (jaw.scale.y, jaw.scale.z) == pytest.approx((0.008, 0.020))
    assert palm.scale.y == pytest.approx(0.060 + 2 * 0.008)
    assert palm.pose.position.z < left.pose.position.z


def test_the_way_to_the_best_starts_at_the_pre_grasp_pose():
    array = MarkerBuilder(Gripper()).build(detect(), frame(), HEADER, 1.0)
    best = [m for m in array.markers if m.ns == markers.BEST]
    *ghost, arrow = [m for m in array.markers if m.ns == markers.APPROACH]
    np.testing.assert_allclose(points(arrow), [[0.075, -0.03, 0.672], [0.075, -0.03, 0.772]],
                               atol=1e-6)
    for far, near in zip(ghost, best, strict=True):
        assert near.pose.position.z - far.pose.position.z == pytest.approx(0.10)
        assert far.pose.position.x == pytest.approx(near.pose.position.x)
        assert far.scale == near.scale and far.color.a < near.color.a


def test_the_pre_grasp_is_as_far_as_the_parameter_says():
    builder = MarkerBuilder(Gripper(), 0.25)
    *_, arrow = [m for m in builder.build(detect(), frame(), HEADER, 1.0).markers
                 if m.ns == markers.APPROACH]
    np.testing.assert_allclose(points(arrow)[:, 2], [0.522, 0.772], atol=1e-6)
    builder.approach_offset = 0.0
    array = builder.build(detect(), frame(), HEADER, 1.0)
    assert not problems(array)
    assert {m.action for m in array.markers if m.ns == markers.APPROACH} == {Marker.DELETE}
    # Where no node is asked, the default of its parameter is drawn.
    assert {p.name: p.default for p in PARAMETERS}['approach_offset'] == PRE_GRASP_DISTANCE


def test_what_vanishes_is_deleted_by_id():
    builder = MarkerBuilder(Gripper())
    builder.build(detect(), frame(), HEADER, 1.0)
    second = builder.build(detect((RECTANGLE,), (0.9,)), frame(), HEADER, 1.0)
    deleted = {(m.ns, m.id) for m in second.markers if m.action == Marker.DELETE}
    assert deleted == {(markers.LOCATIONS, 1), (markers.ANGLES, 1), (markers.RECTANGLES, 2),
                       (markers.RECTANGLES, 3), (markers.SCORES, 1)}
    third = builder.build(detect((RECTANGLE,), (0.9,)), frame(), HEADER, 1.0)
    assert all(m.action == Marker.ADD for m in third.markers)


def test_best_gripper_vanishes_with_the_best():
    builder = MarkerBuilder(Gripper())
    builder.build(detect(), frame(), HEADER, 1.0)
    array = builder.build(detect((OTHER,), (0.4,)), frame(), HEADER, 1.0)
    gone = {(m.ns, m.id) for m in array.markers if m.action == Marker.DELETE}
    assert gone >= {(markers.BEST, i) for i in range(3)}
    assert gone >= {(markers.APPROACH, i) for i in range(4)}


def test_failed_grasps_are_crossed_out_where_they_were():
    builder = MarkerBuilder(Gripper())
    array = builder.build(replace(detect(), failed=(POSE, POSE)), frame(), HEADER, 1.0)
    crosses = [m for m in array.markers if m.ns == markers.FAILED]
    assert [m.id for m in crosses] == [0, 1]
    ends = points(crosses[0])
    np.testing.assert_allclose(ends.reshape(2, 2, 3).mean(axis=1), [POSE[:3, 3]] * 2)
    # In the plane in which the jaws close, and neither line along their direction.
    offsets = ends - POSE[:3, 3]
    np.testing.assert_allclose(offsets @ POSE[:3, 0], 0.0, atol=1e-12)
    np.testing.assert_allclose(np.abs(offsets @ POSE[:3, 1]), 0.012)
    after = builder.build(detect(), frame(), HEADER, 1.0)
    assert {(m.ns, m.id) for m in after.markers if m.action == Marker.DELETE} \
        == {(markers.FAILED, 0), (markers.FAILED, 1)}


def test_failed_grasps_are_crossed_out_where_nothing_else_is_found():
    builder = MarkerBuilder(Gripper())
    builder.build(detect(), frame(), HEADER, 1.0)
    array = builder.build(replace(detect((), ()), failed=(POSE,)), frame(), HEADER, 1.0)
    assert [(m.ns, m.id) for m in array.markers if m.action == Marker.ADD] == [(markers.FAILED, 0)]
    assert {m.ns for m in array.markers if m.action == Marker.DELETE} >= {markers.BEST}


@pytest.mark.parametrize('case', ['no candidates', 'no depth', 'no depth anywhere near'])
def test_nothing_to_show_clears_every_namespace(case):
    builder = MarkerBuilder(Gripper())
    builder.build(detect(), frame(), HEADER, 1.0)
    empty = frame()
    if case == 'no candidates':
        detection = detect((), ())
    else:
        detection = detect((OTHER,), (0.9,))
        rgb = empty.rgb
        depth = None if case == 'no depth' else np.full(rgb.shape[:2], np.nan, np.float32)
        empty = RgbdFrame(rgb, depth, INTRINSICS)
    array = builder.build(detection, empty, HEADER, 1.0)
    assert [m.ns for m in array.markers] == list(markers.NAMESPACES)
    assert {m.action for m in array.markers} == {Marker.DELETEALL}


@pytest.mark.parametrize('x, y', [(-40.0, -3.0), (1000.0, 50.0), (0.0, 239.4)])
def test_candidates_outside_the_image_do_no_harm(x, y):
    outside = GraspRectangle(x, y, 0.3, 20.0, 8.0)
    array = MarkerBuilder(Gripper()).build(detect((RECTANGLE, outside), (0.9, 0.8)), frame(),
                                           HEADER, 1.0)
    assert not problems(array)

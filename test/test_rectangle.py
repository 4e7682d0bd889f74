"""Grasp rectangles against hand-computed areas, angles across the wrap, and round trips."""

import math

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from grasp_stn_ros.rectangle import (
    GraspRectangle,
    angle_distance,
    intersection_area,
    iou,
    is_correct,
    wrap_angle,
)

# The detector flushes subnormal numbers to zero for its whole process, tests included.
POSITIONS = st.floats(-500, 1000, allow_subnormal=False)
RECTANGLES = st.builds(GraspRectangle, POSITIONS, POSITIONS,
                       st.floats(-10, 10, allow_subnormal=False), st.floats(1, 200),
                       st.floats(1, 200))


def test_corners_of_an_upright_rectangle():
    corners = GraspRectangle(10, 20, 0.0, 8, 4).corners
    assert np.allclose(corners, [[6, 18], [14, 18], [14, 22], [6, 22]])


def test_corners_turn_from_x_towards_y():
    # A quarter turn takes the opening from the x axis to the y axis, which points down.
    corners = GraspRectangle(0, 0, math.pi / 4, 2 * math.sqrt(2), 1e-9).corners
    assert np.allclose(corners[1], [1, 1], atol=1e-6)


def test_half_overlap_of_shifted_squares():
    a, b = GraspRectangle(0, 0, 0, 4, 4), GraspRectangle(2, 0, 0, 4, 4)
    assert intersection_area(a, b) == pytest.approx(8)
    assert iou(a, b) == pytest.approx(8 / 24)


def test_square_against_the_same_square_turned_by_45_degrees():
    # The intersection is a regular octagon with inradius 1: area 8 (sqrt 2 - 1).
    a, b = GraspRectangle(5, 5, 0, 2, 2), GraspRectangle(5, 5, math.pi / 4, 2, 2)
    octagon = 8 * (math.sqrt(2) - 1)
    assert intersection_area(a, b) == pytest.approx(octagon)
    assert iou(a, b) == pytest.approx(octagon / (8 - octagon))


def test_crossed_rectangles_share_the_middle():
    a, b = GraspRectangle(0, 0, 0, 10, 2), GraspRectangle(0, 0, math.pi / 2, 10, 2)
    assert intersection_area(a, b) == pytest.approx(4)


def test_apart_and_touching_rectangles_share_nothing():
    a = GraspRectangle(0, 0, 0, 4, 4)
    assert iou(a, GraspRectangle(10, 0, 0, 4, 4)) == 0
    assert iou(a, GraspRectangle(4, 0, 0, 4, 4)) == pytest.approx(0, abs=1e-12)


def test_overlap_counts_beyond_the_image_border():
    a, b = GraspRectangle(-3, -3, 0, 4, 4), GraspRectangle(-2, -3, 0, 4, 4)
    assert iou(a, b) == pytest.approx(12 / 20)


@given(RECTANGLES)
def test_iou_with_itself_is_one(rectangle):
    assert iou(rectangle, rectangle) == pytest.approx(1, abs=1e-9)


@given(RECTANGLES, RECTANGLES)
def test_iou_is_symmetric_and_bounded(a, b):
    assert iou(a, b) == pytest.approx(iou(b, a), abs=1e-9)
    assert 0 <= iou(a, b) <= 1 + 1e-9


@given(RECTANGLES)
def test_half_turn_is_the_same_grasp(rectangle):
    turned = GraspRectangle(rectangle.x, rectangle.y, rectangle.theta + math.pi,
                            rectangle.opening, rectangle.jaw)
    assert angle_distance(turned.theta, rectangle.theta) < 1e-9
    assert iou(turned, rectangle) == pytest.approx(1, abs=1e-9)


@given(RECTANGLES)
def test_corners_round_trip(rectangle):
    back = GraspRectangle.from_corners(rectangle.corners)
    assert iou(back, rectangle) == pytest.approx(1, abs=1e-6)
    assert angle_distance(back.theta, rectangle.theta) < 1e-6


@pytest.mark.parametrize('a, b, expected', [
    (89, -89, 2), (0, 180, 0), (-90, 90, 0), (10, 170, 20), (45, -45, 90)])
def test_angle_distance_across_the_wrap(a, b, expected):
    assert math.degrees(angle_distance(math.radians(a), math.radians(b))) == \
        pytest.approx(expected)


def test_wrapped_angles_lie_in_the_half_open_interval():
    wrapped = wrap_angle(np.radians([-90, 90, 180, 270, 89.9]))
    assert np.allclose(np.degrees(wrapped), [-90, -90, 0, -90, 89.9])


def test_metric_needs_overlap_and_angle_from_the_same_label():
    grasp = GraspRectangle(0, 0, 0, 10, 10)
    right_place = GraspRectangle(0, 0, math.pi / 2, 10, 10)
    right_angle = GraspRectangle(50, 0, 0, 10, 10)
    assert not is_correct(grasp, [right_place, right_angle])
    assert is_correct(grasp, [right_place, right_angle, GraspRectangle(1, 0, 0.1, 10, 10)])
    assert not is_correct(grasp, [])


def test_metric_at_its_thresholds():
    grasp = GraspRectangle(0, 0, 0, 10, 10)
    # Shift s gives IoU (10 - s) / (10 + s): 0.25 at s = 6.
    assert is_correct(grasp, [GraspRectangle(5.99, 0, 0, 10, 10)])
    assert not is_correct(grasp, [GraspRectangle(6.01, 0, 0, 10, 10)])
    assert is_correct(grasp, [GraspRectangle(0, 0, math.radians(29.9), 10, 10)])
    assert not is_correct(grasp, [GraspRectangle(0, 0, math.radians(30.1), 10, 10)])


@pytest.mark.parametrize('values', [(0, 0, 0, 0, 1), (0, 0, 0, 1, -1), (math.nan, 0, 0, 1, 1),
                                    (0, math.inf, 0, 1, 1)])
def test_refuses_what_is_no_rectangle(values):
    with pytest.raises(ValueError, match='not a grasp rectangle'):
        GraspRectangle(*values)

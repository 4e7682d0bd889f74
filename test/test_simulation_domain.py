"""Domains: basic scenes stay what they were, wide ones have what they promise."""

from dataclasses import replace
import json

import numpy as np
import pytest

from grasp_stn_ros.rgbd import CameraIntrinsics
from grasp_stn_ros.simulation import depth_noise
from grasp_stn_ros.simulation.domain import BASIC, FIELD, LARGE, WIDE, draw
from grasp_stn_ros.simulation.labels import dataset_settings, open_scene, write_scene

CAMERA = CameraIntrinsics(500.0, 500.0, 159.5, 119.5)


def test_a_range_of_one_number_costs_no_draw():
    rng, untouched = np.random.default_rng(1), np.random.default_rng(1)
    assert draw(rng, (3.0, 3.0)) == 3.0
    assert rng.random() == untouched.random()
    assert 3.0 <= draw(rng, (3.0, 4.0)) < 4.0


def test_settings_tell_domains_apart():
    basic, wide = dataset_settings(1), dataset_settings(1, domain=WIDE)
    assert 'domain' not in basic and wide['domain']['name'] == 'wide'
    json.dumps(wide)


def test_field_has_more_of_what_slips_and_changes_no_other_domain():
    # Data sets of the domains before it must open again: they were written without its fields.
    assert 'emphasis' not in WIDE.to_dict() and 'emphasis' in FIELD.to_dict()
    rng, untouched = np.random.default_rng(1), np.random.default_rng(1)
    assert WIDE.draw_family(rng) is None
    assert rng.random() == untouched.random()
    drawn = [FIELD.draw_family(rng) for _ in range(400)]
    chosen = [family for family in drawn if family is not None]
    assert set(chosen) == set(FIELD.emphasis)
    assert 0.19 < len(chosen) / len(drawn) < 0.31
    one = replace(FIELD, emphasized=1.0, object_counts=(1.0,), views=1)
    scene = open_scene(5, 0, domain=one)
    try:
        assert scene.objects[0].family in FIELD.emphasis
    finally:
        scene.close()


def test_large_scenes_have_larger_objects_and_the_domains_before_are_written_as_they_were():
    assert 'scale' not in FIELD.to_dict() and LARGE.to_dict()['scale'] == LARGE.scale
    one = replace(LARGE, emphasized=1.0, object_counts=(1.0,), views=1)
    vertices = []
    for scale in (1.0, 1.5):
        # A range of one number costs no draw: the same object in both.
        scene = open_scene(5, 0, domain=replace(one, scale=(scale, scale)))
        assert scene.objects[0].family in LARGE.emphasis
        vertices.append(scene.objects[0].vertices)
        scene.close()
    np.testing.assert_allclose(vertices[1], 1.5 * vertices[0], atol=1e-9)


def test_wide_scenes_vary_and_can_be_opened_again(tmp_path):
    sensors, focal_lengths, counts, boxes = set(), set(), set(), 0
    for index in range(6):
        scene = open_scene(31, index, domain=WIDE)
        try:
            sensors.add(scene.sensor)
            focal_lengths.add(scene.intrinsics.fx)
            counts.add(len(scene.objects))
            for i in range(WIDE.surrounding_boxes):
                geom = scene.model.geom(f'box{i}').id
                half, position = scene.model.geom_size[geom], scene.model.geom_pos[geom]
                if position[0] < 10:
                    boxes += 1
                    assert np.hypot(*position[:2]) - np.hypot(*half[:2]) > 0.29
                    assert scene.model.geom_contype[geom] == 0
            tilt = np.degrees(np.arccos(-scene.camera_pose[2, 2]))
            assert tilt <= WIDE.tilt_with_scenery[1] + 1e-6
            frame = scene.frame
        finally:
            scene.close()
    assert len(focal_lengths) == 6 and len(sensors) > 1 and len(counts) > 1 and boxes
    again = open_scene(31, 5, domain=WIDE)
    try:
        assert np.array_equal(again.frame.rgb, frame.rgb)
        assert np.array_equal(again.frame.depth, frame.depth, equal_nan=True)
        several = len(again.objects)
    finally:
        again.close()
    record = write_scene(tmp_path, 31, 5 // WIDE.views, domain=WIDE)[5 % WIDE.views]
    assert record['sensor'] in depth_noise.SENSORS
    assert len(record['grasps']) >= max(BASIC.candidates, WIDE.candidates_per_object * several)
    assert all(len(g['outcomes']) >= WIDE.trials for g in record['grasps'])


def step_depth():
    """A near plate of 100 x 80 pixels before a far wall."""
    depth = np.full((240, 320), 1.0, np.float32)
    depth[80:160, 110:210] = 0.8
    return depth


@pytest.mark.parametrize('name', sorted(depth_noise.SENSORS))
def test_sensors_measure_flat_surfaces_right_and_lose_some_edges(name):
    depth = step_depth()
    measured = depth_noise.SENSORS[name](depth, CAMERA, np.random.default_rng(3))
    assert measured.dtype == np.float32 and measured.shape == depth.shape
    error = np.abs(measured - depth)
    inside, wall = error[95:145, 130:190], error[10:60, 130:300]
    for part in (inside, wall):
        assert np.nanmedian(part) < 0.01 and np.isfinite(part).mean() > 0.9
    assert np.nanmax(inside) > 0                            # noise, not a copy
    edge = np.zeros(depth.shape, bool)
    edge[76:164, 100:116] = True
    assert np.isnan(measured[edge]).mean() > np.isnan(measured[10:60, 130:300]).mean()


def test_stereo_has_its_shadow_on_one_side():
    """The second camera is to the right: what lies left of a near plate it cannot see."""
    measured = depth_noise.stereo(step_depth(), CAMERA, np.random.default_rng(5))
    left, right = np.isnan(measured[90:150, 98:110]), np.isnan(measured[90:150, 214:226])
    assert left.mean() > 0.3 > right.mean()


def test_time_of_flight_mixes_depths_along_edges():
    measured = depth_noise.time_of_flight(step_depth(), CAMERA, np.random.default_rng(4))
    rim = measured[90:150, 108:112]
    between = (rim > 0.83) & (rim < 0.97)
    assert between.any()
    assert not ((measured[100:140, 130:190] > 0.83) & (measured[100:140, 130:190] < 0.97)).any()


def test_misregistration_shifts_whole_pixels_and_leaves_half_alone():
    depth = step_depth()
    shifted = 0
    for seed in range(20):
        result = depth_noise.misregistered(depth, 3.0, np.random.default_rng(seed))
        moved = np.argwhere(result < 0.9)
        distance = np.hypot(*(moved.mean(axis=0) - np.argwhere(depth < 0.9).mean(axis=0)))
        assert distance <= 3.8
        shifted += distance > 0.4
        assert set(np.unique(result[np.isfinite(result)])) <= {np.float32(0.8), np.float32(1.0)}
    assert 4 <= shifted <= 16

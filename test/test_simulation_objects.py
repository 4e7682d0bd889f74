"""Procedural objects: every family exists, is centred, and comes to rest on the table."""

import numpy as np
import pytest

pytest.importorskip('mujoco', reason='mujoco is missing; pip install -r requirements.txt')

from grasp_stn_ros.simulation.objects import FAMILIES, make_object, object_from_parts
from grasp_stn_ros.simulation.scene import WORKSPACE_RADIUS, TableScene


def test_the_named_families_are_there():
    assert len(FAMILIES) >= 15
    assert {'pen', 'box', 'can', 'bottle', 'bowl', 'mug', 'screwdriver', 'scissors'} <= set(
        FAMILIES)


def test_an_unknown_family_is_named_in_the_error():
    with pytest.raises(ValueError, match='teapot'):
        make_object(np.random.default_rng(0), 'teapot')


def test_the_same_generator_gives_the_same_object():
    a, b = (make_object(np.random.default_rng(4)) for _ in range(2))
    assert a.name == b.name and a.mass == b.mass
    np.testing.assert_array_equal(a.vertices, b.vertices)


def test_a_scale_enlarges_an_object_and_makes_it_as_much_heavier():
    a, b = (make_object(np.random.default_rng(1), 'bottle', scale) for scale in (1.0, 1.3))
    np.testing.assert_allclose(b.vertices, 1.3 * a.vertices, atol=1e-9)
    assert b.mass == pytest.approx(1.3 ** 3 * a.mass)


def test_a_pair_of_blocks_is_centred_at_its_centre_of_mass():
    corners = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, -1).T
    # A 20 mm cube at the origin and a 40 mm cube beyond it: volumes 1 : 8.
    thing = object_from_parts('pair', [corners * 0.02, corners * 0.04 + [0.1, 0, 0]], 0.3)
    assert thing.volumes == pytest.approx([8e-6, 64e-6])
    shift = (1 * 0.01 + 8 * 0.12) / 9
    assert thing.parts[0][:, 0].min() == pytest.approx(-shift)


@pytest.mark.parametrize('family', FAMILIES)
def test_every_family_compiles_and_settles(family):
    rng = np.random.default_rng(sum(map(ord, family)))
    thing = make_object(rng, family)
    assert 0.01 < np.ptp(thing.vertices, axis=0).max() < 0.3
    scene = TableScene([thing], rng)
    body = scene.model.body('object0')
    assert body.mass[0] == pytest.approx(thing.mass, rel=1e-3)
    # The engine's centre of mass agrees with ours.
    np.testing.assert_allclose(body.ipos, 0, atol=5e-4)
    scene.settle(rng)
    x, y, z = scene.object_positions()[0]
    assert np.hypot(x, y) < WORKSPACE_RADIUS
    lowest = scene.object_vertices()[:, 2].min()
    assert -0.002 < lowest < 0.002 and z > 0

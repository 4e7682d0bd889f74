"""The trial: what must lift lifts, what must not does not, and nothing of it remains."""

import numpy as np
import pytest

mujoco = pytest.importorskip('mujoco',
                             reason='mujoco is missing; pip install -r requirements.txt')

from grasp_stn_ros.grasp_pose import grasp_axes  # noqa: E402
from grasp_stn_ros.simulation.gripper import CLOSING_FORCE, FRICTION, LIFT, GraspTrial  # noqa: E402
from grasp_stn_ros.simulation.objects import object_from_parts  # noqa: E402
from grasp_stn_ros.simulation.scene import TableScene  # noqa: E402

DOWN, Y = np.array([0, 0, -1.0]), np.array([0, 1.0, 0])


def block_scene(size, mass=0.1, yaw=0.0):
    """A scene with one block of ``size`` (x, y, z), set down at the origin by hand."""
    corners = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
    thing = object_from_parts('block', [corners * np.array(size) / 2], mass)
    scene = TableScene([thing], np.random.default_rng(0))
    start = scene.data.joint('object0').qpos
    start[:] = [0, 0, size[2] / 2, np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]
    mujoco.mj_step(scene.model, scene.data, 50)
    scene._settled = scene.data.qpos.copy()
    scene.restore()
    return scene


def pose(position, approach=DOWN, opening=Y):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = grasp_axes(approach, opening), position
    return matrix


@pytest.fixture(scope='module')
def brick():
    """100 x 30 x 40 mm, 100 g."""
    return block_scene((0.1, 0.03, 0.04))


def test_a_brick_is_lifted_across_and_the_scene_restored(brick):
    before = brick.data.qpos.copy()
    result = GraspTrial(brick).execute(pose([0, 0, 0.018]), 0.05, friction=0.4)
    assert result.lifted and result.outcome == 'lifted' and result.object_index == 0
    np.testing.assert_array_equal(brick.data.qpos, before)


def test_the_opening_direction_is_the_y_axis_of_the_pose(brick):
    """Along its 100 mm the brick does not fit between the jaws."""
    along = GraspTrial(brick).execute(pose([0, 0, 0.018], opening=np.array([1.0, 0, 0])), 0.05,
                                      friction=0.4)
    assert not along.lifted and along.outcome == 'collided'


def test_a_turned_brick_is_lifted_in_its_own_direction():
    scene = block_scene((0.1, 0.03, 0.04), yaw=0.9)
    across = np.array([-np.sin(0.9), np.cos(0.9), 0])
    result = GraspTrial(scene).execute(pose([0, 0, 0.018], opening=across), 0.05, friction=0.4)
    assert result.lifted


def test_a_grasp_in_the_air_misses(brick):
    result = GraspTrial(brick).execute(pose([0, 0, 0.15]), 0.05, friction=0.4)
    assert not result.lifted and result.outcome == 'missed' and result.object_index is None


def test_a_grasp_beside_the_object_misses(brick):
    result = GraspTrial(brick).execute(pose([0, 0.12, 0.018]), 0.05, friction=0.4)
    assert result.outcome == 'missed'


def test_jaws_on_top_of_the_object_collide(brick):
    result = GraspTrial(brick).execute(pose([0, 0, 0.018]), 0.02, friction=0.4)
    assert result.outcome == 'collided'


def test_a_heavy_smooth_object_slips():
    # Twice 6 N at a friction of 0.25 hold 0.3 kg at most.
    scene = block_scene((0.1, 0.03, 0.04), mass=0.6)
    result = GraspTrial(scene).execute(pose([0, 0, 0.018]), 0.05, friction=0.25)
    assert not result.lifted and result.outcome in ('slipped', 'dropped')


def test_the_friction_decides_for_a_mass_between():
    # 6 N on each jaw: at rest 0.25 holds 0.31 kg and 0.6 holds 0.73 kg; the start of the lift
    # takes a part of that.
    trial = GraspTrial(block_scene((0.05, 0.03, 0.04), mass=0.35))
    assert not trial.execute(pose([0, 0, 0.018]), 0.05, friction=0.25).lifted
    assert trial.execute(pose([0, 0, 0.018]), 0.05, friction=0.6).lifted


def test_approach_from_the_side_and_lift_straight_up():
    scene = block_scene((0.04, 0.03, 0.12))
    tilted = np.array([np.sin(np.radians(50)), 0, -np.cos(np.radians(50))])
    trial = GraspTrial(scene)
    result = trial.execute(pose([0, 0, 0.09], approach=tilted), 0.05, friction=0.5, commit=True)
    assert result.lifted
    x, _, z = scene.object_positions()[0]
    assert abs(x) < 0.02 and z == pytest.approx(0.06 + LIFT, abs=0.02)


def test_commit_leaves_the_object_in_the_air(brick):
    trial = GraspTrial(brick)
    trial.execute(pose([0, 0, 0.018]), 0.05, friction=0.4, commit=True)
    assert brick.object_positions()[0, 2] > 0.02 + 0.7 * LIFT
    brick.restore()
    assert brick.object_positions()[0, 2] == pytest.approx(0.02, abs=2e-3)


def test_a_thin_plate_gets_the_full_closing_force_and_the_callback_sees_it():
    scene = block_scene((0.06, 0.004, 0.04))
    drive, force, calls = scene.model.actuator('drive').id, [], []

    def watch():
        calls.append(scene.data.time)
        force.append(-scene.data.actuator_force[drive])

    result = GraspTrial(scene).execute(pose([0, 0, 0.018]), 0.03, friction=0.5, callback=watch)
    assert result.lifted
    assert calls == sorted(calls) and len(calls) > 20
    assert np.median(force[-20:]) == pytest.approx(CLOSING_FORCE, rel=0.01)
    assert max(force) <= CLOSING_FORCE * 1.001


def test_the_hand_shows_in_pictures_but_not_in_frames(brick):
    brick.randomize(np.random.default_rng(0))
    GraspTrial(brick).execute(pose([0, 0, 0.15]), 0.05, friction=0.4, commit=True)
    shown, hidden = brick.picture(), brick.picture(show_gripper=False)
    np.testing.assert_array_equal(brick.render().rgb, hidden)
    assert (shown != hidden).any(axis=-1).mean() > 0.005
    brick.restore()
    brick.close()


def test_the_lifted_object_is_named():
    corners = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
    things = [object_from_parts('block', [corners * 0.015], 0.05) for _ in range(2)]
    scene = TableScene(things, np.random.default_rng(0))
    for i, x in enumerate((-0.1, 0.1)):
        scene.data.joint(f'object{i}').qpos[:] = [x, 0, 0.015, 1, 0, 0, 0]
    scene._settled = scene.data.qpos.copy()
    result = GraspTrial(scene).execute(pose([0.1, 0, 0.01]), 0.045, friction=0.5)
    assert result.lifted and result.object_index == 1


def test_without_friction_and_generator_there_is_no_trial(brick):
    with pytest.raises(ValueError, match='friction'):
        GraspTrial(brick).execute(pose([0, 0, 0.018]), 0.05)


def test_the_generator_draws_the_friction(brick):
    trial = GraspTrial(brick)
    trial.execute(pose([0, 0, 0.018]), 0.05, rng=np.random.default_rng(1))
    first = float(brick.model.geom('left').friction[0])
    trial.execute(pose([0, 0, 0.018]), 0.05, rng=np.random.default_rng(2))
    second = float(brick.model.geom('left').friction[0])
    assert first != second
    assert all(FRICTION[0] <= friction <= FRICTION[1] for friction in (first, second))

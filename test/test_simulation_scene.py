"""The simulated camera: geometry of the pose, masks, randomization, reproducible frames."""

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip('mujoco', reason='mujoco is missing; pip install -r requirements.txt')

from grasp_stn_ros.data.simulated import decode_depth, encode_depth
from grasp_stn_ros.simulation import scene as scenes
from grasp_stn_ros.simulation.labels import open_scene
from grasp_stn_ros.simulation.objects import make_object, object_from_parts
from grasp_stn_ros.simulation.scene import (
    IMAGE_SIZE,
    TableScene,
    UnsettledError,
    random_scene,
)


def block(x, y, z, mass=0.1):
    corners = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
    return object_from_parts('block', [corners * np.array([x, y, z]) / 2], mass)


@pytest.fixture(scope='module')
def cube_scene():
    scene = random_scene(np.random.default_rng(2), [block(0.05, 0.05, 0.05)])
    yield scene
    scene.close()


def world_points(scene, depth):
    """World coordinates (H, W, 3) of a depth image, by the conventions of the package."""
    width, height = IMAGE_SIZE
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    points = scene.intrinsics.rays(pixels) * depth[..., None]
    return points @ scene.camera_pose[:3, :3].T + scene.camera_pose[:3, 3]


def test_depth_and_camera_pose_put_the_cube_where_it_lies(cube_scene):
    view = cube_scene.render()
    assert view.rgb.shape == (480, 640, 3) and view.rgb.dtype == np.uint8
    assert view.depth.shape == (480, 640) and view.depth.dtype == np.float32
    points = world_points(cube_scene, view.depth)
    cube = points[view.segmentation == 1]
    centre = cube_scene.object_positions()[0]
    # A 50 mm cube rests on a face: its top is 50 mm above the table.
    assert cube[:, 2].max() == pytest.approx(0.05, abs=1e-3)
    top = cube[cube[:, 2] > 0.049]
    middle = (top[:, :2].min(axis=0) + top[:, :2].max(axis=0)) / 2
    np.testing.assert_allclose(middle, centre[:2], atol=1.5e-3)
    around = np.hypot(points[..., 0], points[..., 1]) < 0.2
    table = points[around & (view.segmentation == 0)]
    # But for the pixels on the cube's outline, everything else is the table top.
    assert np.quantile(np.abs(table[:, 2]), 0.99) < 1e-3


def test_a_world_point_projects_onto_its_own_mask(cube_scene):
    to_camera = np.linalg.inv(cube_scene.camera_pose)
    centre = to_camera[:3, :3] @ cube_scene.object_positions()[0] + to_camera[:3, 3]
    x, y = np.rint(cube_scene.intrinsics.project(centre)).astype(int)
    assert cube_scene.render().segmentation[y, x] == 1


def test_the_camera_pose_is_a_rotation_that_looks_down(cube_scene):
    rotation = cube_scene.camera_pose[:3, :3]
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1)
    assert rotation[:, 2] @ cube_scene.support_normal_world < -np.cos(np.radians(31))


def test_the_height_map_shows_the_cube_at_its_place(cube_scene):
    heights = cube_scene.height_map()
    rows, columns = np.nonzero(heights > 0.045)
    half = scenes.HEIGHT_MAP_SIZE / 2 - 0.5
    x, y = (columns.mean() - half) * 1e-3, (half - rows.mean()) * 1e-3
    np.testing.assert_allclose([x, y], cube_scene.object_positions()[0, :2], atol=1e-3)
    assert len(rows) == pytest.approx(2500, rel=0.05)       # 50 x 50 pixels of 1 mm
    assert heights.max() == pytest.approx(0.05, abs=1e-3) and heights.min() == 0


def test_masks_tell_two_objects_apart():
    scene = random_scene(np.random.default_rng(5), [block(0.03, 0.03, 0.03),
                                                    block(0.06, 0.06, 0.06)])
    view = scene.render()
    points = world_points(scene, view.depth)
    for i, size in enumerate((0.03, 0.06)):
        seen = points[view.segmentation == i + 1]
        reach = np.linalg.norm(seen - scene.object_positions()[i], axis=1).max()
        assert reach < size * np.sqrt(3) / 2 + 0.003
    scene.close()


def test_randomize_changes_the_picture_but_not_the_objects():
    rng = np.random.default_rng(3)
    scene = random_scene(rng, [make_object(rng, 'mug')])
    before, state = scene.picture(show_gripper=False), scene.data.qpos.copy()
    scene.randomize(rng)
    after = scene.picture(show_gripper=False)
    scene.close()
    assert np.abs(before.astype(int) - after).mean() > 5
    np.testing.assert_array_equal(scene.data.qpos, state)


def test_the_back_wall_faces_the_workspace():
    """Its yaw must take effect: MuJoCo ignores some changes of poses after compilation."""
    rng = np.random.default_rng(8)
    scene = TableScene([block(0.05, 0.05, 0.05)], rng)
    wall = scene.model.geom('wall').id
    shown = 0
    for _ in range(40):
        scene.randomize(rng)
        position = scene.data.geom_xpos[wall][:2]
        distance = np.linalg.norm(position)
        normal = scene.data.geom_xmat[wall].reshape(3, 3)[:2, 0]
        assert abs(normal @ position) == pytest.approx(distance)
        assert distance > 0.28
        shown += distance < 2
    assert 0 < shown < 25


def test_objects_that_leave_the_workspace_are_not_accepted(monkeypatch):
    scene = TableScene([block(0.05, 0.05, 0.05)], np.random.default_rng(0))
    monkeypatch.setattr(scenes, 'WORKSPACE_RADIUS', 0.0)
    with pytest.raises(UnsettledError, match='block'):
        scene.settle(np.random.default_rng(0), attempts=2)


def test_open_scene_brings_back_the_same_frame_and_state():
    first = open_scene(31, 4)
    other = open_scene(31, 5)
    again = open_scene(31, 4)
    assert [o.family for o in first.objects] == [o.family for o in again.objects]
    np.testing.assert_array_equal(first.data.qpos, again.data.qpos)
    np.testing.assert_array_equal(first.camera_pose, again.camera_pose)
    np.testing.assert_array_equal(first.frame.rgb, again.frame.rgb)
    np.testing.assert_array_equal(first.frame.depth, again.frame.depth)
    assert not np.array_equal(first.frame.rgb, other.frame.rgb)
    for scene in (first, other, again):
        scene.close()


def test_open_scene_takes_a_number_of_objects():
    scene = open_scene(31, 4, objects=3)
    assert len(scene.objects) == 3
    scene.close()


def test_depth_survives_its_file_format():
    depth = np.array([[np.nan, 0.7321, 1.0]], np.float32)
    raw = encode_depth(depth)
    np.testing.assert_array_equal(raw, [[0, 7321, 10000]])
    np.testing.assert_allclose(decode_depth(raw), depth, atol=1e-6)


def test_pytorch_can_make_an_optimizer_after_a_picture_was_rendered():
    """Under PyTorch for CUDA this ended the process: Triton and Mesa each bring an LLVM."""
    program = ("from grasp_stn_ros.simulation.rendering import OffscreenRenderer\n"
               "import mujoco\n"
               "model = mujoco.MjModel.from_xml_string('<mujoco><worldbody>"
               '<geom type="sphere" size=".1"/><camera name="above" pos="0 0 1"/>'
               "</worldbody></mujoco>')\n"
               "OffscreenRenderer(model, 64, 48).close()\n"
               "import torch\n"
               "torch.optim.AdamW([torch.zeros(1, requires_grad=True)])\n"
               "print('made')\n")
    result = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True,
                            timeout=120, check=False)
    assert result.stdout.strip() == 'made', result.stderr
    assert result.returncode == 0

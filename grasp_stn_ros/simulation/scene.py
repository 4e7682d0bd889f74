"""
A table with objects, a camera and light in MuJoCo: everything random from one generator.

World frame: z up, origin on the table top in the middle of the workspace, metres. The camera
pose maps the REP-103 optical frame (x right, y down, z forward) to the world.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math

import mujoco
import numpy as np

from ..data.simulated import decode_depth, encode_depth
from ..detection import Grasp
from ..grasp_pose import Gripper
from ..rgbd import CameraIntrinsics, RgbdFrame, clean_depth
from . import textures
from .depth_noise import SENSORS, misregistered
from .domain import BASIC, Domain, draw
from .gripper import GROUP as _GRIPPER_GROUP
from .gripper import add_gripper, park
from .objects import SimObject
from .rendering import OffscreenRenderer

IMAGE_SIZE = (640, 480)
FOCAL_LENGTH = BASIC.focal_length[0]   # pixels, as Kinect v1
TIMESTEP = 0.004
WORKSPACE_RADIUS = 0.18        # an object whose centre rests farther out is dropped again
HEIGHT_MAP_SIZE = 480          # pixels; 1 mm each, so +-0.24 m
HEIGHT_MAP_STEP = 0.001
# Objects with more parts than this get no pattern, which would show the seams between the parts.
_MAX_PATTERN_PARTS = 6
_TABLE_TEXTURE, _OBJECT_TEXTURE = 512, 128
_TABLE_HALF = 1.5
_FLOOR = -0.72
_ORTHO_HEIGHT = 0.9
# Boxes around the workspace stand farther from its middle than the gripper ever reaches.
_OUT_OF_REACH = 0.3
# MuJoCo's viewer shows the groups below 3 by default.
_SCENERY_GROUP, _OBJECT_GROUP, _HIDDEN_GROUP = 0, 1, 4
# MuJoCo cameras look along -z with y up; optical frames along z with y down.
_FROM_OPTICAL = np.diag([1.0, -1.0, -1.0])


class UnsettledError(RuntimeError):
    """The objects of a scene do not come to rest inside the workspace."""


@dataclass(frozen=True)
class RenderedFrame:
    """
    What an ideal camera sees.

    ``rgb`` (H, W, 3) uint8; ``depth`` (H, W) float32 metres (z), NaN where nothing is near;
    ``segmentation`` (H, W) uint8, 0 = no object, i + 1 = object i.
    """

    rgb: np.ndarray
    depth: np.ndarray
    segmentation: np.ndarray


def _field_of_view(focal_length: float) -> float:
    """Vertical field of view in degrees."""
    return math.degrees(2 * math.atan(IMAGE_SIZE[1] / 2 / focal_length))


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(rotation).ravel())
    return quaternion


def _yaw_quaternion(yaw: float) -> np.ndarray:
    return np.array([math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)])


def _look_at(position: np.ndarray, target: np.ndarray, up: np.ndarray, roll: float) -> np.ndarray:
    """Rotation (3, 3) of a MuJoCo camera at ``position`` that looks at ``target``."""
    z = (position - target) / np.linalg.norm(position - target)
    x = np.cross(up, z)
    x /= np.linalg.norm(x)
    y = np.cross(z, x)
    c, s = math.cos(roll), math.sin(roll)
    return np.stack([c * x + s * y, c * y - s * x, z], axis=1)


class TableScene:
    """One compiled model with ``objects`` on a table, seen by one camera."""

    def __init__(self, objects: Sequence[SimObject], rng: np.random.Generator,
                 gripper: Gripper | None = None, focal_length: float = FOCAL_LENGTH,
                 domain: Domain = BASIC):
        """
        Compile the model; ``domain`` says what :meth:`settle` and :meth:`randomize` draw from.

        Next come :meth:`settle` and :meth:`randomize` (textures, light, scenery, and a camera
        that has the objects in view); :func:`random_scene` does all of it.
        """
        self.objects = tuple(objects)
        self.gripper = gripper or Gripper()
        self.domain = domain
        width, height = IMAGE_SIZE
        self.intrinsics = CameraIntrinsics(focal_length, focal_length,
                                           (width - 1) / 2, (height - 1) / 2)
        self.frame: RgbdFrame | None = None      # the last observation
        self.sensor = domain.sensors[0]          # that made its depth
        self.model = self._build(rng).compile()
        self.data = mujoco.MjData(self.model)
        model = self.model
        joints = [model.joint(f'object{i}') for i in range(len(self.objects))]
        self._qpos = np.array([j.qposadr[0] for j in joints])
        self._dofs = np.array([j.dofadr[0] for j in joints])
        self._bodies = np.array([model.body(f'object{i}').id for i in range(len(self.objects))])
        body_object = np.full(model.nbody, -1)
        body_object[self._bodies] = np.arange(len(self.objects))
        self.geom_object = body_object[model.geom_bodyid]      # (ngeom,): object index or -1
        self.present = tuple(range(len(self.objects)))         # not taken away yet
        self._renderer: OffscreenRenderer | None = None
        self._option = mujoco.MjvOption()
        park(model, self.data)
        self._settled = self.data.qpos.copy()
        mujoco.mj_forward(self.model, self.data)

    # ------------------------------------------------------------------ construction
    def _build(self, rng: np.random.Generator) -> mujoco.MjSpec:
        spec = mujoco.MjSpec()
        spec.option.timestep = TIMESTEP
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
        spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
        # Friction constraints ten times as hard as the normal ones: what is held does not creep.
        spec.option.impratio = 10
        spec.option.tolerance = 1e-6
        spec.visual.global_.offwidth, spec.visual.global_.offheight = IMAGE_SIZE
        spec.visual.global_.fovy = 45
        spec.visual.quality.offsamples = 4
        spec.visual.quality.shadowsize = 1024
        spec.stat.extent, spec.stat.center = 1.0, [0, 0, 0]
        spec.visual.map.znear, spec.visual.map.zfar = 0.05, 8.0
        spec.visual.headlight.diffuse, spec.visual.headlight.specular = [0.05] * 3, [0] * 3
        world = spec.worldbody
        box, plane = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_PLANE
        # What the objects stand on is apart from what is seen, so that the table's edge may lie
        # anywhere without touching the physics.
        world.add_geom(name='support', type=plane, size=[2, 2, 0.1], group=_HIDDEN_GROUP,
                       contype=1, conaffinity=3, condim=3, friction=[0.6, 0.005, 0.0005])
        scenery = {'contype': 0, 'conaffinity': 0, 'group': _SCENERY_GROUP}
        for name in ('table', 'wall', 'floor'):
            self._add_material(spec, name, _TABLE_TEXTURE, cube=False)
        # Both get a yaw here: MuJoCo ignores later changes of a quaternion compiled as identity.
        turned = _yaw_quaternion(1.0)
        world.add_geom(name='table', type=box, size=[_TABLE_HALF, _TABLE_HALF, 0.02],
                       pos=[0, 0, -0.02], quat=turned, material='table', **scenery)
        world.add_geom(name='wall', type=box, size=[0.02, 3, 1.0], pos=[9, 0, 0.2], quat=turned,
                       material='wall', **scenery)
        world.add_geom(name='floor', type=plane, size=[6, 6, 0.1], pos=[0, 0, _FLOOR],
                       material='floor', **scenery)
        for i in range(self.domain.surrounding_boxes):
            self._add_material(spec, f'box{i}', _OBJECT_TEXTURE, cube=False)
            world.add_geom(name=f'box{i}', type=box, size=[0.1, 0.1, 0.1], pos=[9, 0, 0],
                           quat=turned, material=f'box{i}', **scenery)
        add_gripper(spec, self.gripper)
        for i, thing in enumerate(self.objects):
            body = world.add_body(name=f'object{i}', pos=[0, 0, 0.3 + 0.3 * i])
            body.add_freejoint(name=f'object{i}')
            for k in range(max(thing.materials) + 1):
                self._add_material(spec, f'object{i}_{k}', _OBJECT_TEXTURE, cube=True)
            total = sum(thing.volumes)
            for j, part in enumerate(thing.parts):
                mesh = spec.add_mesh(name=f'object{i}_{j}')
                mesh.uservert = part.astype(np.float32).ravel()
                body.add_geom(name=f'object{i}_{j}', type=mujoco.mjtGeom.mjGEOM_MESH,
                              meshname=f'object{i}_{j}', group=_OBJECT_GROUP,
                              material=f'object{i}_{thing.materials[j]}',
                              mass=thing.mass * thing.volumes[j] / total,
                              contype=1, conaffinity=3, condim=3,
                              friction=[rng.uniform(0.4, 0.6), 0.005, 0.0005])
        camera = world.add_camera(name='camera', pos=[0, 0, 0.8])
        camera.fovy = _field_of_view(self.intrinsics.fy)
        above = world.add_camera(name='above', pos=[0, 0, _ORTHO_HEIGHT])
        above.proj = mujoco.mjtProjection.mjPROJ_ORTHOGRAPHIC
        above.fovy = HEIGHT_MAP_SIZE * HEIGHT_MAP_STEP
        for i in range(2):
            light = world.add_light(name=f'light{i}', pos=[0, 0, 2], dir=[0, 0, -1],
                                    castshadow=(i == 0))
            light.specular, light.cutoff = [0.25] * 3, 80
        return spec

    @staticmethod
    def _add_material(spec: mujoco.MjSpec, name: str, size: int, cube: bool) -> None:
        texture = spec.add_texture(name=name)
        kinds = mujoco.mjtTexture
        texture.type = kinds.mjTEXTURE_CUBE if cube else kinds.mjTEXTURE_2D
        texture.width, texture.height, texture.nchannel = size, size * (6 if cube else 1), 3
        texture.data = bytes(size * texture.height * 3)
        material = spec.add_material(name=name)
        slots = list(material.textures)
        slots[mujoco.mjtTextureRole.mjTEXROLE_RGB] = name
        material.textures = slots

    # ------------------------------------------------------------------ appearance
    def randomize(self, rng: np.random.Generator) -> None:
        """Draw textures, light, scenery (table edge, back wall) and the camera anew."""
        self._randomize_textures(rng)
        self._randomize_light(rng)
        azimuth = rng.uniform(0, 2 * math.pi)            # from the workspace to the camera
        tilted = self._randomize_scenery(rng, azimuth)
        if self.domain.surrounding_boxes:
            tilted |= self._randomize_surroundings(rng)
        self._randomize_camera(rng, azimuth, tilted)
        mujoco.mj_forward(self.model, self.data)

    def change_camera(self, rng: np.random.Generator) -> None:
        """Draw another camera, and with it everything that :meth:`randomize` draws."""
        focal_length = draw(rng, self.domain.focal_length)
        width, height = IMAGE_SIZE
        self.intrinsics = CameraIntrinsics(focal_length, focal_length,
                                           (width - 1) / 2, (height - 1) / 2)
        self.model.cam_fovy[self.model.camera('camera').id] = _field_of_view(focal_length)
        self.randomize(rng)

    def _set_texture(self, name: str, image: np.ndarray) -> None:
        texture = self.model.texture(name)
        start = int(texture.adr[0])
        self.model.tex_data[start:start + image.size] = image.ravel()
        if self._renderer is not None:
            self._renderer.upload_texture(texture.id)

    def _randomize_textures(self, rng) -> None:
        model = self.model
        for name in ('table', 'wall', 'floor'):
            self._set_texture(name, textures.table(rng, _TABLE_TEXTURE))
            # 1.5 to 6 repetitions over 3 m: the pattern on a table is that of an object or larger.
            model.mat_texrepeat[model.material(name).id] = rng.uniform(1.5, 6)
        model.mat_specular[:] = rng.uniform(0, 0.8, model.nmat)
        model.mat_shininess[:] = rng.uniform(0, 0.9, model.nmat)
        model.mat_specular[model.material('table').id] = 0.1
        for i, thing in enumerate(self.objects):
            plain = len(thing.parts) > _MAX_PATTERN_PARTS
            for k in range(max(thing.materials) + 1):
                face = textures.surface(rng, _OBJECT_TEXTURE, plain)
                turned = [np.rot90(face, turn) for turn in (0, 1, 2, 3, 0, 1)]
                self._set_texture(f'object{i}_{k}', np.concatenate(turned))

    def _randomize_light(self, rng) -> None:
        model = self.model
        ambient = rng.uniform(0.2, 0.45)
        model.vis.headlight.ambient[:] = ambient
        both = rng.random() < 0.5
        power = rng.uniform(0.45, 0.75)
        kinds = mujoco.mjtLightType
        for i, share in enumerate((0.65, 0.35) if both else (1.0, 0.0)):
            position = rng.uniform([-1, -1, 1.2], [1, 1, 2.2])
            model.light_pos[i] = position
            model.light_dir[i] = -position / np.linalg.norm(position)
            model.light_diffuse[i] = power * share * rng.uniform(0.92, 1, 3)
            model.light_active[i] = share > 0
            model.light_type[i] = (kinds.mjLIGHT_DIRECTIONAL if rng.random() < 0.5
                                   else kinds.mjLIGHT_SPOT)

    def _randomize_scenery(self, rng, azimuth: float) -> bool:
        """Table edge and back wall: rare, but the first thing that misleads in real images."""
        model = self.model
        kind = rng.random()
        edge, wall = (low < kind < high for low, high in (self.domain.edge, self.domain.wall))
        table, back = model.geom('table').id, model.geom('wall').id
        # The edge anywhere around; both kept out of reach of the gripper.
        direction = azimuth + math.pi + rng.normal(0, 0.4 if wall else 1.2)
        distance = rng.uniform(0.28, 0.5)
        shift = distance - _TABLE_HALF if edge else 0.0
        model.geom_pos[table, :2] = shift * np.array([math.cos(direction), math.sin(direction)])
        model.geom_quat[table] = _yaw_quaternion(direction)
        distance = distance + rng.uniform(0.02, 0.4) if edge else distance
        if not wall:
            distance = 20.0                             # beyond the far plane
        model.geom_pos[back, :2] = (distance + 0.02) * np.array([math.cos(direction),
                                                                math.sin(direction)])
        model.geom_quat[back] = _yaw_quaternion(direction)
        return edge or wall

    def _randomize_surroundings(self, rng) -> bool:
        """Boxes of any size beside the workspace, seen and never touched."""
        model, domain = self.model, self.domain
        count = 0
        if rng.random() < domain.surroundings:
            count = int(rng.integers(1, domain.surrounding_boxes + 1))
        for i in range(domain.surrounding_boxes):
            geom = model.geom(f'box{i}').id
            if i >= count:
                model.geom_pos[geom] = [20, 0, 0]        # beyond the far plane
                continue
            half = rng.uniform([0.02, 0.02, 0.015], [0.12, 0.12, 0.14])
            distance = _OUT_OF_REACH + float(np.hypot(*half[:2])) + rng.uniform(0, 0.25)
            around = rng.uniform(0, 2 * math.pi)
            model.geom_size[geom] = half
            model.geom_pos[geom] = [distance * math.cos(around), distance * math.sin(around),
                                    half[2]]
            model.geom_quat[geom] = _yaw_quaternion(rng.uniform(0, 2 * math.pi))
            self._set_texture(f'box{i}', textures.table(rng, _OBJECT_TEXTURE))
        return count > 0

    def _randomize_camera(self, rng, azimuth: float, tilted: bool) -> None:
        model = self.model
        # Edge and wall only come into view from a camera that looks across the table.
        tilt = math.radians(rng.uniform(*(self.domain.tilt_with_scenery if tilted
                                          else self.domain.tilt)))
        height = rng.uniform(*self.domain.height)
        # Aim such that the objects lie anywhere in the centred square of the image.
        points = self.object_vertices()[:, :2]
        middle = (points.min(axis=0) + points.max(axis=0)) / 2
        radius = float(np.linalg.norm(points - middle, axis=1).max())
        half_view = 0.9 * height * IMAGE_SIZE[1] / 2 / self.intrinsics.fy
        slack = max(half_view - radius, 0.0)
        target = np.append(middle + rng.uniform(-1, 1, 2) * slack / math.sqrt(2), 0.0)
        across = np.array([math.cos(azimuth), math.sin(azimuth), 0.0])
        position = target + across * math.tan(tilt) * height + [0, 0, height]
        # The far side of the table is up in the image, roughly; now and then the camera is
        # mounted in another way.
        roll = rng.normal(0, 0.15) if rng.random() < 0.7 else rng.uniform(-math.pi, math.pi)
        camera = model.camera('camera').id
        model.cam_pos[camera] = position
        model.cam_quat[camera] = _quaternion(_look_at(position, target, -across, roll))

    # ------------------------------------------------------------------ physics
    def settle(self, rng: np.random.Generator, attempts: int = 30) -> None:
        """
        Drop the objects until they rest inside the workspace; that state is then the scene's.

        Raises :class:`UnsettledError` after ``attempts`` drops.
        """
        for _ in range(attempts):
            self._drop(rng)
            if self._come_to_rest():
                self._settled = self.data.qpos.copy()
                self.restore()
                return
        names = ', '.join(thing.name for thing in self.objects)
        raise UnsettledError(f'{names}: not at rest in the workspace after {attempts} drops')

    def _drop(self, rng) -> None:
        data = self.data
        mujoco.mj_resetData(self.model, data)
        park(self.model, data)
        for i, (thing, qpos) in enumerate(zip(self.objects, self._qpos, strict=True)):
            quaternion = rng.standard_normal(4)
            if rng.random() < 0.4:                       # standing as people put it
                quaternion = _yaw_quaternion(rng.uniform(0, 2 * math.pi))
            quaternion = quaternion / np.linalg.norm(quaternion)
            matrix = np.zeros(9)
            mujoco.mju_quat2Mat(matrix, quaternion)
            lowest = float((thing.vertices @ matrix.reshape(3, 3).T)[:, 2].min())
            spread = self.domain.spread
            data.qpos[qpos:qpos + 3] = [*rng.uniform(-spread, spread, 2),
                                        0.005 + 0.2 * i - lowest]
            data.qpos[qpos + 3:qpos + 7] = quaternion

    def _come_to_rest(self) -> bool:
        model, data = self.model, self.data
        velocities = (self._dofs[:, None] + np.arange(6)).ravel()
        start = 0.4 + 0.3 * (len(self.objects) - 1)
        while data.time < start + 2.0:
            mujoco.mj_step(model, data, 25)
            if data.time > start:
                if np.abs(data.qvel[velocities]).max() < 0.02:
                    break
                # Only the resting pose matters: take energy out of what still rolls.
                data.qvel[velocities] *= 0.8
        before = data.qpos.copy()
        data.qvel[:] = 0
        mujoco.mj_step(model, data, 60)
        at_rest = np.abs(data.qvel[velocities]).max() < 0.05
        moved = np.abs(data.qpos - before).max() > 0.003
        positions = self.object_positions()
        inside = (np.hypot(positions[:, 0], positions[:, 1]) < WORKSPACE_RADIUS).all()
        return bool(at_rest and not moved and inside and (positions[:, 2] > 0).all())

    def restore(self) -> None:
        """Back to the settled state, hand parked; no trace of a trial remains."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = self._settled
        park(self.model, self.data)
        mujoco.mj_forward(self.model, self.data)

    def accept(self, removed: int | None = None, patience: float = 3.0) -> None:
        """
        Make what a trial left the scene's own state: the hand parked, everything at rest.

        Object ``removed`` is taken away. What still moves after ``patience`` seconds of simulated
        time is stopped where it is.
        """
        model, data = self.model, self.data
        park(model, data)
        if removed is not None:
            self.present = tuple(i for i in self.present if i != removed)
            # Beyond the far plane and away from everything, each at a place of its own.
            address = self._qpos[removed]
            data.qpos[address:address + 3] = [30.0 + removed, 0.0, 1.0]
            data.qvel[self._dofs[removed]:self._dofs[removed] + 6] = 0
            model.geom_contype[self.geom_object == removed] = 0
            model.geom_conaffinity[self.geom_object == removed] = 0
            model.body_gravcomp[self._bodies[removed]] = 1
        mujoco.mj_forward(model, data)
        velocities = (self._dofs[list(self.present)][:, None] + np.arange(6)).ravel()
        end = data.time + patience
        while len(velocities) and data.time < end:
            mujoco.mj_step(model, data, 25)
            if np.abs(data.qvel[velocities]).max() < 0.02:
                break
        data.qvel[:] = 0
        self._settled = data.qpos.copy()
        self.restore()

    def object_positions(self) -> np.ndarray:
        """Centres of mass of the objects in the world (n, 3), as of the last step."""
        return self.data.xpos[self._bodies]

    def object_vertices(self) -> np.ndarray:
        """Vertices of all objects that are present in the world (N, 3)."""
        return np.concatenate([np.zeros((0, 3)), *[
            self.objects[i].vertices @ self.data.xmat[body].reshape(3, 3).T + self.data.xpos[body]
            for i in self.present for body in self._bodies[i:i + 1]]])

    # ------------------------------------------------------------------ camera
    @property
    def camera_pose(self) -> np.ndarray:
        """Optical frame -> world, (4, 4)."""
        camera = self.model.camera('camera').id
        pose = np.eye(4)
        pose[:3, :3] = self.data.cam_xmat[camera].reshape(3, 3) @ _FROM_OPTICAL
        pose[:3, 3] = self.data.cam_xpos[camera]
        return pose

    @property
    def support_normal_world(self) -> np.ndarray:
        """Unit normal (3,) of the table top in the world."""
        return np.array([0.0, 0.0, 1.0])

    def world_pose(self, grasp: Grasp) -> np.ndarray:
        """A grasp in the optical frame -> its pose (4, 4) in the world, as the trial wants it."""
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = grasp.rotation, grasp.position
        return self.camera_pose @ pose

    def _draw(self, *groups: int) -> OffscreenRenderer:
        """Show these geom groups only."""
        if self._renderer is None:
            self._renderer = OffscreenRenderer(self.model, *IMAGE_SIZE)
        self._option.geomgroup[:] = 0
        self._option.geomgroup[list(groups)] = 1
        return self._renderer

    def picture(self, show_gripper: bool = True) -> np.ndarray:
        """The camera's colour image (H, W, 3) uint8 of the present state, for demo and video."""
        groups = (_SCENERY_GROUP, _OBJECT_GROUP) + (_GRIPPER_GROUP,) * show_gripper
        return self._draw(*groups).colour(self.data, 'camera', self._option)

    def render(self) -> RenderedFrame:
        """Colour, noise-free depth and object masks of the present state, without the gripper."""
        rgb = self.picture(show_gripper=False)
        renderer = self._draw(_SCENERY_GROUP, _OBJECT_GROUP)
        depth, geoms = renderer.geometry(self.data, 'camera', self._option)
        index = np.where(geoms >= 0, self.geom_object[geoms], -1)
        return RenderedFrame(rgb, clean_depth(depth), (index + 1).astype(np.uint8))

    def observe(self, rng: np.random.Generator) -> tuple[RgbdFrame, RenderedFrame]:
        """
        One frame of the simulated sensor (kept as ``frame``) and what it really looked at.

        Depth comes in the steps that files have, so that a file holds exactly this frame.
        """
        true = self.render()
        sensors = self.domain.sensors
        if len(sensors) > 1:
            self.sensor = sensors[int(rng.integers(len(sensors)))]
        measured = SENSORS[self.sensor](true.depth, self.intrinsics, rng)
        if self.domain.misregistration:
            measured = misregistered(measured, self.domain.misregistration, rng)
        raw = encode_depth(measured)
        self.frame = RgbdFrame(true.rgb, decode_depth(raw), self.intrinsics)
        return self.frame, true

    def height_map(self) -> np.ndarray:
        """
        Noise-free heights above the table (N, N) float32 in metres.

        Pixel (row r, column c) is the world point ((c + 0.5) mm - half, half - (r + 0.5) mm).
        """
        width, height = IMAGE_SIZE
        depth, geoms = self._draw(_OBJECT_GROUP).geometry(self.data, 'above', self._option)
        # Nothing but the objects is drawn, so that no back wall gets in.
        depth = np.where(geoms >= 0, depth, np.float32(_ORTHO_HEIGHT))
        row, column = (height - HEIGHT_MAP_SIZE) // 2, (width - HEIGHT_MAP_SIZE) // 2
        cut = depth[row:row + HEIGHT_MAP_SIZE, column:column + HEIGHT_MAP_SIZE]
        return np.maximum(_ORTHO_HEIGHT - cut, 0)

    def close(self) -> None:
        """Free the OpenGL context."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def random_scene(rng: np.random.Generator, objects: Sequence[SimObject], *,
                 gripper: Gripper | None = None, domain: Domain = BASIC) -> TableScene:
    """A settled scene with random appearance: :class:`TableScene` in one call."""
    scene = TableScene(objects, rng, gripper, draw(rng, domain.focal_length), domain)
    scene.settle(rng)
    scene.randomize(rng)
    return scene

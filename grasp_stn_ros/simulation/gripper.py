"""
A floating parallel-jaw gripper and the one trial that labels, evaluation and demo share.

The hand has no arm: three world-aligned slide joints with stiff position control carry it, and
its orientation is set before each trial. Its frame is that of a grasp: origin between the finger
tips, x = approach direction, y = opening direction. Strict physics: the drive closes with 12 N
over both jaws together and the friction between jaw and object is drawn from 0.25 to 0.6; with
easier physics nearly every grasp succeeds and success says little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mujoco
import numpy as np

from ..grasp_pose import Gripper

if TYPE_CHECKING:
    from .scene import TableScene

CLOSING_FORCE = 12.0        # N of the drive; each of the two coupled jaws presses with half
FRICTION = (0.25, 0.6)      # sliding friction of the jaws, drawn for every trial
_FINGER_LENGTH = 0.055      # metres from the tips to the palm, at least
_PALM_ROOM = 0.015          # metres that the palm stays above the surface level, at least
LIFT = 0.2                  # metres straight up
HOLD = 0.5                  # seconds at the top
SPEED = 0.25                # m/s of the hand towards the object
LIFT_SPEED = 0.4            # m/s of the hand with the object
_JAW_SPEED = 0.12           # m/s of each jaw while closing
_DRIVE_STIFFNESS = 3000.0   # N/m of the jaws' position control
_TIP_TOLERANCE = 0.005      # metres between the commanded and the reached pose
_CLEARANCE = 0.01           # metres above the highest point where the approach starts
_CLOSED = 0.0008            # opening in metres below which nothing is between the jaws
_MIN_RAISE = 0.7            # share of the lift that the object has to follow
_PALM = (0.02, 0.025)       # half depth and half width of the palm, metres
_CHUNK = 5                  # simulation steps between two looks at the state
_SLEEP = int(mujoco.mjtEnableBit.mjENBL_SLEEP)
_SLIDES = ('grip_x', 'grip_y', 'grip_z')
_PARKED = (0.0, 0.0, 1.6)
_PATIENCE = 3.0             # seconds into a trial by which the jaws must have closed
GROUP = 2                   # of MuJoCo's geom groups: the camera leaves it out of its frames


@dataclass(frozen=True)
class TrialResult:
    """
    The end of one trial.

    ``outcome`` is 'lifted', 'collided' (the hand was blocked before it reached the pose),
    'missed' (the jaws closed on nothing), 'slipped' (the object did not follow) or 'dropped' (it
    followed for a while). ``object_index`` is the lifted object of the scene, or None.
    """

    lifted: bool
    outcome: str
    object_index: int | None = None


def finger_length(gripper: Gripper) -> float:
    """Return how long the fingers are from the tips to the palm, metres."""
    return max(_FINGER_LENGTH, round(gripper.finger_depth + _PALM_ROOM, 6))


def add_gripper(spec: mujoco.MjSpec, gripper: Gripper) -> None:
    """Put the hand into a model under construction, with its geoms in :data:`GROUP`."""
    outer = spec.worldbody.add_body(name='grip', gravcomp=1, mass=0.3, inertia=[1e-4] * 3,
                                    explicitinertial=True)
    for name, axis in zip(_SLIDES, np.eye(3), strict=True):
        outer.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis)
    hand = outer.add_body(name='hand', gravcomp=1)
    # contype 2 meets the objects' and the table's conaffinity; the gripper never meets itself.
    contact = {'contype': 2, 'conaffinity': 0, 'group': GROUP}
    length = finger_length(gripper)
    hand.add_geom(name='palm', type=mujoco.mjtGeom.mjGEOM_BOX, mass=0.5,
                  size=[_PALM[0], gripper.maximum_opening / 2 + 0.015, _PALM[1]],
                  pos=[-length - _PALM[0], 0, 0], rgba=[0.2, 0.2, 0.22, 1], **contact)
    thickness = gripper.finger_thickness
    for name, sign in (('left', -1), ('right', 1)):
        finger = hand.add_body(name=name, gravcomp=1)
        finger.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, sign, 0],
                         range=[0, gripper.maximum_opening / 2], limited=True, damping=5)
        # priority: the friction of the jaws decides, whatever the object's is on the table.
        finger.add_geom(name=name, type=mujoco.mjtGeom.mjGEOM_BOX, mass=0.06,
                        size=[length / 2, thickness / 2, gripper.jaw_size / 2],
                        pos=[-length / 2, sign * thickness / 2, 0], condim=4, priority=1,
                        friction=[0.4, 0.01, 0.0001], solref=[0.008, 1],
                        rgba=[0.1, 0.1, 0.1, 1], **contact)
    coupling = spec.add_equality(name='coupling', type=mujoco.mjtEq.mjEQ_JOINT, name1='left',
                                 name2='right', objtype=mujoco.mjtObj.mjOBJ_JOINT)
    coupling.data[:5] = [0, 1, 0, 0, 0]
    coupling.solref = [0.008, 1]
    for name in _SLIDES:
        slide = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        slide.set_to_position(kp=6000, kv=150)
        # An arm stops on contact; without a limit it would drive the object through the table.
        slide.forcelimited, slide.forcerange = True, [-60, 60]
    drive = spec.add_actuator(name='drive', target='left', trntype=mujoco.mjtTrn.mjTRN_JOINT)
    drive.set_to_position(kp=_DRIVE_STIFFNESS, kv=60)
    drive.forcelimited, drive.forcerange = True, [-CLOSING_FORCE, CLOSING_FORCE]


def park(model: mujoco.MjModel, data: mujoco.MjData) -> None:
    """Keep the hand, opened, where it meets nothing."""
    half = float(model.joint('left').range[1])
    for name, value in zip((*_SLIDES, 'left', 'right'), (*_PARKED, half, half), strict=True):
        data.qpos[model.joint(name).qposadr[0]] = value
        data.qvel[model.joint(name).dofadr[0]] = 0
    for name, value in zip((*_SLIDES, 'drive'), (*_PARKED, half), strict=True):
        data.ctrl[model.actuator(name).id] = value


class GraspTrial:
    """Full executions in one settled scene: approach, close, lift, hold."""

    def __init__(self, scene: TableScene):
        """Look up the addresses of ``scene``'s model once."""
        self._scene = scene
        model = scene.model
        self._slides = np.array([model.joint(n).qposadr[0] for n in _SLIDES])
        self._jaws = np.array([model.joint(n).qposadr[0] for n in ('left', 'right')])
        self._slide_actuators = np.array([model.actuator(n).id for n in _SLIDES])
        self._drive = model.actuator('drive').id
        self._hand = model.body('hand').id
        self._fingers = [model.geom(n).id for n in ('left', 'right')]
        self._callback: Callable[[], None] | None = None

    def execute(self, pose: np.ndarray, opening: float, friction: float | None = None,
                rng: np.random.Generator | None = None, commit: bool = False,
                callback: Callable[[], None] | None = None) -> TrialResult:
        """
        Execute the grasp ``pose`` (4, 4) in the world with the jaws ``opening`` metres apart.

        ``friction`` of the jaws is drawn from :data:`FRICTION` with ``rng`` where not given. The
        hand starts above everything (moving there would be free air) and lifts straight up.
        ``callback`` is called every few steps. Afterwards the scene is as before, or, with
        ``commit``, as the trial left it.
        """
        scene = self._scene
        if friction is None:
            if rng is None:
                raise ValueError('execute() needs a friction or a generator to draw one')
            friction = float(rng.uniform(*FRICTION))
        scene.restore()
        self._callback = callback
        options = scene.model.opt
        if scene.domain.sleep_tolerance:
            # Clutter that the hand does not touch need not be computed.
            options.sleep_tolerance = scene.domain.sleep_tolerance
            options.enableflags |= _SLEEP
        try:
            return self._run(np.asarray(pose, np.float64), opening, friction)
        finally:
            options.enableflags &= ~_SLEEP
            self._callback = None
            if not commit:
                scene.restore()

    def _run(self, pose: np.ndarray, opening: float, friction: float) -> TrialResult:
        scene = self._scene
        model, data = scene.model, scene.data
        rotation, target = pose[:3, :3], pose[:3, 3]
        approach = rotation[:, 0]
        model.geom_friction[self._fingers, 0] = friction
        mujoco.mju_mat2Quat(model.body_quat[self._hand], rotation.ravel())

        # Highest vertex of any object seen against the approach: from there on it is free air.
        highest = float(np.max((target - scene.object_vertices()) @ approach, initial=0.0))
        start = target - approach * (highest + _CLEARANCE)
        half = min(opening, 2 * float(model.joint('left').range[1])) / 2
        data.qpos[self._slides] = start
        data.qpos[self._jaws] = half
        data.ctrl[self._slide_actuators] = start
        data.ctrl[self._drive] = half
        mujoco.mj_forward(model, data)
        rest = scene.object_positions()[:, 2].copy()

        self._move(start, target, SPEED)
        self._steps(25)
        if np.linalg.norm(data.qpos[self._slides] - target) > _TIP_TOLERANCE:
            return TrialResult(False, 'collided')
        self._close()
        if data.qpos[self._jaws].sum() < _CLOSED:
            return TrialResult(False, 'missed')

        def raised() -> float:
            return float((scene.object_positions()[:, 2] - rest).max())

        top = target + [0, 0, LIFT]
        third = target + [0, 0, LIFT / 3]
        self._move(target, third, LIFT_SPEED)
        if raised() < 0.5 * LIFT / 3:
            return TrialResult(False, 'slipped')
        self._move(third, top, LIFT_SPEED)
        for _ in range(round(HOLD / model.opt.timestep / _CHUNK)):
            self._steps(_CHUNK)
            if raised() < _MIN_RAISE * LIFT / 2:
                return TrialResult(False, 'dropped')
        index = int(np.argmax(scene.object_positions()[:, 2] - rest))
        if raised() <= _MIN_RAISE * LIFT or not self._between_the_jaws(index):
            return TrialResult(False, 'dropped')
        return TrialResult(True, 'lifted', index)

    def _steps(self, count: int) -> None:
        mujoco.mj_step(self._scene.model, self._scene.data, count)
        if self._callback is not None:
            self._callback()

    def _move(self, start: np.ndarray, end: np.ndarray, speed: float) -> None:
        """Drive the hand along a straight line at constant speed."""
        scene = self._scene
        distance = float(np.linalg.norm(end - start))
        chunks = max(1, round(distance / speed / scene.model.opt.timestep / _CHUNK))
        for i in range(1, chunks + 1):
            scene.data.ctrl[self._slide_actuators] = start + (end - start) * (i / chunks)
            self._steps(_CHUNK)

    def _close(self) -> None:
        """Close until the drive pushes with its full force and nothing moves any more."""
        scene = self._scene
        data = scene.data
        step = _JAW_SPEED * scene.model.opt.timestep * _CHUNK
        # A target behind the closed position keeps the full force on thin objects as well.
        end = -2 * CLOSING_FORCE / _DRIVE_STIFFNESS
        still = 0
        last = data.qpos[self._jaws].sum()
        while still < 5:
            data.ctrl[self._drive] = max(data.ctrl[self._drive] - step, end)
            self._steps(_CHUNK)
            now = data.qpos[self._jaws].sum()
            if now < _CLOSED:
                return
            pressing = data.actuator_force[self._drive] < -0.95 * CLOSING_FORCE
            still = still + 1 if pressing and last - now < 2e-4 else 0
            # What still gives way is pushed around rather than grasped; the lift will tell.
            if data.time > _PATIENCE:
                return
            last = now

    def _between_the_jaws(self, index: int) -> bool:
        """Tell whether object ``index`` touches both jaws."""
        scene = self._scene
        touched = set()
        for contact in scene.data.contact[:scene.data.ncon]:
            a, b = int(contact.geom[0]), int(contact.geom[1])
            for finger, other in ((a, b), (b, a)):
                if finger in self._fingers and scene.geom_object[other] == index:
                    touched.add(finger)
        return len(touched) == 2

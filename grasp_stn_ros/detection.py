"""What a detection consists of: every candidate with what each stage decided, and the outcome."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .reasons import Reason
from .rectangle import GraspRectangle
from .support_plane import SupportPlane

# Below this score a candidate is no grasp, unless somebody says otherwise. The shipped model's
# score is about the probability that the grasp lifts: 99 % of its first grasps on objects are
# above 0.39, and empty tables stay below.
MINIMUM_SCORE = 0.2


def quaternion_from_rotation(m: np.ndarray) -> tuple[float, float, float, float]:
    """Rotation (3, 3) -> (x, y, z, w), the order of ``geometry_msgs/Quaternion``; w >= 0."""
    # Shepperd's method: divide by the largest component, so that no case loses precision.
    trace = np.trace(m)
    choice = int(np.argmax([trace, m[0, 0], m[1, 1], m[2, 2]]))
    if choice == 0:
        q = np.array([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], 1 + trace])
    else:
        i = choice - 1
        j, k = (i + 1) % 3, (i + 2) % 3
        q = np.empty(4)
        q[i] = 1 + m[i, i] - m[j, j] - m[k, k]
        q[j] = m[j, i] + m[i, j]
        q[k] = m[k, i] + m[i, k]
        q[3] = m[k, j] - m[j, k]
    q *= (1.0 if q[3] >= 0 else -1.0) / np.linalg.norm(q)
    return float(q[0]), float(q[1]), float(q[2]), float(q[3])


@dataclass(frozen=True)
class Grasp:
    """
    A grasp of a parallel-jaw gripper in the camera's optical frame.

    ``position`` (3,) in metres lies midway between the finger tips; the columns of ``rotation``
    (3, 3) are x = approach direction, y = opening direction (along which the jaws close) and
    z = x cross y. ``opening`` is the distance of the jaws before closing and ``jaw_size`` the
    height of their plates, both in metres. ``surface`` (3,) is the point of the object that the
    rectangle's centre looks at and ``normal`` (3,) the surface normal there (towards the camera).
    """

    position: np.ndarray
    rotation: np.ndarray
    opening: float
    jaw_size: float
    surface: np.ndarray
    normal: np.ndarray

    @property
    def approach(self) -> np.ndarray:
        """Unit vector (3,) from the palm to the finger tips."""
        return self.rotation[:, 0]

    @property
    def quaternion(self) -> tuple[float, float, float, float]:
        """Orientation as :func:`quaternion_from_rotation` returns it."""
        return quaternion_from_rotation(self.rotation)


@dataclass(frozen=True)
class Candidate:
    """
    One candidate through the four stages, in pixels of the input image.

    ``location`` (x, y) and ``location_score`` come from STN_crop, ``theta`` (radians, opening
    direction) from STN_rotation, ``rectangle`` from STN_scale,crop, ``score`` in [0, 1] from the
    grasp classifier. ``grasp`` is None where depth allows no pose; ``reason`` says why, or why the
    robot must not execute the grasp that there is, and ``detail`` by how much, where that is a
    number. ``finger_depth`` is how far below the surface
    the classifier wants the finger tips, metres, at most what the gripper allows; None = that.
    """

    location: tuple[float, float]
    location_score: float
    theta: float
    rectangle: GraspRectangle
    score: float
    grasp: Grasp | None = None
    reason: Reason = Reason.OK
    finger_depth: float | None = None
    detail: str = ''

    @property
    def executable(self) -> bool:
        """Whether there is a grasp and nothing speaks against it."""
        return self.grasp is not None and self.reason == Reason.OK


def refusal(candidate: Candidate, of: int) -> str:
    """Return the sentence on why ``candidate``, the first ``of`` so many, is not executed."""
    which = 'the only candidate' if of == 1 else f'the best of {of} candidates'
    return f'{candidate.reason.sentence} ({which}' \
           + (f': {candidate.detail})' if candidate.detail else ')')


@dataclass(frozen=True)
class Detection:
    """
    The outcome for one frame: all candidates, the best one, or the reason why there is none.

    ``candidates`` are in descending order of score, unless grasps have failed before
    (:mod:`grasp_stn_ros.retry`). ``best`` is the first one that reaches the minimum score and,
    where a pose was asked for, has one. ``milliseconds`` is the wall time per stage. ``region`` is
    the part of the image that the network saw, (x, y, width, height) in pixels, and ``support``
    the plane found there, in the camera's frame. ``failed`` are the poses (4, 4), in that frame
    too, of the grasps that have failed before.
    """

    candidates: tuple[Candidate, ...]
    best: Candidate | None
    reason: Reason
    message: str
    milliseconds: dict[str, float] = field(default_factory=dict)
    region: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    support: SupportPlane | None = None
    failed: tuple[np.ndarray, ...] = ()

    @property
    def alternatives(self) -> tuple[Candidate, ...]:
        """Executable candidates behind the best one, in the order of the candidates."""
        if self.best is None:
            return ()
        return tuple(c for c in self.candidates if c.executable and c is not self.best)

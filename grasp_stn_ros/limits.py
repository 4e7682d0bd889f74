"""
What a cell allows: workspace, depth, mask, distance from the support, and which way round.

A detector says where a grasp would hold. Whether this robot may execute it in this cell is another
question, and it is answered here: candidates that are forbidden stay in the detection, marked with
the reason, and are never the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
import math

import numpy as np

from .detection import Candidate, Detection, Grasp, refusal
from .grasp_pose import Gripper
from .reasons import Reason
from .rectangle import GraspRectangle
from .rgbd import RgbdFrame
from .support_plane import SupportPlane, fit_support_plane

# A candidate is masked unless this share of the middle of its rectangle is allowed.
_MASK_SHARE = 0.5


@dataclass(frozen=True)
class Limits:
    """
    What the robot may do.

    Depths and ``support_margin`` (distance of every corner of the fingers from the support) in
    metres, 0 = no limit. ``workspace`` is a box, lower and upper corner (3,) in metres in the
    target frame, or None. ``opening_preference`` (3,) in the target frame: of the two ways to
    hold a parallel jaw, the one whose opening direction (y) is nearer to it; None = either.
    """

    gripper: Gripper = field(default_factory=Gripper)
    minimum_depth: float = 0.0
    maximum_depth: float = 0.0
    support_margin: float = 0.0
    workspace: tuple[np.ndarray, np.ndarray] | None = None
    opening_preference: np.ndarray | None = None


def box(lower: Sequence[float], upper: Sequence[float]) -> tuple[np.ndarray, np.ndarray] | None:
    """Corners of a workspace box, or None where both are zero; ValueError where it is empty."""
    low, high = np.asarray(lower, float), np.asarray(upper, float)
    if not low.any() and not high.any():
        return None
    if low.shape != (3,) or high.shape != (3,) or not (low < high).all():
        raise ValueError(f'the workspace from {[*lower]} to {[*upper]} is empty: every element '
                         'of the minimum must be below that of the maximum')
    return low, high


def transformed(grasp: Grasp, transform: np.ndarray) -> Grasp:
    """Return ``grasp`` in another frame; ``transform`` (4, 4) takes points from its own there."""
    rotation, translation = transform[:3, :3], transform[:3, 3]
    return replace(grasp, position=rotation @ grasp.position + translation,
                   rotation=rotation @ grasp.rotation,
                   surface=rotation @ grasp.surface + translation, normal=rotation @ grasp.normal)


def retreated(grasp: Grasp, distance: float) -> Grasp:
    """Return ``grasp`` moved back by ``distance`` metres against its approach direction."""
    return replace(grasp, position=grasp.position - distance * grasp.approach)


def alike(grasp: Grasp, rotation: np.ndarray, angle: float) -> bool:
    """
    Tell whether the jaws close along the same line, to within ``angle`` radians.

    ``rotation`` (3, 3) is that of another grasp; half a turn about the approach, see
    :func:`turned`, makes no difference.
    """
    return abs(float(grasp.rotation[:, 1] @ rotation[:, 1])) >= math.cos(angle)


def turned(grasp: Grasp) -> Grasp:
    """Return the same grasp of a parallel jaw with its fingers exchanged: half a turn about x."""
    return replace(grasp, rotation=grasp.rotation * np.array([1.0, -1.0, -1.0]))


def apply(detection: Detection, limits: Limits, frame: RgbdFrame, minimum_score: float,
          transform: np.ndarray | None = None, mask: np.ndarray | None = None,
          need_pose: bool = True) -> Detection:
    """
    Mark what ``limits`` forbid and choose the best of the rest.

    ``transform`` (4, 4) takes points from the camera's frame to the target frame (None: the
    same); ``mask`` (H, W), where given, is non-zero where grasps are allowed. Without
    ``need_pose`` the best may also be one that has no pose, of which only the mask can be asked.
    Raises :class:`GraspError` for a mask of another size than the image.
    """
    if mask is not None:
        frame.check_mask(mask)
    support = detection.support
    if limits.support_margin and support is None and frame.depth is not None \
            and frame.intrinsics is not None:
        support = fit_support_plane(frame.depth, frame.intrinsics)
    target = np.eye(4) if transform is None else transform
    candidates = tuple(
        _judged(c, limits, target, support, mask) if need_pose or c.grasp is not None
        else _in_the_image(c, mask) for c in detection.candidates)
    changed = replace(detection, candidates=candidates)
    if detection.best is None:
        return changed
    allowed = (c for c in candidates if c.executable or not need_pose and c.grasp is None
               and c.reason != Reason.MASKED)
    return chosen(changed, next((c for c in allowed if c.score >= minimum_score), None))


def chosen(detection: Detection, best: Candidate | None) -> Detection:
    """Return ``detection`` with this best candidate, or with the reason why there is none."""
    if best is not None:
        return replace(detection, best=best, reason=Reason.OK, message=Reason.OK.sentence)
    first = next((c for c in detection.candidates if c.reason != Reason.OK), None)
    if first is None:
        return replace(detection, best=None, reason=Reason.NO_CANDIDATE,
                       message=Reason.NO_CANDIDATE.sentence)
    return replace(detection, best=None, reason=first.reason,
                   message=refusal(first, len(detection.candidates)))


def _judged(candidate: Candidate, limits: Limits, target: np.ndarray,
            support: SupportPlane | None, mask: np.ndarray | None) -> Candidate:
    """Mark one candidate, and turn it the preferred way round."""
    grasp = candidate.grasp
    if grasp is None or not candidate.executable:
        return candidate
    if limits.opening_preference is not None \
            and (target[:3, :3] @ grasp.rotation[:, 1]) @ limits.opening_preference < 0:
        grasp = turned(grasp)
    reason, detail = _objection(candidate.rectangle, grasp, limits, target, support, mask)
    return replace(candidate, grasp=grasp, reason=reason, detail=detail)


def _in_the_image(candidate: Candidate, mask: np.ndarray | None) -> Candidate:
    """Mark one candidate that has no pose and need not have one."""
    if mask is None or _allowed(candidate.rectangle, mask):
        return candidate
    return replace(candidate, reason=Reason.MASKED, detail='')


def _objection(rectangle: GraspRectangle, grasp: Grasp, limits: Limits, target: np.ndarray,
               support: SupportPlane | None, mask: np.ndarray | None) -> tuple[Reason, str]:
    """Return why a grasp (in the camera's frame) must not be executed, with numbers, or OK."""
    depth = float(grasp.surface[2])
    if depth < limits.minimum_depth or 0 < limits.maximum_depth < depth:
        allowed = f'{limits.minimum_depth:g} to {limits.maximum_depth:g} m' \
            if limits.maximum_depth else f'{limits.minimum_depth:g} m and more'
        return Reason.OUTSIDE_DEPTH, f'{depth:.3f} m, allowed are {allowed}'
    if mask is not None and not _allowed(rectangle, mask):
        return Reason.MASKED, ''
    if limits.workspace is not None:
        low, high = limits.workspace
        position = target[:3, :3] @ grasp.position + target[:3, 3]
        if not ((low <= position) & (position <= high)).all():
            return (Reason.OUTSIDE_WORKSPACE,
                    f'at {_point(position)}, the box is {_point(low)} to {_point(high)} m')
    if limits.support_margin:
        if support is None:
            return Reason.NO_SUPPORT_PLANE, ''
        height = float(support.height(finger_corners(grasp, limits.gripper)).min())
        if height < limits.support_margin:
            return (Reason.SUPPORT_COLLISION, f'{height * 1e3:.1f} mm above it, the margin is '
                                              f'{limits.support_margin * 1e3:g} mm')
    return Reason.OK, ''


def _point(position: np.ndarray) -> str:
    return f'({", ".join(f"{value:.3f}" for value in position)})'


def finger_corners(grasp: Grasp, gripper: Gripper) -> np.ndarray:
    """Corners (8, 3) of the tips of both open fingers, in the frame of ``grasp``, metres."""
    inner = grasp.opening / 2
    across = np.array([inner, inner + gripper.finger_thickness])
    local = np.array([[0.0, side * y, z] for side in (-1, 1) for y in across
                      for z in (-gripper.jaw_size / 2, gripper.jaw_size / 2)])
    return grasp.position + local @ grasp.rotation.T


def _allowed(rectangle: GraspRectangle, mask: np.ndarray) -> bool:
    """Whether the middle of the rectangle, half its opening wide, lies mostly in the mask."""
    u, v = np.meshgrid(np.linspace(-0.25, 0.25, 7) * rectangle.opening,
                       np.linspace(-0.5, 0.5, 5) * rectangle.jaw)
    pixels = np.array([rectangle.x, rectangle.y]) + np.stack(
        [u.ravel(), v.ravel()], axis=1) @ rectangle.axes
    x, y = np.rint(pixels).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < mask.shape[1]) & (y < mask.shape[0])
    hits = np.count_nonzero(mask[y[inside], x[inside]])
    return bool(hits >= _MASK_SHARE * len(pixels))

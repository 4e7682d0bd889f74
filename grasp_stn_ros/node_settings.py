"""
What the parameters of ``grasp_node`` mean, without ROS: for the node and for recordings of it.

Each function takes parameters by name. What they do not say has the package's default, so
that recordings of older versions, and those of somebody else, can be read.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from .grasp_pose import Gripper
from .limits import Limits, box
from .messages import pose_matrix
from .middle import weight_of
from .package_files import places
from .parameter_files import parameters_in
from .reasons import GraspError, Reason
from .stability import Stability

_NOWHERE = (0.0, 0.0, 0.0)
# What a file in config/grippers/ says; the last only concerns what the node publishes.
_LENGTHS = (*(f'gripper.{field.name}' for field in dataclasses.fields(Gripper)),
            'gripper.tcp_offset')


def gripper_from(values: Mapping[str, Any]) -> Gripper:
    """Return the gripper; raises ValueError for lengths that none has."""
    return Gripper(**_group(Gripper, 'gripper', values))


def known_grippers() -> dict[str, Path]:
    """Name -> file of the grippers that come with the package."""
    folder = next((p for p in places('config/grippers') if p.is_dir()), None)
    return {} if folder is None else {p.stem: p for p in sorted(folder.glob('*.yaml'))}


def read_gripper(name: str) -> Gripper:
    """
    Return a gripper by the name of a file in config/grippers/, or from a parameter file.

    Of a file with parameters of the node, those of the gripper count. Raises ValueError for what
    is neither, and for lengths that no gripper has.
    """
    known = known_grippers()
    path = known.get(name, Path(name))
    if not path.is_file():
        raise ValueError(f'{name} is no file and none of the grippers {", ".join(known)}')
    try:
        values = parameters_in(path)
        lengths = {f'gripper.{key}': value for key, value in values.get('gripper', {}).items()}
        lengths |= {key: value for key, value in values.items() if key.startswith('gripper.')}
        unknown = [key for key in lengths if key not in _LENGTHS]
        if unknown or not lengths:
            raise ValueError(f'there is no {", ".join(unknown) or "length"}')
        return gripper_from({key: float(value) for key, value in lengths.items()})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f'{path} is no description of a gripper ({error}); a file has '
                         '/**: ros__parameters: gripper: with the lengths '
                         f'{", ".join(key.removeprefix("gripper.") for key in _LENGTHS)}, as '
                         'those in config/grippers/') from None


def stability_from(values: Mapping[str, Any]) -> Stability:
    """Return the settings of the tracker."""
    return Stability(**_group(Stability, 'stability', values))


def _group(kind: type, prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the dataclass ``kind`` that are there under ``prefix``."""
    return {field.name: values[f'{prefix}.{field.name}'] for field in dataclasses.fields(kind)
            if f'{prefix}.{field.name}' in values}


def detector_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a detector is created with: gripper, approach, preference for the middle."""
    return {'gripper': gripper_from(values), 'approach': values.get('approach', 'support_plane'),
            'approach_direction': tuple(values.get('approach_direction', (0.0, 0.0, 1.0))),
            'middle_weight': weight_of(values.get('middle_weight', -1.0))}


def check_frames(values: Mapping[str, Any], color: str, depth: str) -> None:
    """Raise :class:`GraspError` where images of the frames ``color`` and ``depth`` do not go."""
    if depth != color and values.get('frame_mismatch') == 'refuse':
        raise GraspError(Reason.FRAME_MISMATCH,
                         f'depth is in frame {depth!r}, colour in {color!r}')


def region_from(values: Mapping[str, Any]) -> tuple[int, int, int, int] | None:
    """Return the region of interest, None for the largest centred square."""
    x, y, width, height = map(int, values.get('region', (0, 0, 0, 0)))
    return (x, y, width, height) if any((x, y, width, height)) else None


def limits_from(values: Mapping[str, Any]) -> Limits:
    """Return what the cell allows; raises ValueError for an empty workspace."""
    preference = np.asarray(values.get('opening_preference', _NOWHERE), float)
    lengths = {name: float(values.get(name, 0.0))
               for name in ('minimum_depth', 'maximum_depth', 'support_margin')}
    return Limits(gripper=gripper_from(values), **lengths,
                  workspace=box(values.get('workspace.minimum', _NOWHERE),
                                values.get('workspace.maximum', _NOWHERE)),
                  opening_preference=preference if preference.any() else None)


def camera_pose_from(values: Mapping[str, Any]) -> np.ndarray | None:
    """Return the fixed transform (4, 4) from the camera to ``target_frame``, None for tf2's."""
    pose = np.asarray(values.get('camera_pose', ()), float)
    if not pose.any():
        return None
    return pose_matrix(*pose)

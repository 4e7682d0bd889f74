"""
camera.json beside images in Cornell's layout: whose camera took them.

The public set has none, and its images are read as those of the Kinect that took them. Where the
file is, it holds the size of all images and the camera matrix in pixels (``fx fy cx cy``, or null
where nobody knows it), and depth is z along the optical axis, as ROS drivers deliver it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
import json
from pathlib import Path
from typing import Any

from ..reasons import GraspError
from ..rgbd import CameraIntrinsics
from .sample import DataError

CAMERA_FILE = 'camera.json'
_DEPTH = 'z'


@dataclass(frozen=True)
class DatasetCamera:
    """``size`` (width, height) in pixels, and the camera matrix where it is known."""

    size: tuple[int, int]
    intrinsics: CameraIntrinsics | None


def camera_to_json(size: tuple[int, int], intrinsics: CameraIntrinsics | None) -> dict[str, Any]:
    """Return what the file holds."""
    return {'width': size[0], 'height': size[1], 'depth': _DEPTH,
            'intrinsics': None if intrinsics is None else asdict(intrinsics)}


def read_camera(root: Path) -> DatasetCamera | None:
    """Return the camera of the images in ``root``, None without a file; :class:`DataError`."""
    path = root / CAMERA_FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        if content['depth'] != _DEPTH:
            raise ValueError(f'depth is {content["depth"]!r}, expected {_DEPTH!r}')
        matrix = content['intrinsics']
        return DatasetCamera((int(content['width']), int(content['height'])),
                             None if matrix is None else CameraIntrinsics(**matrix))
    except (OSError, ValueError, KeyError, TypeError, GraspError) as error:
        raise DataError(f'{path} is no camera file (width, height, depth, intrinsics): '
                        f'{error!r}') from None

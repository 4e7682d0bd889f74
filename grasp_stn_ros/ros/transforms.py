"""
Where the camera is in the target frame: by tf2 at the image's stamp, or fixed.

tf2_ros comes with every ROS 2 installation, but not from PyPI: it is imported only when a
target frame without a fixed ``camera_pose`` asks for it.
"""

from __future__ import annotations

import time
from typing import Any

from geometry_msgs.msg import Point, Pose
import numpy as np
from rclpy.time import Time
from std_msgs.msg import Header

from ..node_settings import camera_pose_from
from ..reasons import GraspError, Reason
from .conversions import pose_to_matrix

_PAUSE = 0.005  # seconds between two looks into tf2's buffer
MISSING = ('target_frame needs tf2_ros, which is not installed: it comes with every ROS 2 '
           'installation (ros-$ROS_DISTRO-tf2-ros-py), but not from PyPI; or give the fixed pose '
           'of the camera in the parameter camera_pose')


class Transforms:
    """Looks up the way from the camera to the target frame; created where there is one."""

    def __init__(self, node, values: dict[str, Any]):
        """Listen to tf2 unless the pose is fixed; raises RuntimeError where tf2_ros is missing."""
        self._target = values['target_frame']
        self._buffer: Any = None
        self._listener: Any = None
        if any(values['camera_pose']):
            return
        try:
            import tf2_ros
        except ImportError:
            raise RuntimeError(MISSING) from None
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def close(self) -> None:
        """Listen no more."""
        if self._listener is not None:
            self._listener.unregister()

    def forget(self) -> None:
        """
        Drop what moved: the clock was set, or a recording starts over.

        tf2 keeps transforms of the time before and refuses what is much older, which after a step
        back is all that comes. Static ones stay.
        """
        if self._buffer is not None:
            self._buffer.clear()

    def look_up(self, header: Header, values: dict[str, Any]) -> np.ndarray:
        """
        Transform (4, 4) of points from the frame of ``header``, at its stamp, to the target frame.

        Waits at most ``transform_timeout`` of wall time: tf2's own timeout counts by the node's
        clock, which may stand still. Raises :class:`GraspError` (NO_TRANSFORM).
        """
        if header.frame_id == self._target:
            return np.eye(4)
        fixed = camera_pose_from(values)
        if fixed is not None:
            return fixed
        if self._buffer is None:
            raise GraspError(Reason.NO_TRANSFORM, 'camera_pose was set to zeros while the node '
                             'ran; clean up and configure it to listen to tf2')
        stamp = Time.from_msg(header.stamp)
        deadline = time.monotonic() + values['transform_timeout']
        while not self._buffer.can_transform(self._target, header.frame_id, stamp):
            if time.monotonic() >= deadline:
                raise GraspError(Reason.NO_TRANSFORM, self._problem(header, stamp))
            time.sleep(_PAUSE)
        transform = self._buffer.lookup_transform(self._target, header.frame_id, stamp).transform
        p = transform.translation
        return pose_to_matrix(Pose(position=Point(x=p.x, y=p.y, z=p.z),
                                   orientation=transform.rotation))

    def _problem(self, header: Header, stamp: Time) -> str:
        """Return tf2's own sentence: which frame is unknown, or by how much the stamp is off."""
        try:
            self._buffer.lookup_transform(self._target, header.frame_id, stamp)
        except Exception as error:  # one of tf2's, which need not be importable here
            return f'from {header.frame_id!r} to {self._target!r}: {error}'
        return f'from {header.frame_id!r} to {self._target!r} it came too late'

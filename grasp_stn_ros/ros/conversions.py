"""
ROS messages <-> numpy.

What reads a message is in :mod:`..messages`, which needs no ROS: the same code reads messages from
the wire and from a recording. What makes messages is here. Whatever a message holds, the functions
that read it either return or raise :class:`GraspError`; nothing else.
"""

from __future__ import annotations

import array

from geometry_msgs.msg import Point, Pose, Quaternion
import numpy as np
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest
from std_msgs.msg import Header

from grasp_stn_interfaces.msg import Grasp as GraspMessage
from grasp_stn_interfaces.msg import GraspCandidate, GraspStages
from grasp_stn_interfaces.msg import GraspRectangle as RectangleMessage

from ..detection import Candidate, Detection, Grasp, quaternion_from_rotation
from ..limits import retreated, transformed
from ..messages import (
    depth_from_message,
    detection_from_message,
    frame_from_messages,
    intrinsics_from_message,
    is_distorted,
    pixel_view,
    pose_matrix,
    rgb_from_message,
)
from ..reasons import GraspError, Reason
from ..rgbd import CameraIntrinsics

__all__ = [
    'camera_info_message', 'depth_from_message', 'depth_message', 'detection_from_message',
    'frame_from_messages', 'grasp_message', 'image_message',
    'intrinsics_from_message', 'is_distorted', 'matrix_to_pose', 'pose_message',
    'pose_to_matrix', 'rectangle_message', 'region_from_message',
    'mask_from_message', 'rgb_from_message', 'stages_message']


def mask_from_message(image: Image) -> np.ndarray:
    """Mask (mono8 or 8UC1) -> (H, W) uint8, non-zero where grasps are allowed."""
    if image.encoding not in ('mono8', '8UC1'):
        raise GraspError(Reason.INVALID_IMAGE, f'mask with encoding {image.encoding!r}, expected '
                                               'mono8 or 8UC1')
    return pixel_view(image, 'u1', 1, Reason.INVALID_IMAGE)


def region_from_message(region: RegionOfInterest) -> tuple[int, int, int, int] | None:
    """Return (x, y, width, height) in pixels, or None for all zeros; raises on an empty one."""
    box = (region.x_offset, region.y_offset, region.width, region.height)
    if not any(box):
        return None
    if region.width == 0 or region.height == 0:
        raise GraspError(Reason.INVALID_REQUEST, f'the region of interest is empty: x, y, width, '
                                                 f'height = {box}')
    return box


def image_message(pixels: np.ndarray, encoding: str, header: Header) -> Image:
    """(H, W) or (H, W, C) array -> Image; the array has the type of the encoding."""
    pixels = np.ascontiguousarray(pixels)
    message = Image(header=header, height=pixels.shape[0], width=pixels.shape[1],
                    encoding=encoding, is_bigendian=0, step=pixels.strides[0])
    # Assigning an array('B') skips a check of every byte that bytes or a list would pay for.
    message.data = array.array('B', pixels.tobytes())
    return message


def depth_message(depth: np.ndarray, encoding: str, header: Header) -> Image:
    """(H, W) float32 metres with NaN -> Image in ``16UC1`` (0 = hole) or ``32FC1``."""
    if encoding == '32FC1':
        return image_message(depth.astype('<f4'), encoding, header)
    if encoding != '16UC1':
        raise ValueError(f'depth encoding {encoding!r}, expected 16UC1 or 32FC1')
    millimetres = np.nan_to_num(np.rint(depth * 1e3), nan=0.0, posinf=0.0, neginf=0.0)
    # What does not fit is a hole, not a wall at 65 m.
    millimetres[(millimetres < 0) | (millimetres > 65535)] = 0
    return image_message(millimetres.astype('<u2'), encoding, header)


def camera_info_message(intrinsics: CameraIntrinsics, size: tuple[int, int],
                        header: Header) -> CameraInfo:
    """Return the camera_info of an ideal pinhole camera: no distortion, K equal to P."""
    fx, fy, cx, cy = intrinsics.fx, intrinsics.fy, intrinsics.cx, intrinsics.cy
    return CameraInfo(header=header, width=size[0], height=size[1],
                      distortion_model='plumb_bob', d=[0.0] * 5,
                      k=[fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0],
                      r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
                      p=[fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0])


def pose_message(grasp: Grasp) -> Pose:
    """Return the pose between the finger tips; axes as in :class:`~..detection.Grasp`."""
    return _pose(grasp.position, grasp.rotation)


def matrix_to_pose(matrix: np.ndarray) -> Pose:
    """Rigid transform (4, 4) -> Pose."""
    return _pose(matrix[:3, 3], matrix[:3, :3])


def _pose(position: np.ndarray, rotation: np.ndarray) -> Pose:
    x, y, z, w = quaternion_from_rotation(rotation)
    return Pose(position=Point(**dict(zip('xyz', map(float, position), strict=True))),
                orientation=Quaternion(x=x, y=y, z=z, w=w))


def pose_to_matrix(pose: Pose) -> np.ndarray:
    """
    Pose -> rigid transform (4, 4).

    The quaternion need not have unit length, as what people type into a static transform has not;
    but it must not be zero.
    """
    q, p = pose.orientation, pose.position
    return pose_matrix(p.x, p.y, p.z, q.x, q.y, q.z, q.w)


def rectangle_message(candidate: Candidate) -> RectangleMessage:
    """Return the candidate's rectangle in pixels of the colour image."""
    r = candidate.rectangle
    return RectangleMessage(x=float(r.x), y=float(r.y), theta=float(r.theta),
                            opening=float(r.opening), jaw=float(r.jaw))


def grasp_message(candidate: Candidate, header: Header, transform: np.ndarray | None = None,
                  approach_offset: float = 0.0, tcp_offset: float = 0.0) -> GraspMessage:
    """
    Return an executable candidate (one with a grasp) as a message.

    ``transform`` (4, 4) takes points from the camera's frame to that of ``header``, None where
    they are the same. The pre-grasp lies ``approach_offset`` and the gripper's mounting face
    ``tcp_offset`` metres back along the approach.
    """
    grasp = candidate.grasp
    if grasp is None:
        raise ValueError('the candidate has no grasp')
    if transform is not None:
        grasp = transformed(grasp, transform)
    return GraspMessage(header=header, pose=pose_message(grasp), opening=float(grasp.opening),
                        jaw_size=float(grasp.jaw_size), score=float(candidate.score),
                        rectangle=rectangle_message(candidate),
                        pregrasp=pose_message(retreated(grasp, approach_offset)),
                        flange=pose_message(retreated(grasp, tcp_offset)))


def _candidate_message(candidate: Candidate) -> GraspCandidate:
    message = GraspCandidate(
        x=float(candidate.location[0]), y=float(candidate.location[1]),
        location_score=float(candidate.location_score), theta=float(candidate.theta),
        rectangle=rectangle_message(candidate), score=float(candidate.score),
        reason=int(candidate.reason))
    if candidate.grasp is not None:
        message.pose = pose_message(candidate.grasp)
        message.opening = float(candidate.grasp.opening)
        message.jaw_size = float(candidate.grasp.jaw_size)
    return message


def stages_message(detection: Detection, header: Header) -> GraspStages:
    """Return everything that the network considered, stage by stage."""
    # By identity: two candidates may be equal, and only one of them is the best.
    best = next((i for i, c in enumerate(detection.candidates) if c is detection.best), -1)
    return GraspStages(
        header=header, candidates=[_candidate_message(c) for c in detection.candidates],
        best=best, reason=int(detection.reason), message=detection.message,
        failed=[matrix_to_pose(pose) for pose in detection.failed],
        stage_names=list(detection.milliseconds),
        stage_milliseconds=[float(t) for t in detection.milliseconds.values()])



"""
What the stress tests show the node: boxes on a table, drawn so that the right grasp is known.

Nothing is rendered, so that the load on the machine is that of the node; the noise of depth and
colour is drawn once and repeats after a few frames.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
import math
import time

from builtin_interfaces.msg import Time
import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from ..rgbd import CameraIntrinsics
from . import conversions

SIZE = (640, 480)
INTRINSICS = CameraIntrinsics(525.0, 525.0, 319.5, 239.5)
FRAME = 'camera_color_optical_frame'
# Metres along the optical axis, and pixels of the boxes' long and short side.
TABLE, TOP = 0.80, 0.75
BOX = (70.0, 24.0)
# Centre (x, y) in pixels and angle of the long side in degrees, by scene. Far apart, so that a
# grasp of a scene before is no grasp of this one.
BOXES = ((250, 200, 20.0), (390, 280, 75.0), (260, 290, -40.0), (380, 190, -70.0))
_COLOURS = ((190, 60, 50), (50, 90, 180), (60, 150, 70), (200, 170, 60))
_VARIANTS = 4
# How far a right grasp may lie beside the box (pixels) and turned from its short side (degrees).
_BESIDE, _TURNED = 8.0, 30.0


@dataclass(frozen=True)
class Scene:
    """One box on the table; ``frames`` are ready messages that differ by their noise."""

    number: int
    frames: tuple[tuple[Image, Image], ...]

    @property
    def corners(self) -> np.ndarray:
        """Corners of the box in the image, (4, 2) float32 pixels."""
        x, y, angle = BOXES[self.number]
        return cv2.boxPoints(((x, y), BOX, angle))

    def fault(self, grasp) -> str:
        """
        Say what is wrong with a Grasp message of this scene, empty if nothing is.

        Right means: between the box and the table, on the box, opened across its short side, and
        in the camera's frame.
        """
        if grasp.header.frame_id != FRAME:
            return f'in frame {grasp.header.frame_id!r}'
        pose = conversions.pose_to_matrix(grasp.pose)
        if not np.isfinite(pose).all():
            return 'a pose that is not finite'
        if not TOP < pose[2, 3] < TABLE:
            return f'at depth {pose[2, 3]:.3f} m'
        x, y = INTRINSICS.project(pose[:3, 3])
        beside = -cv2.pointPolygonTest(self.corners, (float(x), float(y)), True)
        if beside > _BESIDE:
            return f'{beside:.0f} px beside the box of scene {self.number}'
        across = math.radians(BOXES[self.number][2] + 90.0)
        turned = math.atan2(pose[1, 1], pose[0, 1]) - across
        turned = math.degrees(abs((turned + math.pi / 2) % math.pi - math.pi / 2))
        return f'turned by {turned:.0f} degrees' if turned > _TURNED else ''


def make_scene(number: int, seed: int = 0) -> Scene:
    """Draw scene ``number`` of :data:`BOXES`, 640x480, rgb8 and 16UC1."""
    rng = np.random.default_rng([seed, number])
    x, y, angle = BOXES[number]
    inside = np.zeros(SIZE[::-1], np.uint8)
    cv2.fillConvexPoly(inside, cv2.boxPoints(((x, y), BOX, angle)).astype(np.int32), 1)
    frames = []
    for _ in range(_VARIANTS):
        rgb = np.where(inside[..., None] > 0, _COLOURS[number], (150, 140, 125))
        rgb = np.clip(rgb + rng.normal(0, 6, rgb.shape), 0, 255).astype(np.uint8)
        depth = np.where(inside > 0, TOP, TABLE) + rng.normal(0, 8e-4, inside.shape)
        frames.append((conversions.image_message(rgb, 'rgb8', Header(frame_id=FRAME)),
                       conversions.depth_message(depth.astype(np.float32), '16UC1',
                                                 Header(frame_id=FRAME))))
    return Scene(number, tuple(frames))


def triple(scene: Scene, stamp: Time, variant: int = 0) -> dict[str, Image | CameraInfo]:
    """Messages ``color``, ``depth`` and ``info`` of a scene, stamped; pixels are not copied."""
    color, depth = map(copy.copy, scene.frames[variant % len(scene.frames)])
    color.header = Header(stamp=stamp, frame_id=FRAME)
    depth.header = Header(stamp=stamp, frame_id=FRAME)
    info = conversions.camera_info_message(INTRINSICS, SIZE, Header(stamp=stamp, frame_id=FRAME))
    return {'color': color, 'depth': depth, 'info': info}


def now(offset: float = 0.0) -> Time:
    """Return the system's time as a stamp, ``offset`` seconds later."""
    nanoseconds = time.time_ns() + round(offset * 1e9)
    return Time(sec=nanoseconds // 1_000_000_000, nanosec=nanoseconds % 1_000_000_000)

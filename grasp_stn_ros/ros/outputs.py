"""What the node publishes about a detection: grasps, stages, markers and the picture."""

from __future__ import annotations

from dataclasses import dataclass
import time
from typing import Any

import cv_bridge
from geometry_msgs.msg import PoseArray, PoseStamped
import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from grasp_stn_interfaces.msg import Grasp as GraspMessage
from grasp_stn_interfaces.msg import GraspStages

from .. import visualization
from ..detection import Detection
from ..node_settings import gripper_from
from ..rgbd import RgbdFrame
from . import conversions
from .markers import MarkerBuilder


@dataclass(frozen=True)
class Result:
    """A detection as it is published and answered: ``grasps`` in order, the best one first."""

    detection: Detection
    grasps: tuple[GraspMessage, ...] = ()


def result_from(detection: Detection, header: Header, transform: np.ndarray | None,
                values: dict[str, Any], minimum_score: float) -> Result:
    """
    Rank the executable grasps of ``detection``, in the frame that ``header`` names.

    What scores below ``minimum_score`` is none.

    ``transform`` (4, 4) takes points from the camera's frame there, None where they are the same.
    """
    if detection.best is None:
        return Result(detection)
    others = [c for c in detection.alternatives if c.score >= minimum_score]
    ranked = [detection.best, *others[:values['maximum_alternatives']]]
    return Result(detection, tuple(
        conversions.grasp_message(c, header, transform, values['approach_offset'],
                                  values['gripper.tcp_offset']) for c in ranked))


class Outputs:
    """The publishers of a configured node; they are silent until the node is active."""

    def __init__(self, node, values: dict[str, Any]):
        """Create the publishers on ``node``, a lifecycle node."""
        self._node = node
        self.grasp = node.create_lifecycle_publisher(PoseStamped, '~/grasp', 10)
        self.pregrasp = node.create_lifecycle_publisher(PoseStamped, '~/pregrasp', 10)
        self.grasps = node.create_lifecycle_publisher(PoseArray, '~/grasps', 10)
        self.stages = node.create_lifecycle_publisher(GraspStages, '~/stages', 10)
        self.markers = node.create_lifecycle_publisher(MarkerArray, '~/markers', 10)
        self.debug = node.create_lifecycle_publisher(Image, '~/debug_image', 1)
        self._builder = MarkerBuilder(gripper_from(values), values['approach_offset'])
        self._bridge = cv_bridge.CvBridge()
        self._last: float | None = None
        self._period = 0.5

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in (self.grasp, self.pregrasp, self.grasps, self.stages, self.markers,
                          self.debug):
            self._node.destroy_lifecycle_publisher(publisher)

    def publish(self, result: Result, frame: RgbdFrame | None, header: Header,
                values: dict[str, Any], poses: bool = True) -> None:
        """
        Publish a result; ``header`` is the image's, ``frame`` None where it was unusable.

        Without ``poses`` only what is there to be looked at, and nothing that a robot follows.
        """
        if result.grasps and poses:
            best = result.grasps[0]
            self.grasp.publish(PoseStamped(header=best.header, pose=best.pose))
            self.pregrasp.publish(PoseStamped(header=best.header, pose=best.pregrasp))
            self.grasps.publish(PoseArray(header=best.header,
                                          poses=[g.pose for g in result.grasps]))
        detection = result.detection
        self.stages.publish(conversions.stages_message(detection, header))
        if frame is None:
            self.markers.publish(self._builder.clear(header))
            return
        # As the parameters are now.
        self._builder.gripper = gripper_from(values)
        self._builder.approach_offset = values['approach_offset']
        self.markers.publish(self._builder.build(detection, frame, header,
                                                 self._lifetime(values)))
        if self.debug.get_subscription_count():
            picture = visualization.draw_detection(frame.rgb, detection)
            self.debug.publish(self._bridge.cv2_to_imgmsg(picture, encoding='rgb8',
                                                          header=header))

    def _lifetime(self, values: dict[str, Any]) -> float:
        """Seconds that markers live: as asked, or two periods of the detections."""
        now = time.monotonic()
        if self._last is not None:
            self._period += 0.2 * (now - self._last - self._period)
        self._last = now
        if values['marker_lifetime'] or values['mode'] == 'on_demand':
            return values['marker_lifetime']
        return max(2 * self._period, 0.1)

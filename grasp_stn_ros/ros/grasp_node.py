"""
The node: images in, grasps out. A shell around :class:`PairInput` and :class:`GraspDetector`.

Three kinds of threads meet here, under the condition of the input:

* the executor's subscription callback stores the newest pair and notifies;
* the one inference thread takes the newest pair, decodes, detects and publishes; it alone calls
  the detector;
* each call of ``~/detect_grasp`` occupies an executor thread, which waits until the inference
  thread has an answer or its deadline has passed, whichever comes first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
import sys
import threading
import time
import traceback
from typing import Any

import cv_bridge
from geometry_msgs.msg import PoseStamped
import rclpy
from rclpy.executors import MultiThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from grasp_stn_interfaces.msg import GraspStages

from .. import visualization
from ..detection import Candidate, Detection
from ..grasp_pose import Gripper
from ..reasons import GraspError, Reason
from ..rgbd import RgbdFrame
from . import conversions, parameters
from .diagnostics import Diagnostics
from .inputs import Pair, PairInput
from .markers import MarkerBuilder
from .requests import MAXIMUM_REQUESTS, Region, Requests, Ticket, is_stale, sentence
from .spinning import Spinner, interruptible, stop_event


def gripper_from(values: dict[str, Any]) -> Gripper:
    """Return the gripper that the parameters describe."""
    prefix = 'gripper.'
    return Gripper(**{name.removeprefix(prefix): value for name, value in values.items()
                      if name.startswith(prefix)})


def default_detector(values: dict[str, Any]):
    """Create the detector that the parameters describe; loads the weights."""
    from ..detector import GraspDetector  # PyTorch takes seconds to import
    return GraspDetector(weights=values['model'], device=values['device'],
                         threads=values['threads'], candidates=values['candidates'],
                         gripper=gripper_from(values), approach=values['approach'],
                         approach_direction=tuple(values['approach_direction']))


class GraspNode(Node):
    """Detects grasps in synchronized RGB-D images, continuously or on demand."""

    def __init__(self, detector_factory: Callable[[dict[str, Any]], Any] = default_detector,
                 **node_arguments):
        """Load the model, then subscribe; raises ValueError on a bad parameter."""
        super().__init__('grasp_node', **node_arguments)
        parameters.declare(self)
        self._values = parameters.values(self)
        self.add_on_set_parameters_callback(parameters.validate)
        self.add_post_set_parameters_callback(self._apply_parameters)

        self._detector = detector_factory(self._values)
        self._detector.warm_up()
        self._markers = MarkerBuilder(gripper_from(self._values))
        self._bridge = cv_bridge.CvBridge()
        self._stopping = False
        self._seen = 0               # number of the newest pair that was looked at
        self._next_detection = 0.0   # time.monotonic(); limits the rate
        self._last_published: float | None = None
        self._period = 0.5
        self.dropped = 0

        self._grasp_publisher = self.create_publisher(PoseStamped, '~/grasp', 10)
        self._stages_publisher = self.create_publisher(GraspStages, '~/stages', 10)
        self._marker_publisher = self.create_publisher(MarkerArray, '~/markers', 10)
        self._debug_publisher = self.create_publisher(Image, '~/debug_image', 1)
        self._input = PairInput(self, self._values, self._count_dropped)
        self.requests = Requests(self, self._input, self._values)
        self._diagnostics = Diagnostics(self, self._input)
        self._thread = threading.Thread(target=self._infer_until_closed, name='inference',
                                        daemon=True)
        self._thread.start()
        # Last: where the service exists, the node is ready.
        self.requests.open()
        self.get_logger().info(
            f'ready: model {self._detector.model_name} on {self._detector.device}, mode '
            f'{self._values["mode"]}, waiting for {", ".join(self._input.counts)}')

    def close(self) -> None:
        """Stop the inference thread and answer whoever waits; the node publishes no more."""
        with self._input.condition:
            self._stopping = True
            self.requests.close()
            self._input.condition.notify_all()
        self._thread.join()

    # Executor threads.

    def _apply_parameters(self, _changed) -> None:
        values = parameters.values(self)
        with self._input.condition:
            self._values = self.requests.values = values
            self._next_detection = 0.0
            self._input.condition.notify_all()

    def _count_dropped(self, pair: Pair) -> None:
        """A new pair replaces one that nobody has looked at (the condition is held)."""
        if self._values['mode'] == 'continuous' and pair.number - self._seen > 1:
            self.dropped += 1

    # Inference thread.

    def _infer_until_closed(self) -> None:
        while True:
            with self._input.condition:
                while not self._stopping and not self._has_work():
                    pause = self._next_detection - time.monotonic()
                    self._input.condition.wait(pause if pause > 0 else None)
                if self._stopping:
                    return
                pair, self._seen = self._input.newest, self._input.newest.number
                tickets = self.requests.ready_for(pair)
                own = self._values['mode'] == 'continuous' and self._rate_allows()
                values = self._values
            try:
                self._process(pair, tickets, own, values)
            except Exception as error:
                if self._stopping or not self.context.ok():
                    return
                self.get_logger().error(f'detection failed: {traceback.format_exc()}',
                                        throttle_duration_sec=5.0)
                for ticket in tickets:
                    ticket.resolve(GraspError(Reason.INTERNAL_ERROR, repr(error)))

    def _has_work(self) -> bool:
        """Whether the newest pair is new and anybody wants it (the condition is held)."""
        if self._input.newest is None or self._input.newest.number == self._seen:
            return False
        if self.requests.waiting:
            return True
        return self._values['mode'] == 'continuous' and self._rate_allows()

    def _rate_allows(self) -> bool:
        return time.monotonic() >= self._next_detection

    def _process(self, pair: Pair, tickets: list[Ticket], own: bool,
                 values: dict[str, Any]) -> None:
        """Detect in ``pair`` for the requests and, if ``own``, for the topics; publish."""
        groups: dict[tuple[Region | None, float], list[Ticket]] = {}
        if own:
            groups[self.requests.own_region, values['minimum_score']] = []
            period = 1 / values['maximum_rate'] if values['maximum_rate'] else 0.0
            self._next_detection = time.monotonic() + period
        for ticket in tickets:
            groups.setdefault((ticket.region, ticket.minimum_score), []).append(ticket)
        if not groups:
            return
        stamp = pair.color.header
        header = Header(stamp=stamp.stamp, frame_id=values['frame_id'] or stamp.frame_id)
        began = time.perf_counter()
        frame, problem = self._decode(pair, values)
        decoding = (time.perf_counter() - began) * 1e3
        for (region, minimum_score), members in groups.items():
            detection = self._detect(frame, region, minimum_score) if problem is None else problem
            detection = replace(detection, milliseconds={'decoding': decoding,
                                                         **detection.milliseconds})
            for ticket in members:
                ticket.resolve((detection, header))
            self._publish(detection, frame, header, values)
            self._diagnostics.detected(detection, pair, self.dropped)

    def _decode(self, pair: Pair, values: dict[str, Any]
                ) -> tuple[RgbdFrame | None, Detection | None]:
        """Return the pair as a frame, or else a detection that says why it is none."""
        if is_stale(pair, values):
            return None, _failure(GraspError(Reason.STALE_FRAME, f'age {pair.age:.2f} s'))
        if pair.depth.header.frame_id != pair.color.header.frame_id:
            self.get_logger().warning(
                f'depth is in frame {pair.depth.header.frame_id!r}, colour in '
                f'{pair.color.header.frame_id!r}: is this the depth that is aligned to colour?',
                throttle_duration_sec=30.0)
        if values['intrinsics'] == 'K' and conversions.is_distorted(pair.info):
            self.get_logger().warning(
                'camera_info has lens distortion, which is not corrected: grasps are off towards '
                'the image border; rectify the images and set intrinsics to P', once=True)
        try:
            return conversions.frame_from_messages(pair.color, pair.depth, pair.info,
                                                   values['intrinsics']), None
        except GraspError as error:
            return None, _failure(error)

    def _detect(self, frame: RgbdFrame, region: Region | None, score: float) -> Detection:
        try:
            return self._detector.detect(frame, region=region, minimum_score=score)
        except GraspError as error:
            return _failure(error)
        except Exception as error:
            self.get_logger().error(f'detector failed: {traceback.format_exc()}',
                                    throttle_duration_sec=5.0)
            return _failure(GraspError(Reason.INTERNAL_ERROR, repr(error)))

    def _publish(self, detection: Detection, frame: RgbdFrame | None, header: Header,
                 values: dict[str, Any]) -> None:
        if detection.best is not None and detection.best.grasp is not None:
            self._grasp_publisher.publish(
                conversions.pose_stamped_message(detection.best.grasp, header))
        else:
            self.get_logger().warning(f'no grasp: {sentence(detection)}',
                                      throttle_duration_sec=5.0)
        self._stages_publisher.publish(conversions.stages_message(detection, header))
        if frame is None:
            self._marker_publisher.publish(self._markers.clear(header))
            return
        self._marker_publisher.publish(
            self._markers.build(detection, frame, header, self._lifetime(values)))
        if self._debug_publisher.get_subscription_count():
            picture = visualization.draw_detection(frame.rgb, detection)
            self._debug_publisher.publish(
                self._bridge.cv2_to_imgmsg(picture, encoding='rgb8', header=header))

    def _lifetime(self, values: dict[str, Any]) -> float:
        """Seconds that markers live: as asked, or two periods of the detections."""
        now = time.monotonic()
        if self._last_published is not None:
            self._period += 0.2 * (now - self._last_published - self._period)
        self._last_published = now
        if values['marker_lifetime'] or values['mode'] == 'on_demand':
            return values['marker_lifetime']
        return max(2 * self._period, 0.1)


def _failure(error: GraspError) -> Detection:
    candidates: tuple[Candidate, ...] = ()
    return Detection(candidates, None, error.reason, str(error))


def main(args: list[str] | None = None,
         detector_factory: Callable[[dict[str, Any]], Any] = default_detector) -> int:
    """
    Run the node until SIGINT or SIGTERM; the exit code.

    The main thread only waits: Python runs signal handlers there, and a thread inside DDS would
    delay them until the next message.
    """
    stop = stop_event()
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        with interruptible(stop):
            node = GraspNode(detector_factory)
    except KeyboardInterrupt:
        rclpy.try_shutdown()
        return 0
    except (ValueError, OSError, GraspError) as error:
        print(f'grasp_node: {error}', file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    executor = MultiThreadedExecutor(num_threads=MAXIMUM_REQUESTS + 4)
    executor.add_node(node)
    spinner = Spinner(executor, on_end=stop.set)
    stop.wait()
    node.close()
    spinner.stop()
    node.destroy_node()
    rclpy.try_shutdown()
    if spinner.failure is not None:
        print(f'grasp_node: {spinner.failure!r}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())

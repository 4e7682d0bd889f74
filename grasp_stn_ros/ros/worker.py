"""
The inference thread: takes the newest pair, decodes, detects, judges and hands the result on.

It alone calls the detector. Parameters are read once a pair, so a change takes effect with the
next one and never in the middle.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
import threading
import time
import traceback
from typing import Any

import numpy as np
from std_msgs.msg import Header

from .. import limits, node_settings, retry
from ..detection import Detection
from ..messages import pose_matrix, why_no_depth
from ..reasons import GraspError, Reason
from ..rgbd import RgbdFrame
from ..stability import Tracker
from . import conversions
from .diagnostics import Diagnostics
from .inputs import Pair, PairInput, stamp_nanoseconds
from .outputs import Outputs, Result, result_from
from .requests import (
    Failed,
    Region,
    Requests,
    Ticket,
    image_header,
    is_foreign,
    is_stale,
    sentence,
)
from .transforms import Transforms

# Longest wait for a running detection to end, seconds.
_PATIENCE = 10.0
_NAMELESS = ('the frame_id of the images is empty, and with it that of what is published in their '
             "frame; set the parameter frame_id to the camera's optical frame")


class Worker:
    """Runs from :meth:`start` to :meth:`stop`, while the node is active."""

    def __init__(self, node, detector: Any, outputs: Outputs, requests: Requests,
                 diagnostics: Diagnostics, transforms: Transforms | None,
                 condition: threading.Condition, values: dict[str, Any]):
        """Take part in ``condition``, which guards the newest pair, requests and ``values``."""
        self._node, self._detector, self._outputs = node, detector, outputs
        self._requests, self._diagnostics = requests, diagnostics
        self._transforms, self._condition = transforms, condition
        self.values = values
        self.drops: Counter[str] = Counter()
        self._input: PairInput | None = None
        self._stopping = False
        self._seen = 0               # number of the newest pair that was looked at
        self._was_given = False      # the last pair came with a request
        self._next_detection = 0.0   # time.monotonic(); limits the rate
        self._tracker = Tracker()
        self._forget = False
        self._thread = threading.Thread(target=self._run, name='inference', daemon=True)

    def start(self, pairs: PairInput) -> None:
        """Work on ``pairs``."""
        self._input = pairs
        self._thread.start()

    def stop(self) -> None:
        """Wait for the thread to end; raises RuntimeError if a detection hangs."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        if self._thread.ident is not None:
            self._thread.join(_PATIENCE)
            if self._thread.is_alive():
                raise RuntimeError(f'the detector has not returned within {_PATIENCE:.0f} s')

    # With the condition held.

    def changed(self, values: dict[str, Any]) -> None:
        """Use ``values`` from the next pair on."""
        self.values = values
        self._next_detection = 0.0

    def forget(self) -> None:
        """Start tracking afresh: the scene, the camera or the clock is another one."""
        self._forget = True

    def count_dropped(self, pair: Pair) -> None:
        """A new pair replaces one that nobody has looked at."""
        if self.values['mode'] == 'continuous' and pair.number - self._seen > 1 \
                and self._rate_allows():
            self.drops['busy'] += 1

    def _has_work(self, pairs: PairInput) -> bool:
        """Whether there is a pair, of the camera or of a request, that anybody wants."""
        return self._requests.brought or self._wants_newest(pairs)

    def _wants_newest(self, pairs: PairInput) -> bool:
        """Whether the newest pair is new and anybody wants it."""
        if pairs.newest is None or pairs.newest.number == self._seen:
            return False
        if self._requests.waiting:
            return True
        return self.values['mode'] == 'continuous' and self._rate_allows()

    def _rate_allows(self) -> bool:
        return time.monotonic() >= self._next_detection

    # Inference thread.

    def _run(self) -> None:
        pairs = self._input
        assert pairs is not None
        while True:
            with self._condition:
                while not self._stopping and not self._has_work(pairs):
                    pause = self._next_detection - time.monotonic()
                    self._condition.wait(pause if pause > 0 else None)
                if self._stopping:
                    return
                pair, tickets, own = self._next(pairs)
                values = self.values
                if self._forget:
                    self._forget = False
                    self._tracker.reset()
            try:
                self._process(pair, tickets, own, values)
            except Exception as error:
                if self._stopping or not self._node.context.ok():
                    return
                self._node.get_logger().error(f'detection failed: {traceback.format_exc()}',
                                              throttle_duration_sec=5.0)
                for ticket in tickets:
                    ticket.resolve(GraspError(Reason.INTERNAL_ERROR, repr(error)))

    def _next(self, pairs: PairInput) -> tuple[Pair, list[Ticket], bool]:
        """
        Return what to look at, for which requests, and whether for the topics.

        Camera and requests that brought images take turns (the condition is held).
        """
        self._was_given = self._requests.brought and not (
            self._was_given and self._wants_newest(pairs))
        if self._was_given:
            ticket = self._requests.next_brought()
            assert ticket.pair is not None
            return ticket.pair, [ticket], False
        pair = pairs.newest
        assert pair is not None
        self._seen = pair.number
        own = self.values['mode'] == 'continuous' and self._rate_allows()
        return pair, self._requests.ready_for(pair), own

    def _process(self, pair: Pair, tickets: list[Ticket], own: bool,
                 values: dict[str, Any]) -> None:
        """Detect in ``pair`` for the requests and, if ``own``, for the topics; publish."""
        groups: dict[tuple[Region | None, float, Failed], list[Ticket]] = {}
        if own:
            groups[node_settings.region_from(values), values['minimum_score'], ()] = []
            period = 1 / values['maximum_rate'] if values['maximum_rate'] else 0.0
            self._next_detection = time.monotonic() + period
        for ticket in tickets:
            groups.setdefault((ticket.region, ticket.minimum_score, ticket.failed),
                              []).append(ticket)
        if not groups:
            return
        assert self._input is not None
        foreign = is_foreign(pair, self._input.camera_frame)
        header = image_header(pair, values, foreign)
        began = time.perf_counter()
        frame, mask, problem = self._decode(pair, values)
        decoding = (time.perf_counter() - began) * 1e3
        target = Header(stamp=header.stamp, frame_id=values['target_frame'] or header.frame_id)
        transform: np.ndarray | None = None
        lost: Detection | None = None
        located = False
        for number, ((region, minimum_score, failed), members) in enumerate(groups.items()):
            stream = own and number == 0
            detection = problem or _strangers(failed, target.frame_id)
            if frame is not None and detection is None:
                detection = self._detect(frame, region, minimum_score, mask, values)
                if not located:
                    # Behind the detection: by now tf2 knows where a moving camera was.
                    transform, lost = self._locate(header, values, foreign)
                    located = True
                detection = self._judge(detection, frame, minimum_score, transform, mask, lost,
                                        values, failed)
            assert detection is not None
            detection = replace(detection, milliseconds={'decoding': decoding,
                                                         **detection.milliseconds})
            result = result_from(detection, target, transform, values, minimum_score)
            for ticket in members:
                ticket.resolve(result)
            if stream:
                if values['stability.enabled'] and frame is not None and lost is None:
                    result = result_from(self._steady(detection, minimum_score, transform, values),
                                         target, transform, values, minimum_score)
                result = self._unless_late(result, pair, values)
            # Who follows the grasps of the stream did not ask for those of others.
            main = stream or values['mode'] == 'on_demand'
            self._publish(result, frame, header, values, main)
            self._diagnostics.detected(result.detection,
                                       pair.age if main and not pair.given else None)

    def _unless_late(self, result: Result, pair: Pair, values: dict[str, Any]) -> Result:
        """Keep a grasp of the stream back that became too old while it was computed."""
        now = self._node.get_clock().now().nanoseconds
        age = (now - stamp_nanoseconds(pair.color)) / 1e9
        if not result.grasps or not 0 < values['maximum_frame_age'] < age:
            return result
        self.drops['late'] += 1
        late = GraspError(Reason.STALE_FRAME, f'age {age:.2f} s after the detection')
        return Result(replace(result.detection, best=None, reason=late.reason, message=str(late)))

    def _decode(self, pair: Pair, values: dict[str, Any]
                ) -> tuple[RgbdFrame | None, np.ndarray | None, Detection | None]:
        """Return frame and mask of the pair, or else a detection that says why it is none."""
        try:
            if is_stale(pair, values):
                self.drops['stale'] += 1
                raise GraspError(Reason.STALE_FRAME, f'age {pair.age:.2f} s')
            self._check_frames(pair, values)
            frame = conversions.frame_from_messages(pair.color, pair.depth, pair.info,
                                                    values['intrinsics'])
            if frame.depth is not None and not np.isfinite(frame.depth).any():
                raise GraspError(Reason.NO_DEPTH, why_no_depth(pair.depth))
            mask = self._mask(pair, frame, values)
        except GraspError as error:
            return None, None, _failure(error)
        if values['intrinsics'] == 'K' and conversions.is_distorted(pair.info):
            self._node.get_logger().warning(
                'camera_info has lens distortion, which is not corrected: grasps are off towards '
                'the image border; rectify the images and set intrinsics to P', once=True)
        return frame, mask, None

    def _check_frames(self, pair: Pair, values: dict[str, Any]) -> None:
        """Depth in another frame than colour is most often depth that is not aligned."""
        depth, color = pair.depth.header.frame_id, pair.color.header.frame_id
        nameless = '' if values['frame_id'] or color else _NAMELESS
        if not pair.given:  # diagnostics speak of the camera
            self._diagnostics.nameless = nameless
        if nameless:
            self._node.get_logger().warning(_NAMELESS, throttle_duration_sec=30.0)
        if depth == color:
            return
        node_settings.check_frames(values, color, depth)
        self._node.get_logger().warning(
            f'depth is in frame {depth!r}, colour in {color!r}: is this the depth that is aligned '
            'to colour?', throttle_duration_sec=30.0)

    def _mask(self, pair: Pair, frame: RgbdFrame, values: dict[str, Any]) -> np.ndarray | None:
        """Return the mask of the pair; without the one that was asked for there is no grasp."""
        wanted = pair.mask is not None if pair.given else bool(values['mask_topic'])
        if not wanted:
            return None
        if pair.mask is None:
            assert self._input is not None
            raise GraspError(Reason.MASKED, self._input.why_no_mask)
        apart = abs(stamp_nanoseconds(pair.mask) - stamp_nanoseconds(pair.color)) / 1e9
        if not pair.given and 0 < values['maximum_mask_age'] < apart:
            raise GraspError(Reason.MASKED, f'the newest mask is {apart:.2f} s away from the '
                             f'image, maximum_mask_age is {values["maximum_mask_age"]} s')
        mask = conversions.mask_from_message(pair.mask)
        frame.check_mask(mask)
        return mask

    def _locate(self, header: Header, values: dict[str, Any], foreign: bool
                ) -> tuple[np.ndarray | None, Detection | None]:
        """Return the transform into the target frame, or why there is none."""
        if self._transforms is None:
            return None, None
        try:
            if foreign and any(values['camera_pose']):
                raise GraspError(Reason.NO_TRANSFORM, 'camera_pose is that of the camera, these '
                                 f'images are of another one, {header.frame_id!r}')
            return self._transforms.look_up(header, values), None
        except GraspError as error:
            return None, _failure(error)

    def _detect(self, frame: RgbdFrame, region: Region | None, score: float,
                mask: np.ndarray | None, values: dict[str, Any]) -> Detection:
        # Live parameters that the detector keeps.
        for name, value in node_settings.detector_settings(values).items():
            setattr(self._detector, name, value)
        try:
            return self._detector.detect(frame, region=region, minimum_score=score, mask=mask)
        except GraspError as error:
            if error.reason == Reason.INVALID_REQUEST and region \
                    and region == node_settings.region_from(values):
                # Nobody may have asked for anything.
                return Detection((), None, error.reason, 'the parameter region does not fit the '
                                 f'image, set another one: {error.detail}')
            return _failure(error)
        except Exception as error:
            self._node.get_logger().error(f'detector failed: {traceback.format_exc()}',
                                          throttle_duration_sec=5.0)
            return _failure(GraspError(Reason.INTERNAL_ERROR, repr(error)))

    def _judge(self, detection: Detection, frame: RgbdFrame, score: float,
               transform: np.ndarray | None, mask: np.ndarray | None, lost: Detection | None,
               values: dict[str, Any], failed: Failed) -> Detection:
        """Apply the limits of the cell and what has failed."""
        if lost is not None:  # candidates are worth looking at, but go nowhere
            return replace(detection, best=None, reason=lost.reason, message=lost.message)
        detection = limits.apply(detection, node_settings.limits_from(values), frame, score,
                                 transform, mask)
        if not failed:
            return detection
        to_camera = np.eye(4) if transform is None else np.linalg.inv(transform)
        return retry.after_failures(
            detection, [to_camera @ pose_matrix(*numbers) for _, numbers in failed], score)

    def _steady(self, detection: Detection, score: float, transform: np.ndarray | None,
                values: dict[str, Any]) -> Detection:
        """Choose for the stream what does not jump from frame to frame."""
        self._tracker.settings = node_settings.stability_from(values)
        return self._tracker.choose(detection, score, transform)

    def _publish(self, result: Result, frame: RgbdFrame | None, header: Header,
                 values: dict[str, Any], poses: bool) -> None:
        if not result.grasps:
            self._node.get_logger().warning(f'no grasp: {sentence(result.detection)}',
                                            throttle_duration_sec=5.0)
        self._outputs.publish(result, frame, header, values, poses)


def _strangers(failed: Failed, frame: str) -> Detection | None:
    """Say where failed grasps are not in the frame of the answers, as they were when they came."""
    other = next((name for name, _ in failed if name not in ('', frame)), None)
    if other is None:
        return None
    return _failure(GraspError(Reason.INVALID_REQUEST, f'failed grasps are in frame {other!r}, '
                                                       f'the answers in {frame!r}'))


def _failure(error: GraspError) -> Detection:
    return Detection((), None, error.reason, str(error))

"""
Detecting again in a recording, and what is different from before or from another model.

Two grasps are the same where the rectangle metric says so (IoU > 25 %, angles within 30 degrees):
that is the paper's measure of whether a grasp is the one that was meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
import math
from typing import Any

import numpy as np

from .. import limits, retry
from ..detection import MINIMUM_SCORE, Detection
from ..limits import Limits
from ..node_settings import (
    camera_pose_from,
    check_frames,
    gripper_from,
    limits_from,
    region_from,
)
from ..reasons import GraspError, Reason
from ..rectangle import angle_distance, iou, is_correct
from ..rgbd import RgbdFrame
from .reader import Moment, RecordingError

Detect = Callable[[Moment], Detection]
# Openings and poses that differ by less are the same to every gripper; scores, to every user.
_SAME_METRES, _SAME_SCORE = 0.0005, 0.005
# Why a node looked at an image but not for grasps in it, and why it kept back those it had found;
# a replay of the image cannot know either.
_NOT_OF_THE_IMAGE = (Reason.STALE_FRAME, Reason.NO_TRANSFORM, Reason.MASKED, Reason.OUT_OF_MEMORY,
                     Reason.SIZE_MISMATCH)
_LATER = (Reason.STALE_FRAME, Reason.NO_TRANSFORM)
OUTCOMES = ('same grasp', 'other grasp', 'only A', 'only B', 'neither')


class AsNode:
    """
    What the node with recorded ``parameters`` would make of a moment, as far as it can be known.

    Everything that the parameters say is applied: region, minimum score, what the cell allows.
    What is not in a recording is :attr:`gaps`: neither side of a comparison has it. Raises
    :class:`RecordingError` for parameters that cannot be.
    """

    def __init__(self, parameters: Mapping[str, Any], minimum_score: float | None = None):
        """``minimum_score`` in place of the recorded one."""
        try:
            self.gripper = gripper_from(parameters)
            self.region = region_from(parameters)
            self.minimum_score = minimum_score if minimum_score is not None else \
                float(parameters.get('minimum_score', MINIMUM_SCORE))
            self._limits = limits_from(parameters)
            self._pose = camera_pose_from(parameters)
        except (ValueError, TypeError) as error:
            raise RecordingError(f'BAD_PARAMETERS: what was recorded of the node cannot be: '
                                 f'{error}') from None
        self._parameters = parameters
        self._target = parameters.get('target_frame', '')
        self._frame_id = parameters.get('frame_id', '')
        self._masked = bool(parameters.get('mask_topic'))
        self._tracked = bool(parameters.get('stability.enabled'))
        # In place of a list: said once, in the order in which they were met.
        self._gaps: dict[str, None] = {}
        if self._masked:
            self._gaps[f'mask_topic: what came on {parameters["mask_topic"]} is not recorded; '
                       'grasps that it forbade are taken for allowed'] = None
        if self._tracked:
            self._gaps['stability.enabled: what the tracker had seen before is not recorded; the '
                       'best grasp of each image is compared, not the one it kept'] = None

    @property
    def gaps(self) -> list[str]:
        """What could not be reproduced so far, as sentences; more may come with each moment."""
        return list(self._gaps)

    def again(self, detector) -> Detect:
        """Return a function that detects in a moment with ``detector``."""
        def detect(moment: Moment) -> Detection:
            frame = moment.frame
            if isinstance(frame, str):
                raise ValueError('the moment has no frame')
            try:
                self._check(moment, frame)
                detection = detector.detect(frame, region=self.region,
                                            minimum_score=self.minimum_score)
            except GraspError as error:
                return Detection((), None, error.reason, str(error))
            cell, transform = self._cell(moment)
            detection = limits.apply(detection, cell, frame, self.minimum_score, transform)
            # Of the request, if there was one; everybody else has to know as well.
            failed = moment.detection.failed if moment.detection is not None else ()
            return retry.after_failures(detection, failed, self.minimum_score)

        return detect

    def recorded(self, moment: Moment) -> Detection | None:
        """
        Return what the node found then, less what a replay cannot know; None: not comparable.

        Where the node chose by a tracker, a mask or an unknown transform, the best is the one
        that it would have chosen without.
        """
        found, frame = moment.detection, moment.frame
        if found is None or isinstance(frame, str):
            return found
        if found.reason in _NOT_OF_THE_IMAGE and not found.candidates:
            self._gaps[f'{found.reason.name}: that is not in the images; those that the node '
                       'refused for it are not compared'] = None
            return None
        cell, transform = self._cell(moment)
        unjudged = found.reason in _LATER
        if unjudged:
            self._gaps[f'{found.reason.name}: that is not in the images; what the node found '
                       'in them all the same is compared'] = None
        hidden = {Reason.MASKED} if self._masked else set()
        if cell is not self._limits:
            hidden.add(Reason.OUTSIDE_WORKSPACE)
        doubtful = [unjudged or c.reason in hidden for c in found.candidates]
        if not any(doubtful) and not self._tracked:
            return found
        free = replace(found, candidates=tuple(
            replace(c, reason=Reason.OK) if c.reason in hidden else c for c in found.candidates))
        judged = limits.apply(free, cell, frame, self.minimum_score, transform).candidates
        candidates = tuple(new if doubt else old for old, new, doubt in
                           zip(found.candidates, judged, doubtful, strict=True))
        best = next((c for c in candidates if c.executable and c.score >= self.minimum_score),
                    None)
        if best is None and not any(doubtful):
            return found
        return limits.chosen(replace(found, candidates=candidates), best)

    def _check(self, moment: Moment, frame: RgbdFrame) -> None:
        """Refuse what the node refuses before it detects; raises :class:`GraspError`."""
        check_frames(self._parameters, moment.frame_id, moment.depth_frame_id)
        if frame.depth is not None and not np.isfinite(frame.depth).any():
            raise GraspError(Reason.NO_DEPTH, 'not one pixel of the depth image is valid')

    def _cell(self, moment: Moment) -> tuple[Limits, np.ndarray | None]:
        """Return what is allowed at a moment, and the transform into the target frame."""
        if self._target in ('', self._frame_id or moment.frame_id):
            return self._limits, None
        if self._pose is not None:
            return self._limits, self._pose
        if self._limits.workspace is not None:
            self._gaps[f'target_frame: the transform to {self._target} is not recorded; the '
                       'workspace is not applied'] = None
        return replace(self._limits, workspace=None, opening_preference=None), None


@dataclass(frozen=True)
class Side:
    """One of the two that are compared: its name, and what it says about a moment (or None)."""

    name: str
    detect: Callable[[Moment], Detection | None]


def _grasp_record(detection: Detection) -> dict[str, Any]:
    """Reason and best grasp of a detection, JSON-serializable."""
    record: dict[str, Any] = {'reason': detection.reason.name,
                              'candidates': len(detection.candidates)}
    best = detection.best
    if best is None:
        return {**record, 'score': None, 'rectangle': None, 'position': None, 'opening': None}
    grasp = best.grasp
    return {**record, 'score': best.score, 'rectangle': best.rectangle.as_array().tolist(),
            'position': grasp.position.tolist() if grasp else None,
            'opening': grasp.opening if grasp else None}


def compare(a: Detection, b: Detection) -> dict[str, Any]:
    """
    What is different between two detections in one image.

    ``outcome`` is one of :data:`OUTCOMES`; ``identical`` whether not even numbers differ. Lengths
    in metres, angles in degrees, ``distance`` in pixels; None where one has no grasp.
    """
    result: dict[str, Any] = dict.fromkeys(
        ('iou', 'angle', 'distance', 'position', 'opening', 'score'))
    if a.best is None or b.best is None:
        outcome = OUTCOMES[2] if a.best else OUTCOMES[3] if b.best else OUTCOMES[4]
        return {'outcome': outcome, 'identical': outcome == OUTCOMES[4] and a.reason == b.reason,
                **result}
    first, second = a.best.rectangle, b.best.rectangle
    result.update(
        iou=iou(first, second),
        angle=math.degrees(float(angle_distance(first.theta, second.theta))),
        distance=float(np.hypot(first.x - second.x, first.y - second.y)),
        score=b.best.score - a.best.score)
    if a.best.grasp is not None and b.best.grasp is not None:
        result.update(position=float(np.linalg.norm(b.best.grasp.position
                                                    - a.best.grasp.position)),
                      opening=b.best.grasp.opening - a.best.grasp.opening)
    same = is_correct(second, [first])
    identical = same and result['iou'] > 0.99 and abs(result['score']) < _SAME_SCORE \
        and abs(result['opening'] or 0.0) < _SAME_METRES \
        and (result['position'] or 0.0) < _SAME_METRES
    return {'outcome': OUTCOMES[0] if same else OUTCOMES[1], 'identical': bool(identical),
            **result}


def rows(moments: Iterable[Moment], a: Side, b: Side | None) -> Iterator[dict[str, Any]]:
    """Return one record a moment, JSON-serializable: what A and B found and what differs."""
    for index, moment in enumerate(moments):
        row: dict[str, Any] = {'index': index, 'name': moment.name, 'time': moment.time}
        if isinstance(moment.frame, str):
            yield {**row, 'error': moment.frame}
            continue
        first = a.detect(moment)
        second = b.detect(moment) if b is not None else None
        row['a'] = _grasp_record(first) if first is not None else None
        row['milliseconds'] = round(sum(first.milliseconds.values()), 3) if first else None
        if b is not None:
            row['b'] = _grasp_record(second) if second is not None else None
            if first is not None and second is not None:
                row['difference'] = compare(first, second)
        yield row


def summarize(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Count outcomes over all moments; medians and extremes of what differs."""
    differences = [r['difference'] for r in records if 'difference' in r]
    result: dict[str, Any] = {
        'n': len(records), 'unreadable': sum('error' in r for r in records),
        'grasps': sum(bool(r.get('a')) and r['a']['score'] is not None for r in records),
        'compared': len(differences), 'identical': sum(d['identical'] for d in differences)}
    for outcome in OUTCOMES:
        result[outcome.replace(' ', '_').lower()] = sum(d['outcome'] == outcome
                                                        for d in differences)
    for key in ('iou', 'angle', 'position', 'opening', 'score'):
        values = [abs(d[key]) for d in differences if d[key] is not None]
        worst = min if key == 'iou' else max
        result[f'{key}_median'] = float(np.median(values)) if values else None
        result[f'{key}_worst'] = float(worst(values)) if values else None
    return result

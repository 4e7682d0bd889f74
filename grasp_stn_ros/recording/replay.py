"""
Detecting again in a recording, and what is different from before or from another model.

Two grasps are the same where the rectangle metric says so (IoU > 25 %, angles within 30 degrees):
that is the paper's measure of whether a grasp is the one that was meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
import dataclasses
from dataclasses import dataclass
import math
from typing import Any

import numpy as np

from ..detection import MINIMUM_SCORE, Detection
from ..grasp_pose import Gripper
from ..middle import weight_of
from ..reasons import GraspError
from ..rectangle import angle_distance, iou, is_correct
from .reader import Moment

Detect = Callable[[Moment], Detection]
# Openings and poses that differ by less are the same to every gripper; scores, to every user.
_SAME_METRES, _SAME_SCORE = 0.0005, 0.005
OUTCOMES = ('same grasp', 'other grasp', 'only A', 'only B', 'neither')


def detector_settings(parameters: dict[str, Any]) -> dict[str, Any]:
    """
    Parameters of a node -> what its detector is created with: gripper, approach, preference.

    What the recording does not say has the package's default.
    """
    names = {field.name for field in dataclasses.fields(Gripper)}
    lengths = {name.partition('.')[2]: value for name, value in parameters.items()
               if name.startswith('gripper.')}
    return {'gripper': Gripper(**{k: v for k, v in lengths.items() if k in names}),
            'approach': parameters.get('approach', 'support_plane'),
            'approach_direction': tuple(parameters.get('approach_direction', (0.0, 0.0, 1.0))),
            'middle_weight': weight_of(parameters.get('middle_weight', -1.0))}


def detect_settings(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a node -> region and minimum score of each detection."""
    region = tuple(parameters.get('region') or (0, 0, 0, 0))
    return {'region': region if any(region) else None,
            'minimum_score': parameters.get('minimum_score', MINIMUM_SCORE)}


def again(detector, parameters: dict[str, Any]) -> Detect:
    """Return a function that detects in a moment as the node with ``parameters`` would."""
    settings = detect_settings(parameters)

    def detect(moment: Moment) -> Detection:
        if isinstance(moment.frame, str):
            raise ValueError('the moment has no frame')
        try:
            return detector.detect(moment.frame, **settings)
        except GraspError as error:
            return Detection((), None, error.reason, str(error))

    return detect


@dataclass(frozen=True)
class Side:
    """One of the two that are compared: its name, and what it says about a moment (or None)."""

    name: str
    detect: Callable[[Moment], Detection | None]


def recorded(moment: Moment) -> Detection | None:
    """Return what the node found when the recording was made."""
    return moment.detection


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

"""Accuracy by the rectangle metric, strict versions of it, and what each stage contributes."""

from __future__ import annotations

from dataclasses import dataclass
import math

import numpy as np

from ..data.sample import Dataset
from ..detector import GraspDetector
from ..rectangle import GraspRectangle, angle_distance, iou, is_correct

# (IoU, degrees): the paper's metric first, then the strict one.
PLAIN, STRICT = (0.25, 30.0), (0.50, 15.0)
# Two grasps whose scores differ by less may change places without anybody losing.
TIED = 0.02
# Scores of other models are no probabilities: from here on a best candidate counts as an answer.
_ANSWER = 0.02
# Thresholds of the rectangle metric that are reported side by side.
IOUS, DEGREES = (0.25, 0.30, 0.40, 0.50), (30, 20, 10)


@dataclass(frozen=True)
class Outcome:
    """One test image: is the best grasp correct, is any candidate, and how good its score was."""

    plain: bool
    strict: bool
    any_plain: bool
    located: bool           # some proposed location within 8 view pixels of a label
    success_share: float    # of the labelled trials in this image
    score: float
    has_depth: bool
    index: int = 0          # of the frame
    best: GraspRectangle | None = None


def _correct(rectangle, labels, metric: tuple[float, float]) -> bool:
    return is_correct(rectangle, labels, metric[0], math.radians(metric[1]))


def same_grasp(a: GraspRectangle, b: GraspRectangle) -> bool:
    """Tell whether two answers are one grasp, by the strict metric."""
    return _correct(a, [b], STRICT)


def metric_name(min_iou: float, degrees: float) -> str:
    """Name of the metric with these thresholds, such as 'iou25_30deg'."""
    return f'iou{round(100 * min_iou)}_{round(degrees)}deg'


def correct_by(predicted: GraspRectangle, labels: list[GraspRectangle]) -> bool:
    """Tell whether ``predicted`` is correct by the paper's metric."""
    return _correct(predicted, labels, PLAIN)


def correct_at(predicted: GraspRectangle | None, labels: list[GraspRectangle]) -> dict[str, bool]:
    """
    Tell whether ``predicted`` is correct at each pair of :data:`IOUS` and :data:`DEGREES`.

    None, no answer, is wrong at all of them. Both conditions must hold for the same label.
    """
    alike = [] if predicted is None else [
        (iou(predicted, label), math.degrees(angle_distance(predicted.theta, label.theta)))
        for label in labels]
    return {metric_name(least, most): any(o > least and turn <= most for o, turn in alike)
            for least in IOUS for most in DEGREES}


def judge(detector: GraspDetector, data: Dataset, limit: int | None = None) -> list[Outcome]:
    """
    Run ``detector`` on every frame that has a graspable label.

    A frame without one cannot be answered correctly by any rectangle and is left out, which is
    the number that ``n`` reports. A data set with a ``region`` is looked at there: a rule for all
    of its images that does not see their labels. ``limit`` ends it after so many outcomes.
    """
    region = getattr(data, 'region', None)
    outcomes: list[Outcome] = []
    for index in range(len(data)):
        if limit and len(outcomes) == limit:
            break
        sample = data[index]
        labels = sample.graspable()
        if not labels:
            continue
        detection = detector.detect(sample.frame, region=region, minimum_score=_ANSWER,
                                    need_pose=False, jaw_pixels=sample.jaw_pixels)
        best = detection.best
        rectangles = [c.rectangle for c in detection.candidates]
        centres = np.array([[r.x, r.y] for r in labels])
        scale = detection.region[2] / 400.0
        located = any(np.hypot(*(centres - c.location).T).min() < 8 * scale
                      for c in detection.candidates)
        outcomes.append(Outcome(
            plain=best is not None and _correct(best.rectangle, labels, PLAIN),
            strict=best is not None and _correct(best.rectangle, labels, STRICT),
            any_plain=any(_correct(r, labels, PLAIN) for r in rectangles),
            located=located,
            success_share=float(sample.success.mean()),
            score=best.score if best is not None else 0.0,
            has_depth=sample.frame.depth is not None, index=index,
            best=best.rectangle if best is not None else None))
    return outcomes


def summarize(outcomes: list[Outcome]) -> dict[str, float]:
    """Shares in [0, 1] and n."""
    if not outcomes:
        return {'n': 0}
    graspable = [o for o in outcomes if o.success_share >= 0.1]
    return {'plain': float(np.mean([o.plain for o in outcomes])),
            'strict': float(np.mean([o.strict for o in outcomes])),
            'any_plain': float(np.mean([o.any_plain for o in outcomes])),
            'located': float(np.mean([o.located for o in outcomes])),
            'plain_share_above_0.1': float(np.mean([o.plain for o in graspable or outcomes])),
            'n': len(outcomes), **_with_depth(outcomes)}


def _with_depth(outcomes: list[Outcome]) -> dict[str, float]:
    """The same for the frames with depth, where not all have it."""
    some = [o for o in outcomes if o.has_depth]
    if len(some) == len(outcomes):
        return {}
    if not some:
        return {'n_rgbd': 0}
    return {'plain_rgbd': float(np.mean([o.plain for o in some])),
            'strict_rgbd': float(np.mean([o.strict for o in some])), 'n_rgbd': len(some)}

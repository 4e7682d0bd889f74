"""What all grasp networks have in common: their configuration and what they return."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass, fields, replace
import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
import torch.nn.functional as F

from ..settings_check import AT_LEAST_ONE, POSITIVE, SHARE, check
from .tracing import Part, Tracer

# A logit whose sigmoid is one: where a network has no doubt, or cannot express it.
CERTAIN = 30.0
# Tips go deeper unless that lifts less often by more than this: what is held near its middle
# turns less, and the network is not surer than that.
_DEEPER = 0.02


# Of the fields of all configurations, see settings_check.check.
_RANGES = {'candidates': (1, 256), 'calibration': (-math.inf, math.inf), 'dropout': SHARE,
           **dict.fromkeys(('channels', 'features', 'fine_channels', 'grid', 'patch',
                            'orientations', 'chunk', 'hidden'), AT_LEAST_ONE),
           **dict.fromkeys(('width', 'context', 'step'), POSITIVE)}


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True)
class NetworkConfig:
    """What is needed to build a network again from its weights."""

    channels: int = 7
    candidates: int = 4
    calibration: tuple[float, float] = (1.0, 0.0)   # of the score, see StageOutputs
    middle_weight: float = 0.0                      # 1/m, see grasp_stn_ros.middle
    # View pixels that the jaws have at least where they are told and there is no depth: the view
    # is larger then, as preprocessing.size_for_jaw says. 0 = never.
    told_jaw: float = 0.0
    # The same where depth says how large they are; of a near camera the view is smaller then.
    seen_jaw: float = 0.0

    def __post_init__(self) -> None:
        """Lists from JSON become tuples; ValueError where a value cannot be used."""
        for field in fields(self):
            object.__setattr__(self, field.name, _tuples(getattr(self, field.name)))
        check(self, **_RANGES)

    def to_dict(self) -> dict[str, Any]:
        """JSON-serializable."""
        return asdict(self)


@dataclass(frozen=True)
class StageOutputs:
    """
    Everything the network decided about a batch; coordinates in view pixels.

    ``locations`` (B, K, 2) and ``location_logits`` (B, K) of STN_crop, ``theta`` (B, K) radians
    of STN_rotation, ``rectangles`` (B, K, 5) of STN_scale,crop, ``score_logits`` (B, K, 2) of the
    classifier. ``calibration`` (slope, offset) turns the logit of the score into that of the
    probability that the grasp succeeds (Platt 1999). The score is the product of the classifier's
    probabilities and, with ``location_weight`` as exponent, STN_crop's of the location. Of the
    D ``finger_depths``, metres, ``depth_logits`` (B, K, D) say whether a grasp lifts with tips
    so far below the surface; D may be 0.
    """

    locations: Tensor
    location_logits: Tensor
    theta: Tensor
    rectangles: Tensor
    score_logits: Tensor
    calibration: tuple[float, float] = (1.0, 0.0)
    location_weight: float = 0.0
    finger_depths: tuple[float, ...] = ()
    depth_logits: Tensor | None = None

    def with_fingers(self, longest: float) -> tuple[StageOutputs, Tensor]:
        """
        Let the tips go as far below the surface as lifts best, at most ``longest`` metres.

        Returns the outputs with the lift logits of those depths, and the depths (B, K) in metres.
        ``longest`` itself is one of the choices and counts as the next of ``finger_depths``.

        Such a lift logit is the mean of what the classifier says of the depth and what it says
        without one: two opinions on one patch, from trials at this depth and from many more.
        """
        if not self.finger_depths or self.depth_logits is None:
            return self, torch.full_like(self.location_logits, longest)
        shorter = [i for i, depth in enumerate(self.finger_depths[:-1]) if depth < longest]
        full = next((i for i, depth in enumerate(self.finger_depths) if depth >= longest),
                    len(self.finger_depths) - 1)
        logits = torch.stack([self.depth_logits[..., i] for i in (*shorter, full)], dim=-1)
        lifts = torch.sigmoid(logits.float())
        near = lifts >= lifts.amax(dim=-1, keepdim=True) - _DEEPER
        order = torch.arange(1, len(shorter) + 2, device=logits.device)
        chosen = (near * order).argmax(dim=-1, keepdim=True)
        # Filled and stacked: numbers copied to a GPU would be waited for.
        depths = torch.stack([torch.full_like(self.location_logits, depth) for depth in
                              (*(self.finger_depths[i] for i in shorter), longest)], dim=-1)
        match, lift = self.score_logits.unbind(-1)
        lift = (lift + logits.gather(-1, chosen)[..., 0]) / 2
        return (replace(self, score_logits=torch.stack([match, lift], dim=-1)),
                depths.gather(-1, chosen)[..., 0])

    @property
    def scores(self) -> Tensor:
        """Scores (B, K) in [0, 1]; 0 where STN_crop had no further location to propose."""
        located = self.location_weight * F.logsigmoid(self.location_logits.float())
        scores = torch.sigmoid(score_logit(self.score_logits, located) * self.calibration[0]
                               + self.calibration[1])
        return torch.where(self.location_logits > -1e3, scores, torch.zeros_like(scores))

    def best(self, count: int) -> StageOutputs:
        """Keep the ``count`` candidates with the best scores, or all if there are not so many."""
        if count >= self.locations.shape[1]:
            return self
        index = self.scores.topk(count, dim=1).indices

        def chosen(values: Tensor) -> Tensor:
            extra = values.shape[2:]
            return values.gather(1, index.reshape(*index.shape, *[1] * len(extra))
                                 .expand(*index.shape, *extra))

        return replace(
            self, locations=chosen(self.locations), location_logits=chosen(self.location_logits),
            theta=chosen(self.theta), rectangles=chosen(self.rectangles),
            score_logits=chosen(self.score_logits),
            depth_logits=None if self.depth_logits is None else chosen(self.depth_logits))


def score_logit(logits: Tensor, more: Tensor | float = 0.0) -> Tensor:
    """
    Logits (..., 2) of match and lift -> logit (...) of the product of their probabilities.

    ``more`` (...) is the logarithm of a further factor.
    """
    log_score = F.logsigmoid(logits.float()).sum(-1) + more
    # log(p / (1 - p)); p is kept from 1, where the logit has no end.
    return log_score - torch.log(1 - torch.exp(log_score.clamp(max=-1e-7)))


def one_logit(logits: Tensor) -> Tensor:
    """Scores from a single logit (B, K) -> score logits (B, K, 2) with the same score."""
    return torch.stack([logits, torch.full_like(logits, CERTAIN)], dim=-1)


class GraspNetwork(nn.Module):
    """
    Base class of every network that :class:`GraspDetector` can run.

    ``ARCHITECTURE`` is its name in sidecars, ``SUMMARY`` what it is, ``CONFIG`` the class of its
    configuration and ``TITLES`` what its four intermediate results are called in pictures.
    """

    ARCHITECTURE: ClassVar[str]
    SUMMARY: ClassVar[str] = 'A multi-stage spatial transformer network'
    CONFIG: ClassVar[type[NetworkConfig]]
    TITLES: ClassVar[tuple[str, str, str, str]] = (
        '1  STN crop: locations', '2  STN rotation: angles', '3  STN scale, crop: rectangles',
        '4  classifier: scores')
    # Whether its forward pass goes through :meth:`part`; then the casts of autocast are its own.
    TRACEABLE: ClassVar[bool] = False
    # Whether it can be told where to look: its forward pass takes a map of ``allowed`` locations.
    STEERABLE: ClassVar[bool] = False
    config: NetworkConfig
    tracer: Tracer | None = None      # set for use, not for training

    def __init__(self, config: NetworkConfig | None = None):
        """Build an untrained network; None is the default configuration."""
        super().__init__()

    def forward(self, image: Tensor, candidates: int = 0,
                lap: Callable[[str], None] = lambda name: None,
                jaw: Tensor | None = None) -> StageOutputs:
        """
        Image (B, 7, S, S) float32 as prepared by :mod:`preprocessing` -> all stages' results.

        ``candidates`` overrides K, or limits it where the network has a fixed number; ``lap`` is
        told the name of each stage that is done; ``jaw`` (B,) is the height of the gripper's jaw
        plates in view pixels, 0 = not known, for networks that ask for it.
        """
        raise NotImplementedError

    def for_images(self, with_depth: bool) -> GraspNetwork:
        """Return the network for images with or without depth: this one, or one within it."""
        return self

    def part(self, key: Hashable, function: Part, *tensors: Tensor) -> Any:
        """Return function(*tensors), traced where there is a tracer; see :class:`Tracer`."""
        return function(*tensors) if self.tracer is None else self.tracer(key, function, *tensors)

"""
The losses of the four blocks, on ground truth and on the network's own candidates.

*Ground truth* (stage-wise training, section III-E of the paper): each block sees what a perfect
block before it would have handed over, with some jitter. *Own candidates* (end to end): each
block also sees what the blocks before it really propose, and the gradient of the fit flows back
through the sampling grids into location and angle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import math

import torch
from torch import Tensor
import torch.nn.functional as F

from ..data.sample import Batch
from ..settings_check import AT_LEAST_ONE, SHARE, check
from ..stn.multi_stage import MultiStageSTN
from ..stn.network import score_logit
from . import targets, terms
from .distillation import Lesson, Teachers

STAGES = ('crop', 'rotation', 'scale_crop', 'classifier')


@dataclass(frozen=True)
class LossSettings:
    """How many candidates per image each block is trained on, and how much they are jittered."""

    locations: int = 6                       # ground truth per image for stages 2 and 3
    classified: int = 10                     # for stage 4
    own: int = 6                             # own proposals per image
    location_jitter: float = 3.5             # pixels
    angle_jitter: float = math.radians(9)
    taught: float = 0.5                      # share of what teachers say, where there are any
    features: float = 0.0                    # weight of the distance from the teachers' features
    choice: float = 0.0                      # weight of the choice among the own proposals

    def __post_init__(self) -> None:
        """Raise ValueError, which names the field, where a value cannot be used."""
        check(self, locations=AT_LEAST_ONE, classified=AT_LEAST_ONE, own=AT_LEAST_ONE,
              taught=SHARE)


def stage_losses(model: MultiStageSTN, batch: Batch, stages: frozenset[str],
                 own: frozenset[str], settings: LossSettings,
                 teachers: Teachers | None = None) -> dict[str, Tensor]:
    """
    Losses of ``stages``; those in ``own`` also see the network's own candidates.

    With ``teachers`` a share of each loss is how far the answers are from theirs. Returns scalars
    by the name of the stage.
    """
    image, wanted = batch.images, batch.graspable
    features = model.trunk_features(image)
    maps = model.crop(features)
    lessons = [] if teachers is None else teachers.look_at(batch)

    def asked(question: Callable[[Lesson], Tensor]) -> Tensor:
        return torch.stack([lesson.share * question(lesson) for lesson in lessons]).sum()

    def learned(from_labels: Tensor, taught: Callable[[Lesson], Tensor]) -> Tensor:
        if not lessons:
            return from_labels
        return torch.lerp(from_labels, asked(taught), settings.taught)

    losses = {'crop': learned(_crop_loss(maps, batch), lambda x: x.crop_loss(maps))}

    proposals = None
    if own:
        # The offsets stay differentiable: the fit may pull the locations.
        proposals, location_logits = model.crop.propose(maps, settings.own)

    if 'rotation' in stages or 'scale_crop' in own:
        locations = targets.pick(batch.rectangles, wanted, batch.present,
                                 settings.locations)[..., :2]
        locations = _clamped(locations, image) + \
            torch.randn_like(locations) * settings.location_jitter
        if 'rotation' in own and proposals is not None:
            locations = torch.cat([locations, proposals.detach()], dim=1)
        logits = model.angle_logits(features, locations, image.shape[-1])
        losses['rotation'] = learned(
            _rotation_loss(logits, locations, batch),
            lambda x: x.rotation_loss(logits, locations))

    own_rectangles = None
    if 'scale_crop' in stages:
        truth = targets.pick(batch.rectangles, wanted, batch.present, settings.locations)
        locations = _clamped(truth[..., :2], image)
        locations = locations + torch.randn_like(locations) * settings.location_jitter
        theta = truth[..., 2] + torch.randn_like(truth[..., 2]) * settings.angle_jitter
        count = locations.shape[1]
        if proposals is not None and {'scale_crop', 'classifier'} & own:
            end_to_end = 'scale_crop' in own
            at = proposals if end_to_end else proposals.detach()
            own_theta = model.rotation.decode(
                model.angle_logits(features, at, image.shape[-1]))[..., 0]
            if not end_to_end:
                own_theta = own_theta.detach()
            locations = torch.cat([locations, at], dim=1)
            theta = torch.cat([theta, own_theta], dim=1)
        parameters = model.fit_parameters(features, image, locations, theta, batch.jaw)
        losses['scale_crop'] = learned(
            _fit_loss(parameters, locations, theta, batch),
            lambda x: x.fit_loss(parameters, locations, theta))
        own_rectangles = model.fitted_rectangles(locations, theta, parameters)[:, count:].detach()

    if 'classifier' in stages:
        candidates = _labelled_candidates(batch, settings.classified)
        if own_rectangles is not None and 'classifier' in own:
            candidates = torch.cat([candidates, own_rectangles], dim=1)
        logits = model.score_logits(features, image, candidates, batch.jaw)
        with torch.no_grad():
            quality = targets.grasp_quality(candidates, batch.rectangles, batch.success,
                                            batch.graspable, batch.present)
        losses['classifier'] = learned(terms.classifier(logits, *quality),
                                       lambda x: x.classifier_loss(logits, candidates))
        if settings.choice and own_rectangles is not None and 'classifier' in own:
            proposed = slice(-own_rectangles.shape[1], None)
            located = model.config.location_weight * F.logsigmoid(location_logits.float())
            losses['classifier'] = losses['classifier'] + settings.choice * terms.choice(
                score_logit(logits[:, proposed], located),
                _right(*(value[:, proposed] for value in quality)))
    losses = {name: loss for name, loss in losses.items() if name in stages}
    if lessons and settings.features:
        losses['features'] = settings.features * asked(lambda x: x.trunk_loss(features))
    return losses


def _clamped(points: Tensor, image: Tensor) -> Tensor:
    """Padding lies far outside; keep what is picked from it near the image."""
    return points.clamp(-20, image.shape[-1] + 20)


def _crop_loss(maps: Tensor, batch: Batch) -> Tensor:
    heat, offset, counts = targets.location_maps(batch.rectangles, batch.success,
                                                 batch.graspable, maps.shape[-1])
    return terms.location(maps[:, 0], heat) + terms.offset(maps[:, 1:], offset, counts)


def _rotation_loss(logits: Tensor, locations: Tensor, batch: Batch) -> Tensor:
    bins, near = targets.angle_bins(locations, batch.rectangles, batch.success, batch.graspable)
    # Far from any label no angle is right, which is worth less than to tell angles apart.
    return terms.angle(logits, bins, 0.25 + 0.75 * (near > 0.3))


def _fit_loss(parameters: Tensor, locations: Tensor, theta: Tensor, batch: Batch) -> Tensor:
    # The target moves with the pose, so that its gradient pulls location and angle as well.
    target, weight = targets.fit_targets(locations, theta, batch.rectangles, batch.graspable)
    return terms.fit(parameters, target, weight)


def _labelled_candidates(batch: Batch, count: int) -> Tensor:
    """Draw graspable, failed, displaced and background rectangles (B, count, 5)."""
    failed = batch.present & ~batch.graspable
    good, bad, moved = count * 3 // 10, count * 4 // 10, count * 2 // 10
    groups = [(targets.pick(batch.rectangles, batch.graspable, batch.present, good), 1.0),
              (targets.pick(batch.rectangles, failed, batch.present, bad), 1.0),
              (targets.pick(batch.rectangles, batch.present, batch.present, moved), 4.0)]
    size = batch.images.shape[-1]
    result = []
    for rectangles, spread in groups:
        noise = torch.randn_like(rectangles)
        extent = rectangles[..., 3:] * torch.exp(0.1 * noise[..., 3:])
        result.append(torch.cat([
            rectangles[..., :2].clamp(-20, size + 20) + noise[..., :2] * 2.0 * spread,
            rectangles[..., 2:3] + noise[..., 2:3] * math.radians(5) * spread, extent], dim=-1))
    background = torch.rand(len(batch.images), count - good - bad - moved, 5,
                            device=batch.images.device)
    scale = background.new_tensor([size, size, math.pi, 40.0, 10.0])
    offset = background.new_tensor([0.0, 0.0, 0.0, 10.0, 6.0])
    result.append(background * scale + offset)
    return torch.cat(result, dim=1)


def _right(match: Tensor, lift: Tensor, weight: Tensor) -> Tensor:
    """What is not known of lifting does not speak against a candidate: all (B, N), in [0, 1]."""
    return match * torch.lerp(torch.ones_like(lift), lift, weight)

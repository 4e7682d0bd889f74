"""
What the five systems of Table I are trained for: a dict of losses for a batch and a phase.

Every objective has the signature (network, batch, phase, settings) -> losses by name; the trainer
adds them up.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import math

import torch
from torch import Tensor, nn
import torch.nn.functional as F

from ..baselines.regression import Regression
from ..baselines.single_stage import SingleStageSTN
from ..baselines.sliding_window import SAESlidingWindow, SlidingWindow
from ..data.sample import Batch
from ..stn.encoding import (
    decode_angles,
    decode_locations,
    decode_rectangles,
    encode_angles,
    encode_locations,
    encode_rectangles,
)
from ..stn.multi_stage import MultiStageSTN
from ..stn.paper import PaperSTN
from . import targets
from .distillation import Teachers
from .losses import LossSettings, stage_losses
from .schedule import Phase

# Weights of x, y, cos 2 theta, sin 2 theta, opening, jaw size: a location is in units of 100
# pixels, of which a tenth is already a lot.
_GRASP_WEIGHTS = (4.0, 4.0, 1.0, 1.0, 0.5, 0.5)
# Target activation of the autoencoders' units, and the weight of the penalty.
SPARSITY, SPARSITY_WEIGHT = 0.05, 0.1


def multi_stage(model: MultiStageSTN, batch: Batch, phase: Phase, settings: LossSettings,
                teachers: Teachers | None = None) -> dict[str, Tensor]:
    """
    Losses of the network that comes with the package; see :mod:`losses`.

    Where it has a second network for images without depth, each learns from its own images.
    """
    if model.without_depth is None:
        return stage_losses(model, batch, phase.stages, phase.own, settings, teachers)
    total: dict[str, Tensor] = {}
    seen = batch.with_depth
    for with_depth, which in ((True, seen), (False, ~seen)):
        share = float(which.float().mean())
        if not share:
            continue
        losses = stage_losses(model.for_images(with_depth), batch.part(which), phase.stages,
                              phase.own, settings, teachers)
        for name, loss in losses.items():
            total[name] = total.get(name, 0.0) + share * loss
    return total


def regression(model: Regression, batch: Batch, phase: Phase,
               settings: LossSettings) -> dict[str, Tensor]:
    """One label of each image, drawn anew every time (Redmon & Angelova 2015)."""
    size = batch.images.shape[-1]
    label = targets.pick(batch.rectangles, batch.graspable, batch.present, 1)[:, 0]
    target = encode_rectangles(label, size).clamp(-3, 3)
    weight = batch.graspable.any(dim=1).float()
    return {'regression': _grasp_loss(model.network(batch.images), target, weight)}


def single_stage(model: SingleStageSTN, batch: Batch, phase: Phase,
                 settings: LossSettings) -> dict[str, Tensor]:
    """Slots of labels for the localization network; labels, then own grasps for the classifier."""
    image, size = batch.images, batch.images.shape[-1]
    losses, rectangles = {}, None
    if 'localization' in phase.stages:
        truth, filled = targets.label_slots(batch.rectangles, batch.graspable,
                                            model.config.candidates)
        numbers = model.grasp_numbers(image)
        target = _zero_where_missing(encode_rectangles(truth, size), filled)
        # Of a slot without a label only the location is asked for.
        weights = numbers.new_tensor(_GRASP_WEIGHTS).expand_as(numbers).clone()
        weights[..., 2:] *= filled[..., None]
        losses['localization'] = _weighted(F.smooth_l1_loss(
            numbers, target, reduction='none', beta=0.1), weights)
        rectangles = decode_rectangles(numbers, size)
    if 'classifier' in phase.stages:
        if 'classifier' in phase.own:
            if rectangles is None:
                with _as_in_use(model.localization):
                    rectangles = decode_rectangles(model.grasp_numbers(image), size)
            rectangles = rectangles.detach()
        else:
            rectangles = None
        losses['classifier'] = _classifier_loss(model, batch, settings.classified, rectangles)
    return losses


def paper(model: PaperSTN, batch: Batch, phase: Phase,
          settings: LossSettings) -> dict[str, Tensor]:
    """
    Multi-stage STN in the setting of its paper.

    Blocks in ``phase.stages`` are trained on ground truth, those in ``phase.own`` on what the
    blocks before them answer as well; its gradient flows back through the samplers into the
    blocks that the phase trains.
    """
    image, size = batch.images, batch.images.shape[-1]
    stages, own = phase.stages, phase.own
    losses: dict[str, Tensor] = {}
    locations = theta = rectangles = None
    if 'crop' in stages:
        truth, filled = targets.label_slots(batch.rectangles, batch.graspable,
                                            model.config.candidates)
        numbers = model.location_numbers(image)
        target = _zero_where_missing(encode_locations(truth[..., :2], size), filled)
        losses['crop'] = 4.0 * F.smooth_l1_loss(numbers, target, beta=0.1)
        locations = decode_locations(numbers, size)
        if 'crop' not in own:
            locations = locations.detach()
    elif own:
        with _as_in_use(model.crop):
            locations = decode_locations(model.location_numbers(image), size)

    if 'rotation' in stages:
        at = _jittered_labels(batch, settings)[..., :2]
        count = at.shape[1]
        if 'rotation' in own and locations is not None:
            at = torch.cat([at, locations], dim=1)
        numbers = model.angle_numbers(image, at)
        losses['rotation'] = _rotation_loss(numbers, at, batch, model.config.context)
        if locations is not None:
            theta = decode_angles(numbers[:, count:] if 'rotation' in own
                                  else model.angle_numbers(image, locations))
            if 'rotation' not in own:
                theta = theta.detach()
    elif own and locations is not None:
        with _as_in_use(model.rotation):
            theta = decode_angles(model.angle_numbers(image, locations))

    if 'scale_crop' in stages:
        labels = _jittered_labels(batch, settings)
        at, angle = labels[..., :2], labels[..., 2]
        count = at.shape[1]
        if 'scale_crop' in own and locations is not None and theta is not None:
            at, angle = torch.cat([at, locations], 1), torch.cat([angle, theta], 1)
        numbers = model.fit_numbers(image, at, angle)
        losses['scale_crop'] = _fit_loss(model, numbers, at, angle, batch)
        if 'scale_crop' in own:
            rectangles = model.fitted_rectangles(at, angle, numbers)[:, count:].detach()
    elif own and locations is not None and theta is not None:
        with _as_in_use(model.scale_crop):
            rectangles = model.fitted_rectangles(locations, theta,
                                                 model.fit_numbers(image, locations, theta))

    if 'classifier' in stages:
        losses['classifier'] = _classifier_loss(model, batch, settings.classified,
                                                rectangles if 'classifier' in own else None)
    return losses


def windows(model: SlidingWindow, batch: Batch, phase: Phase,
            settings: LossSettings) -> dict[str, Tensor]:
    """
    Reconstruction without labels for the autoencoders' phases, classification else.

    Windows of the grid next to a label join the labels themselves, because the search only ever
    sees windows of the grid.
    """
    size = batch.images.shape[-1]
    candidates, target, weight = _labelled_windows(batch, settings.classified)
    on_grid = model.snapped(candidates, size)
    hit = targets.matches(on_grid, batch.rectangles, batch.graspable).float()
    grid = model.windows(size, batch.images)
    random = grid[torch.randint(len(grid), candidates.shape[:2], device=grid.device)]
    miss = targets.matches(random, batch.rectangles, batch.graspable).float()
    candidates = torch.cat([candidates, on_grid, random], dim=1)
    target = torch.cat([target, hit, miss], dim=1)
    weight = torch.cat([weight, weight, torch.ones_like(miss)], dim=1)
    patches = model.patches(batch.images, candidates)
    losses = {}
    if isinstance(model, SAESlidingWindow):
        for number, autoencoder in enumerate(model.autoencoders):
            assert isinstance(autoencoder, nn.Module)
            if f'autoencoder {number + 1}' in phase.stages:
                with torch.no_grad():
                    x = model.hidden(patches, number)
                error, penalty = autoencoder.losses(x, SPARSITY)  # type: ignore[operator]
                losses[f'autoencoder {number + 1}'] = error + SPARSITY_WEIGHT * penalty
    if 'classifier' in phase.stages:
        logits = model.patch_logits(patches).unflatten(0, target.shape)
        losses['classifier'] = _weighted(
            F.binary_cross_entropy_with_logits(logits, target, reduction='none'), weight)
    return losses


@contextmanager
def _as_in_use(block: nn.Module) -> Iterator[None]:
    """A block that another one is trained behind: no gradient, statistics as in use."""
    training = block.training
    block.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        block.train(training)


def _weighted(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp_min(1.0)


def _grasp_loss(numbers: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    weights = weight[..., None] * numbers.new_tensor(_GRASP_WEIGHTS)
    return _weighted(F.smooth_l1_loss(numbers, target, reduction='none', beta=0.1), weights)


def _zero_where_missing(encoded: Tensor, filled: Tensor) -> Tensor:
    """Targets (B, K, N) of slots; without a label the location zero, the top left corner."""
    return torch.where(filled[..., None], encoded, torch.full_like(encoded, -2.0)).clamp(-3, 3)


def _jittered_labels(batch: Batch, settings: LossSettings) -> Tensor:
    """Graspable labels (B, settings.locations, 5), moved and turned as the settings say."""
    labels = targets.pick(batch.rectangles, batch.graspable, batch.present, settings.locations)
    size = batch.images.shape[-1]
    at = labels[..., :2].clamp(-20, size + 20)
    at = at + torch.randn_like(at) * settings.location_jitter
    theta = labels[..., 2:3]
    theta = theta + torch.randn_like(theta) * settings.angle_jitter
    return torch.cat([at, theta, labels[..., 3:]], dim=-1)


def _nearest(locations: Tensor, theta: Tensor | None, batch: Batch) \
        -> tuple[Tensor, Tensor, Tensor]:
    """Nearest graspable label (B, N, 5) of poses, its distance (B, N) and turn (B, N)."""
    distance = torch.sqrt(((locations[:, :, None] - batch.rectangles[:, None, :, :2]) ** 2)
                          .sum(-1) + 1e-12)
    angle = torch.zeros_like(distance) if theta is None else targets.angle_difference(
        theta[..., None], batch.rectangles[:, None, :, 2]).abs()
    cost = distance / 20.0 + angle / math.radians(20)
    cost = torch.where(batch.graspable[:, None], cost, torch.full_like(cost, 1e6))
    index = cost.detach().argmin(dim=-1)
    index = index[..., None]
    label = torch.gather(batch.rectangles, 1, index.expand(-1, -1, 5))
    far = torch.where(batch.graspable[:, None], distance, torch.full_like(distance, 1e6))
    return label, far.gather(2, index)[..., 0], angle.gather(2, index)[..., 0]


def _rotation_loss(numbers: Tensor, locations: Tensor, batch: Batch, reach: float) -> Tensor:
    """Angle of the nearest label, where one is within ``reach`` pixels."""
    label, distance, _ = _nearest(locations, None, batch)
    error = F.smooth_l1_loss(numbers, encode_angles(label[..., 2]), reduction='none', beta=0.3)
    return 2.0 * _weighted(error.mean(-1), (distance < reach).float())


def _fit_loss(model: PaperSTN, numbers: Tensor, locations: Tensor, theta: Tensor,
              batch: Batch) -> Tensor:
    # The target moves with the pose, so that its gradient pulls location and angle as well.
    label, distance, turn = _nearest(locations, theta, batch)
    target = model.encode_fit(locations, theta, label).clamp(-5, 5)
    error = F.smooth_l1_loss(numbers, target, reduction='none', beta=0.3).mean(-1)
    meant = (distance < model.config.context) & (turn < math.radians(45))
    return 2.0 * _weighted(error, meant.float())


def _labelled_windows(batch: Batch, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """
    Draw rectangles (B, N, 5) that are grasps or not, target (B, N) and weight (B, N).

    A third each: graspable labels; failed ones and labels that were moved or turned out of their
    place, since most Cornell images have no failed ones; near-white background.
    """
    third = max(1, count // 3)
    size = batch.images.shape[-1]
    failed = batch.present & ~batch.graspable
    good = targets.pick(batch.rectangles, batch.graspable, batch.present, third)
    bad = targets.pick(batch.rectangles, failed, batch.present, third)
    moved = targets.pick(batch.rectangles, batch.graspable, batch.present, third)
    turn = math.pi / 4 + torch.rand_like(moved[..., 0]) * math.pi / 2
    half = torch.rand_like(turn) < 0.5
    shift = torch.randn_like(moved[..., :2]) * 30.0 * ~half[..., None]
    moved = torch.cat([moved[..., :2] + shift, (moved[..., 2] + turn * half)[..., None],
                       moved[..., 3:]], dim=-1)
    white = targets.near_white_background(batch.images, batch.rectangles, batch.present, third)
    rectangles = torch.cat([good, bad, moved, white], dim=1)
    rectangles = torch.cat([rectangles[..., :2].clamp(-20, size + 20), rectangles[..., 2:]], -1)
    some = batch.graspable.any(1)[:, None].float().expand(-1, third)
    some_failed = failed.any(1)[:, None].float().expand(-1, third)
    hit = targets.matches(moved, batch.rectangles, batch.graspable).float()
    zero = torch.zeros_like(hit)
    target = torch.cat([torch.ones_like(hit), zero, hit, zero], dim=1)
    weight = torch.cat([some, some_failed, some, torch.ones_like(hit)], dim=1)
    return rectangles, target, weight


def _classifier_loss(model: SingleStageSTN | PaperSTN, batch: Batch, count: int,
                     own: Tensor | None) -> Tensor:
    """Labels, wrong ones and background; with ``own`` (B, K, 5) the network's proposals too."""
    candidates, target, weight = _labelled_windows(batch, count)
    if own is not None:
        match = targets.matches(own, batch.rectangles, batch.graspable).float()
        candidates = torch.cat([candidates, own], dim=1)
        target = torch.cat([target, match], dim=1)
        weight = torch.cat([weight, torch.ones_like(match)], dim=1)
    logits = model.score_numbers(batch.images, candidates)
    return _weighted(F.binary_cross_entropy_with_logits(logits, target, reduction='none'), weight)

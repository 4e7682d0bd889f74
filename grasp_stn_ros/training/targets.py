"""What each stage should have answered, from the labelled rectangles of a batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..stn import transformer
from ..stn.stages import STNRotation, STNScaleCrop, cells_to_pixels

# Widths of the bells around a label: pixels for locations, radians for angles.
LOCATION_SIGMA, NEAR_SIGMA, ANGLE_SIGMA = 4.5, 6.0, math.radians(9)
_FAR = 1e8


def angle_difference(a: Tensor, b: Tensor) -> Tensor:
    """Signed difference of opening directions in radians, in [-pi/2, pi/2)."""
    return torch.remainder(a - b + math.pi / 2, math.pi) - math.pi / 2


def _gather(rectangles: Tensor, index: Tensor) -> Tensor:
    """Rectangles (B, M, 5) at ``index`` (B, N) -> (B, N, 5)."""
    return torch.gather(rectangles, 1, index[..., None].expand(-1, -1, rectangles.shape[-1]))


def location_maps(rectangles: Tensor, success: Tensor, wanted: Tensor, cells: int) \
        -> tuple[Tensor, Tensor, Tensor]:
    """
    Targets of STN_crop on a map of ``cells`` x ``cells``.

    ``rectangles`` (B, M, 5), ``success`` (B, M), ``wanted`` (B, M) bool. Returns the probability
    that a grasp is centred in a cell (B, h, w), the offset to the nearest one in cells
    (B, 2, h, w), and where that offset counts (B, h, w).
    """
    centres = cells_to_pixels(torch.arange(cells, device=rectangles.device).float())
    dx = rectangles[..., 0, None] - centres                       # (B, M, w)
    dy = rectangles[..., 1, None] - centres                       # (B, M, h)
    squared = dy[..., :, None] ** 2 + dx[..., None, :] ** 2       # (B, M, h, w)
    squared = torch.where(wanted[..., None, None], squared, torch.full_like(squared, _FAR))
    bells = success[..., None, None] * torch.exp(-squared / (2 * LOCATION_SIGMA ** 2))
    heat = bells.amax(dim=1)
    heat = torch.where(heat < 0.01, torch.zeros_like(heat), heat)
    nearest_squared, nearest = squared.min(dim=1)
    batch = torch.arange(len(rectangles), device=rectangles.device)[:, None, None]
    stride = float(centres[1] - centres[0])
    offset = torch.stack([(rectangles[..., 0][batch, nearest] - centres[None, None, :]) / stride,
                          (rectangles[..., 1][batch, nearest] - centres[None, :, None]) / stride],
                         dim=1)
    return heat, offset, (nearest_squared < 8.0 ** 2).float()


def angle_bins(locations: Tensor, rectangles: Tensor, success: Tensor, wanted: Tensor) \
        -> tuple[Tensor, Tensor]:
    """
    Targets of STN_rotation at ``locations`` (B, N, 2).

    Returns how right each bin is (B, N, BINS) and how near the closest label is (B, N).
    """
    squared = ((locations[:, :, None] - rectangles[:, None, :, :2]) ** 2).sum(-1)  # (B, N, M)
    near = torch.exp(-squared / (2 * NEAR_SIGMA ** 2)) * (wanted * success)[:, None]
    bins = STNRotation.bin_angles(rectangles)
    difference = angle_difference(bins, rectangles[:, None, :, 2, None])           # (B, 1, M, A)
    bells = torch.exp(-difference ** 2 / (2 * ANGLE_SIGMA ** 2))
    return (near[..., None] * bells).amax(dim=2), near.amax(dim=-1)


def fit_targets(locations: Tensor, theta: Tensor, rectangles: Tensor, wanted: Tensor) \
        -> tuple[Tensor, Tensor]:
    """
    Targets of STN_scale,crop for poses (B, N, 2), (B, N).

    Returns the parameters (B, N, 5) that lead to the closest label, and a weight (B, N): 1 where
    that label is close enough for the fit to be meant, else 0.
    """
    squared = ((locations[:, :, None] - rectangles[:, None, :, :2]) ** 2).sum(-1)
    turn = angle_difference(theta[..., None], rectangles[:, None, :, 2])
    cost = squared / 6.0 ** 2 + (turn / math.radians(12)) ** 2
    cost = torch.where(wanted[:, None], cost, torch.full_like(cost, _FAR))
    smallest, index = cost.min(dim=-1)
    target = STNScaleCrop.encode(locations, theta, _gather(rectangles, index))
    return target.clamp(-3, 3), (smallest < 6.0).float()


def approximate_iou(a: Tensor, b: Tensor, samples: int = 8) -> Tensor:
    """
    IoU (B, N, M) of rectangles (B, N, 5) and (B, M, 5), from a grid of points in each of ``a``.

    Differentiation and speed matter here, not the last digit: the metric uses the exact one.
    """
    line = (torch.arange(samples, device=a.device) + 0.5) / samples - 0.5
    v, u = torch.meshgrid(line, line, indexing='ij')
    u, v = u.flatten(), v.flatten()
    c, s = torch.cos(a[..., 2, None]), torch.sin(a[..., 2, None])
    along, across = u * a[..., 3, None], v * a[..., 4, None]
    x = (a[..., 0, None] + c * along - s * across)[:, :, None] - b[:, None, :, 0, None]
    y = (a[..., 1, None] + s * along + c * across)[:, :, None] - b[:, None, :, 1, None]
    c, s = torch.cos(b[..., 2])[:, None, :, None], torch.sin(b[..., 2])[:, None, :, None]
    inside = ((c * x + s * y).abs() <= b[:, None, :, 3, None] / 2) & \
             ((c * y - s * x).abs() <= b[:, None, :, 4, None] / 2)
    area_a, area_b = (a[..., 3] * a[..., 4])[:, :, None], (b[..., 3] * b[..., 4])[:, None]
    shared = inside.float().mean(-1) * area_a
    return shared / (area_a + area_b - shared).clamp_min(1e-6)


def grasp_quality(candidates: Tensor, rectangles: Tensor, success: Tensor, wanted: Tensor,
                  present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """
    Targets of the classifier for candidates (B, N, 5).

    Returns *match* (B, N) in [0, 1]: how well the candidate covers some graspable label; *lift*
    (B, N) in [0, 1]: the success of the labels that it resembles; and the weight (B, N) of lift,
    0 where it resembles none.
    """
    overlap = approximate_iou(candidates, rectangles)                              # (B, N, M)
    turn = angle_difference(candidates[..., 2, None], rectangles[:, None, :, 2]).abs()
    overlap = torch.where(turn < math.radians(30), overlap, torch.zeros_like(overlap))
    best = (overlap * wanted[:, None]).amax(dim=-1)
    match = ((best - 0.1) / 0.3).clamp(0, 1)
    alike = overlap * (1 - turn / math.radians(60)).clamp_min(0) * present[:, None]
    weight = (alike - 0.25).clamp_min(0) ** 2
    total = weight.sum(-1)
    lift = (weight * success[:, None]).sum(-1) / total.clamp_min(1e-6)
    return match, lift, (total / 0.05).clamp(0, 1)


def pick(batch_rectangles: Tensor, wanted: Tensor, present: Tensor, count: int) -> Tensor:
    """Draw ``count`` of the wanted labels per image (any label where none is wanted)."""
    weight = wanted.float() + 1e-6 * present.float() + 1e-12
    index = torch.multinomial(weight, count, replacement=True)
    return _gather(batch_rectangles, index)


def label_slots(rectangles: Tensor, wanted: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """
    Fill the paper's slots: ``count`` labels of each image in a fixed order.

    ``rectangles`` (B, M, 5), ``wanted`` (B, M) bool -> rectangles (B, count, 5) and which slots
    hold a label (B, count) bool. The first slot is the top-right label (the largest x - y). Where
    there are more labels than slots, those that are far apart are taken, each the farthest from
    the ones before. Slots two and up are sorted from the top right to the bottom left.
    """
    corner = rectangles[..., 0] - rectangles[..., 1]                           # (B, M)
    corner = torch.where(wanted, corner, torch.full_like(corner, -_FAR))
    chosen = [corner.argmax(dim=1)]
    distance = torch.where(wanted, torch.full_like(corner, _FAR), torch.full_like(corner, -_FAR))
    for _ in range(count - 1):
        last = _gather(rectangles, chosen[-1][:, None])[..., :2]
        squared = ((rectangles[..., :2] - last) ** 2).sum(-1)
        distance = torch.minimum(distance, squared)
        # Once taken, never again, not even where two labels have the same centre.
        distance = distance.scatter(1, chosen[-1][:, None], -_FAR)
        chosen.append(distance.argmax(dim=1))
    index = torch.stack(chosen, dim=1)                                         # (B, count)
    filled = torch.arange(count, device=index.device) < wanted.sum(1, keepdim=True)
    order = torch.where(filled, corner.gather(1, index), torch.full_like(corner[:, :1], -_FAR))
    index = index.gather(1, order.argsort(dim=1, descending=True, stable=True))
    return _gather(rectangles, index), filled


def matches(candidates: Tensor, rectangles: Tensor, wanted: Tensor) -> Tensor:
    """Tell for candidates (B, N, 5) whether the rectangle metric calls them correct (B, N)."""
    turn = angle_difference(candidates[..., 2, None], rectangles[:, None, :, 2]).abs()
    good = (approximate_iou(candidates, rectangles) > 0.25) & (turn < math.radians(30))
    return (good & wanted[:, None]).any(dim=-1)


def near_white_background(image: Tensor, rectangles: Tensor, present: Tensor, count: int,
                          tries: int = 24) -> Tensor:
    """
    Draw rectangles (B, count, 5) on the background, near-white ones before all others.

    ``image`` (B, 7, S, S), labels (B, M, 5). Out of some random rectangles as large as the labels,
    those whose centre is farther from every label than a rectangle is long, by brightness. The
    paper adds such patches because the objects of its data lie on a white table.
    """
    size = image.shape[-1]
    random = torch.rand(len(image), tries, 5, device=image.device)
    low = random.new_tensor([0.0, 0.0, -math.pi / 2, 20.0, 12.0])
    high = random.new_tensor([size, size, math.pi / 2, 80.0, 40.0])
    drawn = low + random * (high - low)
    patches = transformer.sample(image[:, :3], transformer.from_rectangles(drawn), 4, size)
    brightness = patches.mean(dim=(1, 2, 3)).unflatten(0, (len(image), tries))
    squared = ((drawn[:, :, None, :2] - rectangles[:, None, :, :2]) ** 2).sum(-1)
    squared = torch.where(present[:, None], squared, torch.full_like(squared, _FAR))
    near = squared.amin(dim=-1) < drawn[..., 3] ** 2
    # White is 1; what is bright enough is drawn at random among its like.
    value = brightness.clamp(max=0.4) - 10.0 * near
    return _gather(drawn, value.topk(count, dim=1).indices)

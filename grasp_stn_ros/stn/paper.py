"""
The multi-stage STN in the setting of its paper (Park & Chun 2018), row 5 of Table I.

What the paper says and this module does: four locations, regressed as eight numbers by a residual
localization network that sees the whole image of 400x400; the first ground-truth slot is the
top-right label, slots without a label are zero; STN_rotation and STN_scale,crop with residual
localization networks of their own, and the classifier, all on patches that are sampled from the
input image; stage-wise training on ground truth, then end to end from the last block backwards;
near-white patches of the background as additional negatives; no augmentation, no pre-training.

What it leaves open, or says where we could not read it, and what was chosen:

* Units: zero is the top left corner of the view; see :mod:`encoding`.
* How STN_crop's residual network ends in eight numbers: in the centres of mass of four maps, which
  finds labels on unseen images better than a linear layer on all cells (``location_head``).
* What the blocks behind STN_crop are trained on first: locations and angles *around* the labels,
  since on the labels themselves they would never see how far off their predecessors are.
* Slots two to four, and which labels fill them where there are more than four: labels far apart
  (farthest-point order from the top-right one), sorted from the top right to the bottom left.
* Extent of the patches: 96x96 pixels around a location for STN_rotation and STN_scale,crop, and
  the rectangle with a margin for the classifier, all sampled at 32x32. The extent of the
  rectangle joins the classifier's last layer, since resampling hides it.
* STN_rotation answers with (cos 2 theta, sin 2 theta), STN_scale,crop with shift, opening and jaw
  size: four numbers, no further turn.
* The classifier has one logit, the score its sigmoid, and the best score wins (max pooling).

The shipped :class:`MultiStageSTN` shares one trunk and finds locations on a map instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import transformer
from .encoding import decode_angles, decode_locations, decode_sizes, encode_sizes
from .network import CERTAIN, GraspNetwork, StageOutputs, one_logit
from .resnet import LocationResNet, PatchConfig, image_resnet, patch_resnet

# Scale in pixels of the shift that STN_scale,crop predicts.
SHIFT_UNIT = 10.0


@dataclass(frozen=True)
class PaperConfig(PatchConfig):
    """Configuration of :class:`PaperSTN`; its number of candidates is fixed when it is trained."""

    context: float = 48.0                        # half extent in pixels of stages 2 and 3
    location_head: str = 'centre_of_mass'        # or 'linear', on all cells of a grid

    def __post_init__(self):
        """Refuse an unknown head."""
        super().__post_init__()
        if self.location_head not in ('centre_of_mass', 'linear'):
            raise ValueError(f'location_head {self.location_head!r}, expected centre_of_mass or '
                             'linear')


class PaperSTN(GraspNetwork):
    """Four blocks, each with a network of its own; see the module."""

    ARCHITECTURE = 'multi_stage_stn'
    SUMMARY = 'A multi-stage spatial transformer network in the setting of its paper'
    CONFIG = PaperConfig
    config: PaperConfig

    def __init__(self, config: PaperConfig | None = None):
        """Build an untrained network."""
        super().__init__()
        self.config = config = config or PaperConfig()
        patches = {'width': config.width, 'blocks': config.patch_blocks,
                   'dropout': config.dropout}
        if config.location_head == 'linear':
            self.crop: torch.nn.Module = image_resnet(
                config.channels, 2 * config.candidates, config.width, config.blocks, config.grid,
                config.dropout)
        else:
            self.crop = LocationResNet(config.channels, config.candidates, config.width,
                                       config.blocks, config.dropout)
        self.rotation = patch_resnet(config.channels, 2, **patches)  # type: ignore[arg-type]
        self.scale_crop = patch_resnet(config.channels, 4, **patches)  # type: ignore[arg-type]
        self.classifier = patch_resnet(config.channels, 1, extra=2,
                                       **patches)  # type: ignore[arg-type]

    def location_numbers(self, image: Tensor) -> Tensor:
        """STN_crop: image (B, 7, S, S) -> encoded locations (B, K, 2)."""
        return self.crop(image).unflatten(1, (self.config.candidates, 2))

    def angle_numbers(self, image: Tensor, locations: Tensor) -> Tensor:
        """STN_rotation at ``locations`` (B, N, 2) -> (cos 2 theta, sin 2 theta) (B, N, 2)."""
        pose = transformer.place(locations, self.config.context)
        return self._at(self.rotation, image, pose)

    def fit_numbers(self, image: Tensor, locations: Tensor, theta: Tensor) -> Tensor:
        """STN_scale,crop at ``locations`` (B, N, 2), ``theta`` (B, N) -> (B, N, 4)."""
        return self._at(self.scale_crop, image, self._rotated(locations, theta))

    def fitted_rectangles(self, locations: Tensor, theta: Tensor, numbers: Tensor) -> Tensor:
        """Compose the three transforms -> rectangles (B, N, 5) in view pixels."""
        context = self.config.context
        pose = transformer.fit(self._rotated(locations, theta),
                               numbers[..., :2] * SHIFT_UNIT / context,
                               decode_sizes(numbers[..., 2:]) / (2 * context))
        return transformer.to_rectangles(pose)

    @staticmethod
    def encode_fit(locations: Tensor, theta: Tensor, target: Tensor) -> Tensor:
        """Numbers (..., 4) that take (location, theta) to the place and size of ``target``."""
        delta = target[..., :2] - locations
        c, s = torch.cos(theta), torch.sin(theta)
        shift = torch.stack([c * delta[..., 0] + s * delta[..., 1],
                             c * delta[..., 1] - s * delta[..., 0]], dim=-1)
        return torch.cat([shift / SHIFT_UNIT, encode_sizes(target[..., 3:])], dim=-1)

    def score_numbers(self, image: Tensor, rectangles: Tensor) -> Tensor:
        """Grasp classifier on ``rectangles`` (B, N, 5) -> logits (B, N)."""
        return classify(self.classifier, image, rectangles, self.config.margin,
                        self.config.patch)

    def _rotated(self, locations: Tensor, theta: Tensor) -> Tensor:
        return transformer.rotate(transformer.place(locations, self.config.context), theta)

    def _at(self, network: torch.nn.Module, image: Tensor, pose: Tensor) -> Tensor:
        """Run ``network`` on patches of the image at ``pose`` (B, N, 2, 3) -> (B, N, outputs)."""
        patches = transformer.sample(image, pose, self.config.patch, image.shape[-1])
        return network(patches).unflatten(0, pose.shape[:2])

    def forward(self, image: Tensor, candidates: int = 0,
                lap: Callable[[str], None] = lambda name: None,
                jaw: Tensor | None = None) -> StageOutputs:
        """Image (B, 7, S, S) -> K candidates, or the best ``candidates`` of them."""
        locations = decode_locations(self.location_numbers(image), image.shape[-1])
        lap('stn_crop')
        theta = decode_angles(self.angle_numbers(image, locations))
        lap('stn_rotation')
        rectangles = self.fitted_rectangles(locations, theta,
                                            self.fit_numbers(image, locations, theta))
        lap('stn_scale_crop')
        scores = self.score_numbers(image, rectangles)
        lap('classifier')
        outputs = StageOutputs(locations, torch.full_like(theta, CERTAIN), theta, rectangles,
                               one_logit(scores))
        return outputs.best(candidates or self.config.candidates)


def classify(network: torch.nn.Module, image: Tensor, rectangles: Tensor,
             margin: tuple[float, float], patch: int) -> Tensor:
    """
    Score ``rectangles`` (B, N, 5) of images (B, 7, S, S) -> logits (B, N).

    ``network`` sees the rectangle, turned upright, with a ``margin`` in pixels around it, sampled
    at ``patch`` x ``patch``, and its size.
    """
    half = rectangles[..., 3:] / 2 + rectangles.new_tensor(margin)
    pose = transformer.rotate_then_scale(rectangles[..., :2], rectangles[..., 2], half)
    patches = transformer.sample(image, pose, patch, image.shape[-1])
    sizes = encode_sizes(rectangles[..., 3:].clamp_min(1.0)).flatten(0, 1)
    return network(patches, sizes).unflatten(0, rectangles.shape[:2])[..., 0]

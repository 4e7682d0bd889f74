"""The multi-stage STN: four blocks, composed transforms, all candidates in view pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from . import transformer
from .backbone import ConvBlock
from .network import GraspNetwork, NetworkConfig, StageOutputs
from .stages import GraspClassifier, STNCrop, STNRotation, STNScaleCrop
from .trunk import Trunk


@dataclass(frozen=True)
class ModelConfig(NetworkConfig):
    """Configuration of :class:`MultiStageSTN`; K (``candidates``) is free at run time."""

    features: int = 32                # channels of the trunk's output
    width: float = 1.0
    blocks: tuple[int, int, int] = (0, 1, 2)   # residual blocks at stride 4, 8 and 16
    context: float = 36.0             # half extent in pixels of the patches of stages 2 and 3
    margin: tuple[float, float] = (14.0, 12.0)  # pixels around a rectangle for the classifier
    patch: int = 16                   # samples of a patch of trunk features
    fine_channels: int = 32           # of the patch from the image itself, sampled at 2 x patch
    gripper_input: bool = False       # the height of the jaw plates is told where it is known
    location_weight: float = 0.0      # exponent of the location's probability in the score
    refinements: int = 0              # how often the fit starts again from its own rectangle
    photographs: bool = False         # features of photographs where an image has no depth
    without_depth: bool = False       # a second network for images that have no depth
    # For tips so far below the surface, metres, ascending, the classifier says whether they lift.
    finger_depths: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check also that the patch networks, which halve a patch twice, are left with 4."""
        super().__post_init__()
        if not 13 <= self.patch <= 16:
            raise ValueError(f'patch is {self.patch!r}, expected 13 to 16')


class MultiStageSTN(GraspNetwork):
    """
    Classification-based grasp detection with spatial transformers (Park & Chun 2018).

    The blocks see trunk features, stages 3 and 4 also a fine patch of the image itself.

    With ``without_depth`` in its configuration there are two networks in one: this one for images
    with depth, and within it one of the same kind for images without, which alone has features of
    photographs then. :meth:`for_images` returns the one to ask; what is asked of this one directly
    it answers itself.
    """

    ARCHITECTURE = 'MultiStageSTN'
    CONFIG = ModelConfig
    TRACEABLE = True
    STEERABLE = True
    config: ModelConfig

    def __init__(self, config: ModelConfig | None = None):
        """Build an untrained network."""
        super().__init__()
        self.config = config = config or ModelConfig()
        self.trunk = Trunk(config.channels, config.features, config.width, config.blocks,
                           config.photographs and not config.without_depth)
        self.crop = STNCrop(config.features)
        self.rotation = STNRotation(config.features)
        self.fine = ConvBlock(config.channels, config.fine_channels, 3, 2)
        self.scale_crop = STNScaleCrop(config.features + config.fine_channels,
                                       config.gripper_input)
        self.classifier = GraspClassifier(config.features + config.fine_channels,
                                          config.gripper_input, len(config.finger_depths))
        # Without depth there is no pose, and nothing to ask about it.
        self.without_depth = (MultiStageSTN(replace(config, without_depth=False,
                                                    finger_depths=()))
                              if config.without_depth else None)

    def for_images(self, with_depth: bool) -> MultiStageSTN:
        """Return the network for images with or without depth: this one, or the one within."""
        return self if with_depth or self.without_depth is None else self.without_depth

    def trunk_features(self, image: Tensor) -> Tensor:
        """
        Image (B, 7, S, S) -> what all stages share (B, C, S / 4, S / 4).

        In single precision once, rather than for each of the samplers.
        """
        without = self._missing_depth(image)
        if isinstance(without, Tensor):
            return self.part('trunk', lambda x, which: self.trunk(x, which).float(), image,
                             without)
        return self.part(('trunk', without), lambda x: self.trunk(x, without).float(), image)

    def _missing_depth(self, image: Tensor) -> bool | Tensor:
        """Tell of which images (B, 7, S, S) depth is missing: of all or of each (B,)."""
        if self.trunk.photographs is None:
            return False
        # A pixel with depth has a normal, whose last component points to the viewer. A few pixels
        # settle it for most images; the GPU is not asked, since it would have to be waited for.
        for step in (16, 1):
            without = (image[:, -1, ::step, ::step] == 0).flatten(1).all(dim=1)
            if not image.is_cuda and not without.any():
                return False
        return without if image.is_cuda or not without.all() else True

    def _patches(self, features: Tensor, image: Tensor, pose: Tensor) -> Tensor:
        """Trunk features and image at ``pose`` (B, N, 2, 3) -> (B * N, C, patch, patch)."""
        size, view = self.config.patch, image.shape[-1]
        coarse = transformer.sample(features, pose, size, view)
        fine = self.fine(transformer.sample(image, pose, 2 * size, view))
        return torch.cat([coarse, fine.to(coarse.dtype)], dim=1)

    def angle_logits(self, features: Tensor, locations: Tensor, view_size: int) -> Tensor:
        """STN_rotation at ``locations`` (B, N, 2) -> logits (B, N, BINS)."""
        pose = transformer.place(locations, self.config.context)
        patches = transformer.sample(features, pose, self.config.patch, view_size)
        return self.rotation(patches).unflatten(0, locations.shape[:2])

    def fit_parameters(self, features: Tensor, image: Tensor, locations: Tensor,
                       theta: Tensor, jaw: Tensor | None = None) -> Tensor:
        """
        STN_scale,crop at ``locations`` (B, N, 2), ``theta`` (B, N) -> parameters (B, N, 5).

        ``jaw`` (B,) in view pixels, 0 or None = not known.
        """
        patches = self._patches(features, image, self._rotated(locations, theta))
        return self.scale_crop(patches, self._jaws(jaw, theta)).unflatten(0, theta.shape)

    def _jaws(self, jaw: Tensor | None, like: Tensor) -> Tensor | None:
        """Jaw size (B,) -> that of each of the candidates ``like`` (B, N): (B * N,), or None."""
        if not self.config.gripper_input:
            return None
        if jaw is None:
            jaw = like.new_zeros(len(like))
        return jaw[:, None].expand(like.shape).flatten()

    def _rotated(self, locations: Tensor, theta: Tensor) -> Tensor:
        return transformer.rotate(transformer.place(locations, self.config.context), theta)

    def fitted_rectangles(self, locations: Tensor, theta: Tensor, parameters: Tensor) -> Tensor:
        """Compose the three transforms -> rectangles (B, N, 5) in view pixels."""
        shift, extent, turn = STNScaleCrop.decode(parameters)
        context = self.config.context
        pose = transformer.fit(self._rotated(locations, theta), shift / context,
                               torch.ones_like(shift))
        # The last turn is around the fitted centre, hence after the shift.
        pose = transformer.fit(transformer.rotate(pose, turn), torch.zeros_like(shift),
                               extent / (2 * context))
        return transformer.to_rectangles(pose)

    def score_logits(self, features: Tensor, image: Tensor, rectangles: Tensor,
                     jaw: Tensor | None = None) -> Tensor:
        """Grasp classifier on ``rectangles`` (B, N, 5), ``jaw`` (B,) -> logits (B, N, 2)."""
        return self.classify(features, image, rectangles, jaw)[..., :2]

    def classify(self, features: Tensor, image: Tensor, rectangles: Tensor,
                 jaw: Tensor | None = None) -> Tensor:
        """Grasp classifier with its logits for the finger depths behind (B, N, 2 + depths)."""
        return self.classifier(*self.classified(features, image, rectangles, jaw)) \
            .unflatten(0, rectangles.shape[:2])

    def classified(self, features: Tensor, image: Tensor, rectangles: Tensor,
                   jaw: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return what the classifier sees of ``rectangles`` (B, N, 5): patches, extents, jaws."""
        along, across = self.config.margin
        half = torch.stack([rectangles[..., 3] / 2 + along, rectangles[..., 4] / 2 + across], -1)
        pose = transformer.rotate_then_scale(rectangles[..., :2], rectangles[..., 2], half)
        return (self._patches(features, image, pose), rectangles[..., 3:].flatten(0, 1),
                self._jaws(jaw, rectangles[..., 0]))

    def forward(self, image: Tensor, candidates: int = 0,
                lap: Callable[[str], None] = lambda name: None,
                jaw: Tensor | None = None, allowed: Tensor | None = None) -> StageOutputs:
        """
        Image (B, 7, S, S) float32 as prepared by :mod:`preprocessing` -> all stages' results.

        ``candidates`` overrides K; ``lap`` is told the name of each stage that is done; ``jaw``
        (B,) is the height of the gripper's jaw plates in view pixels, 0 = not known; ``allowed``
        (B, S / 4, S / 4) bool, where locations may be proposed, None = everywhere.
        """
        size, count = image.shape[-1], candidates or self.config.candidates
        if jaw is None:
            jaw = image.new_zeros(len(image))
        features = self.trunk_features(image)
        lap('trunk')
        if allowed is None:
            locations, location_logits = self.part(
                ('stn_crop', count), lambda x: self.crop.propose(self.crop(x), count), features)
        else:
            locations, location_logits = self.part(
                ('stn_crop within', count), lambda x, where: self.crop.propose(
                    self.crop.within(self.crop(x), where), count), features, allowed)
        lap('stn_crop')
        theta = self.part(
            ('stn_rotation', size),
            lambda x, at: self.rotation.decode(self.angle_logits(x, at, size))[..., 0],
            features, locations)
        lap('stn_rotation')
        rectangles = self.part('stn_scale_crop', self.fit, features, image, locations, theta, jaw)
        lap('stn_scale_crop')
        logits = self.part('classifier', self.classify, features, image, rectangles, jaw)
        lap('classifier')
        return StageOutputs(locations, location_logits, theta, rectangles, logits[..., :2],
                            self.config.calibration, self.config.location_weight,
                            self.config.finger_depths, logits[..., 2:])

    def fit(self, features: Tensor, image: Tensor, locations: Tensor, theta: Tensor,
            jaw: Tensor | None = None) -> Tensor:
        """Fit rectangles (B, N, 5) at ``locations`` (B, N, 2), ``theta`` (B, N), and again."""
        for _ in range(1 + self.config.refinements):
            parameters = self.fit_parameters(features, image, locations, theta, jaw)
            rectangles = self.fitted_rectangles(locations, theta, parameters)
            locations, theta = rectangles[..., :2], rectangles[..., 2]
        return rectangles

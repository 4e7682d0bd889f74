"""
Knowledge distillation (Hinton et al. 2015): learning from the answers of trained networks.

The labels of an image say something about the places that were tried; teachers say something about
every place. They look at the whole image even where the network that learns is shown only its
colours or only its depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
import torch.nn.functional as F

from ..data.sample import Batch, with_depth
from ..stn import checkpoint
from ..stn.multi_stage import MultiStageSTN
from ..stn.stages import STNScaleCrop
from . import terms


class Teachers:
    """
    Trained networks whose averaged answers are learned; an ensemble where there are several.

    One that was joined of two teaches images with and without depth by the one that is meant for
    them.
    """

    def __init__(self, networks: Sequence[MultiStageSTN], digests: Sequence[str] = ()):
        """Take ``networks`` as they are, with the SHA-256 of their weights where it is known."""
        if not networks:
            raise ValueError('no teachers')
        self.networks = [network.eval().requires_grad_(False) for network in networks]
        self.digests = list(digests)

    @classmethod
    def load(cls, paths: Sequence[str | Path]) -> Teachers:
        """Read weights; raises :class:`CheckpointError`, also where they are of another kind."""
        networks, digests = [], []
        for path in paths:
            network, sidecar = checkpoint.load(path)
            if not isinstance(network, MultiStageSTN):
                raise checkpoint.CheckpointError(
                    f'{path} holds {sidecar["architecture"]}, which has no answers that a '
                    f'{MultiStageSTN.ARCHITECTURE} could learn')
            networks.append(network)
            digests.append(str(sidecar['sha256']))
        return cls(networks, digests)

    def to(self, device: torch.device) -> Teachers:
        """Move all of them to ``device``."""
        for network in self.networks:
            network.to(device)
        return self

    @torch.no_grad()
    def look_at(self, batch: Batch) -> list[Lesson]:
        """Show the teachers a batch, with all its modalities where they were kept."""
        images = batch.images if batch.whole is None else batch.whole
        if all(network.without_depth is None for network in self.networks):
            parts = [(True, torch.ones_like(batch.jaw, dtype=torch.bool))]
        else:
            seen = with_depth(images)
            parts = [(True, seen), (False, ~seen)]
        lessons = []
        for depth, which in parts:
            if which.any():
                networks = [network.for_images(depth) for network in self.networks]
                part = images[which].contiguous(memory_format=torch.channels_last)
                lessons.append(Lesson(networks, which, part, batch.jaw[which],
                                      [network.trunk_features(part) for network in networks]))
        return lessons


@dataclass
class Lesson:
    """
    What teachers see in images of a batch, ready for questions about poses in view pixels.

    They are the images ``which`` (B,) bool; the answers that are judged are those to the batch.
    """

    networks: list[MultiStageSTN]
    which: Tensor
    images: Tensor
    jaw: Tensor
    features: list[Tensor]

    @property
    def share(self) -> Tensor:
        """Of the images of the batch."""
        return self.which.float().mean()

    def _pairs(self):
        return zip(self.networks, self.features, strict=True)

    @staticmethod
    def _mean(answers: list[Tensor]) -> Tensor:
        return torch.stack(answers).mean(dim=0)

    def trunk_loss(self, features: Tensor) -> Tensor:
        """
        Features (B, C, h, w) of the trunk against those of the teachers.

        Every cell of an image says something, and of shape as well where the teachers see depth
        and the network does not (supervision transfer, Gupta et al. 2016). Of use where the
        teachers' features mean the same, that is where all go on from one network.
        """
        return F.smooth_l1_loss(features[self.which], self._mean(self.features), beta=0.5)

    def crop_loss(self, maps: Tensor) -> Tensor:
        """Maps (B, 3, h, w) of STN_crop: the probability of a grasp in each cell."""
        maps = maps[self.which]
        with torch.no_grad():
            heat = self._mean([torch.sigmoid(network.crop(features)[:, 0])
                               for network, features in self._pairs()])
        return terms.location(maps[:, 0], heat)

    def rotation_loss(self, logits: Tensor, locations: Tensor) -> Tensor:
        """Logits (B, N, BINS) of STN_rotation at ``locations`` (B, N, 2)."""
        size, logits, locations = self.images.shape[-1], logits[self.which], locations[self.which]
        with torch.no_grad():
            bins = self._mean([torch.sigmoid(network.angle_logits(features, locations, size))
                               for network, features in self._pairs()])
        return terms.angle(logits, bins)

    def fit_loss(self, parameters: Tensor, locations: Tensor, theta: Tensor) -> Tensor:
        """
        Parameters (B, N, 5) of STN_scale,crop at ``locations`` (B, N, 2), ``theta`` (B, N).

        A fit counts as much as the teachers' classifiers think of where it leads.
        """
        parameters, locations, theta = (x[self.which] for x in (parameters, locations, theta))
        targets, weights = [], []
        for network, features in self._pairs():
            with torch.no_grad():
                rectangles = network.fit(features, self.images, locations, theta, self.jaw)
                match = network.score_logits(features, self.images, rectangles, self.jaw)[..., 0]
            # The target moves with the pose, so that its gradient pulls location and angle too.
            targets.append(STNScaleCrop.encode(locations, theta, rectangles).clamp(-3, 3))
            weights.append(torch.sigmoid(match))
        return terms.fit(parameters, self._mean(targets), self._mean(weights))

    def classifier_loss(self, logits: Tensor, candidates: Tensor) -> Tensor:
        """Logits (B, N, 2) of the classifier for ``candidates`` (B, N, 5)."""
        logits, candidates = logits[self.which], candidates[self.which]
        with torch.no_grad():
            answers = self._mean([torch.sigmoid(
                network.score_logits(features, self.images, candidates, self.jaw))
                for network, features in self._pairs()])
        match, lift = answers.unbind(-1)
        return terms.classifier(logits, match, lift, match)

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

from ..data.sample import Batch
from ..stn import checkpoint
from ..stn.multi_stage import MultiStageSTN
from ..stn.stages import STNScaleCrop
from . import terms


class Teachers:
    """Trained networks whose averaged answers are learned; an ensemble where there are several."""

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
            if network.without_depth is not None:
                raise checkpoint.CheckpointError(
                    f'{path} holds a network for images with and one for images without depth; '
                    'a teacher is one network: name the weights from which it was joined')
            networks.append(network)
            digests.append(str(sidecar['sha256']))
        return cls(networks, digests)

    def to(self, device: torch.device) -> Teachers:
        """Move all of them to ``device``."""
        for network in self.networks:
            network.to(device)
        return self

    @torch.no_grad()
    def look_at(self, batch: Batch) -> Lesson:
        """Show the teachers a batch, with all its modalities where they were kept."""
        images = batch.images if batch.whole is None else batch.whole
        return Lesson(self.networks, images, batch.jaw,
                      [network.trunk_features(images) for network in self.networks])


@dataclass
class Lesson:
    """What teachers see in a batch, ready for questions about poses in view pixels."""

    networks: list[MultiStageSTN]
    images: Tensor
    jaw: Tensor
    features: list[Tensor]

    def _pairs(self):
        return zip(self.networks, self.features, strict=True)

    @staticmethod
    def _mean(answers: list[Tensor]) -> Tensor:
        return torch.stack(answers).mean(dim=0)

    def crop_loss(self, maps: Tensor) -> Tensor:
        """Maps (B, 3, h, w) of STN_crop: the probability of a grasp in each cell."""
        with torch.no_grad():
            heat = self._mean([torch.sigmoid(network.crop(features)[:, 0])
                               for network, features in self._pairs()])
        return terms.location(maps[:, 0], heat)

    def rotation_loss(self, logits: Tensor, locations: Tensor) -> Tensor:
        """Logits (B, N, BINS) of STN_rotation at ``locations`` (B, N, 2)."""
        size = self.images.shape[-1]
        with torch.no_grad():
            bins = self._mean([torch.sigmoid(network.angle_logits(features, locations, size))
                               for network, features in self._pairs()])
        return terms.angle(logits, bins)

    def fit_loss(self, parameters: Tensor, locations: Tensor, theta: Tensor) -> Tensor:
        """
        Parameters (B, N, 5) of STN_scale,crop at ``locations`` (B, N, 2), ``theta`` (B, N).

        A fit counts as much as the teachers' classifiers think of where it leads.
        """
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
        with torch.no_grad():
            answers = self._mean([torch.sigmoid(
                network.score_logits(features, self.images, candidates, self.jaw))
                for network, features in self._pairs()])
        match, lift = answers.unbind(-1)
        return terms.classifier(logits, match, lift, match)

"""
Sliding windows: score every window of a grid by a classifier; the best one wins.

After Lenz et al. (2015), with two classifiers for the same windows: stacked sparse autoencoders
(SAE) as there, and a convolutional network of four layers. The localization is exhaustive search.

The grid of the default configuration, in view pixels (400x400):

============  ====================================================================
locations     every 10 pixels in x and y: 40 x 40
orientations  every 15 degrees: 12 in half a turn
sizes         6, opening x jaw size: 20 x 11, 32 x 11, 52 x 13, 28 x 18, 46 x 26,
              76 x 32
windows       115,200 an image, each of 7 channels at 24x24 samples
============  ====================================================================

Steps and patches are those of Lenz et al., who search locations in steps of 10 pixels and
orientations in steps of 15 degrees. Where they try every size from 10 to 90 pixels in steps of 10
inside the bounding box of the object, which they know from an image of the empty table, the whole
view is searched here, with three sizes for the labels of the simulator and three for Cornell's
larger jaws.
Windows are scored in large batches, and nothing is computed for a window that its score does not
need; but no window is skipped, since the cost of looking everywhere is what is compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import math

import torch
from torch import Tensor, nn
import torch.nn.functional as F

from ..stn import transformer
from ..stn.backbone import ConvBlock
from ..stn.network import GraspNetwork, NetworkConfig, StageOutputs, one_logit


@dataclass(frozen=True)
class WindowConfig(NetworkConfig):
    """Grid, patches and classifier; ``candidates`` is how many of the best windows to report."""

    candidates: int = 8
    step: float = 10.0                      # pixels between locations
    orientations: int = 12                  # in half a turn
    sizes: tuple[tuple[float, float], ...] = (
        (20.0, 11.0), (32.0, 11.0), (52.0, 13.0), (28.0, 18.0), (46.0, 26.0), (76.0, 32.0))
    margin: tuple[float, float] = (0.0, 0.0)  # pixels around a window that the classifier sees
    patch: int = 24                         # samples
    chunk: int = 300                        # windows scored at a time; fits the cache
    hidden: int = 200                       # units of each autoencoder
    width: float = 1.0                      # of the CNN


class SlidingWindow(GraspNetwork):
    """The search; subclasses say how a patch is scored."""

    CONFIG = WindowConfig
    TITLES = ('windows: locations', 'windows: orientations', 'windows: sizes',
              'classifier: scores')
    config: WindowConfig

    def __init__(self, config: WindowConfig | None = None):
        """Remember the configuration; subclasses build the classifier."""
        super().__init__()
        self.config = config or WindowConfig()

    def windows(self, view_size: int, like: Tensor) -> Tensor:
        """All windows of a view as rectangles (N, 5): location-major, then angle, then size."""
        config = self.config
        count = max(1, round(view_size / config.step))
        # Centred in the view: no pixel is farther than half a step from a line of the grid.
        line = (torch.arange(count, device=like.device) + 0.5) * (view_size / count) - 0.5
        theta = torch.arange(config.orientations, device=like.device) \
            * (math.pi / config.orientations) - math.pi / 2
        sizes = torch.tensor(config.sizes, device=like.device)
        row, column, turn, size = torch.meshgrid(
            *[torch.arange(n, device=like.device)
              for n in (count, count, config.orientations, len(sizes))], indexing='ij')
        centres = torch.stack([line[column], line[row], theta[turn]], dim=-1)
        return torch.cat([centres, sizes[size]], dim=-1).reshape(-1, 5)

    def snapped(self, rectangles: Tensor, view_size: int) -> Tensor:
        """Rectangles (..., 5) -> the windows of the grid (..., 5) that are nearest to them."""
        config = self.config
        count = max(1, round(view_size / config.step))
        step, turn = view_size / count, math.pi / config.orientations
        cell = torch.floor((rectangles[..., :2] + 0.5) / step).clamp(0, count - 1)
        location = (cell + 0.5) * step - 0.5
        theta = torch.round(rectangles[..., 2:3] / turn) * turn
        sizes = rectangles.new_tensor(config.sizes)
        distance = (torch.log(rectangles[..., None, 3:] / sizes) ** 2).sum(-1)
        return torch.cat([location, theta, sizes[distance.argmin(-1)]], dim=-1)

    def patches(self, image: Tensor, rectangles: Tensor) -> Tensor:
        """Channels in ``rectangles`` (B, N, 5), turned upright -> (B * N, 7, patch, patch)."""
        half = rectangles[..., 3:] / 2 + rectangles.new_tensor(self.config.margin)
        pose = transformer.rotate_then_scale(rectangles[..., :2], rectangles[..., 2], half)
        return transformer.sample(image, pose, self.config.patch, image.shape[-1])

    def patch_logits(self, patches: Tensor) -> Tensor:
        """Patches (N, 7, patch, patch) -> logits (N,)."""
        raise NotImplementedError

    def score_numbers(self, image: Tensor, rectangles: Tensor) -> Tensor:
        """Classifier on ``rectangles`` (B, N, 5) -> logits (B, N)."""
        return self.patch_logits(self.patches(image, rectangles)).unflatten(
            0, rectangles.shape[:2])

    def forward(self, image: Tensor, candidates: int = 0,
                lap: Callable[[str], None] = lambda name: None,
                jaw: Tensor | None = None) -> StageOutputs:
        """Image (B, 7, S, S) -> the ``candidates`` best windows, descending."""
        windows = self.windows(image.shape[-1], image)
        logits = torch.cat([
            self.score_numbers(image, part[None].expand(len(image), -1, -1)).float()
            for part in windows.split(self.config.chunk)], dim=1)
        lap('windows')
        count = min(candidates or self.config.candidates, len(windows))
        best, index = logits.topk(count, dim=1)
        # What the search knows of a location alone: its best window.
        per_location = logits.unflatten(1, (-1, self.config.orientations
                                            * len(self.config.sizes))).amax(-1)
        at = per_location.gather(1, index // (self.config.orientations * len(self.config.sizes)))
        rectangles = windows[index]
        lap('best_window')
        return StageOutputs(rectangles[..., :2], at, rectangles[..., 2], rectangles,
                            one_logit(best))


class CNNSlidingWindow(SlidingWindow):
    """Windows scored by a CNN of four layers: three convolutions and a linear one."""

    ARCHITECTURE = 'cnn_sliding_window'
    SUMMARY = 'A convolutional classifier of sliding windows'

    def __init__(self, config: WindowConfig | None = None):
        """Build an untrained network."""
        super().__init__(config)
        config = self.config
        c1, c2, c3 = (max(4, round(c * config.width)) for c in (16, 32, 64))
        self.convolutions = nn.Sequential(ConvBlock(config.channels, c1, 5, 2),
                                          ConvBlock(c1, c2, 3, 2), ConvBlock(c2, c3, 3, 1))
        self.output = nn.Linear(c3 * math.ceil(math.ceil(config.patch / 2) / 2) ** 2, 1)

    def patch_logits(self, patches: Tensor) -> Tensor:
        """Patches (N, 7, patch, patch) -> logits (N,)."""
        return self.output(self.convolutions(patches).flatten(1)).float()[:, 0]


class SparseAutoencoder(nn.Module):
    """One layer of sigmoid units, and the linear layer that reconstructs its input from them."""

    def __init__(self, inputs: int, hidden: int):
        """Small random weights, so that no unit is saturated."""
        super().__init__()
        self.encoder = nn.Linear(inputs, hidden)
        self.decoder = nn.Linear(hidden, inputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs) -> activations (N, hidden) in (0, 1)."""
        return torch.sigmoid(self.encoder(x).float())

    def losses(self, x: Tensor, sparsity: float) -> tuple[Tensor, Tensor]:
        """Reconstruction error of ``x`` (N, inputs) and sparsity penalty of the hidden units."""
        hidden = self(x)
        error = F.mse_loss(self.decoder(hidden).float(), x.float())
        return error, sparsity_penalty(hidden, sparsity)


def sparsity_penalty(hidden: Tensor, sparsity: float) -> Tensor:
    """
    Mean over units of KL(sparsity || mean activation over the batch), for (N, hidden) in (0, 1).

    Zero where every unit is active a share ``sparsity`` of the time.
    """
    mean = hidden.mean(dim=0).clamp(1e-6, 1 - 1e-6)
    divergence = sparsity * torch.log(sparsity / mean) \
        + (1 - sparsity) * torch.log((1 - sparsity) / (1 - mean))
    return divergence.mean()


class SAESlidingWindow(SlidingWindow):
    """Windows scored by two stacked sparse autoencoders and a logistic unit on top."""

    ARCHITECTURE = 'sae_sliding_window'
    SUMMARY = 'Stacked sparse autoencoders that classify sliding windows'

    def __init__(self, config: WindowConfig | None = None):
        """Build an untrained network."""
        super().__init__(config)
        config = self.config
        inputs = config.channels * config.patch ** 2
        self.autoencoders = nn.ModuleList([SparseAutoencoder(inputs, config.hidden),
                                           SparseAutoencoder(config.hidden, config.hidden)])
        self.output = nn.Linear(config.hidden, 1)

    def hidden(self, patches: Tensor, layers: int = 2) -> Tensor:
        """Patches (N, 7, patch, patch) -> activations (N, hidden) behind ``layers`` layers."""
        x = patches.flatten(1)
        for autoencoder in self.autoencoders[:layers]:
            x = autoencoder(x)
        return x

    def patch_logits(self, patches: Tensor) -> Tensor:
        """Patches (N, 7, patch, patch) -> logits (N,)."""
        return self.output(self.hidden(patches)).float()[:, 0]

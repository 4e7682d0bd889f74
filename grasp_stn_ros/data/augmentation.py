"""Random views of labelled frames for training: the camera rolls, mirrors and moves."""

from __future__ import annotations

from dataclasses import dataclass, replace
import math

import cv2
import numpy as np

from ..preprocessing import CHANNELS, INPUT_SIZE, View, preprocess, size_for_jaw
from ..reasons import GraspError
from ..rectangle import transform_rectangles
from ..settings_check import POSITIVE, SHARE, check
from .sample import LabelledFrame, jaw_in_pixels

# Labels nearer than this to the border of a view are left out: half of the object is missing.
_BORDER = 6.0
# Of a view, in pixels: less shows nothing, and more than that is no view of a camera.
_SIZE = (32, 4096)

# Channels (7, size, size) float32, rectangles (N, 5) in view pixels, success (N,), and the height
# of the jaw plates in view pixels, 0 where it is not known. With ``Augmentation.whole`` there are
# 14 channels: those of the network, then the same with the modality that is kept from it.
TrainingView = tuple[np.ndarray, np.ndarray, np.ndarray, float]


@dataclass(frozen=True)
class Augmentation:
    """How training views differ from the ones in use; ranges are +- around the nominal value."""

    size: int = 240              # of the training views; the network is convolutional
    nominal: float | None = None  # view pixels per image pixel; None = as for the whole image
    log_scale: float = 0.25
    turn: bool = True
    mirror: bool = True
    no_colour: float = 0.12      # share of views without RGB, without depth
    no_depth: float = 0.12
    holes: float = 0.3           # share of views with extra holes in the depth
    anywhere: float = 0.0        # share of views of any part of the image, labelled or not
    no_jaw: float = 0.2          # share of views whose jaw size is kept from the network
    # Share of views whose depth is kept from the network to which the size of the jaws in pixels
    # is told all the same, as by who knows how far the camera is from the support.
    jaw_without_depth: float = 0.0
    told_jaw: float = 0.0        # view pixels that such jaws have, as the network wants it
    seen_jaw: float = 0.0        # the same of jaws whose size depth tells
    whole: bool = False          # also every view with all its modalities, for teachers

    def __post_init__(self) -> None:
        """Raise ValueError, which names the field, where a value cannot be used."""
        check(self, size=_SIZE, nominal=POSITIVE, log_scale=(0, 3), no_colour=SHARE,
              no_depth=SHARE, holes=SHARE, anywhere=SHARE, no_jaw=SHARE, jaw_without_depth=SHARE)

    def __call__(self, sample: LabelledFrame, rng: np.random.Generator) \
            -> TrainingView:
        """Draw a view of ``sample``."""
        frame = sample.frame
        has_depth = frame.depth is not None
        modality = rng.random()
        use_rgb = not (has_depth and modality < self.no_colour)
        use_depth = has_depth and (not use_rgb or modality < 1 - self.no_depth)
        # Without depth a size in metres has no size in pixels.
        size, pixels = sample.jaw_size if use_depth else None, sample.jaw_pixels
        told = None
        if has_depth and not use_depth and self.jaw_without_depth \
                and rng.random() < self.jaw_without_depth:
            pixels = told = jaw_in_pixels(sample)
        if rng.random() < self.no_jaw:
            size = pixels = told = None
        wanted = self.told_jaw
        seen = use_depth and bool(self.seen_jaw) and sample.jaw_pixels is None
        if seen:
            told, wanted = jaw_in_pixels(sample), self.seen_jaw
        view = self._view(sample, told, wanted, seen, rng)
        if frame.depth is not None and use_depth and rng.random() < self.holes:
            frame = replace(frame, depth=_with_holes(frame.depth, rng))
        try:
            prepared = preprocess(frame, view, use_rgb or self.whole, use_depth or self.whole)
        except GraspError:
            # The view happens to show nothing but holes.
            use_rgb = True
            prepared = preprocess(frame, view, use_rgb, use_depth)
        # Where the view shows nothing but holes, colours are not kept from the network.
        use_rgb = use_rgb or not prepared.valid.any()
        channels = prepared.channels
        if use_rgb or self.whole:
            _jitter_colours(channels[:3], rng)
        if self.whole:
            channels = np.concatenate([channels, channels])
            channels[:3] *= use_rgb
            channels[3:CHANNELS] *= use_depth
        rectangles, kept = to_view(sample.rectangles, view)
        return channels, rectangles[kept], sample.success[kept], prepared.jaw(size, pixels)

    def _view(self, sample: LabelledFrame, jaw: float | None, wanted: float, seen: bool,
              rng: np.random.Generator) -> View:
        width, height = sample.frame.size
        shown = max(sample.region[2:]) if sample.region else min(width, height)
        nominal, spread = self.nominal or INPUT_SIZE / shown, self.log_scale
        if jaw and wanted:
            # Hardly another scale than in use, where as much is known.
            nominal = size_for_jaw(jaw * INPUT_SIZE / shown, wanted, seen) / shown
            spread /= 4
        scale = nominal * math.exp(rng.uniform(-spread, spread))
        if self.anywhere and rng.random() < self.anywhere:
            target = rng.uniform(0, 1, 2) * [width - 1, height - 1]
        elif len(sample.rectangles):
            target = sample.rectangles[:, :2].mean(axis=0)
        else:
            target = np.array([width, height]) / 2
        # Anywhere in the view, but with the object's centre at least 60 pixels inside.
        reach = max(10.0, self.size / 2 - 60) / scale
        centre = target + rng.uniform(-reach, reach, 2)
        angle = rng.uniform(0, 2 * math.pi) if self.turn else 0.0
        mirror = bool(self.mirror and rng.random() < 0.5)
        return View.similarity((centre[0], centre[1]), scale, angle, mirror, self.size)


@dataclass(frozen=True)
class FixedView:
    """
    No augmentation: each frame as it is in use, the setting of the paper.

    ``region`` (x, y, width, height) of the image is shown as a whole, None is the largest centred
    square; the same for all frames, whatever their labels say. ``no_depth`` is the share of views
    whose depth and normals are left out (zero), so that a network copes with images without.
    """

    size: int = INPUT_SIZE
    region: tuple[float, float, float, float] | None = None
    no_depth: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError, which names the field, where a value cannot be used."""
        check(self, size=_SIZE, no_depth=SHARE)

    def __call__(self, sample: LabelledFrame, rng: np.random.Generator) \
            -> TrainingView:
        """Show ``sample`` as it is in use."""
        view = View.square(sample.frame.size, self.size) if self.region is None else \
            View.of_region(*self.region, size=self.size)
        channels = preprocess(sample.frame, view).channels
        rectangles, kept = to_view(sample.rectangles, view)
        return channels, rectangles[kept], sample.success[kept], 0.0

    def without_some_depth(self, channels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Leave depth and normals out of (7, size, size), in place, by chance."""
        if rng.random() < self.no_depth:
            channels[3:] = 0.0
        return channels


def to_view(rectangles: np.ndarray, view: View) -> tuple[np.ndarray, np.ndarray]:
    """Rectangles (N, 5) in image pixels -> view pixels (N, 5), and which (N,) lie inside."""
    mapped = transform_rectangles(np.asarray(rectangles, float).reshape(-1, 5), view.matrix)
    inside = np.all((mapped[:, :2] > _BORDER) & (mapped[:, :2] < view.size - 1 - _BORDER), axis=1)
    return mapped, inside


def _jitter_colours(rgb: np.ndarray, rng: np.random.Generator) -> None:
    """Exposure, white balance, contrast, noise and loss of colour, in place on (3, S, S)."""
    if rng.random() < 0.8:
        mean = rgb.mean(axis=(1, 2), keepdims=True)
        shift = rng.uniform(-0.2, 0.2, (3, 1, 1)) + rng.uniform(-0.25, 0.25)
        gain = rng.uniform(0.6, 1.4)
        np.copyto(rgb, (rgb - mean) * np.float32(gain) + (mean + shift).astype(np.float32))
    if rng.random() < 0.3:
        sigma = np.float32(rng.uniform(0, 0.06))
        rgb += rng.standard_normal(rgb.shape, dtype=np.float32) * sigma
    if rng.random() < 0.15:
        rgb[:] = rgb.mean(axis=0)
    np.clip(rgb, -1, 1, out=rgb)


def _with_holes(depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Up to 20 % more holes: blobs and single pixels."""
    mask = (rng.random(depth.shape, dtype=np.float32) < rng.uniform(0, 0.05)).astype(np.uint8)
    for _ in range(int(rng.integers(1, 12))):
        centre = (int(rng.integers(depth.shape[1])), int(rng.integers(depth.shape[0])))
        axes = (int(rng.integers(2, 30)), int(rng.integers(2, 20)))
        cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    return np.where(mask > 0, np.float32(np.nan), depth)

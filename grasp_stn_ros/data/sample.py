"""The one sample type of all data sets, and what a batch of them looks like to the losses."""

from __future__ import annotations

from dataclasses import dataclass
import hashlib
import json
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..preprocessing import CHANNELS, pixels_per_metre
from ..rectangle import GraspRectangle
from ..rgbd import RgbdFrame


class DataError(ValueError):
    """A data set or one of its files cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class LabelledFrame:
    """
    An RGB-D frame with labelled rectangles.

    ``rectangles`` (N, 5) float64 as (x, y, theta, opening, jaw) in image pixels; ``success`` (N,)
    in [0, 1] is the share of trials that lifted the object (1 for a positive, 0 for a negative
    label of a data set without trials). ``objects`` names what lies on the table. The jaw plates
    that the labels are meant for measure ``jaw_size`` metres or, where labels were drawn by hand,
    about ``jaw_pixels`` image pixels. ``region`` (x, y, width, height) in pixels is what is looked
    at, None the largest centred square.
    """

    name: str
    frame: RgbdFrame
    rectangles: np.ndarray
    success: np.ndarray
    objects: tuple[str, ...] = ()
    jaw_size: float | None = None
    jaw_pixels: float | None = None
    region: tuple[float, float, float, float] | None = None

    def graspable(self, threshold: float = 0.5) -> list[GraspRectangle]:
        """Return the rectangles whose success reaches ``threshold``."""
        return [GraspRectangle(*map(float, r))
                for r in self.rectangles[self.success >= threshold]]


def jaw_in_pixels(sample: LabelledFrame) -> float | None:
    """
    Height of the jaw plates in image pixels on the support, in the middle of the image.

    Where it is only known in metres, depth tells; the distance of a camera that stands still
    would as well. None where neither is known.
    """
    if sample.jaw_pixels is not None or sample.jaw_size is None:
        return sample.jaw_pixels
    density = pixels_per_metre(sample.frame)
    return None if density is None else sample.jaw_size * density


class Dataset(Protocol):
    """Labelled frames by index."""

    def __len__(self) -> int:
        """Return the number of frames."""
        ...

    def __getitem__(self, index: int) -> LabelledFrame:
        """Read one frame; raises :class:`DataError`."""
        ...


def identities(data: Dataset) -> list[str]:
    """
    Tell the frames of ``data`` from all others, in their order, without reading an image.

    A data set that knows more than the names of its frames has ``identities``; to names, labels
    are added where they are at hand. Frames without names are told by their places.
    """
    known = getattr(data, 'identities', None)
    if known is not None:
        return list(known)
    names = getattr(data, 'names', None)
    if names is None:
        return [str(index) for index in range(len(data))]
    labels = getattr(data, 'rectangles', None)
    if labels is None:
        return list(names)
    return [f'{name} {hashlib.sha256(b"".join(part.tobytes() for part in labels(i))).hexdigest()}'
            for i, name in enumerate(names)]


def scenes(data: Dataset) -> list[str]:
    """
    Tell what the frames of ``data`` show, whatever was tried out there; '' where nothing tells.

    A data set that knows more than the :func:`identities` of its frames has ``scenes``.
    """
    known = getattr(data, 'scenes', None)
    if known is not None:
        return list(known)
    labels = getattr(data, 'rectangles', None)
    # Images are told apart by their labels: those without have none to be told by.
    return [key if labels is None or any(len(part) for part in labels(i)) else ''
            for i, key in enumerate(identities(data))]


def in_both(one: Dataset, other: Dataset) -> set[str]:
    """Return the :func:`scenes` that frames of both show."""
    return (set(scenes(one)) & set(scenes(other))) - {''}


def digest(data: Dataset) -> str:
    """SHA-256 of the :func:`identities` of ``data``: another one for other frames or orders."""
    return hashlib.sha256(json.dumps(identities(data)).encode()).hexdigest()


def with_depth(images: Tensor) -> Tensor:
    """Images (B, 7, S, S) -> (B,) bool: which have depth; a normal there points to the viewer."""
    return (images[:, -1] != 0).flatten(1).any(dim=1)


@dataclass
class Batch:
    """
    Prepared images with padded labels, in view pixels.

    ``images`` (B, 7, S, S) float32; ``rectangles`` (B, M, 5); ``success`` (B, M) in [0, 1];
    ``present`` (B, M) bool, False for padding; ``jaw`` (B,) height of the gripper's jaw plates in
    view pixels, 0 = not known; ``whole`` (B, 7, S, S) the images with what is kept from the
    network, for its teachers, or None.
    """

    images: Tensor
    rectangles: Tensor
    success: Tensor
    present: Tensor
    jaw: Tensor
    whole: Tensor | None = None

    @property
    def graspable(self) -> Tensor:
        """(B, M) bool: labels that lift the object more often than not."""
        return self.present & (self.success >= 0.5)

    @property
    def with_depth(self) -> Tensor:
        """(B,) bool: images with depth anywhere."""
        return with_depth(self.images)

    def part(self, which: Tensor) -> Batch:
        """Return the images ``which`` (B,) bool."""
        return Batch(self.images[which].contiguous(memory_format=torch.channels_last),
                     self.rectangles[which], self.success[which], self.present[which],
                     self.jaw[which], None if self.whole is None else
                     self.whole[which].contiguous(memory_format=torch.channels_last))

    def to(self, device: torch.device) -> Batch:
        """Copy to ``device``."""
        return Batch(self.images.to(device, memory_format=torch.channels_last),
                     self.rectangles.to(device), self.success.to(device),
                     self.present.to(device), self.jaw.to(device),
                     None if self.whole is None else
                     self.whole.to(device, memory_format=torch.channels_last))


def collate(images: list[np.ndarray], rectangles: list[np.ndarray],
            success: list[np.ndarray], jaws: list[float] | None = None) -> Batch:
    """
    Stack images (7, S, S) and pad their labels to a common number; None = jaws not known.

    Of images (14, S, S) the second half is the :attr:`Batch.whole` ones.
    """
    size = len(images)
    most = max([1, *map(len, rectangles)])
    padded = torch.zeros(size, most, 5)
    # Far away and of size one: padding must be harmless where a loss forgets to mask it.
    padded[..., :2] = -1e4
    padded[..., 3:] = 1.0
    shares = torch.zeros(size, most)
    present = torch.zeros(size, most, dtype=torch.bool)
    for i, (labels, share) in enumerate(zip(rectangles, success, strict=True)):
        count = len(labels)
        padded[i, :count] = torch.from_numpy(np.asarray(labels, np.float32).reshape(-1, 5))
        shares[i, :count] = torch.from_numpy(np.asarray(share, np.float32))
        present[i, :count] = True
    stacked = torch.from_numpy(np.stack(images))
    whole = None
    if stacked.shape[1] == 2 * CHANNELS:
        stacked, whole = stacked.split(CHANNELS, dim=1)
        whole = whole.contiguous(memory_format=torch.channels_last)
    jaw = torch.tensor(jaws or [0.0] * size, dtype=torch.float32)
    return Batch(stacked.contiguous(memory_format=torch.channels_last), padded, shares, present,
                 jaw, whole)

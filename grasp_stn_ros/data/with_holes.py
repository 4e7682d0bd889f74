"""A data set whose depth has more holes than the camera made."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from .sample import Dataset, LabelledFrame


class WithHoles:
    """Take ``share`` of the depth of every frame of ``data`` away, the same at every reading."""

    def __init__(self, data: Dataset, share: float, seed: int = 0):
        """``share`` in [0, 1) of all pixels, in blobs of 4 to 40 pixels."""
        if not 0 <= share < 1:
            raise ValueError(f'the share of holes must lie in [0, 1), got {share}')
        self._data, self._share, self._seed = data, share, seed
        self.region = getattr(data, 'region', None)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._data)

    def __getitem__(self, index: int) -> LabelledFrame:
        """Read one frame; raises :class:`DataError`."""
        sample = self._data[index]
        depth = sample.frame.depth
        if depth is None:
            return sample
        rng = np.random.default_rng([self._seed, index])
        mask = np.zeros(depth.shape, np.uint8)
        while mask.mean() < self._share:
            for _ in range(5):
                centre = (int(rng.integers(depth.shape[1])), int(rng.integers(depth.shape[0])))
                axes = (int(rng.integers(2, 20)), int(rng.integers(2, 20)))
                cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
        holed = np.where(mask > 0, np.float32(np.nan), depth)
        return replace(sample, frame=replace(sample.frame, depth=holed))

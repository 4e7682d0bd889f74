"""A data set that tells the size of the jaws in pixels, also to a network that sees no depth."""

from __future__ import annotations

from dataclasses import replace

from .sample import Dataset, LabelledFrame, jaw_in_pixels


class WithJaw:
    """Add the ``jaw_pixels`` of every frame of ``data``."""

    def __init__(self, data: Dataset):
        """Take the frames of ``data``, and its region."""
        self._data = data
        self.region = getattr(data, 'region', None)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._data)

    def __getitem__(self, index: int) -> LabelledFrame:
        """Read one frame; raises :class:`DataError`."""
        sample = self._data[index]
        return replace(sample, jaw_pixels=jaw_in_pixels(sample))

"""Several data sets as one, each with the share of the training that it should have."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .sample import Dataset, LabelledFrame, identities, scenes


class Mixture:
    """
    Frames of the first data set once, of every other one as often as its share asks for.

    An epoch of the mixture is an epoch of the first, large data set; the others repeat, or are
    left out from the end on where they are too many. A frame that is seen again gets another view.
    """

    def __init__(self, first: Dataset, others: Sequence[tuple[Dataset, float]]):
        """``others`` come with their shares in (0, 1) of all frames; what is left is ``first``."""
        left = 1.0 - sum(share for _, share in others)
        if left <= 0 or any(not 0 < share < 1 for _, share in others):
            raise ValueError('shares must lie between 0 and 1 and leave something for the first')
        self._index = [(first, i) for i in range(len(first))]
        for data, share in others:
            count = round(len(first) * share / left)
            self._index += [(data, i % len(data)) for i in range(count)]

    def __len__(self) -> int:
        """Return the number of frames of an epoch."""
        return len(self._index)

    def __getitem__(self, index: int) -> LabelledFrame:
        """Read one frame; raises :class:`DataError`."""
        data, inner = self._index[index]
        return data[inner]

    @property
    def identities(self) -> list[str]:
        """See :func:`sample.identities`; shares are in how often a frame occurs."""
        return self._of_each(identities)

    @property
    def scenes(self) -> list[str]:
        """See :func:`sample.scenes`."""
        return self._of_each(scenes)

    def _of_each(self, tell: Callable[[Dataset], list[str]]) -> list[str]:
        sets = {id(data): data for data, _ in self._index}
        known = {key: tell(data) for key, data in sets.items()}
        return [known[id(data)][inner] for data, inner in self._index]

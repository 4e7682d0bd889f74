"""
Training, validation and test parts: image-wise or object-wise, by seed, without leakage.

Who goes where follows from SHA-256 of the seed and the name, not from a random generator: the same
on every machine and with every version of NumPy, and independent of the order of the files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
import hashlib

from ..grasp_pose import Gripper
from .sample import DataError, Dataset, LabelledFrame, identities, scenes


@dataclass(frozen=True)
class Split:
    """
    Sorted indices of the images in each part, with their names.

    The validation part is taken from the training images of the fold; models and settings are
    chosen on it, never on the test part.
    """

    kind: str                    # 'image-wise' or 'object-wise'
    seed: int
    fold: int
    folds: int
    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    names: tuple[str, ...]       # of all images, by index

    def to_json(self) -> dict:
        """Return what belongs beside a result: how it was made and the names in each part."""
        parts = {part: [self.names[i] for i in getattr(self, part)]
                 for part in ('train', 'validation', 'test')}
        return {'kind': self.kind, 'seed': self.seed, 'fold': self.fold, 'folds': self.folds,
                'n': {part: len(listed) for part, listed in parts.items()}, **parts}

    @classmethod
    def from_json(cls, record: dict, names: Sequence[str]) -> Split:
        """
        Restore a split for a data set with these ``names``, in whatever order.

        Raises :class:`DataError` if images of the record are missing; images that are not in the
        record belong to no part.
        """
        index = _index(names)
        try:
            missing = [n for part in ('train', 'validation', 'test') for n in record[part]
                       if n not in index]
            if missing:
                raise DataError(f'the split needs {len(missing)} images that are not here '
                                f'(first: {missing[0]})')
            train, validation, test = (tuple(sorted(index[n] for n in record[part]))
                                       for part in ('train', 'validation', 'test'))
            return cls(record['kind'], record['seed'], record['fold'], record['folds'], train,
                       validation, test, tuple(names))
        except (KeyError, TypeError) as error:
            raise DataError(f'no record of a split: {error!r}') from None


def k_folds(names: Sequence[str], folds: int = 5, *, seed: int = 0,
            objects: Sequence[str] | None = None, validation: float = 0.1) -> list[Split]:
    """
    Split into ``folds`` parts, each of which is the test part once.

    ``names`` are unique and in the order of the data set. With ``objects`` (the object of each
    image) the split is object-wise: no object is in two parts of a split, and the parts have
    nearly equal numbers of *images*. ``validation`` is the share of the training images that is
    held back; 0 holds back none. Raises ValueError where that cannot be done.
    """
    _index(names)
    if objects is not None and len(objects) != len(names):
        raise ValueError(f'{len(objects)} objects for {len(names)} images')
    if not 0 <= validation < 1:
        raise ValueError(f'the validation share is {validation}; expected 0 <= share < 1')
    members: dict[str, list[int]] = defaultdict(list)
    for index, unit in enumerate(names if objects is None else objects):
        members[unit].append(index)
    # One unit for each part: test, training and, where wanted, validation.
    needed = max(folds, 3 if validation else 2)
    if folds < 2 or len(members) < needed:
        raise ValueError(f'{len(members)} {"images" if objects is None else "objects"} '
                         f'cannot be split into {folds} folds; at least {needed} are needed')

    parts: list[list[str]] = [[] for _ in range(folds)]
    counts = [0] * folds
    for unit in _shuffled(members, f'{seed}'):
        smallest = counts.index(min(counts))
        parts[smallest].append(unit)
        counts[smallest] += len(members[unit])

    splits = []
    for fold in range(folds):
        training = [u for part in parts[:fold] + parts[fold + 1:] for u in part]
        total = sum(len(members[u]) for u in training)
        held_back: list[str] = []
        for unit in _shuffled(training, f'{seed}:validation:{fold}')[:-1]:
            if sum(len(members[u]) for u in held_back) >= validation * total:
                break
            held_back.append(unit)
        kept = set(training) - set(held_back)
        train, held, test = (tuple(sorted(i for u in units for i in members[u]))
                             for units in (kept, held_back, parts[fold]))
        splits.append(Split('image-wise' if objects is None else 'object-wise', seed, fold, folds,
                            train, held, test, tuple(names)))
    return splits


class Subset:
    """Some frames of a data set, by index."""

    def __init__(self, data: Dataset, indices: Sequence[int]):
        self._data, self.indices = data, tuple(indices)
        outside = [i for i in self.indices if not 0 <= i < len(data)]
        if outside:
            raise ValueError(f'index {outside[0]} of {len(data)} frames')
        # The part of the images that is looked at, for all parts of the data the same.
        self.region: tuple[float, float, float, float] | None = getattr(data, 'region', None)
        self.gripper: Gripper | None = getattr(data, 'gripper', None)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.indices)

    def __getitem__(self, index: int) -> LabelledFrame:
        """Read one frame; raises :class:`DataError`."""
        return self._data[self.indices[index]]

    @property
    def identities(self) -> list[str]:
        """See :func:`sample.identities`."""
        whole = identities(self._data)
        return [whole[i] for i in self.indices]

    @property
    def scenes(self) -> list[str]:
        """See :func:`sample.scenes`."""
        whole = scenes(self._data)
        return [whole[i] for i in self.indices]


def _index(names: Sequence[str]) -> dict[str, int]:
    index = {name: i for i, name in enumerate(names)}
    if len(index) != len(names):
        twice = next(n for n in names if list(names).count(n) > 1)
        raise ValueError(f'the name {twice} occurs more than once')
    return index


def _shuffled(units, salt: str) -> list[str]:
    return sorted(units, key=lambda u: (hashlib.sha256(f'{salt}:{u}'.encode()).digest(), u))

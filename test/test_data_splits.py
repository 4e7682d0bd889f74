"""Splits: complete, without leakage, balanced, the same everywhere, restored from JSON."""

import json
from pathlib import Path
import tempfile

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
import pytest

from grasp_stn_ros.data.cornell import CornellDataset
from grasp_stn_ros.data.sample import DataError, digest
from grasp_stn_ros.data.splits import Split, Subset, k_folds

NAMES = [f'{i:04d}' for i in range(103)]
OBJECTS = [str(i // 4) for i in range(103)]
# First test images of two splits of these names.
EXPECTED_IMAGES = ['0000', '0002', '0009', '0013', '0016']
EXPECTED_OBJECTS = ['0008', '0009', '0010', '0011', '0028']


@st.composite
def data_sets(draw):
    """Return names, their objects or None, number of folds, seed and validation share."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=12, max_size=40))
    objects = [f'o{k}' for k, size in enumerate(sizes) for _ in range(size)]
    names = [f'n{i}' for i in range(len(objects))]
    return (names, draw(st.sampled_from([objects, None])), draw(st.integers(2, 8)),
            draw(st.integers(0, 2 ** 31)), draw(st.sampled_from([0, 0.1, 0.3])))


@given(data_sets())
def test_every_image_is_in_one_part_and_tested_once(case):
    names, objects, folds, seed, validation = case
    splits = k_folds(names, folds, seed=seed, objects=objects, validation=validation)
    assert [s.fold for s in splits] == list(range(folds))
    assert sorted(i for s in splits for i in s.test) == list(range(len(names)))
    for split in splits:
        parts = (split.train, split.validation, split.test)
        assert sorted(i for part in parts for i in part) == list(range(len(names)))
        assert split.train and split.test and bool(split.validation) == (validation > 0)
        if objects is not None:
            train, held, test = ({objects[i] for i in part} for part in parts)
            assert not train & test and not train & held and not held & test
            assert split.kind == 'object-wise'
        # The largest object has 6 images: folds and validation are that near to their share.
        slack = 1 if objects is None else 6
        assert abs(len(split.test) - len(names) / folds) <= slack
        training = len(split.train) + len(split.validation)
        assert len(split.validation) < validation * training + slack


@given(data_sets())
def test_the_order_of_files_does_not_matter(case):
    names, objects, folds, seed, validation = case
    turned = None if objects is None else objects[::-1]
    one = k_folds(names, folds, seed=seed, objects=objects, validation=validation)
    two = k_folds(names[::-1], folds, seed=seed, objects=turned, validation=validation)
    for a, b in zip(one, two, strict=True):
        for part in ('train', 'validation', 'test'):
            assert sorted(a.to_json()[part]) == sorted(b.to_json()[part])


def test_a_split_is_fixed_for_ever():
    # Written down once: a change here changes what every published figure was measured on.
    assert [NAMES[i] for i in k_folds(NAMES)[0].test[:5]] == EXPECTED_IMAGES
    assert [NAMES[i] for i in k_folds(NAMES, objects=OBJECTS, seed=3)[0].test[:5]] \
        == EXPECTED_OBJECTS


def test_seeds_and_folds_differ():
    tests = {s.test for seed in (0, 1) for s in k_folds(NAMES, seed=seed)}
    assert len(tests) == 10
    first, second = k_folds(NAMES)[:2]
    assert not set(first.validation) <= set(second.validation)


def test_json_and_back():
    split = k_folds(NAMES, objects=OBJECTS, seed=2)[0]
    record = json.loads(json.dumps(split.to_json()))
    assert record['kind'] == 'object-wise' and record['seed'] == 2
    assert record['n'] == {'train': len(split.train), 'validation': len(split.validation),
                           'test': len(split.test)}
    assert Split.from_json(record, NAMES) == split
    # In another order, and with a new image that belongs to no part.
    other = Split.from_json(record, ['new', *NAMES[::-1]])
    assert [other.names[i] for i in other.test] == record['test'][::-1]
    assert 0 not in other.train + other.validation + other.test


def test_records_that_do_not_fit_are_refused():
    record = k_folds(NAMES)[0].to_json()
    with pytest.raises(DataError, match=r'1 images that are not here \(first: 0102\)'):
        Split.from_json(record, NAMES[:-1])
    del record['validation']
    with pytest.raises(DataError, match='validation'):
        Split.from_json(record, NAMES)


@pytest.mark.parametrize('arguments, message', [
    ({'names': ['a', 'b', 'a']}, 'the name a occurs more than once'),
    ({'names': ['a', 'b', 'c']}, '3 images cannot be split into 5 folds'),
    ({'names': NAMES, 'objects': ['o', 'p'] * 51 + ['q']}, '3 objects cannot be split'),
    ({'names': NAMES, 'objects': ['o']}, '1 objects for 103 images'),
    ({'names': NAMES, 'folds': 1}, 'into 1 folds'),
    ({'names': ['a', 'b'], 'folds': 2}, 'at least 3'),
    ({'names': NAMES, 'validation': 1.0}, 'validation share is 1.0')])
def test_impossible_splits_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        k_folds(**arguments)


def test_images_are_told_apart_by_name_order_and_labels(tmp_path):
    def images(*openings):
        folder = Path(tempfile.mkdtemp(dir=tmp_path)) / '01'
        folder.mkdir()
        for number, opening in enumerate(openings):
            (folder / f'pcd010{number}r.png').write_bytes(b'')
            (folder / f'pcd010{number}cpos.txt').write_text(
                f'0 0\n{opening} 0\n{opening} 10\n0 10\n')
        return CornellDataset(folder.parent)

    data = images(30, 30, 40)
    assert digest(data) == digest(images(30, 30, 40))
    found = [data, images(30, 30), images(30, 30, 41), Subset(data, (0, 1)), Subset(data, (1, 0)),
             Subset(data, (0, 2))]
    # The first two images are those of the data set that has no more.
    assert [digest(other) == digest(found[1]) for other in found] == [
        False, True, False, True, False, False]
    assert len({digest(other) for other in found}) == 5


def test_subset():
    data = list(np.arange(10) * 10)
    subset = Subset(data, (3, 1))
    assert len(subset) == 2 and [subset[0], subset[1]] == [30, 10]
    with pytest.raises(IndexError):
        _ = subset[2]
    with pytest.raises(ValueError, match='index 10 of 10 frames'):
        Subset(data, [10])

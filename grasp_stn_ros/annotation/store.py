"""
A folder of labelled images in Cornell's format, and the pictures that are to be labelled.

What is written, so that :class:`grasp_stn_ros.data.cornell.CornellDataset` reads it:

=========================  ========================================================
``NN/pcdNNNNr.png``        colour, a copy of the source's bytes; or ``r.jpg``
``NN/pcdNNNNd.png``        depth, a copy: 16-bit millimetres; or ``d.tiff``, metres
``NN/pcdNNNNcpos.txt``     grasps that work, four lines "x y" each
``NN/pcdNNNNcneg.txt``     grasps that do not; only where there are some
``camera.json``            image size, camera matrix, and that depth is z
``objects.csv``            image, object_id, object_name: for object-wise splits
``sources.csv``            image, source: which file became which number
=========================  ========================================================

Only labelled images are copied. Every file is written whole or not at all, and labels that have
changed since they were read are never replaced unasked.
"""

from __future__ import annotations

from collections.abc import Sequence
import csv
from dataclasses import dataclass
import hashlib
import io
import itertools
import json
from pathlib import Path
import re
import threading

import cv2
import numpy as np

from ..atomic import write_atomically
from ..data.camera_file import CAMERA_FILE, DatasetCamera, camera_to_json, read_camera
from ..data.cornell import read_objects, read_rectangles
from ..data.files import checked_depth, checked_rgb
from ..data.sample import DataError
from ..image_files import depth_unit, read_depth
from ..image_pairs import COLOUR, Picture, pair_images
from ..rectangle import GraspRectangle
from ..rgbd import MILLIMETRE, CameraIntrinsics

_MOST = 9999
_PER_FOLDER = 100


class ConflictError(RuntimeError):
    """The labels on the disk are not those that were read; the message says what to do."""


@dataclass(frozen=True)
class Label:
    """One rectangle in pixels, and whether the grasp works."""

    rectangle: GraspRectangle
    success: bool


@dataclass(frozen=True)
class Labels:
    """
    All labels of an image.

    ``version`` names the state of the files: a hash, or '' where there are none.
    """

    labels: tuple[Label, ...]
    thing: str
    version: str


def find_pictures(folder: Path, but: Path | None = None) -> list[Picture]:
    """
    Return the pictures to label below ``folder``, each with a name of its own.

    Hidden files and ``but`` are left out. Raises :class:`DataError` where there is none, and where
    a name does not say which image is meant.
    """
    pictures = pair_images(folder, but)
    if not pictures:
        raise DataError(f'{folder} has no images ({", ".join(COLOUR)})')
    for one, other in itertools.pairwise(pictures):
        if one.name == other.name:
            raise DataError(f'{one.rgb} and {other.rgb} have the same name; which of them is '
                            'meant cannot be told')
    return pictures


class CornellFolder:
    """Labels on the disk; see the module for the files. Threads may share one."""

    def __init__(self, root: Path, pictures: Sequence[Picture],
                 intrinsics: CameraIntrinsics | None = None):
        """
        Open or begin the folder ``root`` for ``pictures``.

        Raises :class:`DataError` where the folder holds another camera's images, or images that
        the list of sources does not know.
        """
        self.root, self.pictures, self._intrinsics = root, list(pictures), intrinsics
        self._lock = threading.Lock()
        self._by_name = {p.name: p for p in self.pictures}
        self._numbers = self._read_sources()
        self._camera = self._read_camera()

    @property
    def intrinsics(self) -> CameraIntrinsics | None:
        """Camera matrix, as it was given or as the folder has it."""
        return self._intrinsics or (self._camera.intrinsics if self._camera else None)

    def load(self, name: str) -> Labels:
        """Return the labels of the picture ``name``; raises :class:`DataError`."""
        stem = self._stem(name)
        self._check_same(name, stem)
        thing = read_objects(self.root).get(self._numbers.get(name, ''), ('', ''))[1]
        return Labels(tuple(self._labels(stem)), thing, self._version(stem))

    def counts(self) -> dict[str, tuple[int, int]]:
        """Name of each picture -> number of its labels that work and that do not."""
        found = {}
        for picture in self.pictures:
            labels = self._labels(self._stem(picture.name))
            good = sum(label.success for label in labels)
            found[picture.name] = (good, len(labels) - good)
        return found

    def size(self, name: str) -> tuple[int, int]:
        """Width and height of the picture ``name`` in pixels; raises :class:`DataError`."""
        return self._checked_size(self._by_name[name])

    def save(self, name: str, labels: Sequence[Label], thing: str = '', version: str = '',
             overwrite: bool = False) -> str:
        """
        Write the labels of the picture ``name`` and return the version of what is there now.

        ``thing`` names the object. Raises :class:`ConflictError` where the files are not those of
        ``version``, unless ``overwrite``; :class:`DataError` for what the reader would refuse.
        """
        with self._lock:
            present = self._version(self._stem(name))
            if present != version and not overwrite:
                raise ConflictError(f'the labels of {name} were changed by somebody else; load '
                                    'them again, or overwrite them')
            picture = self._by_name[name]
            self._check_same(name, self._stem(name))
            size = self._checked_size(picture)
            for label in labels:
                r = label.rectangle
                if not (0 <= r.x < size[0] and 0 <= r.y < size[1]):
                    raise DataError(f'{name}: the rectangle at ({r.x:.0f}, {r.y:.0f}) has its '
                                    f'centre outside the image of {size[0]}x{size[1]}')
            stem = self._stem(name)
            if stem is None or not any(stem.parent.glob(f'{stem.name}r.*')):
                stem = self._begin(picture, size)
            # The positive ones last: with them the image counts as labelled.
            bad = [label.rectangle for label in labels if not label.success]
            negative = stem.with_name(stem.name + 'cneg.txt')
            if bad or negative.exists():
                write_atomically(negative, _cornell(bad))
            write_atomically(stem.with_name(stem.name + 'cpos.txt'),
                             _cornell([label.rectangle for label in labels if label.success]))
            self._write_thing(self._numbers[name], thing)
            return self._version(stem)

    # ------------------------------------------------------------------ names and numbers
    def _check_same(self, name: str, stem: Path | None) -> None:
        """Raise :class:`DataError` where the labels of ``name`` are those of another image."""
        picture = self._by_name.get(name)
        if stem is None or picture is None:
            return
        for copy in stem.parent.glob(f'{stem.name}r.*'):
            if copy.read_bytes() != picture.rgb.read_bytes():
                raise DataError(f'{picture.rgb} is not the image {name} that {self.root} has '
                                'labels of; images of another folder, or new ones under old '
                                'names, belong into another folder (--out)')

    def _stem(self, name: str) -> Path | None:
        """Path of an image without its ending, or None before it is first saved."""
        number = self._numbers.get(name)
        return None if number is None else self._path(number)

    def _path(self, number: str) -> Path:
        found = next(iter(self.root.glob(f'*/pcd{number}r.*')), None)
        folder = found.parent if found else \
            self.root / f'{min(int(number) // _PER_FOLDER, 98) + 1:02d}'
        return folder / f'pcd{number}'

    def _labels(self, stem: Path | None) -> list[Label]:
        labels: list[Label] = []
        for end, success in (('cpos.txt', True), ('cneg.txt', False)):
            path = self._file(stem, end)
            if path is not None and path.is_file():
                labels += [Label(GraspRectangle(*map(float, r)), success)
                           for r in read_rectangles(path)[0]]
        return labels

    @staticmethod
    def _file(stem: Path | None, end: str) -> Path | None:
        return None if stem is None else stem.with_name(stem.name + end)

    def _version(self, stem: Path | None) -> str:
        content = b''
        for end in ('cpos.txt', 'cneg.txt'):
            path = self._file(stem, end)
            if path is not None and path.is_file():
                content += end.encode() + path.read_bytes()
        return hashlib.sha256(content).hexdigest()[:16] if content else ''

    def _read_sources(self) -> dict[str, str]:
        """Picture -> number; in a folder of Cornell's layout the pictures carry theirs."""
        own = {p.name: p.name[-4:] for p in self.pictures
               if p.rgb.is_relative_to(self.root) and re.search(r'pcd\d{4}$', p.name)}
        numbers = {row['source']: row['image']
                   for row in _rows(self.root / 'sources.csv', ('image', 'source'))}
        taken = {p.name[3:7] for p in self.root.glob('*/pcd*')}
        unknown = taken - set(own.values()) - set(numbers.values())
        if unknown:
            raise DataError(f'{self.root} already has images from elsewhere (such as '
                            f'pcd{min(unknown)}); give another folder with --out')
        return {**numbers, **own}

    # ------------------------------------------------------------------ files
    def _read_camera(self) -> DatasetCamera | None:
        known = read_camera(self.root)
        if known and self._intrinsics and known.intrinsics != self._intrinsics:
            raise DataError(f'{self.root / CAMERA_FILE} has another camera matrix; images of '
                            'another camera belong into another folder (--out)')
        return known

    def _checked_size(self, picture: Picture) -> tuple[int, int]:
        """Width and height; raises :class:`DataError` for what the reader would refuse."""
        rgb = checked_rgb(picture.rgb)
        size = (rgb.shape[1], rgb.shape[0])
        if picture.depth is not None:
            depth = checked_depth(picture.depth)
            if depth.shape != rgb.shape[:2]:
                raise DataError(f'{picture.depth} has {depth.shape[1]}x{depth.shape[0]} pixels, '
                                f'its colour image {size[0]}x{size[1]}; depth has to be aligned '
                                'to colour')
        if self._camera and size != self._camera.size:
            raise DataError(f'{picture.rgb} has {size[0]}x{size[1]} pixels, the images before it '
                            f'{self._camera.size[0]}x{self._camera.size[1]}; each size needs a '
                            'folder of its own (--out)')
        return size

    def _begin(self, picture: Picture, size: tuple[int, int]) -> Path:
        """Copy a picture under the next free number, or under its own after an interruption."""
        used = {int(n) for n in self._numbers.values()}
        number = self._numbers.get(picture.name) or \
            f'{next(n for n in range(_MOST + 1) if n not in used):04d}'
        self.root.mkdir(parents=True, exist_ok=True)
        if self._camera is None:
            self._camera = DatasetCamera(size, self._intrinsics)
            content = json.dumps(camera_to_json(size, self._intrinsics), indent=1) + '\n'
            write_atomically(self.root / CAMERA_FILE, content.encode())
        stem = self._path(number)
        stem.parent.mkdir(exist_ok=True)
        # The number is taken before files have it: what is cut off leaves a gap, not a mix-up.
        self._numbers[picture.name] = number
        _write_rows(self.root / 'sources.csv', ('image', 'source'),
                    [(n, source) for source, n in self._numbers.items()])
        if picture.depth is not None:
            end, depth = _depth_copy(picture.depth)
            write_atomically(stem.with_name(stem.name + end), depth)
        end = 'r.png' if picture.rgb.suffix.lower() == '.png' else 'r.jpg'
        write_atomically(stem.with_name(stem.name + end), picture.rgb.read_bytes())
        return stem

    def _write_thing(self, number: str, thing: str) -> None:
        thing = ' '.join(thing.split())
        # Also those of the official z.txt, which objects.csv takes the place of.
        rows = read_objects(self.root)
        if rows.get(number, ('', ''))[1] == thing:
            return
        rows.pop(number, None)
        if thing:
            rows[number] = (thing.replace(' ', '_'), thing)
        _write_rows(self.root / 'objects.csv', ('image', 'object_id', 'object_name'),
                    [(image, *row) for image, row in sorted(rows.items())])


def _depth_copy(path: Path) -> tuple[str, bytes]:
    """Return end of the name and content of the copy of a depth file."""
    if depth_unit(path) != MILLIMETRE:
        # Out of simulated data: its unit is said in a file that is not copied.
        return 'd.tiff', cv2.imencode('.tiff', np.nan_to_num(read_depth(path)))[1].tobytes()
    return 'd.png' if path.suffix.lower() == '.png' else 'd.tiff', path.read_bytes()


def _cornell(rectangles: Sequence[GraspRectangle]) -> bytes:
    """Rectangles -> four lines "x y" each, as the public files have them."""
    return ''.join(f'{x:.3f} {y:.3f}\n' for r in rectangles for x, y in r.corners).encode()


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline='') as file:
        reader = csv.DictReader(file)
        if not set(columns) <= set(reader.fieldnames or ()):
            raise DataError(f'{path} has no columns {", ".join(columns)}')
        return list(reader)


def _write_rows(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(columns)
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())

"""
The Jacquard data set: rendered objects with grasps that worked in simulation.

The official layout, one folder an object (inside one folder for each part of the download, or
not), images 1024x1024, ``K`` the number of the view:

=================================  ====================================================
``OBJECT/K_OBJECT_RGB.png``         colour
``OBJECT/K_OBJECT_stereo_depth.tiff``   depth by stereo matching of rendered images, with holes
``OBJECT/K_OBJECT_perfect_depth.tiff``  rendered depth; both float metres
``OBJECT/K_OBJECT_mask.png``        not zero = object
``OBJECT/K_OBJECT_grasps.txt``      a grasp a line: ``x;y;theta;opening;jaw``
=================================  ====================================================

Positions and lengths are pixels; theta is the angle of the opening in *degrees*, from the image's
x axis towards its y axis (down): the direction of this project, so only the unit changes. (In
projects that measure angles anticlockwise on the screen it is negated.) A position is listed
several times, with the jaw sizes that worked. There are no failed grasps and no camera matrix.
The values of the depth are taken as z.
"""

from __future__ import annotations

from dataclasses import dataclass
import math
from pathlib import Path

import cv2
import numpy as np

from ..rectangle import GraspRectangle
from .files import checked_depth, checked_frame, checked_rgb, list_entries
from .sample import DataError, LabelledFrame

_GRASPS = '_grasps.txt'
DEPTHS = ('stereo', 'perfect')


def read_grasps(path: Path) -> np.ndarray:
    """Label file -> rectangles (N, 5) as (x, y, theta, opening, jaw); raises DataError."""
    rectangles = []
    try:
        lines = path.read_text().splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f'{path} cannot be read: {error}') from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            x, y, degrees, opening, jaw = map(float, line.strip().rstrip(';').split(';'))
            rectangle = GraspRectangle(x, y, math.radians(degrees), opening, jaw)
        except ValueError as error:
            raise DataError(f'{path}, line {number}: expected x;y;theta;opening;jaw: '
                            f'{error}') from None
        rectangles.append(rectangle.as_array())
    return np.array(rectangles).reshape(-1, 5)


@dataclass(frozen=True)
class _Entry:
    """One view of an object: path without the endings, and the labels (N, 5)."""

    stem: Path
    rectangles: np.ndarray

    def file(self, end: str) -> Path:
        """Return the file of this view that ends in ``end``."""
        return self.stem.with_name(self.stem.name + end)


def _entry(path: Path) -> _Entry:
    return _Entry(path.with_name(path.name[:-len(_GRASPS)]), read_grasps(path))


class JacquardDataset:
    """
    Jacquard views sorted by object and name; see the module for layout and conventions.

    ``depth`` is 'stereo', 'perfect' or None (colour only). ``strict`` refuses broken files: label
    files when the data set is opened, images when they are read, with a :class:`DataError` that
    names the file. With ``strict=False`` everything is read once at the start, broken views are
    left out, and ``problems`` says which and why.
    """

    def __init__(self, root: str | Path, depth: str | None = 'stereo', *, strict: bool = True,
                 limit: int | None = None):
        """List the views; raises :class:`DataError` where there is none."""
        if depth is not None and depth not in DEPTHS:
            raise ValueError(f'depth is {depth!r}; choose stereo, perfect or None')
        self.root, self._depth = Path(root), depth
        paths = sorted(self.root.rglob('*' + _GRASPS), key=lambda p: (p.parent.name, p.name))
        if not paths:
            raise DataError(f'{self.root} is no Jacquard data set: no OBJECT/*_grasps.txt')
        self._entries, self.problems = list_entries(
            paths[:limit] if strict else paths, _entry, self._read, strict,
            f'no view of {self.root} can be used')
        self._entries = self._entries[:limit]

    def __len__(self) -> int:
        """Return the number of views."""
        return len(self._entries)

    def __getitem__(self, index: int) -> LabelledFrame:
        """Read one frame; raises :class:`DataError` that names the broken file."""
        return self._read(self._entries[index])

    @property
    def names(self) -> list[str]:
        """Names of the views, object and number."""
        return [e.stem.name for e in self._entries]

    @property
    def object_ids(self) -> list[str]:
        """Object of each view, for object-wise splits."""
        return [e.stem.parent.name for e in self._entries]

    def mask(self, index: int) -> np.ndarray:
        """Object mask (H, W) bool of a view; raises :class:`DataError`."""
        path = self._entries[index].file('_mask.png')
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) if path.is_file() else None
        if mask is None:
            raise DataError(f'{path} is missing or no image file')
        return mask > 0

    def _read(self, entry: _Entry) -> LabelledFrame:
        rgb = checked_rgb(entry.file('_RGB.png'))
        depth, source = None, entry.file('_RGB.png')
        if self._depth is not None:
            source = entry.file(f'_{self._depth}_depth.tiff')
            depth = checked_depth(source)
        frame = checked_frame(str(source), rgb, depth, None)
        return LabelledFrame(entry.stem.name, frame, entry.rectangles.copy(),
                             np.ones(len(entry.rectangles)), (entry.stem.parent.name,))

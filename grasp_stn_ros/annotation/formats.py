"""
Labels from annotation tools: labelme (JSON, one file an image) and CVAT (XML, "for images").

A grasp is a rectangle of any angle. labelme draws it as a polygon of four points, CVAT as a
rotated box or as a polygon of four points. Which edge is the opening is not in these files:
``opening`` says whether it is the first one drawn (in a CVAT box the one that was on top before it
was turned), the longer or the shorter one. Both tools count pixels from the corner of the first
one, this package from its centre: half a pixel is taken off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
import json
import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ..data.sample import DataError
from ..names import NEGATIVE, OPENINGS
from ..rectangle import GraspRectangle
from .store import ConflictError, CornellFolder, Label, Picture

# Farthest that a drawn corner may lie from the fitted rectangle's, in units of its diagonal.
_MAX_SKEW = 0.15


@dataclass(frozen=True)
class ImportedImage:
    """Labels of one image; ``name`` as the tool has it, ``size`` (width, height) if it says so."""

    name: str
    size: tuple[int, int] | None
    labels: tuple[Label, ...]
    problems: tuple[str, ...]


def read_labels(path: Path, opening: str = 'first',
                negative: Iterable[str] = NEGATIVE) -> list[ImportedImage]:
    """
    Read a labelme file, a CVAT file, or a folder of labelme files.

    Shapes named like one of ``negative`` are grasps that do not work. What cannot be used is in
    ``problems``. Raises :class:`DataError` for a file of another kind.
    """
    if opening not in OPENINGS:
        raise DataError(f'opening {opening!r}, expected one of {", ".join(OPENINGS)}')
    bad = {name.lower() for name in negative}
    if path.is_dir():
        files = sorted(p for p in path.rglob('*.json') if not p.name.startswith('.'))
        if not files:
            raise DataError(f'{path} has no labelme files (*.json)')
        return [_labelme(file, opening, bad) for file in files]
    if path.suffix.lower() == '.json':
        return [_labelme(path, opening, bad)]
    if path.suffix.lower() == '.xml':
        return _cvat(path, opening, bad)
    raise DataError(f'{path} is neither labelme (.json) nor CVAT (.xml)')


def _labelme(path: Path, opening: str, negative: set[str]) -> ImportedImage:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        shapes = [(str(s.get('label', '')), np.array(s['points'], np.float64))
                  for s in content['shapes']]
        size = (content.get('imageWidth'), content.get('imageHeight'))
        # Written on Windows, the path of the image has backslashes.
        name = str(content.get('imagePath') or path.stem).replace('\\', '/')
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f'{path} is no labelme file: {error!r}') from None
    return _image(name, (int(size[0]), int(size[1])) if all(size) else None,
                  ((label, points, '') for label, points in shapes), opening, negative)


def _cvat(path: Path, opening: str, negative: set[str]) -> list[ImportedImage]:
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise DataError(f'{path} is no CVAT file: {error}') from None
    images = root.findall('image')
    if root.tag != 'annotations' or not images:
        raise DataError(f'{path} has no images; export it as "CVAT for images 1.1"')
    try:
        return [_image(image.attrib['name'],
                       (int(image.attrib['width']), int(image.attrib['height'])),
                       _cvat_shapes(image), opening, negative) for image in images]
    except (KeyError, ValueError) as error:
        raise DataError(f'{path} is broken: {error!r}') from None


def _cvat_shapes(image: ElementTree.Element) -> Iterator[tuple[str, np.ndarray, str]]:
    for shape in image:
        label = shape.attrib.get('label', '')
        if shape.tag == 'box':
            left, top, right, bottom = (float(shape.attrib[k])
                                        for k in ('xtl', 'ytl', 'xbr', 'ybr'))
            corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
            centre = corners.mean(axis=0)
            # Degrees, clockwise as seen on the screen, about the middle of the box.
            angle = math.radians(float(shape.attrib.get('rotation', 0)))
            turn = np.array([[math.cos(angle), -math.sin(angle)],
                             [math.sin(angle), math.cos(angle)]])
            yield label, (corners - centre) @ turn.T + centre, ''
        elif shape.tag == 'polygon':
            yield label, np.array([p.split(',') for p in shape.attrib['points'].split(';')],
                                  np.float64), ''
        elif 'label' in shape.attrib and shape.tag != 'tag':
            yield label, np.zeros((0, 2)), f'a {shape.tag}'


def _image(name: str, size: tuple[int, int] | None,
           shapes: Iterable[tuple[str, np.ndarray, str]], opening: str,
           negative: set[str]) -> ImportedImage:
    labels, problems = [], []
    for number, (label, points, kind) in enumerate(shapes, 1):
        try:
            if kind:
                raise ValueError(f'{kind}, expected a rotated box or a polygon of 4 points')
            rectangle = rectangle_from_points(points - 0.5, opening)
        except ValueError as error:
            problems.append(f'{name}, shape {number} ({label}): {error}')
        else:
            labels.append(Label(rectangle, label.lower() not in negative))
    return ImportedImage(name, size, tuple(labels), tuple(problems))


def rectangle_from_points(points: np.ndarray, opening: str = 'first') -> GraspRectangle:
    """
    Four corners (4, 2) in drawing order, or two opposite ones of an upright box -> rectangle.

    Raises ValueError for anything that is no rectangle.
    """
    points = np.asarray(points, np.float64)
    if points.shape == (2, 2):
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        points = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    if points.shape == (5, 2) and np.allclose(points[0], points[4]):
        points = points[:4]
    if points.shape != (4, 2) or not np.isfinite(points).all():
        raise ValueError(f'{len(points)} points, expected the 4 corners of a rectangle')
    rectangle = GraspRectangle.from_corners(points)
    # Whichever corner and direction they were drawn from: the same rectangle.
    orders = ([0, 1, 2, 3], [2, 3, 0, 1], [3, 2, 1, 0], [1, 0, 3, 2])
    skew = min(float(np.linalg.norm(rectangle.corners[order] - points, axis=1).max())
               for order in orders)
    if skew > _MAX_SKEW * math.hypot(rectangle.opening, rectangle.jaw):
        raise ValueError('the 4 points are no rectangle')
    longer = rectangle.opening >= rectangle.jaw
    if (opening == 'longer' and not longer) or (opening == 'shorter' and longer):
        rectangle = GraspRectangle(rectangle.x, rectangle.y, rectangle.theta + math.pi / 2,
                                   rectangle.jaw, rectangle.opening)
    return rectangle


def match(name: str, pictures: Iterable[Picture]) -> Picture | None:
    """Return the picture that a tool calls ``name``; :class:`DataError` where it is ambiguous."""
    wanted = tuple(p for p in name.split('/') if p not in ('', '.', '..'))
    for depth in range(len(wanted)):
        found = [p for p in pictures if p.rgb.parts[-len(wanted) + depth:] == wanted[depth:]]
        if len(found) > 1:
            raise DataError(f'{name} may be {found[0].rgb} or {found[1].rgb}')
        if found:
            return found[0]
    return None


def import_labels(folder: CornellFolder, images: Iterable[ImportedImage],
                  overwrite: bool = False) -> tuple[int, list[str]]:
    """
    Save imported labels -> number of images, and one sentence for all that was not used.

    Images that have labels already are left as they are unless ``overwrite``.
    """
    done = 0
    problems: list[str] = []
    for image in images:
        problems += image.problems
        try:
            picture = match(image.name, folder.pictures)
            if picture is None:
                problems.append(f'{image.name}: no such image in the folder')
            elif image.labels:
                known = folder.load(picture.name)
                if known.labels and not overwrite:
                    problems.append(f'{image.name}: has labels already, which were kept')
                    continue
                folder.save(picture.name, image.labels, known.thing, known.version)
                done += 1
            elif not image.problems:
                problems.append(f'{image.name}: has no shapes')
        except (DataError, ConflictError) as error:
            problems.append(str(error))
    return done, problems

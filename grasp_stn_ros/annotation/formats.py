"""
Labels from annotation tools: labelme and Label Studio (JSON), CVAT (XML, "for images"), COCO.

A grasp is a rectangle of any angle. labelme draws it as a polygon of four points; CVAT, Label
Studio and COCO as a rotated box or as a polygon of four points. Which edge is the opening is not
in these files: ``opening`` says whether it is the first one drawn (in a rotated box the one that
was on top before it was turned), the longer or the shorter one. All of them count pixels from the
corner of the first one, this package from its centre: half a pixel is taken off.

Boxes turn clockwise as seen on the screen: those of CVAT and COCO about their middle, those of
Label Studio about their top left corner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
import json
import math
from pathlib import Path
import re
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

import numpy as np

from ..data.sample import DataError
from ..image_files import is_turned
from ..names import NEGATIVE, OPENINGS
from ..rectangle import GraspRectangle
from .store import ConflictError, CornellFolder, Label, Picture

# Farthest that a drawn corner may lie from the fitted rectangle's, in units of its diagonal.
_MAX_SKEW = 0.15
# Whatever a file that is not what it claims to be makes its reader raise.
_BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError,
           RecursionError)
_KINDS = 'labelme, COCO or Label Studio (.json) or CVAT (.xml)'
# Label Studio puts this before the name of an uploaded file.
_UPLOAD_PREFIX = re.compile(r'^[0-9a-f]{8}-')
# What Label Studio draws that is no rectangle; other results (choices, texts) are no shapes.
_OTHER_SHAPES = ('brush', 'ellipse', 'keypoint', 'vector', 'bitmask', 'magicwand')


# Label, points (N, 2) in the pixels of the tool, and what it is if it is no rectangle.
_Shape = tuple[str, np.ndarray, str]
# Name, size and shapes of an image.
_Drawn = tuple[str, tuple[int, int] | None, Iterable[_Shape]]


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
    Read a file of labelme, COCO, Label Studio or CVAT, or a folder of such JSON files.

    Shapes named like one of ``negative`` are grasps that do not work. What cannot be used is in
    ``problems``. Raises :class:`DataError` for a file of another kind.
    """
    if opening not in OPENINGS:
        raise DataError(f'opening {opening!r}, expected one of {", ".join(OPENINGS)}')
    bad = {name.lower() for name in negative}
    if path.is_dir():
        files = sorted(p for p in path.rglob('*.json') if not p.name.startswith('.'))
        if not files:
            raise DataError(f'{path} has no files of labelme, COCO or Label Studio (*.json)')
        return [image for file in files for image in _json(file, opening, bad)]
    if path.is_file() and path.suffix.lower() == '.json':
        return _json(path, opening, bad)
    if path.is_file() and path.suffix.lower() == '.xml':
        return _cvat(path, opening, bad)
    raise DataError(f'{path} is no file of {_KINDS}')


def _json(path: Path, opening: str, negative: set[str]) -> list[ImportedImage]:
    """Read a JSON file of the tool that its content tells."""
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except _BROKEN as error:
        raise DataError(f'{path} is no JSON file: {error!r}') from None
    read: Callable[[Any], Iterator[_Drawn]]
    if isinstance(content, list):
        kind, read = 'Label Studio', _label_studio
    elif isinstance(content, dict) and 'shapes' in content:
        kind, read = 'labelme', _labelme
    elif isinstance(content, dict) and 'images' in content and 'annotations' in content:
        kind, read = 'COCO', _coco
    else:
        raise DataError(f'{path} is no file of {_KINDS}')
    try:
        return [_image(name or path.stem, size, shapes, opening, negative)
                for name, size, shapes in read(content)]
    except DataError as error:
        raise DataError(f'{path}: {error}') from None
    except _BROKEN as error:
        raise DataError(f'{path} is no {kind} file, or a broken one: {error!r}') from None


def _labelme(content: dict[str, Any]) -> Iterator[_Drawn]:
    size = (content.get('imageWidth'), content.get('imageHeight'))
    # Written on Windows, the path of the image has backslashes.
    yield (str(content.get('imagePath') or '').replace('\\', '/'),
           (int(size[0]), int(size[1])) if size[0] and size[1] else None,
           [_labelme_shape(s) for s in content['shapes']])


def _labelme_shape(shape: dict[str, Any]) -> _Shape:
    kind, label = str(shape.get('shape_type') or 'polygon'), str(shape.get('label', ''))
    # A circle and a line are two points as well, which of a rectangle are corners.
    if kind not in ('polygon', 'rectangle'):
        return label, np.zeros((0, 2)), f'a {kind}'
    return label, np.array(shape['points'], np.float64), ''


def _coco(content: dict[str, Any]) -> Iterator[_Drawn]:
    names = {c['id']: str(c['name']) for c in content.get('categories', [])}
    shapes: dict[Any, list[_Shape]] = {image['id']: [] for image in content['images']}
    for number, annotation in enumerate(content['annotations'], 1):
        image, category = annotation['image_id'], annotation['category_id']
        if image not in shapes or category not in names:
            what = f'category {category}' if image in shapes else f'image {image}'
            raise DataError(f'annotation {number} is of {what}, which the file does not list')
        shapes[image].append((names[category], *_coco_shape(annotation)))
    for image in content['images']:
        yield (str(image['file_name']).replace('\\', '/'),
               (int(image['width']), int(image['height'])), shapes[image['id']])


def _coco_shape(annotation: dict[str, Any]) -> tuple[np.ndarray, str]:
    """Return the points of an annotation, or what it is instead of a rectangle."""
    outlines, box = annotation.get('segmentation'), annotation.get('bbox')
    angle = float((annotation.get('attributes') or {}).get('rotation') or 0)
    corners = None
    if box:
        left, top, width, height = map(float, box)
        corners = _box(left, top, width, height)
    if isinstance(outlines, dict):
        return np.zeros((0, 2)), 'a mask'
    if outlines:
        if len(outlines) > 1:
            return np.zeros((0, 2)), f'{len(outlines)} polygons'
        points = np.array(outlines[0], np.float64).reshape(-1, 2)
        # Some tools write the box before it was turned as a polygon as well: the angle counts.
        if not angle or corners is None or len(points) != 4 or \
                not np.allclose(np.sort(points, axis=0), np.sort(corners, axis=0)):
            return points, ''
    if corners is None:
        return np.zeros((0, 2)), 'neither segmentation nor bbox'
    return _turned(corners, angle, corners.mean(axis=0)), ''


def _label_studio(tasks: list[dict[str, Any]]) -> Iterator[_Drawn]:
    for number, task in enumerate(tasks, 1):
        if 'annotations' not in task:
            raise DataError(f'task {number} has no annotations; export it as "JSON", not as '
                            '"JSON-MIN"')
        results = [result for annotation in task['annotations']
                   if not annotation.get('was_cancelled') for result in annotation['result']]
        sizes = [(int(r['original_width']), int(r['original_height'])) for r in results
                 if r.get('original_width') and r.get('original_height')]
        yield _label_studio_name(task), sizes[0] if sizes else None, _label_studio_shapes(results)


def _label_studio_name(task: dict[str, Any]) -> str:
    """Return the name of the image of a task as it was before Label Studio got it."""
    data = task['data']
    texts = [value for value in data.values() if isinstance(value, str)]
    address = data.get('image') or next(iter(texts), None)
    if not isinstance(address, str):
        raise DataError(f'task {task.get("id")} does not say which image it is of')
    parts = urlsplit(address)
    # Files of the server are the query d=folder/name.
    name = parse_qs(parts.query).get('d', [unquote(parts.path)])[0].replace('\\', '/')
    folder, _, last = name.rpartition('/')
    # The folders that Label Studio puts uploaded files in are not the user's.
    return _UPLOAD_PREFIX.sub('', last) if '/upload/' in f'{folder}/' else name


def _label_studio_shapes(results: list[dict[str, Any]]) -> Iterator[_Shape]:
    # Where shape and label are tags of their own, two results share an id.
    named = {r['id']: r['value']['labels'] for r in results
             if r.get('type') == 'labels' and r.get('id')}
    for result in results:
        kind, value = str(result.get('type', '')), result.get('value', {})
        shape = kind.removesuffix('labels')
        labels = value.get(kind) or named.get(result.get('id')) or ['']
        label = str(labels[0])
        if shape in _OTHER_SHAPES:
            yield label, np.zeros((0, 2)), f'a {shape}'
        elif shape not in ('rectangle', 'polygon'):
            continue
        elif result.get('image_rotation'):
            yield label, np.zeros((0, 2)), f'a {shape} on an image turned by ' \
                f'{result["image_rotation"]} degrees'
        else:
            # Percent of the image: the same number is more pixels along its longer side.
            scale = np.array([result['original_width'], result['original_height']]) / 100
            if shape == 'polygon':
                yield label, np.array(value['points'], np.float64) * scale, ''
                continue
            left, top = np.array([value['x'], value['y']], np.float64) * scale
            width, height = np.array([value['width'], value['height']], np.float64) * scale
            corners = _box(left, top, width, height)
            yield label, _turned(corners, float(value.get('rotation') or 0), corners[0]), ''


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


def _cvat_shapes(image: ElementTree.Element) -> Iterator[_Shape]:
    for shape in image:
        label = shape.attrib.get('label', '')
        if shape.tag == 'box':
            left, top, right, bottom = (float(shape.attrib[k])
                                        for k in ('xtl', 'ytl', 'xbr', 'ybr'))
            corners = _box(left, top, right - left, bottom - top)
            angle = float(shape.attrib.get('rotation', 0))
            yield label, _turned(corners, angle, corners.mean(axis=0)), ''
        elif shape.tag == 'polygon':
            yield label, np.array([p.split(',') for p in shape.attrib['points'].split(';')],
                                  np.float64), ''
        elif 'label' in shape.attrib and shape.tag != 'tag':
            yield label, np.zeros((0, 2)), f'a {shape.tag}'


def _box(left: float, top: float, width: float, height: float) -> np.ndarray:
    """Corners (4, 2) of an upright box, clockwise from the top left."""
    return np.array([[left, top], [left + width, top], [left + width, top + height],
                     [left, top + height]])


def _turned(points: np.ndarray, degrees: float, about: np.ndarray) -> np.ndarray:
    """Turn ``points`` (N, 2) clockwise as seen on the screen."""
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return (points - about) @ turn.T + about


def _image(name: str, size: tuple[int, int] | None, shapes: Iterable[_Shape], opening: str,
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


def _parts(name: str) -> tuple[str, ...]:
    return tuple(p for p in name.split('/') if p not in ('', '.', '..'))


def match(name: str, pictures: Iterable[Picture]) -> Picture | None:
    """Return the picture that a tool calls ``name``; :class:`DataError` where it is ambiguous."""
    wanted = _parts(name)
    for depth in range(len(wanted)):
        found = [p for p in pictures if p.rgb.parts[-len(wanted) + depth:] == wanted[depth:]]
        if len(found) > 1:
            raise DataError(f'{name} may be {found[0].rgb} or {found[1].rgb}')
        if found:
            return found[0]
    return None


def _taken(names: Sequence[str], pictures: Sequence[Picture]) -> dict[str, str]:
    """
    Return the name that a picture is meant by where several names fit it by their ends.

    That is the one that fits as a whole; '' where it is none or several.
    """
    fitting: dict[str, set[str]] = {}
    whole: dict[str, set[str]] = {}
    for name in names:
        try:
            picture = match(name, pictures)
        except DataError:
            continue
        if picture is None:
            continue
        fitting.setdefault(picture.name, set()).add(name)
        wanted = _parts(name)
        if picture.rgb.parts[-len(wanted):] == wanted:
            whole.setdefault(picture.name, set()).add(name)
    return {key: next(iter(whole[key])) if len(whole.get(key, ())) == 1 else ''
            for key, found in fitting.items() if len(found) > 1}


def import_labels(folder: CornellFolder, images: Iterable[ImportedImage],
                  overwrite: bool = False) -> tuple[int, list[str]]:
    """
    Save imported labels -> number of images, and one sentence for all that was not used.

    Images that have labels already are left as they are unless ``overwrite``.
    """
    done = 0
    problems: list[str] = []
    images = list(images)
    taken = _taken([image.name for image in images], folder.pictures)
    for image in images:
        problems += image.problems
        try:
            picture = match(image.name, folder.pictures)
            if picture is not None and taken.get(picture.name, image.name) != image.name:
                problems.append(f'{image.name}: {picture.rgb} is not meant alone, there is '
                                f'{taken[picture.name] or "another one"} as well')
            elif picture is None:
                problems.append(f'{image.name}: no such image in the folder')
            elif image.labels and is_turned(picture.rgb):
                problems.append(f'{image.name}: has an EXIF orientation, by which other programs '
                                'turn it; here, as for depth, pixels count as they are stored')
            elif image.labels:
                size = folder.size(picture.name)
                if image.size is not None and image.size != size:
                    # Of a smaller copy, say: the rectangles would lie elsewhere.
                    problems.append(f'{image.name}: was labelled with {image.size[0]}x'
                                    f'{image.size[1]} pixels, {picture.rgb} has {size[0]}x'
                                    f'{size[1]}')
                    continue
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

"""
The Cornell grasping data set: labelled rectangles on pictures of one object on a white table.

Two layouts are read, also mixed; ``NN`` is a folder from 01 to 10, ``NNNN`` the image's number:

========================  ==========================================================
``NN/pcdNNNNr.png``       colour, 640x480; or ``r.jpg``
``NN/pcdNNNN.txt``        official point cloud: ASCII PCD, x y z in millimetres and an
                          index = row * 640 + column, both from 0
``NN/pcdNNNNd.tiff``      distance in metres, which other projects derive from the cloud
``NN/pcdNNNNd.png``       the same in 16-bit millimetres
``NN/pcdNNNNcpos.txt``    four lines "x y" a rectangle: grasps that work
``NN/pcdNNNNcneg.txt``    the same for grasps that do not work; may be missing
``objects.csv``           columns image, object_id, object_name; may be missing
``processedData/z.txt``   official: image, object id, object name, ...; or ``z.txt``
``camera.json``           not in the public set: own images, see :mod:`.camera_file`
========================  ==========================================================

Depth may be missing; the first of the three that is there is read.

What the numbers of the depth mean
----------------------------------
By the official description the points are relative to the *base of the robot* that took the
images. The depth images that are in circulation hold sqrt(x^2 + y^2 + z^2) of these points: the
distance to the robot's base, which is neither z nor the distance to the camera. Seen as distances
to the camera, the flat table bends by 10 mm (median, 43 mm at the 95th percentile), which hides
a remote control; as distances to the base, by 1 mm (3 mm).

The camera did not move against the base between the first image and the last: one position of the
base in the optical frame (:data:`ROBOT_BASE`), one focal length and one plane for each flat board
explain the depth of image 1001 and of the median of images 0100-0199 with 0.6 mm median residual
on the tables and 2 mm on the wall. Fitted freely the focal length is 526 px; with the nominal 525
px of the Kinect v1 (an assumption, as is the principal point in the middle: no calibration is
published) the residual is the same. Four lines of pcd0100.txt that are public confirm it
independently: neighbouring points at pixel (587, 39) are 2.608 mm apart, so z is 525 * 2.608 mm =
1.369 m, and :func:`distance_to_z` gives 1.373 m.

From a point cloud the camera's pose follows without :data:`ROBOT_BASE`, because every point comes
with its pixel.

Rectangles
----------
The first edge (first to second corner) runs along the opening of the gripper, the second along
its plates, which is the other way round than the official description can be read; drawn on the
images it is beyond doubt.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
import re

import cv2
import numpy as np

from ..preprocessing import INPUT_SIZE, View
from ..rectangle import GraspRectangle
from ..rgbd import CameraIntrinsics, clean_depth
from .camera_file import read_camera
from .files import checked_depth, checked_frame, checked_rgb, list_entries
from .sample import DataError, LabelledFrame

# Of all images in the public set; results on fewer have to say so.
PUBLIC_IMAGES = 885
IMAGE_SIZE = (640, 480)
KINECT_V1 = CameraIntrinsics(525.0, 525.0, 319.5, 239.5)
# Base of the robot in the optical frame, metres; how it was found is said above.
ROBOT_BASE = (-0.2105, 0.8374, 0.1687)

# x, y, width, height in pixels: what a test image shows; see cornell_view.
REGION = (104, 74, 400, 400)
# About the median height in pixels of the plates of the labelled rectangles, told to networks
# that ask for a gripper.
JAW = 27.0

# Pixels between a point of a cloud and its projection (median) from which on it is no point cloud
# of this camera.
_MAX_REPROJECTION = 3.0
_NAME = re.compile(r'pcd(\d{4})(r\.png|r\.jpg|cpos\.txt)')


def cornell_view(size: int = INPUT_SIZE) -> View:
    """
    Return the one view in which every Cornell image is tested, whatever its labels say.

    The rule: the 400x400 pixels around (304, 274), at the camera's own resolution. That point is
    the median of the label centres in a training part (302-306, 272-275 in each of five folds,
    image-wise and object-wise). All labels of the 620 images that were at hand lie inside with
    all their corners. What is cut off is wall, floor and room.
    """
    return View.of_region(*REGION, size=size)


def distance_to_z(distance: np.ndarray, intrinsics: CameraIntrinsics = KINECT_V1,
                  origin: tuple[float, float, float] = ROBOT_BASE) -> np.ndarray:
    """
    Distance of every pixel's point to ``origin`` -> z, both (H, W) float32 metres, NaN = hole.

    ``origin`` is in the optical frame, (0, 0, 0) being the camera itself. On each ray the point
    farther from the camera is taken. Where no point of the ray is that near to the origin, the
    result is a hole; the fillings around holes of the depth images in circulation have such
    values.
    """
    height, width = distance.shape
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    rays = intrinsics.rays(np.stack([columns, rows], axis=-1))
    length = np.linalg.norm(rays, axis=-1)
    base = np.asarray(origin, np.float64)
    # |t u - base| = distance for the unit ray u: t^2 - 2 t (u . base) + |base|^2 = distance^2.
    along = rays @ base / length
    square = along ** 2 - base @ base + distance.astype(np.float64) ** 2
    with np.errstate(invalid='ignore'):
        z = (along + np.sqrt(square)) / length
    return clean_depth(z)


def read_point_cloud(path: Path, intrinsics: CameraIntrinsics = KINECT_V1) -> np.ndarray:
    """
    Official point cloud -> z (480, 640) float32 metres with NaN for holes.

    The camera's pose is resected from the points and the pixels that they belong to. Raises
    :class:`DataError`, also where the points do not fit the camera.
    """
    points, index = _parse_point_cloud(path)
    width, height = IMAGE_SIZE
    if len(points) < 100:
        raise DataError(f'{path} has {len(points)} points; at least 100 are needed')
    if index.min() < 0 or index.max() >= width * height:
        raise DataError(f'{path} has index {int(index.max())}, outside {width}x{height} pixels')
    pixels = np.stack([index % width, index // width], axis=1).astype(np.float64)
    sample = np.linspace(0, len(points) - 1, min(len(points), 4000)).astype(int)
    rotation, translation, error = _camera_pose(points[sample], pixels[sample], intrinsics)
    if error > _MAX_REPROJECTION:
        raise DataError(f'{path}: points and pixels do not fit a camera with focal length '
                        f'{intrinsics.fx:.0f} px; median deviation {error:.1f} px')
    depth = np.full(height * width, np.nan, np.float32)
    depth[index] = points @ rotation[2] + translation[2]
    return clean_depth(depth.reshape(height, width))


def _parse_point_cloud(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) float64 metres in the robot's frame and their pixel index (N,)."""
    try:
        header, found, body = path.read_text(encoding='ascii').partition('DATA ascii')
        fields = re.search(r'^FIELDS (.*)$', header, re.MULTILINE)
        if not found or fields is None:
            raise ValueError('no ASCII PCD header')
        names = fields.group(1).split()
        columns = [names.index(n) for n in ('x', 'y', 'z', 'index')]
        table = np.array(body.split(), np.float64)
        table = table.reshape(-1, len(names))[:, columns]
    except (OSError, ValueError) as error:
        raise DataError(f'{path} is no point cloud: {error}') from None
    table = table[np.isfinite(table).all(axis=1)]
    return table[:, :3] * 1e-3, table[:, 3].astype(np.int64)


def _camera_pose(points: np.ndarray, pixels: np.ndarray, intrinsics: CameraIntrinsics) \
        -> tuple[np.ndarray, np.ndarray, float]:
    """Rotation (3, 3), translation (3,) into the optical frame, median reprojection error."""
    matrix = np.array([[intrinsics.fx, 0, intrinsics.cx], [0, intrinsics.fy, intrinsics.cy],
                       [0, 0, 1]])
    try:
        found, turn, shift = cv2.solvePnP(points, pixels, matrix, None,
                                          flags=cv2.SOLVEPNP_SQPNP)
        if found:
            turn, shift = cv2.solvePnPRefineLM(points, pixels, matrix, None, turn, shift)
    except cv2.error:
        found = False
    if not found:
        return np.eye(3), np.zeros(3), np.inf
    rotation, translation = cv2.Rodrigues(turn)[0], shift.ravel()
    camera = points @ rotation.T + translation
    if (camera[:, 2] <= 0).any():
        return rotation, translation, np.inf
    error = np.linalg.norm(intrinsics.project(camera) - pixels, axis=1)
    return rotation, translation, float(np.median(error))


def read_rectangles(path: Path) -> tuple[np.ndarray, int]:
    """
    Label file -> rectangles (N, 5) as (x, y, theta, opening, jaw), and how many had NaN corners.

    The official files hold some rectangles with NaN, which are skipped. Raises
    :class:`DataError`.
    """
    try:
        values = np.array([line.split() for line in path.read_text().splitlines()
                           if line.strip()], np.float64)
    except (OSError, ValueError) as error:
        raise DataError(f'{path} is no file of "x y" lines: {error}') from None
    if values.size == 0:
        return np.zeros((0, 5)), 0
    if values.ndim != 2 or values.shape[1] != 2 or len(values) % 4:
        raise DataError(f'{path} has {len(values)} lines; a rectangle has 4 of two numbers')
    corners = values.reshape(-1, 4, 2)
    missing = np.isnan(corners).any(axis=(1, 2))
    rectangles = []
    for number in np.flatnonzero(~missing):
        try:
            rectangles.append(GraspRectangle.from_corners(corners[number]).as_array())
        except ValueError as error:
            raise DataError(f'{path}, line {4 * number + 1}: {error}') from None
    return np.array(rectangles).reshape(-1, 5), int(missing.sum())


@dataclass(frozen=True)
class _Entry:
    """Files and labels of one image; ``rectangles`` (N, 5), ``success`` (N,)."""

    name: str
    rgb: Path
    depth: Path | None
    rectangles: np.ndarray
    success: np.ndarray
    skipped: int


class CornellDataset:
    """
    Cornell images in the order of their numbers; see the module for layouts and conventions.

    ``strict`` refuses broken files: label files when the data set is opened, images when they
    are read, with a :class:`DataError` that names the file. With ``strict=False`` everything is
    read once at the start, broken images are left out, and ``problems`` says which and why (a
    point cloud takes a second). With ``cache`` the images stay in memory (2 MB a frame with
    depth). ``nan_rectangles`` counts the rectangles without position. ``region`` is what a test
    shows of each image, None = the largest centred square; it and the size of the jaws are known
    of the public set only, not of own images with ``camera.json``.
    """

    def __init__(self, root: str | Path, *, strict: bool = True, cache: bool = False,
                 limit: int | None = None):
        """List the images; raises :class:`DataError` where there is none."""
        self.root = Path(root)
        stems = sorted({p.with_name(f'pcd{m.group(1)}') for p in self.root.glob('*/pcd*')
                        if (m := _NAME.fullmatch(p.name))}, key=lambda p: p.name)
        if not stems:
            raise DataError(f'{self.root} is no Cornell data set: no NN/pcdNNNNr.png or .jpg')
        self._objects = read_objects(self.root)
        self._camera = read_camera(self.root)
        self.region: tuple[float, float, float, float] | None = None if self._camera else REGION
        self._cache: dict[int, LabelledFrame] | None = {} if cache else None
        self._entries, self.problems = list_entries(
            stems, _entry, self._read, strict, f'no image of {self.root} can be used')
        self._entries = self._entries[:limit]
        self.nan_rectangles = sum(e.skipped for e in self._entries)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._entries)

    def __getitem__(self, index: int) -> LabelledFrame:
        """Read one frame; raises :class:`DataError` that names the broken file."""
        if self._cache is None:
            return self._read(self._entries[index])
        if index not in self._cache:
            self._cache[index] = self._read(self._entries[index])
        return self._cache[index]

    @property
    def names(self) -> list[str]:
        """Numbers of the images, such as 0100."""
        return [e.name for e in self._entries]

    @property
    def has_depth(self) -> list[bool]:
        """Tell for each image whether it comes with depth."""
        return [e.depth is not None for e in self._entries]

    @property
    def object_ids(self) -> list[str]:
        """Object of each image, for object-wise splits; raises :class:`DataError` if unknown."""
        unknown = [n for n in self.names if n not in self._objects]
        if unknown:
            raise DataError(f'the object of {len(unknown)} images is unknown (first: '
                            f'{unknown[0]}); {self.root} needs objects.csv or '
                            'processedData/z.txt of the official set')
        return [self._objects[n][0] for n in self.names]

    def rectangles(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Labels alone, without reading images: rectangles (N, 5) and success (N,)."""
        return self._entries[index].rectangles, self._entries[index].success

    def _read(self, entry: _Entry) -> LabelledFrame:
        rgb = checked_rgb(entry.rgb)
        camera = self._camera
        size = camera.size if camera else IMAGE_SIZE
        if (rgb.shape[1], rgb.shape[0]) != size:
            raise DataError(f'{entry.rgb} has {rgb.shape[1]}x{rgb.shape[0]} pixels, expected '
                            f'{size[0]}x{size[1]}')
        depth = None
        if entry.depth is not None and entry.depth.suffix == '.txt':
            depth = read_point_cloud(entry.depth)
        elif entry.depth is not None:
            depth = checked_depth(entry.depth)
            depth = depth if camera else distance_to_z(depth)
        frame = checked_frame(str(entry.depth or entry.rgb), rgb, depth,
                              camera.intrinsics if camera else KINECT_V1)
        known = self._objects.get(entry.name)
        # Names alone are not unique: there are several mugs.
        objects = (f'{known[1]}_{known[0]}',) if known else ()
        return LabelledFrame(entry.name, frame, entry.rectangles.copy(), entry.success.copy(),
                             objects, jaw_pixels=None if camera else JAW, region=self.region)


def _entry(stem: Path) -> _Entry:
    def beside(*ends: str) -> Path | None:
        paths = (stem.with_name(stem.name + end) for end in ends)
        return next((p for p in paths if p.is_file()), None)

    rgb = beside('r.png', 'r.jpg')
    if rgb is None:
        raise DataError(f'{stem}r.png or r.jpg is missing, but it has labels')
    positive = beside('cpos.txt')
    if positive is None:
        raise DataError(f'{stem}cpos.txt is missing, but there is {rgb.name}')
    good, skipped = read_rectangles(positive)
    negative = beside('cneg.txt')
    bad, skipped_too = read_rectangles(negative) if negative else (np.zeros((0, 5)), 0)
    return _Entry(stem.name[3:], rgb, beside('.txt', 'd.tiff', 'd.png'),
                  np.concatenate([good, bad]),
                  np.concatenate([np.ones(len(good)), np.zeros(len(bad))]), skipped + skipped_too)


def read_objects(root: Path) -> dict[str, tuple[str, str]]:
    """
    Image number -> object id and name, from the first table that is there, or empty.

    Raises :class:`DataError`.
    """
    try:
        path = root / 'objects.csv'
        if path.is_file():
            with path.open(newline='') as file:
                return {row['image'].zfill(4): (row['object_id'], row['object_name'])
                        for row in csv.DictReader(file)}
        for path in (root / 'processedData' / 'z.txt', root / 'z.txt'):
            if path.is_file():
                rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
                return {row[0].zfill(4): (row[1], row[2]) for row in rows}
    except (OSError, KeyError, IndexError, AttributeError, ValueError, csv.Error) as error:
        raise DataError(f'{path} is no table of images and objects: {error!r}') from None
    return {}

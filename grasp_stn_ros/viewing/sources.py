"""Where frames to look at come from when there is no ROS: files, folders, the simulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
import re

from ..image_files import read_frame
from ..reasons import GraspError, Reason
from ..rgbd import CameraIntrinsics, RgbdFrame

IMAGES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff', '.bmp')
_DEPTH_WORD = re.compile(r'depth', re.IGNORECASE)
_COLOUR_WORD = re.compile(r'rgb|colou?r|image', re.IGNORECASE)
# Millimetres are 16-bit and never in one of these.
_NEVER_DEPTH = ('.jpg', '.jpeg', '.bmp')


class SourceError(RuntimeError):
    """There is nothing to look at; the message says why and what would be there."""


@dataclass(frozen=True)
class Named:
    """A frame that can be read, with its name."""

    name: str
    read: Callable[[], RgbdFrame]    # raises GraspError


def pair_images(paths: list[Path]) -> list[tuple[Path, Path | None]]:
    """
    Image files -> (colour, depth or None), in the order of their names.

    A depth image has ``depth`` in its name or in that of its folder, and belongs to the colour
    image with the same rest: ``12_rgb.png`` and ``12_depth.png``, ``rgb/12.png`` and
    ``depth/12.tiff``.
    """
    depth: dict[str, Path] = {}
    colour: list[Path] = []
    for path in sorted(paths):
        if path.suffix.lower() not in IMAGES or path.name.startswith('.'):
            continue
        name = f'{path.parent.name}/{path.stem}'
        if _DEPTH_WORD.search(name) and path.suffix.lower() not in _NEVER_DEPTH:
            depth[_rest(_DEPTH_WORD, path)] = path
        else:
            colour.append(path)
    return [(path, depth.get(_rest(_COLOUR_WORD, path), depth.get(path.stem)))
            for path in colour]


def _rest(word: re.Pattern[str], path: Path) -> str:
    """Return what is left of a file's stem without ``word`` and separators."""
    return re.sub(r'^[_\-. ]+|[_\-. ]+$', '', word.sub('', path.stem))


def from_folder(folder: Path, intrinsics: CameraIntrinsics | None) -> list[Named]:
    """Frames of a data set or of a folder of images; raises :class:`SourceError`."""
    from ..data.open import open_dataset
    from ..data.sample import DataError
    try:
        data = open_dataset(folder)
    except DataError:
        pairs = pair_images([p for p in folder.rglob('*') if p.is_file()])
        if not pairs:
            raise SourceError(f'NO_IMAGES: {folder} has neither images ({", ".join(IMAGES)}) nor '
                              'one of the data sets that `grasp_stn train` reads') from None
        return [_file(str(rgb.relative_to(folder)), rgb, depth, intrinsics)
                for rgb, depth in pairs]
    return [Named(f'{folder.name} {name}', partial(_labelled, data, index))
            for index, name in enumerate(data.names)]


def _labelled(data, index: int) -> RgbdFrame:
    from ..data.sample import DataError
    try:
        return data[index].frame
    except DataError as error:
        raise GraspError(Reason.INVALID_IMAGE, str(error)) from None


def _file(name: str, rgb: Path, depth: Path | None,
          intrinsics: CameraIntrinsics | None) -> Named:
    return Named(name, lambda: read_frame(rgb, depth, intrinsics))


def from_files(rgb: Path, depth: Path | None, intrinsics: CameraIntrinsics | None) -> list[Named]:
    """One frame from its files; raises :class:`SourceError` for what does not exist."""
    for path in (rgb, depth):
        if path is not None and not path.exists():
            raise SourceError(f'NO_FILE: {path} does not exist')
    return [_file(rgb.name, rgb, depth, intrinsics)]


def from_simulator(scenes: int, seed: int, objects: int | None) -> Iterator[Named]:
    """Frames of simulated scenes, each rendered when it is its turn."""
    from ..simulation.labels import open_scene

    def render(index: int) -> RgbdFrame:
        scene = open_scene(seed, index, objects=objects)
        try:
            assert scene.frame is not None
            return scene.frame
        finally:
            scene.close()

    for index in range(scenes):
        yield Named(f'simulated scene {index}, seed {seed}', partial(render, index))

"""Where frames to look at come from when there is no ROS: files, folders, the simulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..image_files import read_frame
from ..image_pairs import pair_images
from ..reasons import GraspError, Reason
from ..rgbd import CameraIntrinsics, RgbdFrame

IMAGES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff', '.bmp')


class SourceError(RuntimeError):
    """There is nothing to look at; the message says why and what would be there."""


@dataclass(frozen=True)
class Named:
    """A frame that can be read, with its name."""

    name: str
    read: Callable[[], RgbdFrame]    # raises GraspError


def from_folder(folder: Path, intrinsics: CameraIntrinsics | None) -> list[Named]:
    """Frames of a data set or of a folder of images; raises :class:`SourceError`."""
    from ..data.open import open_dataset
    from ..data.sample import DataError
    try:
        data = open_dataset(folder)
    except DataError:
        pictures = pair_images(folder, colours=IMAGES)
        if not pictures:
            raise SourceError(f'NO_IMAGES: {folder} has neither images ({", ".join(IMAGES)}) nor '
                              'one of the data sets that `grasp_stn train` reads') from None
        return [_file(str(p.rgb.relative_to(folder)), p.rgb, p.depth, intrinsics)
                for p in pictures]
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

#!/usr/bin/env python3
"""
What the shipped model does on real RGB-D pictures of cameras that it has never seen.

No labels, no crop, no region of interest: the whole picture goes in. Where a mask says which
pixels are objects, the best grasp is measured against it; whether it would hold, people judge by
looking at the sheet. The pictures that come with GQ-CNN and GraspNet are read where they lie; they
are not part of this package (https://github.com/BerkeleyAutomation/gqcnn,
https://github.com/graspnet/graspnet-baseline):

    python scripts/judge_real_images.py --gqcnn gqcnn --graspnet graspnet-baseline \
        --sheet runs/real.png --json results/real_images.json

With --grconvnet and --ggcnn, trusted checkouts as in judge_peer.py, the weights of their authors
are asked as well, in each of the ways to show them a picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any

import click
import cv2
from judge_peer import VIEWS, Peer, PeerDetector, ggcnn, grconvnet
import numpy as np
from rich.console import Console
from rich.table import Table

from grasp_stn_ros.detection import Detection
from grasp_stn_ros.detector import GraspDetector
from grasp_stn_ros.evaluation.failures import tile, write_sheet
from grasp_stn_ros.evaluation.report import write_json
from grasp_stn_ros.image_files import read_frame
from grasp_stn_ros.names import MODALITIES
from grasp_stn_ros.preprocessing import pixels_per_metre
from grasp_stn_ros.reasons import GraspError
from grasp_stn_ros.rectangle import GraspRectangle
from grasp_stn_ros.rgbd import CameraIntrinsics, RgbdFrame, clean_depth

# Colours, and the size of the jaws in pixels.
_TOLD = 'rgb, jaws told'


@dataclass(frozen=True)
class Picture:
    """A frame, its camera's name and (H, W) bool of what is an object, or None."""

    camera: str
    name: str
    frame: RgbdFrame
    mask: np.ndarray | None = None


def gqcnn_pictures(root: Path) -> Iterator[Picture]:
    """Overhead PhoXi and PrimeSense pictures of GQ-CNN's examples."""
    for folder, camera in (('single_object/primesense', 'primesense'),
                           ('clutter/primesense', 'primesense'),
                           ('clutter/phoxi/dex-net_4.0', 'phoxi'),
                           ('clutter/phoxi/fcgqcnn', 'phoxi')):
        numbers = json.loads((root / f'data/calib/{camera}/{camera}.intr').read_text())
        intrinsics = CameraIntrinsics(*(numbers[k] for k in ('_fx', '_fy', '_cx', '_cy')))
        for path in sorted((root / 'data/examples' / folder).glob('depth_*.npy')):
            depth = clean_depth(np.load(path)[..., 0])
            size = depth.shape[::-1]
            index = path.stem.split('_')[1]
            colour = cv2.imread(str(path.with_name(f'color_{index}.png')))
            mask = cv2.imread(str(path.with_name(f'segmask_{index}.png')), cv2.IMREAD_GRAYSCALE)
            if colour is None or mask is None:
                raise click.ClickException(f'{path} has no colour or no mask beside it')
            # The PhoXi's colour has twice the resolution of its depth.
            colour = cv2.resize(colour, size, interpolation=cv2.INTER_AREA)
            mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
            frame = RgbdFrame(cv2.cvtColor(colour, cv2.COLOR_BGR2RGB), depth, intrinsics)
            yield Picture(f'{camera}, {folder.split("/")[0].replace("_", " ")}',
                          f'{folder}/{index}', frame, mask > 0)


def graspnet_pictures(root: Path) -> Iterator[Picture]:
    """GraspNet's example: a table with many objects, seen from the side by an Azure Kinect."""
    folder = root / 'doc/example_data'
    # The camera matrix in meta.mat of the same folder.
    intrinsics = CameraIntrinsics(631.55, 631.21, 638.44, 366.50)
    yield Picture('azure kinect, clutter', 'graspnet',
                  read_frame(folder / 'color.png', folder / 'depth.png', intrinsics))


def measure(rectangle: GraspRectangle, mask: np.ndarray) -> dict[str, float]:
    """
    Shares of the mask in the inner half of the rectangle, and in strips where its jaws stand.

    A grasp holds something where the first is large, and both jaws find room where the second is
    small.
    """
    def share(shift: float, opening: float) -> float:
        middle = np.array([rectangle.x, rectangle.y]) + shift * rectangle.axes[0]
        part = GraspRectangle(middle[0], middle[1], rectangle.theta, opening, rectangle.jaw)
        drawn = np.zeros(mask.shape, np.uint8)
        cv2.fillConvexPoly(drawn, np.rint(part.corners).astype(np.int32), 1)
        inside = drawn > 0
        return float(mask[inside].mean()) if inside.any() else 0.0

    half = rectangle.opening / 2
    return {'held': share(0.0, half),
            'under_jaws': max(share(side * (half + 2), 4.0) for side in (-1, 1))}


def _row(picture: Picture, detection: Detection) -> dict[str, Any]:
    best = detection.best
    row: dict[str, Any] = {'camera': picture.camera, 'name': picture.name,
                           'reason': detection.reason.name,
                           'support_found': detection.support is not None}
    if best is not None:
        row |= {'score': best.score, 'rectangle': [round(v, 1) for v in best.rectangle.as_array()]}
        if picture.mask is not None:
            row |= measure(best.rectangle, picture.mask)
    return row


def _summary(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    found = [r for r in rows if 'score' in r]
    masked = [r for r in found if 'held' in r]
    return {'n': len(rows), 'grasps': len(found),
            'on_object': sum(r['held'] > 0.5 for r in masked) if masked else None,
            'jaws_free': sum(r['under_jaws'] < 0.5 for r in masked) if masked else None,
            'median_score': float(np.median([r['score'] for r in found])) if found else None}


def _detectors(model: str, threads: int, peers: list[Peer]) \
        -> Iterator[tuple[str, GraspDetector]]:
    """Ours with all that it can see, then the peers with all ways to show them a picture."""
    for seen in MODALITIES:
        yield seen, GraspDetector(model, threads=threads, modality=seen)
    yield _TOLD, GraspDetector(model, threads=threads, modality='rgb')
    for peer in peers:
        for view in VIEWS:
            yield f'{peer.name.split(",")[0]}, {view}', PeerDetector(peer, view, threads)


def _jaw(detector: GraspDetector, frame: RgbdFrame) -> float | None:
    """Height of the jaw plates in pixels, which the distance of the camera would tell."""
    density = pixels_per_metre(frame)
    return None if density is None else density * detector.gripper.jaw_size


def _text(value: float | None) -> str:
    return '-' if value is None else f'{value:.2f}' if isinstance(value, float) else str(value)


@click.command()
@click.option('--gqcnn', type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option('--graspnet', type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option('--grconvnet', 'grconvnet_folder',
              type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option('--ggcnn', 'ggcnn_folder',
              type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option('--model', default='default', show_default=True)
@click.option('--threads', default=1, show_default=True)
@click.option('--sheet', type=click.Path(path_type=Path),
              help='Picture of all answers to colour and depth (PNG).')
@click.option('--json', 'output', type=click.Path(path_type=Path))
def main(gqcnn: Path | None, graspnet: Path | None, grconvnet_folder: Path | None,
         ggcnn_folder: Path | None, model: str, threads: int, sheet: Path | None,
         output: Path | None) -> None:
    """Detect in every picture of the checkouts that are named."""
    try:
        pictures = [*(gqcnn_pictures(gqcnn) if gqcnn else ()),
                    *(graspnet_pictures(graspnet) if graspnet else ())]
    except GraspError as error:
        raise click.ClickException(str(error)) from None
    if not pictures:
        raise click.UsageError('no pictures: name a checkout with --gqcnn or --graspnet')
    table = Table(title='real pictures, whole image')
    for column in ('sees', 'camera', 'n', 'a grasp', 'on an object', 'jaws free', 'median score'):
        table.add_column(column)
    rows: list[dict[str, Any]] = []
    summary: dict[str, dict[str, Any]] = {}
    peers = [*((grconvnet(grconvnet_folder),) if grconvnet_folder else ()),
             *((ggcnn(ggcnn_folder),) if ggcnn_folder else ())]
    for seen, detector in _detectors(model, threads, peers):
        tiles, found = [], []
        for picture in pictures:
            # Without depth there is no pose, only a rectangle.
            detection = detector.detect(picture.frame, need_pose=seen not in ('rgb', _TOLD),
                                        jaw_pixels=_jaw(detector, picture.frame)
                                        if seen == _TOLD else None)
            found.append({'modality': seen, **_row(picture, detection)})
            best = detection.best
            tiles.append(tile(picture.frame.rgb, [], None if best is None else best.rectangle,
                              'no grasp' if best is None else f'{best.score:.2f}',
                              np.ones(picture.frame.rgb.shape[:2], bool)))
        if sheet and not rows:
            write_sheet(sheet, tiles)
        rows += found
        summary[seen] = {camera: _summary([r for r in found if r['camera'] == camera])
                         for camera in dict.fromkeys(r['camera'] for r in found)}
        for camera, numbers in summary[seen].items():
            table.add_row(seen, camera, *map(_text, numbers.values()))
    Console().print(table)
    if output:
        write_json(output, {'n': len(pictures), 'cameras': summary, 'rows': rows})


if __name__ == '__main__':
    main()

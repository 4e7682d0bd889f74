#!/usr/bin/env python3
"""
GR-ConvNet and GG-CNN with weights of their authors before our judges: metric and lifts.

The peers' code and weights are not part of this package; check one out and name the folder:

    git clone https://github.com/skumra/robotic-grasping
    python scripts/judge_peer.py --grconvnet robotic-grasping --data data/test --meshes data/ycb \
        --tables 100 --json results/grconvnet.json
    python scripts/judge_peer.py --grconvnet robotic-grasping --cornell DIR_OF_CORNELL --scenes 0 \
        --json results/grconvnet_cornell.json
    git clone https://github.com/dougsm/mvp_grasp
    git -C mvp_grasp checkout fb2218cc72c720ce38d2a2d304ba686339ad02ea    # the last with weights
    python scripts/judge_peer.py --ggcnn mvp_grasp --data data/test --meshes data/ycb \
        --tables 100 --json results/ggcnn.json

The weights are pickled, so that opening them runs whatever code they name: only do that with
a folder that you trust. GR-ConvNet's were trained on Cornell with depth, ours on simulated images
of the same kind as those they are judged on; what is compared is what somebody gets who takes
either as it is. Frames, the way from a rectangle to a pose, gripper and friction are those of
`grasp_stn evaluate lift` and `clutter`; the peer's fingers go as deep as the baseline's.

On Cornell peers are at home. There their answers are judged in every way that their code and ours
differ in, and all of them are reported.
"""

from __future__ import annotations

from dataclasses import dataclass
import itertools
import math
from pathlib import Path
import sys
from typing import Any
import warnings

import click
import cv2
import numpy as np
from rich.progress import track
import torch

from grasp_stn_ros.cli_meshes import mesh_objects
from grasp_stn_ros.data.cornell import JAW, REGION, CornellDataset
from grasp_stn_ros.data.files import checked_depth
from grasp_stn_ros.data.sample import DataError, LabelledFrame
from grasp_stn_ros.data.simulated import SimulatedDataset
from grasp_stn_ros.detection import Candidate, Detection
from grasp_stn_ros.detector import GraspDetector, choose
from grasp_stn_ros.evaluation import clutter, lift
from grasp_stn_ros.evaluation.accuracy import correct_by, judge, summarize
from grasp_stn_ros.evaluation.report import wilson_interval, write_json
from grasp_stn_ros.preprocessing import fill_holes, preprocess
from grasp_stn_ros.rectangle import GraspRectangle, wrap_angle
from grasp_stn_ros.rgbd import RgbdFrame
from grasp_stn_ros.simulation.mesh_data import MeshObjects

# What the authors of both take: peaks at least so many pixels apart, and of at most so many.
_APART, _PEAKS = 20, 8
VIEWS = {
    'crop': 'the central part of the size that it was trained on, as its authors cut it out',
    'square': 'the largest centred square, pixel by pixel',
    'resized': 'the largest centred square, shrunk to the size that it was trained on',
}


@dataclass(frozen=True)
class Peer:
    """
    A network that answers with four maps: quality, cosine, sine and opening.

    ``side`` is that of the images it was trained on, ``openings`` the pixels of opening that an
    output of one means, the first by its training and others by the rest of its authors' code,
    ``blur`` what they smooth quality, angle and opening with (sigma in pixels).
    """

    name: str
    network: torch.nn.Module
    colours: bool
    side: int
    openings: tuple[float, ...]
    blur: tuple[float, float, float]

    def peaks(self, rgb: np.ndarray, depth: np.ndarray) \
            -> list[tuple[float, float, float, float, float]]:
        """
        Peaks of the quality map as (x, y, theta, opening, score), best first.

        ``rgb`` (H, W, 3) uint8 and ``depth`` (H, W) float32 metres without holes, H and W
        multiples of 4. Pixels and radians as everywhere here; the opening is what the network
        says, to be multiplied by one of ``openings``.
        """
        channels = [np.clip(depth - depth.mean(), -1, 1)]
        if self.colours:
            colours = rgb.astype(np.float32) / 255
            channels += [*np.moveaxis(colours - colours.mean(), -1, 0)]
        image = torch.from_numpy(np.stack(channels))[None]
        with torch.inference_mode():
            maps = [m[0, 0].numpy() for m in self.network(image)]
        quality, cosine, sine, opening = (m[:rgb.shape[0], :rgb.shape[1]] for m in maps)
        quality, angle, opening = (
            cv2.GaussianBlur(m, (0, 0), sigma)
            for m, sigma in zip((quality, np.arctan2(sine, cosine) / 2, opening), self.blur,
                                strict=True))
        found: list[tuple[float, float, float, float, float]] = []
        for _ in range(_PEAKS):
            row, column = np.unravel_index(int(np.argmax(quality)), quality.shape)
            score = float(quality[row, column])
            if found and score < 0.2:
                break
            # Its angles count against the clock, with y up.
            found.append((float(column), float(row), float(wrap_angle(-angle[row, column])),
                          float(opening[row, column]), score))
            quality[max(0, row - _APART):row + _APART + 1,
                    max(0, column - _APART):column + _APART + 1] = -np.inf
        return found


def grconvnet(folder: Path, weights: str = '') -> Peer:
    """GR-ConvNet of the checkout ``folder``, by default with 16 channels; see :func:`_load`."""
    weights = weights or ('trained-models/cornell-randsplit-rgbd-grconvnet3-drop1-ch16/'
                          'epoch_30_iou_0.97')
    # Its training divides openings by 112 pixels, the rest of its code multiplies by 150.
    return Peer(f'GR-ConvNet, {weights}', _load(folder, folder / weights), True, 224,
                (112.0, 150.0), (2.0, 2.0, 1.0))


def ggcnn(folder: Path, weights: str = '') -> Peer:
    """GG-CNN of mvp_grasp's checkout ``folder``, by default the best of three on validation."""
    package = folder / 'ggcnn/src/ggcnn'
    weights = weights or 'models/epoch_14_iou_0.82_best'
    return Peer(f'GG-CNN, {weights}', _load(package, package / weights), False, 300, (150.0,),
                (2.0, 1.0, 1.0))


def _load(code: Path, weights: Path) -> torch.nn.Module:
    """Network that ``weights`` hold; raises ClickException. Runs what is pickled there."""
    if not weights.is_file():
        raise click.ClickException(f'there are no weights {weights}; check the peer out whole and '
                                   'at the commit that has them, or name others with --weights')
    sys.path.insert(0, str(code))
    with warnings.catch_warnings():
        # Its layers were pickled by a PyTorch of long ago.
        warnings.simplefilter('ignore', torch.serialization.SourceChangeWarning)
        network: torch.nn.Module = torch.load(weights, map_location='cpu', weights_only=False)
    return network.eval()


class PeerDetector(GraspDetector):
    """A peer in place of our network; poses and everything behind them are ours."""

    def __init__(self, peer: Peer, view: str, threads: int, opening: float = 0.0):
        """``view`` is one of :data:`VIEWS`; ``opening`` of an output of one, 0 = the first."""
        super().__init__(device='cpu', threads=threads, precision='fp32')
        self._peer, self._view, self._unit = peer, view, opening or peer.openings[0]

    def detect(self, frame: RgbdFrame, region: Any = None, minimum_score: float = 0.0,
               need_pose: bool = True, jaw_pixels: float | None = None,
               mask: Any = None) -> Detection:
        """
        Detect as :meth:`GraspDetector.detect`, with whatever score is best.

        A peer cannot be told where to look; there are no masks here.
        """
        prepared = preprocess(frame)
        # It knows nothing of jaws; a rectangle as high as ours is only fair to the metric.
        jaw = prepared.jaw(self.gripper.jaw_size, jaw_pixels) / prepared.view.scale
        # Nor does it know how far they open: no farther.
        widest = prepared.jaw(self.gripper.maximum_opening) / prepared.view.scale
        candidates = self._with_poses(self._candidates(frame, jaw, widest or math.inf), frame,
                                      prepared)
        best, reason, message = choose(candidates, 0.0, need_pose)
        return Detection(tuple(candidates), best, reason, message, {}, prepared.view.region,
                         prepared.support)

    def _candidates(self, frame: RgbdFrame, jaw: float, widest: float) -> list[Candidate]:
        """Peaks of its quality map, best first, as rectangles in pixels of the frame."""
        assert frame.depth is not None
        width, height = frame.size
        side = self._peer.side if self._view == 'crop' else min(width, height) // 4 * 4
        x0, y0 = (width - side) // 2, (height - side) // 2
        window = np.s_[y0:y0 + side, x0:x0 + side]
        rgb, depth, scale = frame.rgb[window], _filled(frame.depth)[window], 1.0
        if self._view == 'resized':
            size = self._peer.side
            scale = side / size
            rgb, depth = (cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
                          for image in (rgb, depth))
        found = []
        for x, y, theta, opening, score in self._peer.peaks(rgb, depth):
            length = min(max(1.0, opening * self._unit * scale), widest)
            place = (x + 0.5) * scale - 0.5 + x0, (y + 0.5) * scale - 0.5 + y0
            found.append(Candidate(place, score, theta, GraspRectangle(
                *place, theta, length, jaw or length / 2), min(max(score, 0.0), 1.0)))
        return found


def _filled(depth: np.ndarray) -> np.ndarray:
    """Depth (H, W) with NaN for holes -> the same with filled holes."""
    known = np.isfinite(depth)
    return fill_holes(np.where(known, depth, 0).astype(np.float32), known)


# What is seen of Cornell, and how high a rectangle is that has no height of its own.
CORNELL_VIEWS = {
    'labels': 'around the middle of the labels, as its authors cut out test images',
    'region': 'what ours sees, the same 400 pixels of every image',
}
_HEIGHTS = ('half the opening, as its authors have it', 'the jaws that ours is told')


def judge_on_cornell(peer: Peer, root: Path) -> dict[str, Any]:
    """
    Share of right answers by the rectangle metric in the images of ``root`` that have depth.

    Returns ``n`` and one row for each way of looking at it. The network sees the distances that
    the files hold, as in its training, not z. Raises :class:`DataError`.
    """
    data = CornellDataset(root)
    having = [i for i, has_depth in enumerate(data.has_depth) if has_depth]
    if not having:
        raise DataError(f'{root} has no image with depth, which the peer was trained with')
    right: dict[tuple[str, float, str], list[bool]] = {
        way: [] for way in itertools.product(CORNELL_VIEWS, peer.openings, _HEIGHTS)}
    for index in track(having, 'Cornell'):
        sample = data[index]
        labels = sample.graspable()
        distance = _distances(root, sample)
        for view in CORNELL_VIEWS:
            x0, y0, side = _window(view, peer.side, labels, sample.frame.size)
            window = np.s_[y0:y0 + side, x0:x0 + side]
            x, y, theta, opening, _ = peer.peaks(sample.frame.rgb[window], distance[window])[0]
            for unit, height in itertools.product(peer.openings, _HEIGHTS):
                length = max(1.0, opening * unit)
                jaw = length / 2 if height == _HEIGHTS[0] else JAW
                right[view, unit, height].append(correct_by(
                    GraspRectangle(x + x0, y + y0, theta, length, jaw), labels))
    return {'n': len(having), 'ways': [
        {'view': CORNELL_VIEWS[view], 'opening': unit, 'height': height,
         'plain': float(np.mean(found)), 'interval': wilson_interval(sum(found), len(found))}
        for (view, unit, height), found in right.items()]}


def _distances(root: Path, sample: LabelledFrame) -> np.ndarray:
    """Depth image of ``sample`` as it is in its file, metres, holes filled."""
    path = next((p for end in ('d.tiff', 'd.png')
                 for p in root.glob(f'*/pcd{sample.name}{end}')), None)
    if path is None:
        raise DataError(f'image {sample.name} of {root} has a point cloud and no depth image; '
                        "make d.tiff of it as the peer's instructions say")
    return _filled(checked_depth(path))


def _window(view: str, side: int, labels: list[GraspRectangle], size: tuple[int, int]) \
        -> tuple[int, int, int]:
    """Left, top and side of what the network sees."""
    if view == 'region':
        x, y, width, _ = (int(v) for v in REGION)
        return x, y, width
    middle = np.mean([label.corners for label in labels], axis=(0, 1)).astype(int)
    x, y = (int(np.clip(m - side // 2, 0, edge - side))
            for m, edge in zip(middle, size, strict=True))
    return x, y, side


def _lifts(detector: GraspDetector, seed: int, scenes: int,
           make: MeshObjects | None = None) -> dict[str, Any]:
    """Lifts of single objects, procedural ones or those of ``make``."""
    rows = [lift.run_scene(detector, seed, i, make) for i in track(range(scenes), 'scenes')]
    found = lift.summarize(rows)
    low, high = found['lift_interval']
    click.echo(f'lifted {100 * found["lift"]:.1f} % of {scenes} (95 %: {100 * low:.1f} to '
               f'{100 * high:.1f}), any candidate {100 * found["any_candidate"]:.1f} %')
    return {**found, 'seed': seed, 'rows': rows}


_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.option('--grconvnet', 'grconvnet_folder', type=_FOLDER, help='Checkout of GR-ConvNet.')
@click.option('--ggcnn', 'ggcnn_folder', type=_FOLDER, help='Checkout of mvp_grasp.')
@click.option('--weights', default='', help='Others in that folder than the default ones.')
@click.option('--view', type=click.Choice([*VIEWS]), default='square', show_default=True,
              help='; '.join(f'{name}: {what}' for name, what in VIEWS.items()))
@click.option('--opening', default=0.0, type=click.FloatRange(0),
              help='Pixels that an output of one means; 0 = as in its training.')
@click.option('--data', type=_FOLDER, help='Simulated images for the rectangle metric.')
@click.option('--cornell', type=_FOLDER, help='Cornell images for the rectangle metric.')
@click.option('--images', default=500, type=click.IntRange(1), show_default=True)
@click.option('--scenes', default=300, type=click.IntRange(0), show_default=True,
              help='For lifts.')
@click.option('--meshes', type=_FOLDER,
              help='Household objects to lift as well, in as many scenes of the next seed.')
@click.option('--tables', default=0, type=click.IntRange(0), show_default=True,
              help='With five objects each, to be cleared.')
@click.option('--seed', default=2024, type=click.IntRange(0), show_default=True)
@click.option('--threads', default=1, type=click.IntRange(1), show_default=True)
@click.option('--json', 'output', type=click.Path(path_type=Path))
def main(grconvnet_folder: Path | None, ggcnn_folder: Path | None, weights: str, view: str,
         opening: float, data: Path | None, cornell: Path | None, images: int, scenes: int,
         meshes: Path | None, tables: int, seed: int, threads: int, output: Path | None) -> None:
    """Judge a peer as our own model is judged."""
    if grconvnet_folder is not None and ggcnn_folder is None:
        peer = grconvnet(grconvnet_folder, weights)
    elif ggcnn_folder is not None and grconvnet_folder is None:
        peer = ggcnn(ggcnn_folder, weights)
    else:
        raise click.UsageError('name one checkout, with --grconvnet or --ggcnn')
    detector = PeerDetector(peer, view, threads, opening)
    result: dict[str, Any] = {'peer': peer.name, 'seed': None}
    if data is not None or scenes or tables:
        result |= {'view': VIEWS[view], 'opening': opening or peer.openings[0], 'seed': seed}
    if data is not None:
        found = summarize(judge(detector, SimulatedDataset(data), images))
        result['rectangle_metric'] = found
        click.echo(f'rectangle metric, n = {found["n"]}: plain {100 * found["plain"]:.1f} %, '
                   f'strict {100 * found["strict"]:.1f} %, any candidate '
                   f'{100 * found["any_plain"]:.1f} %')
    if cornell is not None:
        try:
            result['cornell'] = judge_on_cornell(peer, cornell)
        except DataError as error:
            raise click.ClickException(str(error)) from None
        for way in result['cornell']['ways']:
            click.echo(f'Cornell, n = {result["cornell"]["n"]}: {100 * way["plain"]:.1f} %; '
                       f'{way["view"]}; an output of one means {way["opening"]:.0f} pixels; '
                       f'height: {way["height"]}')
    if scenes:
        result['lifts'] = _lifts(detector, seed, scenes)
    if meshes is not None and scenes:
        result['household'] = _lifts(detector, seed + 1, scenes, mesh_objects(meshes))
    if tables:
        rows = [clutter.run_scene(detector, seed, i) for i in track(range(tables), 'tables')]
        cleared = result['clutter'] = {**clutter.summarize(rows), 'rows': rows}
        click.echo(f'{cleared["removed"]} objects removed in {cleared["attempts"]} attempts, '
                   f'{100 * cleared["removed_per_attempt"]:.1f} % an attempt')
    if output is not None:
        write_json(output, result, threads)


if __name__ == '__main__':
    main()

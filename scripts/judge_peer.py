#!/usr/bin/env python3
"""
GR-ConvNet with its published weights before our judges: rectangle metric and lifts in simulation.

The peer's code and weights are not part of this package; check them out and name the folder:

    git clone https://github.com/skumra/robotic-grasping
    python scripts/judge_peer.py --grconvnet robotic-grasping --data data/test \
        --json results/grconvnet.json
    python scripts/judge_peer.py --grconvnet robotic-grasping --cornell DIR_OF_CORNELL --scenes 0 \
        --json results/grconvnet_cornell.json

The weights are pickled, so that opening them runs whatever code they name: only do that with
a folder that you trust. They were trained on Cornell with depth, ours on simulated images of the
same kind as those they are judged on; what is compared is what somebody gets who takes either as
it is. Frames, the way from a rectangle to a pose, gripper and friction are those of
`grasp_stn evaluate lift`; the peer's fingers go as deep as the baseline's.

On Cornell it is at home: nine of ten images were its training part. There its answers are judged
in every way that its code and ours differ in, and all of them are reported.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
import sys
from typing import Any

import click
import cv2
import numpy as np
from rich.progress import track
import torch

from grasp_stn_ros.data.cornell import JAW, REGION, CornellDataset
from grasp_stn_ros.data.files import checked_depth
from grasp_stn_ros.data.sample import DataError, LabelledFrame
from grasp_stn_ros.data.simulated import SimulatedDataset
from grasp_stn_ros.detection import Candidate, Detection
from grasp_stn_ros.detector import GraspDetector, choose
from grasp_stn_ros.evaluation import lift
from grasp_stn_ros.evaluation.accuracy import correct_by, judge, summarize
from grasp_stn_ros.evaluation.report import wilson_interval, write_json
from grasp_stn_ros.preprocessing import fill_holes, preprocess
from grasp_stn_ros.rectangle import GraspRectangle, wrap_angle
from grasp_stn_ros.rgbd import RgbdFrame

# What its authors take: peaks at least so many pixels apart, of at most so many, and smoothing.
_APART, _PEAKS, _SIGMA = 20, 8, (2.0, 1.0)
# The side of the images that it was trained on.
_SIDE = 224
WEIGHTS = 'trained-models/cornell-randsplit-rgbd-grconvnet3-drop1-ch16/epoch_30_iou_0.97'
# Pixels of opening that an output of one means, as its training divides.
UNIT = 112.0
VIEWS = {
    'crop': 'the central 224 pixels, as its authors cut out of a camera image',
    'square': 'the largest centred square, pixel by pixel',
    'resized': 'the largest centred square, shrunk to 224 pixels',
}


def load_peer(folder: Path, weights: str = WEIGHTS) -> torch.nn.Module:
    """Network of the checkout ``folder``; raises ClickException. Runs what is pickled there."""
    if not (folder / weights).is_file():
        raise click.ClickException(f'{folder} has no weights {weights}; check it out whole, '
                                   'or name others of its trained-models with --weights')
    sys.path.insert(0, str(folder))
    network: torch.nn.Module = torch.load(folder / weights, map_location='cpu',
                                          weights_only=False)
    return network.eval()


class PeerDetector(GraspDetector):
    """GR-ConvNet in place of our network; poses and everything behind them are ours."""

    def __init__(self, network: torch.nn.Module, view: str, opening: float, threads: int):
        """``view`` is one of :data:`VIEWS`; ``opening`` the pixels that an output of one means."""
        super().__init__(device='cpu', threads=threads, precision='fp32')
        self._peer, self._view, self._unit = network, view, opening

    def detect(self, frame: RgbdFrame, region: Any = None, minimum_score: float = 0.0,
               need_pose: bool = True, jaw_pixels: float | None = None) -> Detection:
        """Detect as :meth:`GraspDetector.detect`, with whatever score is best."""
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
        side = _SIDE if self._view == 'crop' else min(width, height) // 4 * 4
        x0, y0 = (width - side) // 2, (height - side) // 2
        window = np.s_[y0:y0 + side, x0:x0 + side]
        known = np.isfinite(frame.depth)
        depth = fill_holes(np.where(known, frame.depth, 0).astype(np.float32), known)[window]
        rgb, scale = frame.rgb[window], 1.0
        if self._view == 'resized':
            scale = side / _SIDE
            rgb, depth = (cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
                          for image in (rgb, depth))
        found = []
        for x, y, theta, opening, score in peaks(self._peer, rgb, depth, self._unit):
            length = min(max(1.0, opening * scale), widest)
            place = (x + 0.5) * scale - 0.5 + x0, (y + 0.5) * scale - 0.5 + y0
            found.append(Candidate(place, score, theta, GraspRectangle(
                *place, theta, length, jaw or length / 2), min(max(score, 0.0), 1.0)))
        return found


def peaks(network: torch.nn.Module, rgb: np.ndarray, depth: np.ndarray, unit: float) \
        -> list[tuple[float, float, float, float, float]]:
    """
    Peaks of the quality map as (x, y, theta, opening, score), best first.

    ``rgb`` (H, W, 3) uint8 and ``depth`` (H, W) float32 metres without holes, H and W multiples of
    4; pixels and radians as everywhere here; ``unit`` is the opening in pixels that an output of
    one means.
    """
    colours = rgb.astype(np.float32) / 255
    channels = np.stack([np.clip(depth - depth.mean(), -1, 1),
                         *np.moveaxis(colours - colours.mean(), -1, 0)])
    with torch.inference_mode():
        maps = [m[0, 0].numpy() for m in network(torch.from_numpy(channels)[None])]
    quality, cosine, sine, opening = (m[:rgb.shape[0], :rgb.shape[1]] for m in maps)
    quality, angle = (cv2.GaussianBlur(m, (0, 0), _SIGMA[0])
                      for m in (quality, np.arctan2(sine, cosine) / 2))
    opening = cv2.GaussianBlur(opening, (0, 0), _SIGMA[1]) * unit
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


# What its code and ours differ in on Cornell: what is seen, what an output means, and how high a
# rectangle is that has no height of its own.
CORNELL_VIEWS = {
    'labels': '224 pixels around the middle of the labels, as its authors cut out test images',
    'region': 'what ours sees, the same 400 pixels of every image',
}
_OPENINGS = (UNIT, 150.0)
_HEIGHTS = ('half the opening, as its authors have it', 'the jaws that ours is told')


def judge_on_cornell(network: torch.nn.Module, root: Path) -> dict[str, Any]:
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
        way: [] for way in itertools.product(CORNELL_VIEWS, _OPENINGS, _HEIGHTS)}
    for index in track(having, 'Cornell'):
        sample = data[index]
        labels = sample.graspable()
        distance = _distances(root, sample)
        for view in CORNELL_VIEWS:
            x0, y0, side = _window(view, labels, sample.frame.size)
            window = np.s_[y0:y0 + side, x0:x0 + side]
            x, y, theta, opening, _ = peaks(network, sample.frame.rgb[window], distance[window],
                                            1.0)[0]
            for unit, height in itertools.product(_OPENINGS, _HEIGHTS):
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
    depth = checked_depth(path)
    known = np.isfinite(depth)
    return fill_holes(np.where(known, depth, 0).astype(np.float32), known)


def _window(view: str, labels: list[GraspRectangle], size: tuple[int, int]) \
        -> tuple[int, int, int]:
    """Left, top and side of what the network sees."""
    if view == 'region':
        x, y, side, _ = (int(v) for v in REGION)
        return x, y, side
    middle = np.mean([label.corners for label in labels], axis=(0, 1)).astype(int)
    x, y = (int(np.clip(m - _SIDE // 2, 0, edge - _SIDE))
            for m, edge in zip(middle, size, strict=True))
    return x, y, _SIDE


@click.command()
@click.option('--grconvnet', required=True,
              type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option('--weights', default=WEIGHTS, show_default=True, help='A file in that folder.')
@click.option('--view', type=click.Choice([*VIEWS]), default='square', show_default=True,
              help='; '.join(f'{name}: {what}' for name, what in VIEWS.items()))
@click.option('--opening', default=UNIT, type=click.FloatRange(1), show_default=True,
              help='Pixels that an output of one means: 150 as its authors have it, 112 as its '
                   'training divides.')
@click.option('--data', type=click.Path(exists=True, file_okay=False, path_type=Path),
              help='Simulated images for the rectangle metric.')
@click.option('--cornell', type=click.Path(exists=True, file_okay=False, path_type=Path),
              help='Cornell images for the rectangle metric.')
@click.option('--images', default=500, type=click.IntRange(1), show_default=True)
@click.option('--scenes', default=300, type=click.IntRange(0), show_default=True,
              help='For lifts.')
@click.option('--seed', default=2024, type=click.IntRange(0), show_default=True)
@click.option('--threads', default=1, type=click.IntRange(1), show_default=True)
@click.option('--json', 'output', type=click.Path(path_type=Path))
def main(grconvnet: Path, weights: str, view: str, opening: float, data: Path | None,
         cornell: Path | None, images: int, scenes: int, seed: int, threads: int,
         output: Path | None) -> None:
    """Judge GR-ConvNet as our own model is judged."""
    network = load_peer(grconvnet, weights)
    detector = PeerDetector(network, view, opening, threads)
    result: dict[str, Any] = {'peer': f'GR-ConvNet, {weights}', 'seed': None}
    if data is not None or scenes:
        result |= {'view': VIEWS[view], 'opening': opening, 'seed': seed}
    if data is not None:
        found = summarize(judge(detector, SimulatedDataset(data), images))
        result['rectangle_metric'] = found
        click.echo(f'rectangle metric, n = {found["n"]}: plain {100 * found["plain"]:.1f} %, '
                   f'strict {100 * found["strict"]:.1f} %, any candidate '
                   f'{100 * found["any_plain"]:.1f} %')
    if cornell is not None:
        try:
            result['cornell'] = judge_on_cornell(network, cornell)
        except DataError as error:
            raise click.ClickException(str(error)) from None
        for way in result['cornell']['ways']:
            click.echo(f'Cornell, n = {result["cornell"]["n"]}: {100 * way["plain"]:.1f} %; '
                       f'{way["view"]}; an output of one means {way["opening"]:.0f} pixels; '
                       f'height: {way["height"]}')
    if scenes:
        rows = [lift.run_scene(detector, seed, i) for i in track(range(scenes), 'scenes')]
        result['lifts'] = {**lift.summarize(rows), 'rows': rows}
        lifts, (low, high) = result['lifts'], result['lifts']['lift_interval']
        click.echo(f'lifted {100 * lifts["lift"]:.1f} % of {scenes} (95 %: {100 * low:.1f} to '
                   f'{100 * high:.1f}), any candidate {100 * lifts["any_candidate"]:.1f} %')
    if output is not None:
        write_json(output, result, threads)


if __name__ == '__main__':
    main()

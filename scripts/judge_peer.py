#!/usr/bin/env python3
"""
GR-ConvNet with its published weights before our judges: rectangle metric and lifts in simulation.

The peer's code and weights are not part of this package; check them out and name the folder:

    git clone https://github.com/skumra/robotic-grasping
    python scripts/judge_peer.py --grconvnet robotic-grasping --data data/test \
        --json results/grconvnet.json

The weights are pickled, so that opening them runs whatever code they name: only do that with
a folder that you trust. They were trained on Cornell with depth, ours on simulated images of the
same kind as those they are judged on; what is compared is what somebody gets who takes either as
it is. Frames, the way from a rectangle to a pose, gripper and friction are those of
`grasp_stn evaluate lift`; the peer's fingers go as deep as the baseline's.
"""

from __future__ import annotations

import math
from pathlib import Path
import sys
from typing import Any

import click
import cv2
import numpy as np
from rich.progress import track
import torch

from grasp_stn_ros.data.simulated import SimulatedDataset
from grasp_stn_ros.detection import Candidate, Detection
from grasp_stn_ros.detector import GraspDetector, choose
from grasp_stn_ros.evaluation import lift
from grasp_stn_ros.evaluation.accuracy import judge, summarize
from grasp_stn_ros.evaluation.report import write_json
from grasp_stn_ros.preprocessing import fill_holes, preprocess
from grasp_stn_ros.rectangle import GraspRectangle, wrap_angle
from grasp_stn_ros.rgbd import RgbdFrame

# What its authors take: peaks at least so many pixels apart, of at most so many, and smoothing.
_APART, _PEAKS, _SIGMA = 20, 8, (2.0, 1.0)
# The side of the images that it was trained on.
_SIDE = 224
VIEWS = {
    'crop': 'the central 224 pixels, as its authors cut out of a camera image',
    'square': 'the largest centred square, pixel by pixel',
    'resized': 'the largest centred square, shrunk to 224 pixels',
}


class PeerDetector(GraspDetector):
    """GR-ConvNet in place of our network; poses and everything behind them are ours."""

    def __init__(self, network: torch.nn.Module, view: str, opening: float, threads: int):
        """``view`` is one of :data:`VIEWS`; ``opening`` the pixels that an output of one means."""
        super().__init__(device='cpu', threads=threads, precision='fp32')
        self._peer, self._view, self._unit = network.eval(), view, opening

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
        colours = rgb.astype(np.float32) / 255
        channels = np.stack([np.clip(depth - depth.mean(), -1, 1),
                             *np.moveaxis(colours - colours.mean(), -1, 0)])
        with torch.inference_mode():
            maps = [m[0, 0].numpy() for m in self._peer(torch.from_numpy(channels)[None])]
        quality, cosine, sine, opening = (m[:rgb.shape[0], :rgb.shape[1]] for m in maps)
        quality, angle = (cv2.GaussianBlur(m, (0, 0), _SIGMA[0])
                          for m in (quality, np.arctan2(sine, cosine) / 2))
        opening = cv2.GaussianBlur(opening, (0, 0), _SIGMA[1]) * self._unit
        found: list[Candidate] = []
        for _ in range(_PEAKS):
            row, column = np.unravel_index(int(np.argmax(quality)), quality.shape)
            score = float(quality[row, column])
            if found and score < 0.2:
                break
            # Its angles count against the clock, with y up.
            theta = float(wrap_angle(-angle[row, column]))
            length = min(max(1.0, float(opening[row, column]) * scale), widest)
            place = (column + 0.5) * scale - 0.5 + x0, (row + 0.5) * scale - 0.5 + y0
            found.append(Candidate(place, score, theta, GraspRectangle(
                *place, theta, length, jaw or length / 2), min(max(score, 0.0), 1.0)))
            quality[max(0, row - _APART):row + _APART + 1,
                    max(0, column - _APART):column + _APART + 1] = -np.inf
        return found


@click.command()
@click.option('--grconvnet', required=True,
              type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option('--weights', show_default=True,
              default='trained-models/cornell-randsplit-rgbd-grconvnet3-drop1-ch16/'
                      'epoch_30_iou_0.97', help='A file in that folder.')
@click.option('--view', type=click.Choice([*VIEWS]), default='square', show_default=True,
              help='; '.join(f'{name}: {what}' for name, what in VIEWS.items()))
@click.option('--opening', default=112.0, type=click.FloatRange(1), show_default=True,
              help='Pixels that an output of one means: 150 as its authors have it, 112 as its '
                   'training divides.')
@click.option('--data', type=click.Path(exists=True, file_okay=False, path_type=Path),
              help='Simulated images for the rectangle metric.')
@click.option('--images', default=500, type=click.IntRange(1), show_default=True)
@click.option('--scenes', default=300, type=click.IntRange(0), show_default=True,
              help='For lifts.')
@click.option('--seed', default=2024, type=click.IntRange(0), show_default=True)
@click.option('--threads', default=1, type=click.IntRange(1), show_default=True)
@click.option('--json', 'output', type=click.Path(path_type=Path))
def main(grconvnet: Path, weights: str, view: str, opening: float, data: Path | None,
         images: int, scenes: int, seed: int, threads: int, output: Path | None) -> None:
    """Judge GR-ConvNet as our own model is judged."""
    if not (grconvnet / weights).is_file():
        raise click.ClickException(f'{grconvnet} has no weights {weights}; check it out whole, '
                                   'or name others of its trained-models with --weights')
    sys.path.insert(0, str(grconvnet))
    network = torch.load(grconvnet / weights, map_location='cpu', weights_only=False)
    detector = PeerDetector(network, view, opening, threads)
    result: dict[str, Any] = {'peer': f'GR-ConvNet, {weights}', 'view': VIEWS[view],
                              'opening': opening, 'seed': seed}
    if data is not None:
        found = summarize(judge(detector, SimulatedDataset(data), images))
        result['rectangle_metric'] = found
        click.echo(f'rectangle metric, n = {found["n"]}: plain {100 * found["plain"]:.1f} %, '
                   f'strict {100 * found["strict"]:.1f} %, any candidate '
                   f'{100 * found["any_plain"]:.1f} %')
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

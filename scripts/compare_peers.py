#!/usr/bin/env python3
"""
Our detection, end to end, against nothing but the forward pass of other networks, in turns.

The peers' code is not part of this package; check it out and name the folders:

    git clone https://github.com/dougsm/ggcnn
    git clone https://github.com/skumra/robotic-grasping
    python scripts/compare_peers.py --ggcnn ggcnn --grconvnet robotic-grasping \
        --json results/peers.json

Their weights do not matter for their time and are random. Their preprocessing (inpainting of the
depth) and the search for the peaks of their maps come on top of what is measured here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
import importlib
from pathlib import Path
import sys
import time

import click
import numpy as np
from rich.console import Console
from rich.table import Table
import torch

from grasp_stn_ros.detector import GraspDetector
from grasp_stn_ros.evaluation.benchmark import frames
from grasp_stn_ros.evaluation.report import write_json
from grasp_stn_ros.rgbd import RgbdFrame

# Module and class in the peer's checkout, its channels and the size of its input.
_GGCNN = {'GG-CNN': ('models.ggcnn', 'GGCNN', 1, 300),
          'GG-CNN2': ('models.ggcnn2', 'GGCNN2', 1, 300)}
_GRCONVNET = {
    'GR-ConvNet (32 channels)': ('inference.models.grconvnet', 'GenerativeResnet', 4, 224),
    'GR-ConvNet3 (16 channels)': ('inference.models.grconvnet3', 'GenerativeResnet', 4, 224)}


def _peers(folder: Path | None, table: dict, **options) -> dict[str, Callable[[], object]]:
    if folder is None:
        return {}
    sys.path.insert(0, str(folder))
    result: dict[str, Callable[[], object]] = {}
    for name, (module, kind, channels, size) in table.items():
        arguments = {'channel_size': 16} if '16 channels' in name else {}
        network = getattr(importlib.import_module(module), kind)(input_channels=channels,
                                                                 **arguments)
        network = network.eval().to(memory_format=torch.channels_last)
        image = torch.randn(1, channels, size, size).contiguous(
            memory_format=torch.channels_last)
        result[name] = partial(network, image)
    sys.path.remove(str(folder))
    return result


def _detect(detector: GraspDetector, images: list[RgbdFrame], index: int) -> object:
    return detector.detect(images[index % len(images)])


def _ignoring_the_frame(run: Callable[[], object], index: int) -> object:
    return run()


@click.command()
@click.option('--ggcnn', type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option('--grconvnet', type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option('--threads', multiple=True, type=int, default=(1, 2), show_default=True)
@click.option('--repetitions', default=60, show_default=True)
@click.option('--json', 'output', type=click.Path(path_type=Path))
def main(ggcnn: Path | None, grconvnet: Path | None, threads: tuple[int, ...], repetitions: int,
         output: Path | None) -> None:
    """Compare with the peers whose checkouts are named, in fp32 and, where it is faster, bf16."""
    images = frames()
    result = {}
    for count in threads:
        torch.set_num_threads(count)
        systems: dict[str, Callable[[int], object]] = {}
        for precision in ('fp32', 'bf16'):
            detector = GraspDetector(threads=count, precision=precision)
            for frame in images:
                detector.warm_up_for(frame)
            systems[f'ours, {precision}'] = partial(_detect, detector, images)
        peers = {**_peers(ggcnn, _GGCNN), **_peers(grconvnet, _GRCONVNET)}
        for name, run in peers.items():
            systems[f'{name}, fp32'] = partial(_ignoring_the_frame, run)
        times: dict[str, list[float]] = {name: [] for name in systems}
        with torch.inference_mode():
            for repetition in range(repetitions + 3):
                for name, system in systems.items():
                    start = time.perf_counter()
                    system(repetition)
                    if repetition >= 3:
                        times[name].append((time.perf_counter() - start) * 1e3)
        base = np.array(times['ours, fp32'])
        rows = {name: {'median_ms': float(np.median(values)),
                       'p95_ms': float(np.percentile(values, 95)),
                       'best_ms': float(np.min(values)),
                       'ratio': float(np.median(np.array(values) / base)), 'n': len(values)}
                for name, values in times.items()}
        result[str(count)] = rows
        table = Table(title=f'{count} threads')
        for column in ('system', 'median ms', 'p95 ms', 'times ours, fp32'):
            table.add_column(column, justify='left' if column == 'system' else 'right')
        for name, row in rows.items():
            table.add_row(name, f'{row["median_ms"]:.1f}', f'{row["p95_ms"]:.1f}',
                          f'{row["ratio"]:.2f}')
        Console().print(table)
    if output:
        write_json(output, {'repetitions': repetitions, 'threads': result,
                            'peers': 'forward pass only, random weights'})


if __name__ == '__main__':
    main()

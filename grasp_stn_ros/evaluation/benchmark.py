"""
How long from a frame in memory to a grasp pose: preprocessing, network, decoding, batch of one.

Systems are measured in turns, frame by frame, so that whatever else the machine does meets all of
them alike; what counts is the ratio to the shipped model in the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
import multiprocessing
from pathlib import Path
import resource
from typing import Any

import cv2
import numpy as np
import torch

from ..detector import GraspDetector, find_weights
from ..names import MODALITIES, SYSTEMS, TABLES, table_weights
from ..rgbd import CameraIntrinsics, RgbdFrame

SHIPPED = 'shipped'
KS = (4, 8, 16, 32, 64)
SIZES = ((320, 240), (640, 480), (848, 480), (1280, 720), (1920, 1080))
_FRAMES, _SEED = 6, 2025
# A sliding window takes a second or more: then so few repetitions have to do.
_SLOW, _SLOW_REPETITIONS = 0.3, 3


def frames(count: int = _FRAMES, seed: int = _SEED) -> list[RgbdFrame]:
    """Simulated RGB-D frames of 640x480 to measure on, each of another scene."""
    from ..simulation.labels import open_scene
    result = []
    for index in range(count):
        scene = open_scene(seed, index)
        try:
            assert scene.frame is not None
            result.append(scene.frame)
        finally:
            scene.close()
    return result


def resized(frame: RgbdFrame, size: tuple[int, int]) -> RgbdFrame:
    """
    The frame with ``size`` (width, height) pixels, to take the time of.

    It is stretched where the proportions differ, and no camera sees that: the focal length of the
    result follows the height in both directions, so that things there are wider, and not nearer.
    """
    width, height = size
    sx, sy = width / frame.size[0], height / frame.size[1]
    assert frame.intrinsics is not None and frame.depth is not None
    k = frame.intrinsics
    camera = CameraIntrinsics(k.fx * sy, k.fy * sy, (k.cx + 0.5) * sx - 0.5,
                              (k.cy + 0.5) * sy - 0.5)
    return RgbdFrame(cv2.resize(frame.rgb, size), cv2.resize(
        frame.depth, size, interpolation=cv2.INTER_NEAREST), camera)


def _figures(laps: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Median and 95th percentile in milliseconds, in all and of each stage."""
    totals = [sum(lap.values()) for lap in laps]
    stages = {name: float(np.median([lap[name] for lap in laps if name in lap]))
              for name in laps[0]}
    return {'median_ms': float(np.median(totals)), 'p95_ms': float(np.percentile(totals, 95)),
            'best_ms': float(np.min(totals)), 'n': len(laps), 'stages_ms': stages}


def interleaved(detectors: dict[str, GraspDetector], images: Sequence[RgbdFrame],
                repetitions: int, progress: Callable[[range], Iterable[int]] = iter) \
        -> dict[str, dict[str, Any]]:
    """
    Measure ``detectors`` in turns, ``repetitions`` frames each; the first one is the reference.

    Returns median, p95 and best of the wall time in milliseconds, in all and by stage, and the
    median of the ratios to the reference on the same frame, moments apart. What takes longer than
    a third of a second is measured a few times only.
    """
    laps: dict[str, list[dict[str, float]]] = {name: [] for name in detectors}
    ratios: dict[str, list[float]] = {name: [] for name in detectors}
    reference = next(iter(detectors))
    slow = set()
    for name, detector in detectors.items():
        detector.warm_up()
        for frame in images:
            detector.warm_up_for(frame)
        # Twice, since something else may have happened meanwhile.
        if min(sum(detector.detect(images[0]).milliseconds.values())
               for _ in range(2)) > _SLOW * 1e3:
            slow.add(name)
    for repetition in progress(range(repetitions)):
        frame = images[repetition % len(images)]
        base = 0.0
        for name, detector in detectors.items():
            if name in slow and repetition >= _SLOW_REPETITIONS:
                continue
            lap = detector.detect(frame).milliseconds
            total = sum(lap.values())
            base = total if name == reference else base
            laps[name].append(lap)
            if base:   # not in the frames that a slow reference was not given
                ratios[name].append(total / base)
    return {name: {**_figures(laps[name]), 'ratio': float(np.median(ratios[name]))}
            for name in detectors}


def table_systems(**options: Any) -> dict[str, GraspDetector]:
    """The rows of Table I whose weights come with the package."""
    return {name: GraspDetector(find_weights(table_weights(TABLES[0], name)), **options)
            for name in SYSTEMS}


def _memory(connection, weights: str, device: str, threads: int) -> None:
    images = frames(2)
    detector = GraspDetector(weights, device=device, threads=threads)
    before = _peak_mb()
    for repetition in range(30):
        detector.detect(images[repetition % 2])
    after = _peak_mb()
    cuda = torch.cuda.max_memory_allocated() if detector.device.type == 'cuda' else 0
    connection.send({'loaded_mb': before, 'peak_mb': after, 'cuda_peak_mb': cuda / 2 ** 20})


def _peak_mb() -> float:
    """Peak resident memory of this process; getrusage() would count what its parent had."""
    try:
        for line in Path('/proc/self/status').read_text().splitlines():
            if line.startswith('VmHWM:'):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peak_memory(weights: str, device: str, threads: int) -> dict[str, float]:
    """Peak resident memory in MB of a fresh process that detects (the simulator included)."""
    context = multiprocessing.get_context('spawn')
    receiver, sender = context.Pipe(False)
    process = context.Process(target=_memory, args=(sender, weights, device, threads))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise RuntimeError('the process that measures memory ended without a result') from None
    finally:
        process.join()


def run(weights: str, device: str, threads: Sequence[int], repetitions: int, systems: bool,
        precision: str = 'auto',
        progress: Callable[[range], Iterable[int]] = iter) -> dict[str, Any]:
    """
    Everything that ``grasp_stn benchmark`` reports; JSON-serializable.

    ``threads`` are measured one after the other; ``systems`` adds those of Table I.
    """
    images = frames()
    result: dict[str, Any] = {'device': device, 'repetitions': repetitions, 'threads': {}}
    for count in threads:
        options: dict[str, Any] = {'device': device, 'threads': count, 'precision': precision}
        detectors = {SHIPPED: GraspDetector(weights, **options)}
        if systems:
            detectors.update(table_systems(**options))
        result['threads'][str(count)] = interleaved(detectors, images, repetitions, progress)
        result['precision'] = detectors[SHIPPED].precision
        result['candidates'] = detectors[SHIPPED].candidates
    options = {'device': device, 'threads': max(threads), 'precision': precision}
    by_k = {f'K = {k}': GraspDetector(weights, candidates=k, **options) for k in KS}
    result['by_candidates'] = interleaved(by_k, images, max(10, repetitions // 2), progress)
    by_modality = {name: GraspDetector(weights, modality=name, **options) for name in MODALITIES}
    result['by_modality'] = interleaved(by_modality, images, max(10, repetitions // 2), progress)
    detector = GraspDetector(weights, **options)
    detector.warm_up()
    result['by_image_size'] = {
        f'{size[0]}x{size[1]}': _by_size(detector, [resized(f, size) for f in images],
                                         max(10, repetitions // 2))
        for size in SIZES}
    result['memory'] = peak_memory(weights, device, max(threads))
    return result


def _by_size(detector: GraspDetector, images: Sequence[RgbdFrame], repetitions: int) \
        -> dict[str, Any]:
    for frame in images:
        detector.warm_up_for(frame)
    laps = [detector.detect(images[i % len(images)]).milliseconds for i in range(repetitions)]
    return _figures(laps)


def markdown(result: dict[str, Any]) -> str:
    """Tables of a result of :func:`run`."""
    lines = []
    for count, rows in result['threads'].items():
        lines += [f'{count} thread{"s" if count != "1" else ""}, {result["precision"]}, median in '
                  'milliseconds:', '',
                  '| system | all | p95 | preprocessing | network | poses | times shipped | n |',
                  '|---|---|---|---|---|---|---|---|']
        for name, row in rows.items():
            stages = row['stages_ms']
            network = row['median_ms'] - stages.get('preprocessing', 0) - stages.get(
                'grasp_pose', 0)
            lines.append(f'| {name} | {row["median_ms"]:.1f} | {row["p95_ms"]:.1f} | '
                         f'{stages.get("preprocessing", 0):.1f} | {network:.1f} | '
                         f'{stages.get("grasp_pose", 0):.1f} | {row["ratio"]:.2f} | {row["n"]} |')
        stages = rows[SHIPPED]['stages_ms']
        lines += ['', 'Stages of the shipped model: ' + ', '.join(
            f'{name} {value:.1f}' for name, value in stages.items()) + ' ms.', '']
    for title, key in (('candidates', 'by_candidates'), ('modality', 'by_modality'),
                       ('image', 'by_image_size')):
        lines += [f'| {title} | median ms | p95 ms |', '|---|---|---|']
        lines += [f'| {name} | {row["median_ms"]:.1f} | {row["p95_ms"]:.1f} |'
                  for name, row in result[key].items()]
        lines.append('')
    memory = result['memory']
    lines.append(f'Peak memory of a process that detects, simulator included: '
                 f'{memory["peak_mb"]:.0f} MB.')
    return '\n'.join(lines) + '\n'

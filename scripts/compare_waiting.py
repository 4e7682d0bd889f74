#!/usr/bin/env python3
"""
What a detection takes while nothing else runs, and while something does, by how threads wait.

    python scripts/compare_waiting.py --json results/waiting.json

GCC's OpenMP, which PyTorch brings, has threads that wait look for work before they sleep: without
any setting 300,000 times, with OMP_WAIT_POLICY=PASSIVE not at all, with this package 1,000 or
4,000 times. All of them, a single thread that has none to wait for, and as many threads as were
fastest in the ten seconds before (what the node does), are measured in turns, each time in a new
process, since the setting is read at the start: alone, beside a process that computes with one
thread, and two detections at once.
"""

from __future__ import annotations

from collections.abc import Sequence
import itertools
import json
import os
from pathlib import Path
import subprocess
import sys
import threading
import time

import click
import numpy as np
from rich.console import Console
from rich.table import Table
import torch  # noqa: F401  before the package, whose setting is one of those to compare

from grasp_stn_ros import _looks
from grasp_stn_ros.detector import GraspDetector
from grasp_stn_ros.evaluation.benchmark import frames
from grasp_stn_ros.evaluation.report import write_json
from grasp_stn_ros.thread_count import PERIOD

_ONE, _ADAPTING = 'a single thread', 'as many threads as are fastest'
_WAITING = {'no setting': {}, 'asleep at once': {'OMP_WAIT_POLICY': 'PASSIVE'},
            '1,000 looks': {'GOMP_SPINCOUNT': '1000'}, '4,000 looks': {'GOMP_SPINCOUNT': '4000'},
            _ONE: {}, _ADAPTING: {'GOMP_SPINCOUNT': str(_looks())}}
_SITUATIONS = {'alone': (1, 0), 'beside a busy core': (1, 1), 'two detections': (2, 0)}
# It ends by itself, should nobody be left to end it.
_BUSY = """
import sys, time
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end: pass
"""
# Seconds after which a detection that has not answered does not answer any more.
_DEADLINE = 120.0


def _detect(seconds: float, threads: int, adapting: bool) -> None:
    """Detect for so long; print the milliseconds of each frame."""
    images = frames(2)
    detector = GraspDetector(device='cpu', threads=threads, adapt_threads=adapting)
    for frame in images:
        detector.warm_up_for(frame)
    print('ready', flush=True)
    sys.stdin.readline()
    milliseconds: list[float] = []
    settled = time.perf_counter() + 2 * PERIOD * adapting
    while time.perf_counter() < settled:
        detector.detect(images[0])
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        detector.detect(images[len(milliseconds) % 2])
        milliseconds.append((time.perf_counter() - start) * 1e3)
    print(json.dumps(milliseconds))


def _end(processes: Sequence[subprocess.Popen]) -> None:
    for process in processes:
        process.kill()
        process.wait()


def _measure(setting: dict[str, str], detections: int, busy: int, seconds: float,
             threads: int, adapting: bool = False) -> list[float]:
    """Milliseconds of all frames of so many detections at once, beside so many busy processes."""
    environment = {name: value for name, value in os.environ.items()
                   if name not in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT', 'OMP_NUM_THREADS')}
    command = [sys.executable, __file__, '--detect', '--seconds', str(seconds),
               '--threads', str(threads), *['--adapting'] * adapting]
    running = [subprocess.Popen(command, env={**environment, **setting}, text=True,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE)
               for _ in range(detections)]
    others: list[subprocess.Popen] = []
    limit = _DEADLINE + seconds + 2 * PERIOD
    # A pipe has no deadline; one whose writer has been killed ends.
    watchdog = threading.Timer(limit, _end, [running])
    watchdog.start()
    try:
        for process in running:
            assert process.stdout is not None
            if process.stdout.readline().strip() != 'ready':
                raise click.ClickException(
                    f'a detection did not start within {_DEADLINE:.0f} s; what it says is above')
        others += [subprocess.Popen([sys.executable, '-c', _BUSY, str(limit)])
                   for _ in range(busy)]
        for process in running:
            assert process.stdin is not None
            process.stdin.write('go\n')
            process.stdin.flush()
        answers = [process.communicate()[0] for process in running]
        if any(process.returncode for process in running):
            raise click.ClickException('a detection ended without a result; what it says is above')
        return [value for answer in answers for value in json.loads(answer)]
    finally:
        watchdog.cancel()
        _end([*others, *running])


@click.command()
@click.option('--json', 'output', type=click.Path(path_type=Path))
@click.option('--rounds', default=5, type=click.IntRange(1), show_default=True)
@click.option('--seconds', default=4.0, type=click.FloatRange(0.5), show_default=True,
              help='Of each measurement.')
@click.option('--threads', default=os.cpu_count() or 1, type=click.IntRange(1),
              show_default='all cores')
@click.option('--detect', is_flag=True, hidden=True)
@click.option('--adapting', is_flag=True, hidden=True)
def main(output: Path | None, rounds: int, seconds: float, threads: int, detect: bool,
         adapting: bool) -> None:
    """Compare how threads wait."""
    if detect:
        _detect(seconds, threads, adapting)
        return
    cases = list(itertools.product(_WAITING, _SITUATIONS))
    found: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
    for _ in range(rounds):
        for waiting, situation in cases:
            found[waiting, situation] += _measure(_WAITING[waiting], *_SITUATIONS[situation],
                                                  seconds, 1 if waiting == _ONE else threads,
                                                  waiting == _ADAPTING)
    result: dict[str, dict[str, dict[str, float]]] = {}
    table = Table('threads that wait', *_SITUATIONS, title='ms a frame: median / p95 / worst')
    for waiting in _WAITING:
        result[waiting] = {}
        for situation in _SITUATIONS:
            values = found[waiting, situation]
            result[waiting][situation] = {
                'median_ms': float(np.median(values)), 'p95_ms': float(np.percentile(values, 95)),
                'worst_ms': max(values), 'n': len(values)}
        table.add_row(waiting, *[f'{r["median_ms"]:.1f} / {r["p95_ms"]:.1f} / {r["worst_ms"]:.0f}'
                                 for r in result[waiting].values()])
    Console().print(table)
    if output is not None:
        write_json(output, {'rounds': rounds, 'seconds': seconds, 'precision': 'auto',
                            'waiting': result}, threads)


if __name__ == '__main__':
    main()

#!/usr/bin/env python3
"""
How long from a clean clone to the first grasp: `git clone`, then `make demo`, nothing prepared.

    python scripts/time_first_grasp.py --json results/first_grasp.json

pip's cache is left out; what the network gives decides most of it.
"""

from __future__ import annotations

import os
from pathlib import Path
import subprocess
import tempfile
import time

import click

from grasp_stn_ros.evaluation.report import write_json

ROOT = Path(__file__).resolve().parents[1]


@click.command()
@click.option('--json', 'output', required=True, type=click.Path(path_type=Path))
def main(output: Path) -> None:
    """Clone this checkout into a temporary folder and time its demo, twice."""
    environment = {**os.environ, 'PIP_NO_CACHE_DIR': '1'}
    for name in ('PYTHONPATH', 'VIRTUAL_ENV', 'PYTHON'):
        environment.pop(name, None)
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / 'grasp_stn_ros'
        start = time.perf_counter()
        subprocess.run(['git', 'clone', '-q', str(ROOT), str(clone)], check=True)
        for run in ('first', 'again'):
            subprocess.run(['make', 'demo'], cwd=clone, env=environment, check=True)
            seconds[run] = round(time.perf_counter() - start, 1)
            if not (clone / 'demo' / 'stages.png').exists():
                raise click.ClickException('the demo left no picture of its stages')
            start = time.perf_counter()
    write_json(output, {'seconds_to_first_grasp': seconds['first'],
                        'seconds_again': seconds['again'], 'n': 1})
    click.echo(f'{seconds["first"]:.0f} s from the clone on, {seconds["again"]:.0f} s again')


if __name__ == '__main__':
    main()

"""Result files: a figure is worth what can be said about how it was made."""

from __future__ import annotations

from datetime import datetime, timezone
import json
import os
from pathlib import Path
import platform
import subprocess
import sys
from typing import Any

import torch

from ..atomic import write_atomically


def _cpu_name() -> str:
    try:
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                return line.split(':', 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """
    Return the commit of the source tree, with '+' if it has local changes; None outside git.

    Results that are written anew are no change of what is measured.
    """
    root = Path(__file__).resolve().parents[2]
    try:
        commit = subprocess.run(['git', 'rev-parse', '--short=12', 'HEAD'], cwd=root, check=True,
                                capture_output=True, text=True, timeout=10).stdout.strip()
        changed = subprocess.run(['git', 'status', '--porcelain', '--untracked-files=no',
                                  '--', '.', ':!results'],
                                 cwd=root, check=True, capture_output=True, text=True,
                                 timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ('+' if changed else '')


def provenance(threads: int | None = None) -> dict[str, Any]:
    """
    Command, commit, machine and time of a measurement; JSON-serializable.

    ``threads`` of the network, None = as PyTorch has them now.
    """
    name = Path(sys.argv[0]).name
    # `python -m grasp_stn_ros.cli` is the same command.
    command = ' '.join(['grasp_stn' if name == 'cli.py' else name, *sys.argv[1:]])
    return {'command': command, 'commit': _commit(),
            'date': datetime.now(timezone.utc).isoformat(timespec='seconds'),
            'machine': {'cpu': _cpu_name(), 'cores': os.cpu_count(),
                        'python': platform.python_version(), 'torch': torch.__version__,
                        'threads': threads or torch.get_num_threads(),
                        'cuda': torch.cuda.is_available()}}


def write_json(path: str | Path, content: dict[str, Any], threads: int | None = None) -> None:
    """Write a result with its provenance, atomically, into a folder that may not exist yet."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {**provenance(threads), **content}
    write_atomically(path, (json.dumps(record, indent=2) + '\n').encode())


def wilson_interval(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % confidence interval of a share (Wilson 1927), also right near 0 and 1."""
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * ((p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5)
    return max(0.0, centre - half), min(1.0, centre + half)

"""``grasp_node`` as a process of its own, for those that look at it from outside."""

from __future__ import annotations

from collections.abc import Mapping
import os
from pathlib import Path
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]


def child_environment() -> dict[str, str]:
    """Return this process's environment, in which a child finds this package."""
    paths = [str(_ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
    return {**os.environ, 'PYTHONPATH': os.pathsep.join(paths), 'PYTHONUNBUFFERED': '1'}


class NodeProcess:
    """``grasp_node`` in a process of its own, its output in a file."""

    def __init__(self, namespace: str, environment: Mapping[str, str] | None = None,
                 **values: Any):
        """Start it with the parameter ``values`` (``__`` in a name stands for a dot)."""
        self.namespace = namespace
        parameters = [word for name, value in values.items()
                      for word in ('-p', f'{name.replace("__", ".")}:={value}')]
        self._log = tempfile.NamedTemporaryFile(  # noqa: SIM115 (as long as the process)
            'w+', prefix='grasp_node_', suffix='.log')
        # In a session of its own: Ctrl-C is for whoever started it, and ends it in order.
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'grasp_stn_ros.ros.entry', 'grasp_node', '--ros-args',
             '-r', f'__ns:={namespace}', *parameters],
            env={**child_environment(), **(environment or {})}, stdout=self._log,
            stderr=subprocess.STDOUT, start_new_session=True)

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return Path(self._log.name).read_text(errors='replace')

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process.poll() is None

    def end(self, number: int = signal.SIGTERM,
            patience: float = 30.0) -> tuple[int | None, float]:
        """Send a signal -> exit code (None: still there) and seconds until it was gone."""
        began = time.monotonic()
        self.process.send_signal(number)
        try:
            code: int | None = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            code = None
        return code, time.monotonic() - began

    def close(self) -> None:
        """Kill what is left of it."""
        if self.alive:
            self.process.kill()
            self.process.wait()
        self._log.close()

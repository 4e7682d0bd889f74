"""Runs the rows of ``grasp_stn stress``; each with a node of its own, on real DDS."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
import re
import sys
import time
import traceback
from typing import Any

import rclpy
from rclpy.signals import SignalHandlerOptions

from ..doctor import shared_memory
from . import stress_faults, stress_fuzz, stress_load, stress_processes
from .spinning import StopRequest, interruptible
from .stress_rig import StressError
from .stress_settings import Row, Settings

ROWS: dict[str, Callable[[Settings], Row]] = {
    'stream': stress_load.stream,
    'service': stress_load.service,
    'fuzz': stress_fuzz.fuzz,
    'files': stress_fuzz.files,
    **stress_faults.ROWS,
    **stress_processes.ROWS,
}


def run(settings: Settings, names: Iterable[str],
        report: Callable[[dict[str, Any]], None] = lambda row: None) -> list[dict[str, Any]]:
    """
    Run the rows ``names`` one after the other -> their records; ``report`` gets each at once.

    A row that cannot be brought to its end is a row that has not passed, with the reason; the
    traceback of one that died is on stderr. Reports are published: paths of the machine are cut
    down to names. To be called from the main thread: SIGTERM ends it as Ctrl-C does, with a
    KeyboardInterrupt.
    """
    # With the handlers of rclpy, rows would go on after a SIGTERM, without ROS.
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    records = []
    began = time.time()
    try:
        with interruptible(StopRequest()):
            for name in names:
                records.append(_record(name, settings))
                report(records[-1])
    finally:
        rclpy.try_shutdown()
        # Some rows kill processes on purpose.
        shared_memory.remove(shared_memory.dead_segments(since=began))
    return records


def _record(name: str, settings: Settings) -> dict[str, Any]:
    """Run one row -> its record, without paths of the machine."""
    try:
        record = ROWS[name](settings).record()
    except StressError as error:
        record = Row(name, 'runs to its end', problems=[str(error)]).record()
    except Exception as error:
        print(f'row {name} died:\n{traceback.format_exc()}', file=sys.stderr, flush=True)
        record = Row(name, 'runs to its end', problems=[_reason(error)]).record()
    record['problems'] = [without_paths(problem) for problem in record['problems']]
    return record


def _reason(error: Exception) -> str:
    """Return an exception as one line."""
    text = next(iter(str(error).strip().splitlines()), '')
    return f'{type(error).__name__}: {text}' if text else type(error).__name__


def without_paths(text: str) -> str:
    """Replace paths of this machine in ``text`` by the names of their files."""
    def shortened(found: re.Match[str]) -> str:
        path = Path(found[0])
        # Topics and services look alike, but there are no such folders.
        return path.name if Path(*path.parts[:2]).is_dir() else found[0]

    return re.sub(r"""(?<![\w/.~])/[^\s'":;,()<>]+""", shortened, text)

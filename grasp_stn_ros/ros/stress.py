"""Runs the rows of ``grasp_stn stress``; each with a node of its own, on real DDS."""

from __future__ import annotations

from collections.abc import Callable, Iterable
import traceback
from typing import Any

import rclpy

from . import stress_faults, stress_fuzz, stress_load, stress_processes
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

    A row that cannot be brought to its end is a row that has not passed, with the reason.
    """
    rclpy.init(args=[])
    records = []
    try:
        for name in names:
            try:
                record = ROWS[name](settings).record()
            except StressError as error:
                record = Row(name, 'runs to its end', problems=[str(error)]).record()
            except Exception:
                record = Row(name, 'runs to its end', problems=[traceback.format_exc()]).record()
            records.append(record)
            report(record)
    finally:
        rclpy.try_shutdown()
    return records

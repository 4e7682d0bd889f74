"""
Executables that SIGINT and SIGTERM end with exit code 0 from the first line on.

Importing ROS takes a second, on a busy machine several, during which Python's own handlers would
end the process with a traceback and a code that a launch file takes for a failure.
"""

from __future__ import annotations

import os
import signal
import sys


def _leave_when_interrupted() -> None:
    """Until the program has its own handlers: there is nothing yet that needs to be put away."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))


def grasp_node() -> int:
    """Run the node; the exit code."""
    _leave_when_interrupted()
    from .grasp_node import main
    return main()


def sim_camera() -> int:
    """Run the simulated camera; the exit code."""
    _leave_when_interrupted()
    from .sim_camera import main
    return main()


if __name__ == '__main__':
    sys.exit({'grasp_node': grasp_node, 'sim_camera': sim_camera}[sys.argv.pop(1)]())

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


_USAGE = """\
Usage: {name} [--ros-args [-p NAME:=VALUE]... [--params-file FILE] [-r OLD:=NEW]...]

{about}

Everything is set by ROS parameters, as in
  {name} --ros-args {example}
{documented}"""
_ABOUT = {
    'grasp_node': {
        'about': 'ROS 2 node that finds grasps in RGB-D images and answers ~/detect_grasp. Runs '
                 'until Ctrl-C.',
        'example': '-p color_topic:=/cam/rgb -p mode:=on_demand',
        'documented': 'All of them are in config/grasp_node.yaml, with a line about each, and in '
                      'docs/node.md.'},
    'sim_camera': {
        'about': 'ROS 2 node that publishes colour, depth and camera_info of a simulated table. '
                 'Runs until Ctrl-C.',
        'example': '-p objects:=3 -p seed:=1',
        'documented': 'They are rate (Hz), seed, objects (on the table), depth_encoding (16UC1 or '
                      '32FC1)\nand frame_id; the service ~/next_scene puts other objects there.'}}


def _usage(name: str) -> int | None:
    """Print how ``name`` is called, where that is asked for or wrong: the exit code, or None."""
    # ROS drops in silence what does not stand behind --ros-args.
    first = sys.argv[1] if len(sys.argv) > 1 else '--ros-args'
    if first == '--ros-args':
        return None
    text = _USAGE.format(name=name, **_ABOUT[name])
    if first in ('-h', '--help'):
        print(text)
        return 0
    print(f'{name}: unknown argument {first!r}\n{text}', file=sys.stderr)
    return 2


def grasp_node() -> int:
    """Run the node; the exit code."""
    if (code := _usage('grasp_node')) is not None:
        return code
    _leave_when_interrupted()
    from .grasp_node import main
    return main()


def sim_camera() -> int:
    """Run the simulated camera; the exit code."""
    if (code := _usage('sim_camera')) is not None:
        return code
    _leave_when_interrupted()
    from .sim_camera import main
    return main()


if __name__ == '__main__':
    sys.exit({'grasp_node': grasp_node, 'sim_camera': sim_camera}[sys.argv.pop(1)]())

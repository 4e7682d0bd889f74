"""
The whole way without a robot: camera, node, service, gripper, and the object is up or not.

``grasp_node`` runs in a process of its own, as it would on a robot. This process simulates: it
publishes the camera's images over DDS, calls ``~/detect_grasp`` and executes the grasp that comes
back, with nothing passed between the two but messages.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
import os
from pathlib import Path
import signal
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table

from ..reasons import Reason
from .environment import shared_memory_profile
from .node_process import NodeProcess

if TYPE_CHECKING:
    from ..simulation.scene import RenderedFrame, TableScene

NAMESPACE = '/demo'
_START_SECONDS, _CALL_SECONDS, _STOP_SECONDS = 90.0, 15.0, 10.0
_RATE = 10.0
# Reasons that lie in the scene; every other one means that the pipeline does not work.
_SCENE_REASONS = {Reason.NO_CANDIDATE, *(r for r in Reason if r >= Reason.DEPTH_HOLE)}


class DemoError(RuntimeError):
    """The pipeline did not work; the message says which part and why."""


@dataclass
class Row:
    """One scene in the table at the end."""

    thing: str
    outcome: str
    lifted: bool = False
    position: np.ndarray | None = None      # (3,) metres in the world
    yaw: float = 0.0                        # degrees of the opening direction on the table
    tilt: float = 0.0                       # degrees of the approach from straight down
    opening: float = 0.0
    score: float = 0.0
    milliseconds: dict[str, float] = field(default_factory=dict)


class DemoNode(NodeProcess):
    """``grasp_node`` in the namespace of the demo."""

    def __init__(self, model: str):
        """Start it; it works when it is called."""
        super().__init__(NAMESPACE, mode='on_demand', model=model)

    def check(self) -> None:
        """Raise :class:`DemoError` with the end of its output if the node is gone."""
        if not self.alive:
            tail = '\n'.join(self.output.splitlines()[-15:]).strip()
            raise DemoError(f'grasp_node ended with exit code {self.process.returncode}:\n{tail}')

    def stop(self) -> None:
        """Interrupt it, and kill it if it does not listen."""
        if self.alive:
            self.end(signal.SIGINT, _STOP_SECONDS)
        self.close()


class Link:
    """This side of the topics: camera, client of the service, and the stages that come back."""

    def __init__(self, seed: int, depth_encoding: str):
        """Join DDS; rclpy must be initialised."""
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        from grasp_stn_interfaces.msg import GraspStages
        from grasp_stn_interfaces.srv import DetectGrasp

        from .sim_camera import CameraPublisher
        from .spinning import Spinner
        self.node = rclpy.create_node('demo', namespace=NAMESPACE)
        self._request = DetectGrasp.Request
        self._camera = CameraPublisher(self.node, np.random.default_rng(seed), depth_encoding)
        self._client = self.node.create_client(DetectGrasp, 'grasp_node/detect_grasp')
        self.stages: list[GraspStages] = []
        self.node.create_subscription(GraspStages, 'grasp_node/stages', self.stages.append, 10)
        executor = SingleThreadedExecutor()
        executor.add_node(self.node)
        self._spinner = Spinner(executor)

    def wait_for_node(self, process: DemoNode) -> None:
        """Wait until the service exists; raises :class:`DemoError`."""
        deadline = time.monotonic() + _START_SECONDS
        while not self._client.wait_for_service(0.2):
            process.check()
            if time.monotonic() > deadline:
                raise DemoError(f'grasp_node offers no service after {_START_SECONDS:.0f} s')

    def detect(self, view: RenderedFrame, scene: TableScene, process: DemoNode):
        """Play the camera and call the service; return its response and the stages."""
        self.stages.clear()
        future = self._client.call_async(self._request(timeout=_CALL_SECONDS))
        deadline = time.monotonic() + _CALL_SECONDS + 5.0
        while not (future.done() and self.stages):
            began = time.monotonic()
            if began > deadline:
                process.check()
                raise DemoError('grasp_node did not answer' if not future.done()
                                else 'grasp_node answered, but ~/stages never came')
            if future.done() and not future.result().success and \
                    Reason(future.result().reason) not in _SCENE_REASONS:
                raise DemoError(future.result().message)
            self._camera.publish(view, scene)
            time.sleep(max(0.0, began + 1 / _RATE - time.monotonic()))
        return future.result(), self.stages[-1]

    def close(self) -> None:
        """Leave DDS."""
        self._spinner.stop()
        self.node.destroy_node()


@contextmanager
def viewer(scene: TableScene, wanted: bool) -> Iterator:
    """Give a callback for the trial that shows it in real time, or None without ``--gui``."""
    if not wanted:
        yield None
        return
    import mujoco.viewer
    with mujoco.viewer.launch_passive(scene.model, scene.data, show_left_ui=False,
                                      show_right_ui=False) as window:
        clock = {'wall': time.monotonic(), 'simulated': scene.data.time}

        def show() -> None:
            window.sync()
            ahead = (scene.data.time - clock['simulated']) - (time.monotonic() - clock['wall'])
            if not 0 <= ahead < 1:
                clock.update(wall=time.monotonic(), simulated=scene.data.time)
            else:
                time.sleep(ahead)

        yield show


def execute(scene: TableScene, response, rng: np.random.Generator, gui: bool) -> Row:
    """Execute the grasp of a response in the simulator."""
    from ..simulation.gripper import GraspTrial
    from . import conversions
    pose = scene.camera_pose @ conversions.pose_to_matrix(response.grasp.pose)
    with viewer(scene, gui) as callback:
        result = GraspTrial(scene).execute(pose, response.grasp.opening, rng=rng,
                                           callback=callback)
    approach, opening = pose[:3, 0], pose[:3, 1]
    yaw = np.degrees(np.arctan2(opening[1], opening[0]))
    return Row(', '.join(thing.name for thing in scene.objects), result.outcome, result.lifted,
               pose[:3, 3], (yaw + 90) % 180 - 90,
               float(np.degrees(np.arccos(np.clip(-approach[2], -1, 1)))),
               response.grasp.opening, response.grasp.score)


def write_picture(path: Path, rgb: np.ndarray, stages) -> None:
    """Draw the stages of one scene into ``path`` (PNG)."""
    from .. import visualization
    from ..preprocessing import View
    from . import conversions
    height, width = rgb.shape[:2]
    # The message does not say what the network saw; the demo asks for no region.
    detection = replace(conversions.detection_from_message(stages),
                        region=View.square((width, height)).region)
    visualization.write_picture(path, visualization.draw_stages(rgb, detection))


def summary(rows: list[Row]) -> Table:
    """Return the table at the end."""
    stages = next((list(row.milliseconds) for row in rows if row.milliseconds), [])
    caption = 'grasp pose in the world and opening in mm, yaw of the opening direction, tilt of ' \
              f'the approach from straight down; times in ms: {", ".join(stages)}'
    table = Table(title='From camera to lifted object', caption=caption, padding=(0, 0))
    for name in ('', 'object', 'x', 'y', 'z', 'yaw', 'tilt', 'open', 'score', 'times', 'lifted'):
        table.add_column(name, justify='left' if name in ('object', 'lifted') else 'right')
    for number, row in enumerate(rows, 1):
        pose = ['-'] * 7
        if row.position is not None:
            pose = [*(f'{v * 1e3:.0f}' for v in row.position), f'{row.yaw:.0f}°',
                    f'{row.tilt:.0f}°', f'{row.opening * 1e3:.0f}', f'{row.score:.2f}']
        times = ' '.join(f'{row.milliseconds[n]:.0f}' for n in stages if n in row.milliseconds)
        verdict = '[green]yes[/]' if row.lifted else f'[red]no[/]: {row.outcome}'
        table.add_row(str(number), row.thing, *pose, times, verdict)
    return table


def run(options: argparse.Namespace, console: Console) -> list[Row]:
    """Run the demo and return a row a scene; raises :class:`DemoError`."""
    import rclpy
    process = DemoNode(options.model)
    rows: list[Row] = []
    link = None
    rclpy.init(args=[])
    try:
        # The simulator is imported and set up while the node loads its model.
        from .sim_camera import new_scene
        link = Link(options.seed, options.depth_encoding)
        for number in range(1, options.scenes + 1):
            rng = np.random.default_rng([options.seed, number])
            console.print(f'[bold]Scene {number} of {options.scenes}[/]: building')
            scene = new_scene(rng, options.objects)
            try:
                view = scene.render()
                names = ', '.join(thing.name for thing in scene.objects)
                console.print(f'  on the table: {names}')
                if number == 1:
                    with _waiting(console, 'waiting for grasp_node to load its model'):
                        link.wait_for_node(process)
                with _waiting(console, f'calling {NAMESPACE}/grasp_node/detect_grasp'):
                    response, stages = link.detect(view, scene, process)
                write_picture(options.output / f'stages_{number}.png', view.rgb, stages)
                if response.success:
                    console.print(f'  grasp with score {response.grasp.score:.2f}, opening '
                                  f'{response.grasp.opening * 1e3:.0f} mm')
                    with _waiting(console, 'executing it'):
                        row = execute(scene, response, rng, options.gui)
                else:
                    row = Row(names, Reason(response.reason).name)
                row.milliseconds = dict(zip(stages.stage_names, stages.stage_milliseconds,
                                            strict=True))
                console.print(f'  [bold]{"lifted" if row.lifted else row.outcome}[/]')
                rows.append(row)
            finally:
                scene.close()
    finally:
        if link is not None:
            link.close()
        process.stop()
        rclpy.try_shutdown()
    return rows


def _waiting(console: Console, what: str):
    """Show a spinner on a terminal, a line elsewhere."""
    if console.is_terminal:
        return console.status(what)
    console.print(f'  {what} ...')
    return nullcontext()


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog='demo', description=__doc__.split('\n\n')[0])
    parser.add_argument('--scenes', type=int, default=3, help='number of scenes (3)')
    parser.add_argument('--objects', type=int, default=1, help='objects in a scene (1)')
    parser.add_argument('--seed', type=int, default=0, help='seed of everything random (0)')
    parser.add_argument('--gui', action='store_true', help='watch the gripper (needs a display)')
    parser.add_argument('--output', type=Path, default=Path('demo'), help='folder for pictures')
    parser.add_argument('--model', default='default', help='weights (.safetensors)')
    parser.add_argument('--depth-encoding', default='16UC1', choices=('16UC1', '32FC1'))
    options = parser.parse_args(arguments)
    if options.scenes < 1 or options.objects < 1 or options.seed < 0:
        parser.error('--scenes and --objects must be 1 or more, --seed 0 or more')
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; 0 when the pipeline worked, whether or not the objects were lifted."""
    options = parse(arguments)
    console = Console(highlight=False)
    if options.gui and not (os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')):
        console.print('[red]NO_DISPLAY[/]: --gui needs a display, and neither DISPLAY nor '
                      'WAYLAND_DISPLAY is set')
        return 2
    # All of it before rclpy starts: a demo must not talk to the robot next door.
    os.environ.update(shared_memory_profile())
    os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    os.environ.setdefault('MUJOCO_GL', 'glfw' if options.gui else 'egl')
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        rows = run(options, console)
        first = options.output / 'stages_1.png'
        (options.output / 'stages.png').write_bytes(first.read_bytes())
    except (DemoError, OSError) as error:
        console.print(f'[red]demo failed[/]: {error}', markup=True)
        return 1
    except KeyboardInterrupt:
        return 130
    console.print(summary(rows))
    lifted = sum(row.lifted for row in rows)
    if len(rows) > 1:
        console.print(f'lifted {lifted} of {len(rows)} objects ({lifted / len(rows):.0%})')
    console.print(f'pictures of the stages: {options.output / "stages.png"}')
    return 0


if __name__ == '__main__':
    sys.exit(main())

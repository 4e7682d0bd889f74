"""What several commands share: the options of a model, and the door to ROS."""

from __future__ import annotations

import errno
import importlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .grasp_pose import APPROACHES
from .names import PICTURES, SYSTEMS, TABLES, table_weights

if TYPE_CHECKING:
    from .detector import GraspDetector
    from .rgbd import RgbdFrame


class Commands(click.Group):
    """A group whose commands name a file that cannot be used, instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.errno == errno.EPIPE or error.filename is None:
                raise
            name = 'CANNOT_WRITE' if error.errno in (errno.EACCES, errno.EROFS, errno.ENOSPC,
                                                     errno.EEXIST) else 'FILE_ERROR'
            raise click.ClickException(f'{name}: {error.filename}: {error.strerror}') from None


class Shard(click.ParamType):
    """Part I of N, as (I, N)."""

    name = 'I/N'

    def convert(self, value: Any, param, ctx) -> tuple[int, int]:
        """Read 'I/N'; fails with what is wrong with it."""
        if isinstance(value, tuple):
            return value
        try:
            part, parts = (int(v) for v in value.split('/'))
        except ValueError:
            self.fail(f'{value!r} is not of the form I/N', param, ctx)
        if not 0 <= part < parts:
            self.fail(f'{value!r}: I must lie between 0 and N - 1', param, ctx)
        return part, parts


class PicturePath(click.Path):
    """Where to write a picture; another kind of file is refused before there is one."""

    def __init__(self) -> None:
        """Take files that need not exist."""
        super().__init__(dir_okay=False, path_type=Path)

    def convert(self, value: Any, param, ctx) -> Any:
        """Read a path; fails with what is wrong with it."""
        path = Path(str(super().convert(value, param, ctx)))
        if path.suffix.lower() not in PICTURES:
            self.fail(f'{value!r}: pictures are written as .png or .jpg', param, ctx)
        return path


class FiniteRange(click.FloatRange):
    """A number in a range, which 'nan' and 'inf' are not."""

    def convert(self, value: Any, param, ctx) -> float:
        """Read a number; fails with what is wrong with it."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f'{value!r} is no finite number', param, ctx)
        return number


def model_options(command):
    """Give a command the options that choose a model and how it runs; see `open_detector`."""
    for option in reversed((
            click.option('--model', default='default', show_default=True,
                         help='A .safetensors file; default is the one that comes with the '
                              'package.'),
            click.option('--system', type=click.Choice(SYSTEMS),
                         help='Instead of --model: this row of Table I.'),
            click.option('--trained-on', type=click.Choice(TABLES),
                         help=f'Which weights of --system.  [default: {TABLES[0]}]'),
            click.option('--device', default='auto', show_default=True,
                         help='auto, cpu, cuda or cuda:N'),
            click.option('--threads', type=click.IntRange(0), default=0, show_default=True,
                         help='CPU threads of the network; 0 = all cores.'),
            click.option('--candidates', type=click.IntRange(0, 256), default=0,
                         show_default=True, help='K, the locations to propose; 0 = the '
                                                 "model's own number."))):
        command = option(command)
    return command


middle_option = click.option(
    '--middle-weight', type=FiniteRange(0),
    help="Prefer grasps near the middle of their object, by so much of the score's logit for each "
         'metre from it.  [default: as the model card says]')


gripper_option = click.option(
    '--gripper', metavar='NAME|FILE.yaml',
    help='A name in config/grippers/ or a file of parameters.  [default: 85 mm wide]')


def pose_options(command):
    """Give a command the options that say how poses are made; see `pose_settings`."""
    for option in reversed((
            gripper_option,
            click.option('--approach', type=click.Choice(APPROACHES), default=APPROACHES[0],
                         show_default=True, help='Where the gripper comes from.'),
            click.option('--approach-direction', nargs=3, type=float, metavar='X Y Z',
                         help='Of --approach direction, in the optical frame.  [default: '
                              '0 0 1]'))):
        command = option(command)
    return command


def pose_settings(gripper: str | None, approach: str,
                  approach_direction: tuple[float, ...] | None) -> dict[str, Any]:
    """Return what :func:`pose_options` chose as settings of :func:`open_detector`."""
    settings: dict[str, Any] = {'approach': approach, **gripper_setting(gripper)}
    if approach_direction:
        if approach != 'direction':
            raise click.UsageError('--approach-direction belongs to --approach direction')
        if not any(approach_direction) or not all(map(math.isfinite, approach_direction)):
            raise click.UsageError('--approach-direction must not be zero')
        settings['approach_direction'] = approach_direction
    return settings


def gripper_setting(gripper: str | None) -> dict[str, Any]:
    """Return what `--gripper` chose as the setting of :func:`open_detector`, or nothing."""
    from .node_settings import read_gripper
    if not gripper:
        return {}
    try:
        return {'gripper': read_gripper(gripper)}
    except ValueError as error:
        raise click.ClickException(str(error)) from None


def chosen_weights(model: str, system: str | None, trained_on: str | None) -> str:
    """Return what of :func:`model_options` names the weights, as the detector takes it."""
    from .detector import find_weights
    from .stn.checkpoint import CheckpointError
    if system and model != 'default':
        raise click.UsageError('give --system or --model, not both')
    if not system:
        if trained_on:
            raise click.UsageError(f'--trained-on {trained_on} chooses weights of --system, which '
                                   'is not given')
        return model
    trained_on = trained_on or TABLES[0]
    # Not the shipped multi-stage network, but the one in the paper's own setting.
    try:
        return str(find_weights(table_weights(trained_on, system)))
    except CheckpointError:
        raise click.ClickException(
            f'there are no weights of {system} trained on {trained_on} images; make some '
            f'with: grasp_stn train --system {system}, and name them with --model') from None


def weights_sha256(model: str, system: str | None, trained_on: str | None) -> str:
    """SHA-256 of the weights that :func:`model_options` chose: what a figure is of."""
    from .detector import default_weights
    from .stn import checkpoint
    chosen = chosen_weights(model, system, trained_on)
    return str(checkpoint.read_sidecar(
        default_weights() if chosen == 'default' else chosen)['sha256'])


def open_detector(model: str, device: str, threads: int, candidates: int = 0,
                  system: str | None = None, trained_on: str | None = None,
                  **settings: Any) -> GraspDetector:
    """Load what :func:`model_options` chose; ``settings`` are further ones of the detector."""
    from .detector import GraspDetector
    from .reasons import GraspError
    from .stn.checkpoint import CheckpointError
    weights = chosen_weights(model, system, trained_on)
    try:
        return GraspDetector(weights, device=device, threads=threads, candidates=candidates,
                             **settings)
    except (CheckpointError, GraspError, ValueError) as error:
        raise click.ClickException(str(error)) from None


def needs_pose(frame: RgbdFrame) -> bool:
    """Whether a grasp has to have a pose, as one of the node: where the frame allows any."""
    return frame.depth is not None and frame.intrinsics is not None


def open_as_recorded(model: dict[str, Any], parameters: dict[str, Any]) -> GraspDetector:
    """Load what :func:`model_options` chose with the settings of the node that was recorded."""
    from .node_settings import detector_settings
    candidates = model['candidates'] or parameters.get('candidates', 0)
    return open_detector(**{**model, 'candidates': candidates, **detector_settings(parameters)})


def ros_module(name: str):
    """
    Import ``grasp_stn_ros.ros.NAME``; a click error says what to do where ROS is missing.

    By name, and only here: nothing outside of ros/ depends on ROS.
    """
    try:
        return importlib.import_module(f'{__package__}.ros.{name}')
    except ImportError as error:
        raise click.ClickException(
            f'NO_ROS: this needs ROS 2, and importing it failed ({error}). Source an '
            'installation (source /opt/ros/$ROS_DISTRO/setup.bash) and the workspace with '
            'grasp_stn_interfaces, or use .venv/bin/grasp_stn of `make setup`') from None

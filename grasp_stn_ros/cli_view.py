"""``grasp_stn view``: what the network sees and decides, in a browser or in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
import itertools
from pathlib import Path
import sys
import time
from typing import TYPE_CHECKING, Any
import webbrowser

import click

from .cli_common import (
    FiniteRange,
    model_options,
    needs_pose,
    open_as_recorded,
    open_detector,
    pose_options,
    pose_settings,
    ros_module,
)
from .detection import MINIMUM_SCORE
from .grasp_pose import APPROACHES

if TYPE_CHECKING:
    from .detector import GraspDetector
    from .viewing.scene import Shown
    from .viewing.sources import Named

# A busy machine without a GPU needs minutes to compile the viewer and draw it.
_PICTURE_SECONDS = 600.0


@click.command()
@click.argument('source', required=False, type=click.Path(path_type=Path))
@click.argument('depth', required=False, type=click.Path(path_type=Path))
@click.option('--intrinsics', nargs=4, type=float, metavar='FX FY CX CY',
              help='Camera matrix of image files, in pixels; without it there is nothing in 3-D.')
@click.option('--simulate', 'scenes', type=click.IntRange(1), metavar='N',
              help='N scenes from the simulator; needs no camera, no files and no ROS.')
@click.option('--seed', type=click.IntRange(0), default=0, show_default=True,
              help='Of the simulated scenes.')
@click.option('--objects', type=click.IntRange(1, 8), help='In each simulated scene.')
@click.option('--node', metavar='NAME', is_flag=False, flag_value='/grasp_node',
              help='A running grasp_node: what it sees and finds. Default: /grasp_node.')
@click.option('--recorded', is_flag=True,
              help='Of an MCAP file: show what the node found then, and do not detect again.')
@click.option('--limit', type=click.IntRange(1), metavar='N', help='Stop after N frames.')
@click.option('--save', type=click.Path(path_type=Path), metavar='FILE.rrd',
              help='Write a file for the viewer instead of opening a page; `rerun FILE.rrd` or '
                   'app.rerun.io show it anywhere.')
@click.option('--screenshot', type=click.Path(path_type=Path), metavar='FILE.png',
              help='Take a picture of the page with a headless Chromium, and stop.')
@click.option('--size', nargs=2, type=click.IntRange(200, 4000), default=(1600, 1000),
              show_default=True, metavar='WIDTH HEIGHT', help='Of the screenshot, in pixels.')
@click.option('--port', type=click.IntRange(0, 65535), default=0, show_default=True,
              help='Of the page; 0 = any that is free.')
@click.option('--open/--no-open', 'opened', default=True, show_default=True,
              help='Open the page in your browser.')
@click.option('--minimum-score', type=FiniteRange(0, 1),
              help='Below this score a candidate is no grasp.  [default: '
                   f'{MINIMUM_SCORE}, or as recorded]')
@click.option('--region', nargs=4, type=float, metavar='X Y WIDTH HEIGHT',
              help='Part of the images to look at, in pixels; default is the largest centred '
                   'square, or as recorded.')
@pose_options
@model_options
def view(source: Path | None, depth: Path | None, intrinsics: tuple[float, ...] | None,
         scenes: int | None, seed: int, objects: int | None, node: str | None, recorded: bool,
         limit: int | None, save: Path | None, screenshot: Path | None, size: tuple[int, int],
         port: int, opened: bool, minimum_score: float | None,
         region: tuple[float, float, float, float] | None, gripper: str | None, approach: str,
         approach_direction: tuple[float, ...] | None, **model) -> None:
    """
    Show image, depth, 3-D cloud, all four stages and every score, with a timeline to scrub.

    SOURCE is an MCAP recording, a colour image (with its aligned DEPTH image), a folder of images
    or a data set. Without it, give --simulate N or --node.

    \b
    grasp_stn view --simulate 5
    grasp_stn view rgb.png depth.png --intrinsics 525 525 319.5 239.5
    grasp_stn view recording.mcap
    grasp_stn view --node                # a running grasp_node, live
    """  # noqa: D301  (click wants the character, not a backslash)
    given = [name for name, value in (('SOURCE', source), ('--simulate', scenes),
                                      ('--node', node)) if value]
    if len(given) != 1:
        raise click.UsageError('give one of SOURCE, --simulate N and --node'
                               + (f', not {" and ".join(given)}' if given else ''))
    if save and screenshot:
        raise click.UsageError('give --save or --screenshot, not both')
    if screenshot and screenshot.suffix.lower() != '.png':
        raise click.ClickException(f'BAD_NAME: screenshots end in .png, {screenshot} does not')
    _check(source, depth, recorded)
    pose = pose_settings(gripper, approach, approach_direction)
    if (node is not None or (source is not None and source.suffix == '.mcap')) \
            and (region or pose != pose_settings(None, APPROACHES[0], None)):
        raise click.UsageError('a node and its recording have a region, a gripper and an approach '
                               'of their own; the options are for images and --simulate')
    try:
        from .viewing.browser import BrowserError, find_chromium, take_picture
        from .viewing.scene import Scene
        from .viewing.server import Page, arrange, check_new, free_port, saving
        from .viewing.sources import SourceError
    except ImportError as error:
        raise click.ClickException(str(error)) from None
    from .reasons import GraspError
    from .recording.reader import RecordingError
    try:
        if screenshot:
            find_chromium()
        if save:
            check_new(save)
        else:
            free_port(port)
        scene = Scene(pose.get('gripper'))
        shown: Iterable[Shown]
        if node is not None:
            shown = ros_module('view_source').watch(
                node, scene, lambda text: click.echo(text, err=True))
        elif source is not None and source.suffix == '.mcap':
            shown = _recording(source, recorded, model, minimum_score, scene)
        else:
            named = _named(source, depth, intrinsics, scenes, seed, objects)
            shown = _detected(named, _opener({**model, **pose}), region,
                              MINIMUM_SCORE if minimum_score is None else minimum_score)
        count = 0
        with ExitStack() as stack:
            for count, moment in enumerate(itertools.islice(shown, limit), 1):
                if count == 1 and save:
                    stack.enter_context(saving(scene, save))
                elif count == 1:
                    # Not before there is something to show.
                    page = Page(scene, port)
                    click.echo(f'viewer: {page.address}')
                    if opened and not screenshot:
                        webbrowser.open(page.address)
                scene.log(moment)
                if count == 1:
                    arrange(scene, moment, paused=screenshot is not None)
            scene.recording.flush()
        click.echo(f'{count} frames')
        if count == 0:
            raise click.ClickException('NO_FRAMES: there was nothing to show')
        if screenshot:
            take_picture(page.picture_address, screenshot, _PICTURE_SECONDS, size)
            click.echo(f'picture: {screenshot}')
        elif save:
            click.echo(f'recording: {save}; open it with: rerun {save}')
        elif node is None or count == limit:
            _wait()      # otherwise it has been interrupted already
    except (SourceError, BrowserError, RecordingError, GraspError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        click.echo('')


def _check(source: Path | None, depth: Path | None, recorded: bool) -> None:
    """Refuse what would only be found out after the model has been loaded."""
    if source is not None and not source.exists():
        raise click.ClickException(f'NO_FILE: {source} does not exist')
    if depth is not None and (source is None or not source.is_file()):
        raise click.UsageError('DEPTH belongs to one colour image')
    if recorded and (source is None or source.suffix != '.mcap'):
        raise click.UsageError('--recorded is for an MCAP file: grasp_stn view FILE.mcap '
                               '--recorded')


def _named(source: Path | None, depth: Path | None, intrinsics: tuple[float, ...] | None,
           scenes: int | None, seed: int, objects: int | None) -> Iterable[Named]:
    from .rgbd import CameraIntrinsics
    from .viewing import sources
    camera = CameraIntrinsics(*intrinsics) if intrinsics else None
    if source is None:
        assert scenes is not None
        return sources.from_simulator(scenes, seed, objects)
    if source.is_dir():
        return sources.from_folder(source, camera)
    return sources.from_files(source, depth, camera)


def _opener(model: dict[str, Any]) -> Callable[[], GraspDetector]:
    return lambda: open_detector(**model)


def _detected(named: Iterable[Named], opener: Callable[[], GraspDetector],
              region: tuple[float, float, float, float] | None,
              minimum_score: float) -> Iterator[Shown]:
    """Read frame after frame and detect; what cannot be read is said and left out."""
    from .reasons import GraspError
    from .viewing.scene import Shown
    detector = opener()
    told = shown = False
    for each in named:
        try:
            frame = each.read()
            detection = detector.detect(frame, region, minimum_score, needs_pose(frame))
        except GraspError as error:
            click.echo(f'{each.name}: {error.reason.name}: {error.detail or error}', err=True)
            continue
        if frame.depth is not None and frame.intrinsics is None and not told:
            click.echo('no --intrinsics: no poses and nothing in 3-D', err=True)
            told = True
        shown = True
        yield Shown(each.name, frame, detection, titles=tuple(detector.stage_titles))
    if not shown:
        raise click.ClickException('there is nothing to show, since no image could be looked at')


def _recording(path: Path, recorded: bool, model: dict[str, Any], minimum_score: float | None,
               scene) -> Iterator[Shown]:
    from .recording.reader import Recording
    from .recording.replay import AsNode
    from .viewing.scene import Shown
    recording = Recording(path)
    node = AsNode(recording.parameters, minimum_score)
    scene.gripper = node.gripper
    scene.approach_offset = recording.parameters.get('approach_offset', scene.approach_offset)
    detector = None if recorded else open_as_recorded(model, recording.parameters)
    detect = node.again(detector) if detector else None
    titles: tuple[str, ...] = tuple(detector.stage_titles) if detector else ()
    said = 0
    for moment in recording.frames():
        if isinstance(moment.frame, str):
            click.echo(f'{moment.name}: {moment.frame}', err=True)
            continue
        detection = detect(moment) if detect else moment.detection
        if detection is None:
            continue
        for gap in node.gaps[said:] if detect else []:
            click.echo(f'not reproduced: {gap}', err=True)
            said += 1
        more = {'titles': titles} if titles else {}
        yield Shown(moment.name, moment.frame, detection, moment.time, **more)
    recording.warn(lambda text: click.echo(text, err=True))


def _wait() -> None:
    if not sys.stdout.isatty():
        click.echo('serving until interrupted')
    else:
        click.echo('Ctrl-C ends the viewer')
    while True:
        time.sleep(3600)

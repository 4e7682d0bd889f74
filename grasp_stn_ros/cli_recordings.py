"""``grasp_stn record`` and ``grasp_stn replay``: a bug report is a file."""

from __future__ import annotations

from dataclasses import replace
import itertools
import json
from pathlib import Path
import sys
import time
from typing import Any

import click
from rich.console import Console
from rich.progress import track
from rich.table import Table

from .cli_common import (
    FiniteRange,
    chosen_weights,
    model_options,
    open_as_recorded,
    open_detector,
    ros_module,
)

_SHOWN = 15      # rows of what differs; the JSON file has all


@click.command()
@click.argument('out', type=click.Path(path_type=Path), metavar='OUT.mcap')
@click.option('--node', default='/grasp_node', show_default=True, metavar='NAME',
              help='The running grasp_node to record.')
@click.option('--simulate', 'scenes', type=click.IntRange(1), metavar='N',
              help='Instead of a node: N simulated scenes and what is found in them; without '
                   'ROS.')
@click.option('--seed', type=click.IntRange(0), default=0, show_default=True,
              help='Of the simulated scenes.')
@click.option('--seconds', type=FiniteRange(0, min_open=True), metavar='S',
              help='Stop after that many seconds; default is to stop at Ctrl-C.')
@click.option('--all-topics', is_flag=True,
              help='Markers, debug image and diagnostics as well.')
@model_options
def record(out: Path, node: str, scenes: int | None, seed: int, seconds: float | None,
           all_topics: bool, **model) -> None:
    """
    Record what a grasp_node sees and finds, with its parameters, as one MCAP file.

    The file replays with `grasp_stn replay`, shows with `grasp_stn view`, and is read by
    `ros2 bag` and Foxglove. OUT.mcap must not exist.
    """
    try:
        from .recording.reader import RecordingError
        from .recording.writer import RecordingWriter
    except ImportError as error:
        raise click.ClickException(f'NO_MCAP: recordings need the packages mcap and '
                                   f'mcap-ros2-support ({error}); install them with pip') from None
    try:
        if scenes is None:
            messages = ros_module('recorder').record(out, node, seconds, all_topics, click.echo)
        else:
            messages = _record_simulated(RecordingWriter, out, scenes, seed, model)
    except RecordingError as error:
        raise click.ClickException(str(error)) from None
    size = out.stat().st_size / 1e6
    click.echo(f'{messages} messages, {size:.1f} MB: {out}')


def _record_simulated(writer: Any, out: Path, scenes: int, seed: int,
                      model: dict[str, Any]) -> int:
    from .viewing.sources import from_simulator
    # The model first: where it cannot be loaded, no empty file is left.
    detector = open_detector(**model)
    weights = chosen_weights(model['model'], model['system'], model['trained_on'])
    with writer(out, parameters={'model': weights,
                                 'candidates': detector.candidates}) as recording:
        began = time.time_ns()
        for index, named in enumerate(track(from_simulator(scenes, seed, None), 'scenes',
                                            total=scenes, console=Console(stderr=True),
                                            disable=not sys.stderr.isatty())):
            frame = named.read()
            recording.frame(frame, detector.detect(frame), began + index * 100_000_000)
        return recording.messages


@click.command()
@click.argument('recording', type=click.Path(path_type=Path), metavar='FILE.mcap')
@click.option('--against', metavar='MODEL',
              help='What to compare with: a .safetensors file, default, or recorded (what the '
                   'node found then). Default: recorded where the file has it.')
@click.option('--color', metavar='TOPIC', help='Of the colour image. Default: as recorded, or '
                                               'found by its type.')
@click.option('--depth', metavar='TOPIC', help='Of the depth image aligned to colour.')
@click.option('--camera-info', metavar='TOPIC', help='Of the calibration of the colour camera.')
@click.option('--slop', type=FiniteRange(0), default=0.05, show_default=True,
              help='Largest difference of the stamps in a pair, seconds.')
@click.option('--all-frames', is_flag=True,
              help='Also those that the node did not look at, when the file says which it did.')
@click.option('--limit', type=click.IntRange(1), metavar='N', help='Stop after N images.')
@click.option('--json', 'output', type=click.Path(path_type=Path, allow_dash=True),
              metavar='OUT.json', help='Write everything there; - prints it, and nothing else.')
@click.option('--exit-code', is_flag=True,
              help='Exit status 1 if any grasp is another one or is missing, for scripts.')
@model_options
def replay(recording: Path, against: str | None, color: str | None, depth: str | None,
           camera_info: str | None, slop: float, all_frames: bool, limit: int | None,
           output: Path | None, exit_code: bool, **model) -> None:
    """
    Detect again in a recording, and say what is different from before or from another model.

    Region, candidates, gripper, approach, minimum score and what the cell allows are those of the
    recorded node. What a recording does not have (masks, tf2, the past of the tracker) is named.

    \b
    grasp_stn replay bug.mcap                                  # against what was found then
    grasp_stn replay bug.mcap --model A.safetensors --against B.safetensors

    Exit status 1 if the file is damaged; what came before the damage is reported.
    """  # noqa: D301  (click wants the character, not a backslash)
    try:
        from .recording import replay as replaying
        from .recording.reader import Recording, RecordingError
    except ImportError as error:
        raise click.ClickException(f'NO_MCAP: recordings need the packages mcap and '
                                   f'mcap-ros2-support ({error}); install them with pip') from None
    given = {'color': color, 'depth': depth, 'camera_info': camera_info}
    try:
        file = Recording(recording, {k: v for k, v in given.items() if v}, slop)
        found = file.detections()
        if against == 'recorded' and not found:
            raise RecordingError(f'NOTHING_RECORDED: {recording} has no results of a node; '
                                 'compare two models with --model A --against B')
        node = replaying.AsNode(file.parameters)
        a, b = _sides(against, bool(found), model, file.parameters, node, replaying)
        moments = file.frames()
        if found and not all_frames:
            moments = (m for m in moments if m.detection is not None)
        records = list(track(replaying.rows(itertools.islice(moments, limit), a, b), 'images',
                             console=Console(stderr=True), disable=not sys.stderr.isatty()))
    except RecordingError as error:
        raise click.ClickException(str(error)) from None
    file.warn(lambda text: click.echo(f'Warning: {text}', err=True))
    if not records:
        raise click.ClickException(
            f'NO_PAIRS: {recording} has no colour image with depth and camera_info within '
            f'{slop} s; try a larger --slop, or name the topics. Used: {file.topics}')
    summary = replaying.summarize(records)
    report = {'file': str(recording), 'damage': file.damage or None, 'topics': file.topics,
              'parameters': file.parameters, 'a': a.name, 'b': b.name if b else None,
              'not_reproduced': node.gaps, 'summary': summary, 'frames': records}
    _write(output, report)
    if str(output) != '-':
        _print(report)
    differ = summary['other_grasp'] + summary['only_a'] + summary['only_b']
    if file.damage or (exit_code and differ):
        sys.exit(1)


def _sides(against: str | None, has_results: bool, model: dict[str, Any],
           parameters: dict[str, Any], node, replaying):
    """Return what is compared with what."""
    detector = open_as_recorded(model, parameters)
    a = replaying.Side(detector.model_name, node.again(detector))
    if against == 'recorded' or (against is None and has_results):
        return a, replaying.Side('recorded', node.recorded)
    if against is None:
        return a, None
    other = open_as_recorded({**model, 'model': against, 'system': None, 'trained_on': None},
                             parameters)
    b = replaying.Side(other.model_name, node.again(other))
    if a.name == b.name:
        a, b = replace(a, name=f'{a.name} (A)'), replace(b, name=f'{b.name} (B)')
    return a, b


def _write(output: Path | None, report: dict[str, Any]) -> None:
    if output is None:
        return
    from .evaluation.report import provenance, write_json
    if str(output) == '-':
        click.echo(json.dumps({**provenance(), **report}, indent=2))
        return
    try:
        write_json(output, report)
    except OSError as error:
        raise click.ClickException(f'CANNOT_WRITE: {output}: {error.strerror}') from None


def _print(report: dict[str, Any]) -> None:
    console, summary = Console(), report['summary']
    console.print(f'{report["file"]}: {summary["n"]} images, {summary["unreadable"]} unreadable, '
                  f'{summary["grasps"]} with a grasp by {report["a"]}', highlight=False)
    for row in [r for r in report['frames'] if 'error' in r][:_SHOWN]:
        console.print(f'  {row["name"]}: {row["error"]}', highlight=False, markup=False)
    for gap in report['not_reproduced']:
        console.print(f'not reproduced: {gap}', highlight=False, markup=False)
    if not summary['compared']:
        return
    console.print(f'A = {report["a"]}, B = {report["b"]}: {summary["identical"]} of '
                  f'{summary["compared"]} identical, {summary["same_grasp"]} the same grasp, '
                  f'{summary["other_grasp"]} another grasp, {summary["only_a"]} only by A, '
                  f'{summary["only_b"]} only by B, {summary["neither"]} by neither',
                  highlight=False)
    rows = [r for r in report['frames'] if 'difference' in r and not r['difference']['identical']]
    if not rows:
        return
    table = Table(title='What differs', padding=(0, 1))
    for name in ('image', 'outcome', 'IoU', 'angle', 'position', 'opening', 'score A', 'B'):
        table.add_column(name, justify='left' if name == 'outcome' else 'right', no_wrap=True)
    rows.sort(key=lambda r: (r['difference']['outcome'] == 'same grasp',
                             r['difference']['iou'] or 0.0))
    for row in rows[:_SHOWN]:
        d = row['difference']
        table.add_row(
            str(row['index']), _reasoned(row),
            _number(d['iou'], '.2f'), _number(d['angle'], '.0f', '°'),
            _number(d['position'], '.1f', ' mm', 1e3), _number(d['opening'], '+.1f', ' mm', 1e3),
            _number(row['a']['score'], '.2f'), _number(row['b']['score'], '.2f'))
    console.print(table)
    if len(rows) > _SHOWN:
        console.print(f'and {len(rows) - _SHOWN} more; --json writes all of them')


def _reasoned(row: dict[str, Any]) -> str:
    """Outcome of a row with the reason of the side that has no grasp."""
    outcome = row['difference']['outcome']
    missing = {'only A': 'b', 'only B': 'a'}.get(outcome)
    return f'{outcome}: {row[missing]["reason"]}' if missing else outcome


def _number(value: float | None, form: str, unit: str = '', scale: float = 1.0) -> str:
    return '-' if value is None else f'{value * scale:{form}}{unit}'

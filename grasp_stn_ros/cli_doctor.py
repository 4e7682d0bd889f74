"""``grasp_stn doctor``: what keeps grasps from coming, and what to do about it."""

from __future__ import annotations

from collections import Counter
import json
import sys

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .cli_common import FiniteRange, ros_module
from .doctor.findings import Finding, Level, error, worst

_STYLES = {Level.OK: '[green]ok[/]', Level.NOTE: '[cyan]note[/]',
           Level.WARNING: '[yellow]warning[/]', Level.ERROR: '[red]ERROR[/]'}


@click.command()
@click.option('--node', default='/grasp_node', show_default=True, metavar='NAME',
              help='The grasp_node to look at; it need not be running.')
@click.option('--color', metavar='TOPIC', help="Look at this instead of the node's color_topic.")
@click.option('--depth', metavar='TOPIC', help="Instead of the node's depth_topic.")
@click.option('--camera-info', metavar='TOPIC', help="Instead of the node's camera_info_topic.")
@click.option('--seconds', type=FiniteRange(0.5, 60), default=4.0, show_default=True,
              help='How long to listen to the camera.')
@click.option('--model', default='default', show_default=True,
              help='Weights to check: a .safetensors file.')
@click.option('--device', default='auto', show_default=True, help='auto, cpu, cuda or cuda:N')
@click.option('--no-ros', is_flag=True, help='Only this machine: device, weights, packages.')
@click.option('--clean', is_flag=True,
              help='First remove from shared memory what Fast DDS left of killed processes.')
@click.option('--json', 'as_json', is_flag=True, help='Print one JSON object.')
@click.option('--strict', is_flag=True, help='Exit status 1 for warnings as well.')
def doctor(node: str, color: str | None, depth: str | None, camera_info: str | None,
           seconds: float, model: str, device: str, no_ros: bool, clean: bool,
           as_json: bool, strict: bool) -> None:
    """
    Check ROS, DDS, topics, encodings, frames, rates, calibration, device and weights.

    Says what to do about each finding. Exit status 0 without errors, 1 with errors.
    """
    topics = {'color': color, 'depth': depth, 'camera_info': camera_info}
    progress = Console(stderr=True)
    if clean:
        from .doctor import shared_memory
        freed = shared_memory.remove(shared_memory.dead_segments())
        progress.print(f'{freed / 2**20:.0f} MiB of shared memory are free again')
        if kept := shared_memory.dead_segments():
            progress.print(f'{len(kept)} segments could not be removed: they are of other users; '
                           'run it as these or as root')
    with progress.status('looking at this machine and listening to the camera'):
        findings = _machine(model, device)
        if not no_ros:
            findings += _ros(node, {k: v for k, v in topics.items() if v}, seconds)
    if as_json:
        click.echo(json.dumps({'worst': worst(findings).value,
                               'findings': [f.record() for f in findings]}, indent=2))
    else:
        _print(findings)
    bad = (Level.ERROR, Level.WARNING) if strict else (Level.ERROR,)
    sys.exit(1 if worst(findings) in bad else 0)


def _machine(model: str, device: str) -> list[Finding]:
    from .doctor import machine
    return [*machine.check_device(device), *machine.check_weights(model),
            *machine.check_packages()]


def _ros(node: str, topics: dict[str, str], seconds: float) -> list[Finding]:
    try:
        examiner = ros_module('doctor')
    except click.ClickException as problem:
        what, _, remedy = problem.message.partition('. ')
        return [error('ros', what, remedy)]
    return list(examiner.examine(examiner.Options(node, topics, seconds)))


def _print(findings: list[Finding]) -> None:
    table = Table(title='grasp_stn doctor', show_lines=False, expand=False, padding=(0, 1))
    table.add_column('')
    table.add_column('check', no_wrap=True)
    table.add_column('finding', overflow='fold')
    for finding in findings:
        table.add_row(_STYLES[finding.level], finding.name, escape(finding.message))
    console = Console(highlight=False)
    console.print(table)
    remedies = [finding for finding in findings if finding.remedy]
    if remedies:
        console.print('[bold]what to do[/]')
    for finding in remedies:
        # There are commands and paths in them to be copied: neither in a table nor wrapped.
        console.print(f'  {finding.name}: {escape(finding.remedy)}', soft_wrap=True)
    count = Counter(f.level for f in findings)
    console.print(f'{count[Level.ERROR]} errors, {count[Level.WARNING]} warnings, '
                  f'{count[Level.NOTE]} notes, {count[Level.OK]} checks without a finding')

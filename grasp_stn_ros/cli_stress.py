"""``grasp_stn stress``: load, faults and hostile input, against a real node on real DDS."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
import sys
from typing import Any

import click

from .cli_common import FiniteRange

# What a ROS installation has below 102 lies clear of Linux's ephemeral ports.
_DOMAINS = 101


@click.command()
@click.option('--minutes', type=FiniteRange(0.01), default=10.0, show_default=True,
              help='Of the stream at 30 Hz.')
@click.option('--calls', type=click.IntRange(1), default=1000, show_default=True,
              help='Of ~/detect_grasp.')
@click.option('--clients', type=click.IntRange(1, 16), default=4, show_default=True,
              help='That call at once.')
@click.option('--messages', type=click.IntRange(1), default=10_000, show_default=True,
              help='Random and mutated ones for the conversion; a twentieth of it goes over DDS.')
@click.option('--sets', type=click.IntRange(1), default=500, show_default=True,
              help='Of parameters, in a storm of them.')
@click.option('--signals', type=click.IntRange(1), default=12, show_default=True,
              help='Starts of the node that are interrupted.')
@click.option('--files', type=click.IntRange(1), default=200, show_default=True,
              help='Corrupt and hostile weight and label files.')
@click.option('--only', multiple=True, metavar='NAME', help='Only this row; may be repeated.')
@click.option('--seed', type=click.IntRange(0), default=0, show_default=True)
@click.option('--model', default='default', show_default=True, help='Weights (.safetensors).')
@click.option('--domain', type=click.IntRange(1, _DOMAINS),
              help='ROS_DOMAIN_ID; must not be in use. Default: one from the process id.')
@click.option('--results', type=click.Path(path_type=Path, file_okay=False), default='results',
              show_default=True, help='Folder for stress.json and stress.md.')
@click.option('--list', 'listing', is_flag=True, help='List the rows and end.')
def stress(only: tuple[str, ...], domain: int | None, results: Path, listing: bool, messages: int,
           **extent: Any) -> None:
    """
    Stress the node and write a report: load, faults, hostile messages and files.

    Nodes run in processes of their own in a ROS domain of their own, with the package's DDS
    profile. Exit status 1 if a row has not passed.
    """
    from .atomic import write_atomically
    from .evaluation.report import write_json
    from .evaluation.stress_report import markdown
    _isolate(domain)
    try:
        # By name: nothing outside of ros/ depends on ROS.
        runner = importlib.import_module(f'{__package__}.ros.stress')
        settings = importlib.import_module(f'{__package__}.ros.stress_settings').Settings(
            messages=messages, dds_messages=max(1, messages // 20), **extent)
    except ImportError as error:
        raise click.ClickException(
            f'this needs ROS 2, and importing it failed ({error}); source an installation and '
            'the workspace with grasp_stn_interfaces, or use .venv/bin/grasp_stn of `make setup`'
            ) from None
    names = list(runner.ROWS)
    if listing:
        click.echo('\n'.join(names))
        return
    if unknown := set(only) - set(names):
        raise click.UsageError(f'no row is called {", ".join(sorted(unknown))}; there are '
                               f'{", ".join(names)}')
    rows = runner.run(settings, [n for n in names if not only or n in only], _print)
    path = results / 'stress.json'
    record = {'seed': settings.seed, 'rows': rows}
    write_json(path, record)
    table = results / 'stress.md'
    write_atomically(table, markdown(json.loads(path.read_text())).encode())
    click.echo(f'written: {path}, {table}')
    sys.exit(0 if all(row['passed'] for row in rows) else 1)


def _isolate(domain: int | None) -> None:
    """Keep away from other nodes, and let images pass through shared memory."""
    chosen = domain or 1 + os.getpid() % _DOMAINS
    os.environ['ROS_DOMAIN_ID'] = str(chosen)
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    environment = importlib.import_module(f'{__package__}.ros.environment')
    os.environ.update(environment.shared_memory_profile())


def _print(row: dict[str, Any]) -> None:
    state = click.style('passed', fg='green') if row['passed'] else click.style('FAILED', fg='red')
    click.echo(f'{state} {row["name"]}')
    for problem in row['problems']:
        click.echo(f'  {problem}')

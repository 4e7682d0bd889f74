"""The report of ``grasp_stn stress`` as Markdown."""

from __future__ import annotations

from typing import Any

_KEPT = {'name', 'passed', 'expected', 'problems'}


def markdown(result: dict[str, Any]) -> str:
    """Return the table of a result that ``grasp_stn stress`` wrote, a line a row."""
    machine = result['machine']
    lines = ['| Row | Passed | Expected | Measured |', '|---|---|---|---|']
    for row in result['rows']:
        measured = '; '.join([_figures(row), *(f'**{_cell(p)}**' for p in row['problems'])])
        lines.append(f'| `{row["name"]}` | {"yes" if row["passed"] else "**no**"} | '
                     f'{_cell(row["expected"])} | {measured} |')
    lines += ['', f'{machine["cpu"]}, {machine["cores"]} cores, seed {result["seed"]}, commit '
              f'{result["commit"]}, {result["date"]}; written by `{result["command"]}`.']
    return '\n'.join(lines) + '\n'


def _figures(row: dict[str, Any]) -> str:
    return ', '.join(f'{name.replace("_", " ")} {_value(value)}'
                     for name, value in row.items() if name not in _KEPT)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return '(' + ', '.join(f'{_cell(k)} {_value(v)}' for k, v in value.items()) + ')'
    if isinstance(value, float):
        return f'{value:.4g}'
    return _cell(value)


def _cell(value: Any) -> str:
    """Text that neither ends a cell nor a line."""
    return ' '.join(str(value).replace('|', '\\|').split())

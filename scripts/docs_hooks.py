"""
Pages of the site that are made while it is built: results, model cards, how to contribute.

Their sources live elsewhere in the repository, where those who change them look for them.
"""

from __future__ import annotations

import json
from pathlib import Path
import re
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
# What of a result file its row shows, where it is a single figure.
FIGURES = {'lift': 'lifted', 'baseline': 'long-axis baseline', 'plain': 'rectangle metric',
           'strict': 'strict rectangle metric', 'plain_rgbd': 'rectangle metric, with depth',
           'removed_per_attempt': 'removed an attempt', 'cleared': 'tables cleared'}
# Where pages of docs/ link to in the repository -> the page of the site that shows it.
PAGES = {'../results/': 'results.md', '../models/multi_stage_stn.md': 'models.md',
         '../CONTRIBUTING.md': 'contributing.md'}


def on_page_markdown(markdown: str, **others: Any) -> str:
    """Point links into the repository, which work where it is browsed, at pages of the site."""
    for source, page in PAGES.items():
        markdown = markdown.replace(f']({source})', f']({page})')
    return markdown


def on_files(files: Any, config: Any) -> Any:
    """Add the made pages to those of docs/."""
    for name, content in (('results.md', results_page()), ('models.md', models_page()),
                          ('contributing.md', contributing_page())):
        files.append(File.generated(config, name, content=content))
    return files


def results_page() -> str:
    """Every file in results/ with its figures and the command that wrote it."""
    lines = ['# Results', '',
             'Every figure comes from a JSON file in `results/`, which the command beside it '
             'wrote with the number of images, seed, machine and commit. Judge a figure by its '
             'n: with 300 scenes the 95 % interval is 3 to 6 points to either side.', '',
             '## All result files', '',
             '| File | n | Seed | Figures | Machine | Commit |', '|---|---:|---:|---|---|---|']
    commands = ['## Their commands', '']
    for path in sorted((ROOT / 'results').glob('*.json')):
        record = json.loads(path.read_text())
        lines.append(f'| `{path.name}` | {record.get("n", "")} | {_known(record.get("seed"))} | '
                     f'{_figures(record)} | {_machine(record)} | '
                     f'`{_known(record.get("commit"))}` |')
        commands += [f'`{path.name}`:', '', '```', str(record.get('command')), '```', '']
    for path in sorted((ROOT / 'results').glob('*.md')):
        lines += ['', f'## {path.stem.replace("_", " ").capitalize()}', '', path.read_text()]
    return '\n'.join([*lines, '', *commands])


def _known(value: Any) -> str:
    return '-' if value is None else str(value)


def _figures(record: dict[str, Any]) -> str:
    found = []
    for key, name in FIGURES.items():
        if not isinstance(record.get(key), float):
            continue
        text = f'{name} {record[key]:.1%}'
        interval = record.get(f'{key}_interval')
        if interval:
            text += f' (95 %: {interval[0]:.1%} to {interval[1]:.1%})'
        found.append(text)
    return ', '.join(found) or 'see the file, or its table below'


def _machine(record: dict[str, Any]) -> str:
    machine = record.get('machine', {})
    return f'{machine.get("cores", "?")} cores of {machine.get("cpu", "an unnamed CPU")}'


def models_page() -> str:
    """Model cards, one below the other, the shipped model first."""
    lines = ['# Models', '',
             'Weights are safetensors files in `models/` with a sidecar (`.json`) and the card '
             'below. `model:=` and `--model` take a path, `default` is the first one.']
    cards = sorted((ROOT / 'models').glob('*.md'),
                   key=lambda p: (p.stem.startswith('table_'), p.stem))
    for path in cards:
        text = re.sub(r'^(#+) ', r'#\1 ', path.read_text(), flags=re.MULTILINE)
        text = re.sub(r'^#+ Model card: ', '## ', text, flags=re.MULTILINE)
        # One page has several cards: repeated headings become bold text.
        text = re.sub(r'^### (.*)$', r'**\1**', text, flags=re.MULTILINE)
        lines += ['', text.replace('](../docs/', '](')]
    return '\n'.join(lines)


def contributing_page() -> str:
    """CONTRIBUTING.md, with its links as seen from the site."""
    return (ROOT / 'CONTRIBUTING.md').read_text().replace('](docs/', '](')

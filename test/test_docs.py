"""The documentation: builds without warnings, and says what the code does."""

import json
import os
from pathlib import Path
import re
import subprocess
import sys

import pytest
import yaml

from grasp_stn_ros.reasons import Reason
from grasp_stn_ros.stn.checkpoint import read_sidecar

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / 'docs'


def run(*command, **environment) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, check=False,
                          capture_output=True, text=True, timeout=200,
                          env={**os.environ, 'PYTHONPATH': str(ROOT), **environment})


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    pytest.importorskip('material', reason='mkdocs-material is missing: make setup')
    folder = tmp_path_factory.mktemp('site')
    result = run('-m', 'mkdocs', 'build', '--strict', '--site-dir', folder)
    # Missing pages, dead links and anchors are warnings, and a warning is an error here.
    assert result.returncode == 0, result.stdout + result.stderr
    assert 'WARNING -' not in result.stderr
    return folder


def test_the_site_has_every_page_and_picture(site):
    for page in ('index', 'start', 'camera', 'gripper', 'objects', 'robot', 'containers',
                 'stages', 'results', 'models', 'troubleshooting', 'architecture',
                 'contributing', 'walkthroughs', 'reference/ros', 'reference/command_line'):
        assert (site / f'{page}.html').stat().st_size > 5000, page
    for html in site.rglob('*.html'):
        for source in re.findall(r'<img[^>]* src="([^"]+)"', html.read_text()):
            assert (html.parent / source).is_file(), f'{html.name}: {source}'


def test_the_site_loads_nothing_from_elsewhere(site):
    loads = re.compile(r'<(?:script|link|img)[^>]* (?:src|href)="(https?:[^"]+)"')
    for html in site.rglob('*.html'):
        foreign = [u for u in loads.findall(html.read_text()) if 'rel="canonical"' not in u]
        assert not foreign, html.name


def test_the_command_line_page_has_every_command(site):
    from grasp_stn_ros.cli import main
    text = (site / 'reference' / 'command_line.html').read_text()
    assert 'Sentinel' not in text
    for name in main.commands:
        assert f'grasp_stn {name}' in text or f'id="{name}"' in text, name


def test_results_page_names_every_file_with_its_command(site):
    text = (site / 'results.html').read_text().replace('&gt;', '>')
    for path in (ROOT / 'results').glob('*.json'):
        assert path.name in text
        command = json.loads(path.read_text())['command'].split()
        assert command[0] in text and command[-1] in text, path.name


def test_the_ros_reference_is_up_to_date():
    pytest.importorskip('rclpy', reason='rclpy is missing: source ROS 2 or run `make setup`')
    result = run('scripts/make_reference.py', '--check')
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_reason_has_its_section():
    headings = re.findall(r'^### (\w+)$', (DOCS / 'troubleshooting.md').read_text(), re.M)
    assert headings == [r.name for r in Reason if r]


def test_every_command_in_the_docs_exists():
    """Each `grasp_stn ...` line of a code block: its command and its options are real."""
    from grasp_stn_ros.cli import main
    seen = 0
    for page in [*DOCS.rglob('*.md'), ROOT / 'README.md']:
        for block in re.findall(r'^```\w*\n(.*?)^```', page.read_text(), re.M | re.S):
            for line in block.replace('\\\n', ' ').splitlines():
                match = re.match(r'(?:\.venv/bin/)?grasp_stn ([^#]*)', line)
                if match is None:
                    continue
                words = match.group(1).split()
                command = main
                while words and words[0] in getattr(command, 'commands', {}):
                    command = command.commands[words.pop(0)]
                assert command is not main, f'{page.name}: {line}'
                known = {o for p in command.params for o in [*p.opts, *p.secondary_opts]}
                for option in (w.split('=')[0] for w in words if re.match('--[a-z]', w)):
                    assert option in known | ONLY_ANNOUNCED, f'{page.name}: {line}'
                seen += 1
    assert seen > 10


# Options that the documentation may name although this version does not have them.
ONLY_ANNOUNCED: set[str] = set()


@pytest.mark.parametrize('weights', sorted((ROOT / 'models').glob('*.safetensors')),
                         ids=lambda p: p.stem)
def test_each_weight_file_has_a_model_card_of_its_own(weights):
    card = weights.with_suffix('.md').read_text()
    sidecar = read_sidecar(weights)
    assert card.startswith(f'# Model card: {weights.stem}\n')
    for needed in (sidecar['sha256'], sidecar['licence'], sidecar['data'], '## Figures',
                   '## Use and limits'):
        assert needed in card, needed
    for figure in sidecar['metrics'].values():
        assert not isinstance(figure, dict) or figure.get('command', '') in card


def test_the_pictures_of_the_docs_are_used_and_not_huge():
    pages = ''.join(p.read_text() for p in [*DOCS.rglob('*.md'), ROOT / 'README.md'])
    for picture in (DOCS / 'images').iterdir():
        assert f'images/{picture.name}' in pages, f'{picture.name} is shown nowhere'
        assert picture.stat().st_size < 700_000, picture.name


def test_mkdocs_is_told_to_warn_about_everything():
    config = yaml.safe_load((ROOT / 'mkdocs.yml').read_text())
    levels = {v for part in config['validation'].values() for v in part.values()}
    assert levels == {'warn'}


def test_issue_forms_have_what_github_asks_for():
    forms = [p for p in (ROOT / '.github' / 'ISSUE_TEMPLATE').glob('*.yml')
             if p.name != 'config.yml']
    assert len(forms) >= 3
    for path in forms:
        form = yaml.safe_load(path.read_text())
        assert {'name', 'description', 'body'} <= set(form), path.name
        ids = [part['id'] for part in form['body'] if part['type'] != 'markdown']
        assert len(ids) == len(set(ids)) > 0
        for part in form['body']:
            assert part['type'] in {'markdown', 'textarea', 'input', 'dropdown', 'checkboxes'}
            assert 'label' in part['attributes'] or part['type'] == 'markdown'


def test_pre_commit_runs_what_the_project_has():
    config = yaml.safe_load((ROOT / '.pre-commit-config.yaml').read_text())
    for hook in (hook for repo in config['repos'] for hook in repo['hooks']):
        assert hook['language'] == 'system'
        program = hook['entry'].split()[0].removeprefix('.venv/bin/')
        assert program in ('python', 'ruff', 'mypy')
        for word in hook['entry'].split()[1:]:
            assert word.startswith('--') or word == 'check' or (ROOT / word).is_file(), word


def test_the_citation_names_this_version_and_paper():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert {'cff-version', 'message', 'title', 'authors'} <= set(citation)
    assert f"<version>{citation['version']}</version>" in (ROOT / 'package.xml').read_text()
    assert '1803.01356' in citation['preferred-citation']['url']

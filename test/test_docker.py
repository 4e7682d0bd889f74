"""docker/, as far as that goes without a Docker engine."""

from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'scripts'))

import check_docker  # noqa: E402


def test_every_line_resolves():
    assert check_docker.problems() == []


def test_lines_are_understood():
    steps = check_docker.instructions('# no\nFROM a\nRUN apt-get install -y \\\n  b \\\n'
                                      '  c && rm x\nCOPY --chown=me d e f/\n')
    assert check_docker.apt_packages(steps) == ['b', 'c']
    assert check_docker.copied(steps[-1][1]) == ['d', 'e']


@pytest.mark.parametrize('old, new, complaint', [
    ('COPY models ', 'COPY modles ', 'COPY modles: not in the build context'),
    ('python3-rich', 'python3-ritch', 'apt-get install python3-ritch'),
    ('      ros-${ROS_DISTRO}-cv-bridge \\\n', '', 'cv_bridge of package.xml is not installed')])
def test_mistakes_are_found(tmp_path, monkeypatch, old, new, complaint):
    text = (ROOT / 'docker' / 'Dockerfile').read_text()
    assert old in text
    (tmp_path / 'Dockerfile').write_text(text.replace(old, new))
    (tmp_path / 'requirements.txt').write_text('torch==1.0.0\n')
    monkeypatch.setattr(check_docker, 'DOCKER', tmp_path)
    found = '\n'.join(check_docker.problems())
    assert complaint in found and 'torch==1.0.0: constraints.txt has ==2.13.0' in found


def test_the_entry_point_is_a_valid_script():
    result = subprocess.run(['bash', '-n', str(ROOT / 'docker' / 'entrypoint.sh')], check=False)
    assert result.returncode == 0

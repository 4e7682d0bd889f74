"""
Check docker/ as far as that goes without a Docker engine.

    .venv/bin/python scripts/check_docker.py             # files, pins, package names
    .venv/bin/python scripts/check_docker.py --online    # pip resolves the requirements as well

Prints every problem; exit status 1 if there is one.
"""

from __future__ import annotations

import argparse
from pathlib import Path
import re
import subprocess
import sys
import tempfile
from xml.etree import ElementTree

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
DOCKER = ROOT / 'docker'
# Ubuntu 24.04's names, which Debian shares.
APT = {'libegl-mesa0', 'libegl1', 'libgl1-mesa-dri', 'python3-click', 'python3-matplotlib',
       'python3-numpy', 'python3-opencv', 'python3-pip', 'python3-rich', 'python3-scipy',
       'python3-yaml'}
INSTRUCTIONS = {'ARG', 'FROM', 'SHELL', 'RUN', 'COPY', 'WORKDIR', 'ENV', 'ENTRYPOINT', 'CMD'}


def instructions(text: str) -> list[tuple[str, str]]:
    """Dockerfile -> (instruction, arguments) with lines joined and comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith('#')]
    joined = '\n'.join(lines).replace('\\\n', ' ')
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip())
            for line in joined.splitlines() if line.strip()]


def copied(arguments: str) -> list[str]:
    """Sources of a COPY."""
    return [a for a in arguments.split() if not a.startswith('--')][:-1]


def apt_packages(steps: list[tuple[str, str]]) -> list[str]:
    """Names that apt-get install is given."""
    names: list[str] = []
    for kind, arguments in steps:
        if kind == 'RUN':
            for found in re.findall(r'apt-get install ([^&;]*)', arguments):
                names += [n for n in found.split() if not n.startswith('-')]
    return names


def ros_dependencies() -> set[str]:
    """Packages that package.xml needs at run time and the interfaces to be built."""
    found: set[str] = set()
    for path in (ROOT / 'package.xml', ROOT / 'grasp_stn_interfaces' / 'package.xml'):
        tree = ElementTree.parse(path).getroot()
        for tag in ('depend', 'exec_depend', 'build_depend', 'buildtool_depend'):
            found |= {(e.text or '').strip() for e in tree.findall(tag)}
    return found


def problems() -> list[str]:
    """Everything that can be said to be wrong without a network."""
    steps = instructions((DOCKER / 'Dockerfile').read_text())
    bad = [f'unknown instruction {kind}' for kind, _ in steps if kind not in INSTRUCTIONS]
    ignored = (ROOT / '.dockerignore').read_text().split()
    for kind, arguments in steps:
        if kind == 'COPY':
            for name in copied(arguments):
                if not (ROOT / name).exists():
                    bad.append(f'COPY {name}: not in the build context')
                if name.split('/')[0] in ignored:
                    bad.append(f'COPY {name}: left out by .dockerignore')
    return bad + _apt_problems(apt_packages(steps)) + _pip_problems()


def _apt_problems(names: list[str]) -> list[str]:
    needed = ros_dependencies()
    prefix = 'ros-${ROS_DISTRO}-'
    # ament_cmake and the like come with the base image.
    known = APT | {prefix + n.replace('_', '-') for n in needed} | {prefix + 'rmw-fastrtps-cpp'}
    bad = [f'apt-get install {n}: neither an Ubuntu package that is known here nor one that '
           'package.xml asks for' for n in names if n not in known]
    for dependency in sorted(needed - {'grasp_stn_interfaces', 'ament_cmake',
                                       'rosidl_default_runtime'}):
        name = dependency if dependency.startswith('python3-') else \
            prefix + dependency.replace('_', '-')
        if name not in names:
            bad.append(f'{dependency} of package.xml is not installed')
    return bad


def _pip_problems() -> list[str]:
    pinned: dict[str, set[str]] = {}
    for line in (ROOT / 'constraints.txt').read_text().splitlines():
        if line and not line.startswith('#'):
            requirement = Requirement(line)
            pinned.setdefault(requirement.name, set()).add(str(requirement.specifier))
    bad = []
    for line in (DOCKER / 'requirements.txt').read_text().splitlines():
        if line and not line.startswith('#'):
            requirement = Requirement(line)
            if str(requirement.specifier) not in pinned.get(requirement.name, ()):
                bad.append(f'{line}: constraints.txt has '
                           f'{", ".join(pinned.get(requirement.name, ["none"]))}')
    return bad


def unresolved() -> list[str]:
    """Let pip resolve the requirements for the Python of Ubuntu 24.04."""
    with tempfile.TemporaryDirectory() as folder:
        result = subprocess.run(
            [sys.executable, '-m', 'pip', 'install', '--dry-run', '--quiet', '--no-deps',
             '--ignore-installed', '--only-binary=:all:', '--python-version', '3.12',
             '--target', folder, '-r', str(DOCKER / 'requirements.txt')],
            check=False, capture_output=True, text=True)
    return [] if result.returncode == 0 else [result.stderr.strip()]


def main() -> int:
    """Print the problems; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').strip().split('\n')[0])
    parser.add_argument('--online', action='store_true', help='ask pip for the names as well')
    found = problems() + (unresolved() if parser.parse_args().online else [])
    for problem in found:
        print(problem)
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main())

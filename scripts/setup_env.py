"""Make or bring up to date the environment in .venv: packages, ROS 2, interfaces, this project.

Run by the Makefile before every target. Standard library only. Each step stores a hash of what it
was made from in .venv/setup-state.json; a step whose hash is unchanged is skipped, so a run with
nothing to do takes a fraction of a second. Nothing outside the project folder is written.

ROS 2 comes from the sourced installation if there is one (ROS_DISTRO and AMENT_PREFIX_PATH set and
rclpy importable), otherwise from PyPI wheels.
"""

import argparse
import contextlib
import ctypes
import fcntl
import glob
import hashlib
import importlib.metadata
import importlib.util
import json
import os
from pathlib import Path
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / '.venv'
PYTHON = VENV / 'bin' / 'python'
STATE = VENV / 'setup-state.json'
CACHE = ROOT / '.cache'
LOG = CACHE / 'setup.log'
SITE_PACKAGES = VENV / 'lib' / f'python{sys.version_info[0]}.{sys.version_info[1]}/site-packages'

# Names that ROS installations bring and that the node and the interfaces cannot do without.
ROS_MODULES = {
    'diagnostic_msgs': 'diagnostic-msgs',
    'geometry_msgs': 'geometry-msgs',
    'rclpy': 'rclpy',
    'rosidl_generator_py': 'rosidl-default-generators',
    'sensor_msgs': 'sensor-msgs',
    'std_srvs': 'std-srvs',
    'visualization_msgs': 'visualization-msgs',
}

# Packages that have to stay at the version that a ROS installation was built and tested with.
KEPT_FROM_ROS = ('numpy', 'pytest', 'pluggy', 'iniconfig', 'pyyaml')

# A start-up hook for .venv/bin/python. The dynamic loader reads LD_LIBRARY_PATH only when a
# process starts, so a Python that lacks the entry has to be started once more. The wheels bring
# such a hook of their own, but its guard variable is inherited by other environments' Pythons,
# which then fail to find their libraries; this one runs first and looks at the path itself.
HOOK = '''\
"""Let this environment's Python find its own ROS libraries and resources (see setup_env.py)."""

import glob
import os
import sys


def prepended(name, entries):
    """Return the path variable with the entries in front, and whether any was missing."""
    present = [entry for entry in os.environ.get(name, '').split(os.pathsep) if entry]
    missing = [entry for entry in entries if entry not in present]
    return os.pathsep.join(missing + present), bool(missing)


prefix = sys.prefix
site_packages = os.path.dirname(os.path.abspath(__file__))
os.environ['AMENT_PREFIX_PATH'], _ = prepended('AMENT_PREFIX_PATH', [prefix])
libraries = [os.path.join(prefix, 'lib')]
libraries += sorted(glob.glob(os.path.join(site_packages, 'ros_*.libs')))
value, incomplete = prepended('LD_LIBRARY_PATH', libraries)
if incomplete:
    os.environ['LD_LIBRARY_PATH'] = value
    os.environ['_ROS_WHEELS_BOOTSTRAP_COMPLETE'] = '1'
    os.execv(sys.executable, sys.orig_argv)
'''


class SetupError(Exception):
    """A step failed; the message says which and what to do."""


def main():
    """Bring the environment up to date and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--check', action='store_true', help='only look for missing programs')
    arguments = parser.parse_args()
    # SIGTERM, too, has to end the child processes and leave the state as it is.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with one_at_a_time():
            ros = find_ros()
            steps = plan(ros)
            if not arguments.check and is_done(steps):
                return 0
            check_machine(ros)
            if not arguments.check:
                run(steps)
    except SetupError as error:
        print(f'\nset-up: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nset-up: interrupted; the next run goes on from here.', file=sys.stderr)
        return 130
    return 0


@contextlib.contextmanager
def one_at_a_time():
    """Hold the project folder's lock, so that two `make` do not build one environment."""
    descriptor = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print('set-up: waiting for another set-up in this folder to end', flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def find_ros():
    """Return the sourced ROS distribution's name, or None for ROS from wheels."""
    distribution = os.environ.get('ROS_DISTRO')
    if distribution and os.environ.get('AMENT_PREFIX_PATH') and has_module('rclpy'):
        return distribution
    return None


def has_module(name):
    """Say whether this interpreter finds a top-level module, without importing it."""
    return importlib.util.find_spec(name) is not None


# ---- what has to be there before ------------------------------------------------------------


def check_machine(ros):
    """Raise SetupError that names everything that is missing and how to install it."""
    version = f'{sys.version_info[0]}.{sys.version_info[1]}'
    missing = []  # (what and why, Debian packages)
    if not (has_module('venv') and has_module('ensurepip')):
        missing.append((f'venv for {sys.executable}', [f'python{version}-venv']))
    header = Path(sysconfig.get_path('include')) / 'Python.h'
    if not header.exists():
        missing.append((f'the C headers of Python {version} (Python.h)', [f'python{version}-dev']))
    for program in ('gcc', 'g++', 'make'):
        if shutil.which(program) is None:
            missing.append((program, ['build-essential']))
    if shutil.which('cmake') is None:
        missing.append(('cmake', ['cmake']))
    if os.environ.get('MUJOCO_GL', 'egl') == 'egl':
        missing += missing_egl()
    if ros:
        for module, package in ROS_MODULES.items():
            if not has_module(module):
                missing.append((f'{module} of ROS 2 {ros}', [f'ros-{ros}-{package}']))
        real = [name for name in ('cv_bridge', 'message_filters') if has_module(name)]
        if len(real) == 1:  # with neither of them, the stand-ins take their place
            name = 'message_filters' if real == ['cv_bridge'] else 'cv_bridge'
            missing.append((f'{name} of ROS 2 {ros}', [f'ros-{ros}-{name.replace("_", "-")}']))
        if shutil.which('colcon') is None:
            missing.append(('colcon', ['python3-colcon-common-extensions']))
    elif (sys.platform, platform.machine()) != ('linux', 'x86_64'):
        raise SetupError(
            f'ROS 2 wheels exist for x86_64 Linux only, this is {sys.platform} on '
            f'{platform.machine()}. Install ROS 2 Jazzy or Kilted and source it; then run this '
            'again.'
        )
    if missing:
        packages = sorted({package for _, names in missing for package in names})
        raise SetupError(
            'missing on this machine:\n'
            + ''.join(f'    {what}\n' for what, _ in missing)
            + 'On Debian and Ubuntu:\n    sudo apt-get install ' + ' '.join(packages)
        )
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < 3.0:
        print(f'set-up: only {free:.1f} GB free on this disk, 3 GB or more are needed', flush=True)


def missing_egl():
    """Return what the off-screen renderer lacks: the EGL loader and a driver for it."""
    def loads(pattern):
        try:
            ctypes.CDLL(pattern)
        except OSError:
            return False
        return True

    if not loads('libEGL.so.1'):
        return [('EGL, for rendering without a display (libEGL.so.1)',
                 ['libegl1', 'libegl-mesa0', 'libgl1-mesa-dri'])]
    if not (loads('libEGL_mesa.so.0') or loads('libEGL_nvidia.so.0')):
        return [('a driver for EGL (libEGL_mesa.so.0)', ['libegl-mesa0', 'libgl1-mesa-dri'])]
    return []


# ---- the steps and their state --------------------------------------------------------------


def plan(ros):
    """Return the steps as (name, what it does, hash of its inputs, function); order matters."""
    key = hashlib.sha256()

    def digest(*inputs):
        # A step is redone when an earlier one is: every hash goes on from the one before.
        for item in inputs:
            if isinstance(item, Path):
                key.update(item.relative_to(ROOT).as_posix().encode() + b'\0')
                key.update(item.read_bytes() if item.exists() else b'missing')
            else:
                key.update(repr(item).encode())
            key.update(b'\0')
        return key.hexdigest()

    requirements = [ROOT / name for name in (
        'scripts/setup_env.py', 'constraints.txt', 'requirements.txt', 'requirements-dev.txt',
        'requirements-ros.txt')]
    interfaces = files_below('grasp_stn_interfaces')
    stand_ins = [path for path in files_below('pip_ros') if path.suffix in ('.py', '.toml')]
    metadata = [ROOT / name for name in ('pyproject.toml', 'setup.py', 'setup.cfg')]
    home = os.path.realpath(getattr(sys, '_base_executable', sys.executable))
    ros_path = os.environ['AMENT_PREFIX_PATH'] if ros else None
    return [
        ('environment', f'Python {platform.python_version()} environment in .venv',
         digest(str(ROOT), home, sys.version, ros, ros_path, HOOK),
         lambda: make_environment(ros)),
        ('packages', 'packages' + ('' if ros else ' and ROS 2 Kilted from wheels'),
         digest(*requirements), lambda: install_packages(ros)),
        ('interfaces', 'grasp_stn_interfaces (colcon build)',
         digest(*interfaces), lambda: build_interfaces(ros)),
        ('stand-ins', 'stand-ins for missing ROS packages (pip_ros)',
         digest(*stand_ins), lambda: install_stand_ins(ros)),
        ('project', 'grasp_stn_ros, editable', digest(*metadata), install_project),
    ]


def files_below(folder):
    """Return the files of a folder of the project in a fixed order, without build products."""
    products = {'__pycache__', 'build', 'install', 'log'}
    return sorted(
        path for path in (ROOT / folder).rglob('*')
        if path.is_file() and not products & set(path.relative_to(ROOT).parts)
        and not any(part.endswith('.egg-info') for part in path.parts)
    )


def read_state():
    """Return the hashes of the finished steps; {} for none or for an unreadable file."""
    try:
        return json.loads(STATE.read_text())
    except (OSError, ValueError):
        return {}


def write_state(state):
    """Replace the state file in one move: an interrupted write leaves the old one."""
    temporary = STATE.with_suffix('.new')
    temporary.write_text(json.dumps(state, indent=2) + '\n')
    temporary.replace(STATE)


def is_done(steps):
    """Say whether every step was finished with the present inputs."""
    state = read_state()
    return PYTHON.exists() and all(state.get(name) == key for name, _, key, _ in steps)


def run(steps):
    """Do the steps that are not up to date."""
    started = time.monotonic()
    state = read_state()
    if 'killed?' in state.values():
        # pip does not repair a package that it had half unpacked when it was killed.
        print('set-up: the last one was cut off while installing; starting afresh', flush=True)
        state = {}
    CACHE.mkdir(exist_ok=True)
    LOG.write_text('')
    for name, title, key, function in steps:
        if state.get(name) == key:
            continue
        print(f'set-up: {title}', flush=True)
        if name != 'environment':
            state[name] = 'killed?' if name in ('packages', 'stand-ins', 'project') else ''
            write_state(state)
        try:
            function()
        except SetupError:
            state[name] = 'failed'
            if STATE.parent.is_dir():
                write_state(state)
            raise
        state = {**({} if name == 'environment' else state), name: key}
        write_state(state)
    # Wheels kept for a second try are of no use any more.
    shutil.rmtree(CACHE / 'pip', ignore_errors=True)
    print(f'set-up: done in {time.monotonic() - started:.0f} s', flush=True)


# ---- running programs -----------------------------------------------------------------------


def execute(command, environment=None, describe=None):
    """Run a program with its output in the log; show that it is alive; raise when it fails.

    `describe` turns a line of output into a short status, or None.
    """
    command = [str(part) for part in command]
    with LOG.open('a') as log:
        log.write('\n$ ' + shlex.join(command) + '\n')
    status = {'text': '', 'started': time.monotonic()}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors='replace', start_new_session=True)
    assert process.stdout is not None
    ended = threading.Event()
    ticker = threading.Thread(target=show_progress, args=(status, ended), daemon=True)
    ticker.start()
    try:
        with LOG.open('a') as log:
            for line in process.stdout:
                log.write(line)
                log.flush()
                text = describe(line.strip()) if describe else None
                if text:
                    status['text'] = text
        code = process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise
    finally:
        ended.set()
        ticker.join()
    if code != 0:
        tail = ''.join(f'    {line}\n' for line in LOG.read_text().splitlines()[-25:])
        raise SetupError(
            f'{Path(command[0]).name} failed with status {code}. Its last lines:\n{tail}'
            f'All of it: {LOG.relative_to(ROOT)}')


def show_progress(status, ended):
    """Say every second on a terminal, every ten seconds elsewhere, what is being done."""
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns - 1 if terminal else 99
    wait = 1.0 if terminal else 10.0
    while not ended.wait(wait):
        elapsed = time.monotonic() - status['started']
        line = f'  {elapsed:4.0f} s  {status["text"]}'[:width]
        print(f'\r\033[K{line}' if terminal else line, end='' if terminal else '\n', flush=True)
    if terminal:
        print('\r\033[K', end='', flush=True)


def pip(*arguments):
    """Run the environment's pip; PIP_EXTRA (make) adds options such as another index."""
    environment = {**os.environ, 'PIP_DISABLE_PIP_VERSION_CHECK': '1'}
    environment.setdefault('PIP_CACHE_DIR', str(CACHE / 'pip'))

    def describe(line):
        found = re.match(r'(Collecting|Downloading|Building|Installing|Preparing) .*', line)
        if not found:
            return None
        size = re.search(r'\(([\d.]+ [kMG]B)\)', line)
        text = re.sub(r'\S*/', '', found.group(0)).split(' (')[0]
        if text.startswith('Installing collected packages'):
            text = f'Installing {text.count(",") + 1} packages'
        return text + (f' ({size.group(1)})' if size else '')

    execute([PYTHON, '-m', 'pip', *arguments, '--no-input', '--progress-bar', 'off',
             *shlex.split(os.environ.get('PIP_EXTRA', ''))], environment, describe)


# ---- the steps themselves -------------------------------------------------------------------


def make_environment(ros):
    """Replace .venv by an empty environment with the start-up hook."""
    if VENV.is_symlink():
        raise SetupError('.venv is a symbolic link; remove it first')
    if VENV.exists():
        shutil.rmtree(VENV)
    base = getattr(sys, '_base_executable', sys.executable)
    shared = ['--system-site-packages'] if ros else []
    execute([base, '-m', 'venv', *shared, VENV])
    # colcon must not look for packages in here.
    (VENV / 'COLCON_IGNORE').touch()
    (SITE_PACKAGES / '_grasp_stn_environment.py').write_text(HOOK)
    # .pth files run in alphabetical order: this one comes before the wheels' own.
    (SITE_PACKAGES / '_grasp_stn_environment.pth').write_text('import _grasp_stn_environment\n')


def install_packages(ros):
    """Install the pinned packages; with wheels, ROS 2 and its generators as well."""
    files = ['requirements.txt', 'requirements-dev.txt']
    constraints = ROOT / 'constraints.txt'
    if ros:
        requirements, constraints = fit_to_installation(files)
    else:
        files.append('requirements-ros.txt')
        requirements = [part for name in files for part in ('-r', ROOT / name)]
    # Compiling every module at once takes longer than the rest; Python compiles what it imports.
    pip('install', '--no-compile', '-c', constraints, *requirements)
    if not ros:
        correct_wheels()


def fit_to_installation(files):
    """Return requirements and constraints that leave the ROS installation's packages alone.

    Its compiled modules were built for its own NumPy and OpenCV, and its pytest plugins for its
    own pytest: those stay at the installation's versions, the rest is installed at ours.
    """
    installed: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():  # the first one on the path counts
        name = re.sub(r'[-_.]+', '-', distribution.metadata['Name'] or '').lower()
        installed.setdefault(name, distribution.version)
    kept = {name: installed[name] for name in KEPT_FROM_ROS if name in installed}
    lines = [f'{name}=={version}' for name, version in kept.items()]
    for line in (ROOT / 'constraints.txt').read_text().splitlines():
        name = line.split('==')[0]
        if name == 'opencv-python-headless' and kept.get('numpy', '2').startswith('1.'):
            lines.append(f'{name}<4.12  # the last ones that run on NumPy 1')
        elif name not in kept:
            lines.append(line)
    path = VENV / 'constraints-ros.txt'
    path.write_text('\n'.join(lines) + '\n')
    requirements = []
    for name in files:
        for line in (ROOT / name).read_text().splitlines():
            wanted = line.split('#')[0].strip()
            if wanted == 'rerun-sdk' and kept.get('numpy', '2').startswith('1.'):
                continue  # needs NumPy 2; what needs the viewer says that it is missing
            # Debian's OpenCV has no distribution metadata that pip could see.
            if wanted and not (wanted.startswith('opencv') and has_module('cv2')):
                requirements.append(wanted)
    return requirements, path


def correct_wheels():
    """Replace the wheel builder's own Python in the exported CMake files by this one.

    The files name /opt/python/cpXY-cpXY/{include/...,lib/.../site-packages}; CMake stops at
    include folders that do not exist.
    """
    include = sysconfig.get_path('include')
    for file in glob.glob(str(VENV / 'share' / '*' / 'cmake' / '*.cmake')):
        text = Path(file).read_text()
        changed = re.sub(r'/opt/python/cp\d+-cp\d+/include/python[\d.]+', include, text)
        changed = re.sub(r'/opt/python/cp\d+-cp\d+/lib/python[\d.]+/site-packages',
                         str(SITE_PACKAGES), changed)
        if changed != text:
            Path(file).write_text(changed)


def build_interfaces(ros):
    """Build the message package with colcon into the environment itself."""
    environment = {**os.environ, 'COLCON_HOME': str(CACHE / 'colcon')}
    # colcon would take the options of the project's own colcon_defaults.yaml.
    environment['COLCON_DEFAULTS_FILE'] = os.devnull
    if ros:
        colcon = [shutil.which('colcon') or 'colcon']
    else:
        colcon = [str(PYTHON), '-m', 'colcon']
        for name in ('AMENT_PREFIX_PATH', 'CMAKE_PREFIX_PATH'):
            environment[name] = str(VENV)
        environment['PATH'] = f'{VENV / "bin"}{os.pathsep}{environment["PATH"]}'
    build = CACHE / 'interfaces'
    shutil.rmtree(build, ignore_errors=True)
    execute([
        *colcon, '--log-base', build / 'log', 'build',
        '--base-paths', ROOT / 'grasp_stn_interfaces', '--packages-select', 'grasp_stn_interfaces',
        '--build-base', build / 'build', '--install-base', VENV, '--merge-install',
        '--event-handlers', 'console_direct+', '--cmake-args',
        f'-DPython3_EXECUTABLE={PYTHON}', '-DBUILD_TESTING=OFF', '-DCMAKE_BUILD_TYPE=Release',
    ], environment, lambda line: line if re.match(r'\[ *\d+%\]', line) else None)
    execute([PYTHON, '-c',
             'import grasp_stn_interfaces.msg, rclpy.type_support\n'
             'rclpy.type_support.check_for_type_support(grasp_stn_interfaces.msg.GraspStages)'])
    shutil.rmtree(build, ignore_errors=True)


def install_stand_ins(ros):
    """Install pip_ros where ROS has neither message_filters nor cv_bridge."""
    if ros and has_module('message_filters'):
        print('        not needed: the real ones are here', flush=True)
        return
    # A copy, because a build leaves its products beside its sources.
    copy = CACHE / 'pip_ros'
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(ROOT / 'pip_ros', copy)
    pip('install', '--no-deps', '--no-build-isolation', '--force-reinstall', copy)
    shutil.rmtree(copy)


def install_project():
    """Install this project so that edits need no new set-up."""
    pip('install', '--no-deps', '--no-build-isolation', '--editable', ROOT)
    # An editable install leaves out the shared files; links keep those, too, as they are edited.
    share = VENV / 'share' / 'grasp_stn_ros'
    share.mkdir(parents=True, exist_ok=True)
    for name in ('config', 'launch', 'models', 'package.xml'):
        (share / name).unlink(missing_ok=True)
        (share / name).symlink_to(Path('../../..') / name)
    index = VENV / 'share/ament_index/resource_index/packages'
    index.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / 'resource/grasp_stn_ros', index / 'grasp_stn_ros')


if __name__ == '__main__':
    sys.exit(main())

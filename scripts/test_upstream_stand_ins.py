#!/usr/bin/env python3
"""
Run the upstream packages' own Python tests against the stand-ins in pip_ros/.

    scripts/test_upstream_stand_ins.py --message-filters CHECKOUT --vision-opencv CHECKOUT

CHECKOUT is a local clone of ros2/message_filters (tag 6.0.6 or branch jazzy; from 7.1.5 on the
original drops messages that the stand-in keeps, see pip_ros/message_filters) and of
ros-perception/vision_opencv (branch rolling). Needs rclpy, std_msgs, sensor_msgs, OpenCV and
pytest, as the project's environment has them. The clones are not touched: the tests run from a
temporary copy, in which ``ndarray.tostring()`` becomes ``tobytes()``, the same under a name that
NumPy 2.3 and later still have (``--unedited`` leaves it). Only Python tests run; the C++ ones test
the C++ libraries, which have no stand-in.

The exit status is that of the tests.
"""

import argparse
import importlib.util
import os
from pathlib import Path
import subprocess
import sys
import tempfile

PIP_ROS = Path(__file__).resolve().parents[1] / 'pip_ros'


def python_tests(folder):
    """Return the Python test files of one upstream folder; stop if there are none."""
    tests = sorted(
        path for path in folder.glob('*.py')
        if 'unittest' in path.read_text() or 'def test_' in path.read_text())
    if not tests:
        sys.exit(f'no Python tests in {folder}: is it a checkout of the right repository?')
    return tests


def environment():
    """Return an environment in which the stand-ins, and nothing else, go by their names."""
    inherited = os.environ.get('PYTHONPATH')
    return {
        **os.environ,
        'PYTHONPATH': os.pathsep.join([str(PIP_ROS)] + ([inherited] if inherited else [])),
        'PYTHONDONTWRITEBYTECODE': '1'}


def check_imports(env):
    """Stop if the tests would meet something other than the stand-ins."""
    code = ('import cv_bridge, message_filters\n'
            'print(cv_bridge.__file__, message_filters.__file__, sep="\\n")')
    answer = subprocess.run(
        [sys.executable, '-c', code], env=env, stdout=subprocess.PIPE, text=True, check=True)
    for line in answer.stdout.split():
        if PIP_ROS not in Path(line).parents:
            sys.exit(f'{line} would be tested instead of {PIP_ROS}')


def main():
    """Collect the tests, copy them, run them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--message-filters', type=Path, metavar='CHECKOUT')
    parser.add_argument('--vision-opencv', type=Path, metavar='CHECKOUT')
    parser.add_argument('--unedited', action='store_true', help='run the tests as they are')
    parser.add_argument('pytest_arguments', nargs='*', help='after --, handed to pytest')
    arguments = parser.parse_args()

    groups = {}
    if arguments.message_filters:
        groups['message_filters'] = python_tests(arguments.message_filters / 'test')
    if arguments.vision_opencv:
        groups['cv_bridge'] = python_tests(arguments.vision_opencv / 'cv_bridge' / 'test')
    if not groups:
        parser.error('give at least one checkout')
    for name in ('rclpy', 'sensor_msgs', 'cv2', 'pytest'):
        if importlib.util.find_spec(name) is None:
            sys.exit(f'{name} is missing: run this in the environment that `make` sets up')
    env = environment()
    check_imports(env)

    with tempfile.TemporaryDirectory() as temporary:
        copies = []
        for package, tests in groups.items():
            for test in tests:
                text = test.read_text()
                if not arguments.unedited:
                    text = text.replace('.tostring()', '.tobytes()')
                # The package in the name: the repositories may use the same file names.
                copies.append(Path(temporary, f'{package}__{test.name}'))
                copies[-1].write_text(text)
        # Without the settings of this project: they are not meant for foreign tests.
        command = [
            sys.executable, '-m', 'pytest', '-v', '--import-mode=importlib', '-c', os.devnull,
            '--rootdir', temporary, '-p', 'no:cacheprovider', *arguments.pytest_arguments]
        return subprocess.run([*command, *map(str, copies)], env=env, check=False).returncode


if __name__ == '__main__':
    sys.exit(main())

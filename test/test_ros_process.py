"""The node as a process: clean exits, and errors that a user can act on."""

import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import time

import pytest
from ros_fixtures import DEADLINE, wait_until

from grasp_stn_ros.doctor import shared_memory
from grasp_stn_ros.ros.node_process import NodeProcess

HERE = Path(__file__).resolve().parent
START = ('import sys; sys.path[:0] = sys.argv.pop(1).split(":")\n'
         'from ros_fixtures import StubDetector\n'
         'from grasp_stn_ros.ros.grasp_node import main\n'
         'sys.exit(main(sys.argv, lambda values: StubDetector()))\n')


def start(*arguments: str, code: str = START) -> subprocess.Popen:
    paths = f'{HERE}:{HERE.parent}'
    return subprocess.Popen([sys.executable, '-c', code, paths, '--ros-args', *arguments],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            env={**os.environ, 'PYTHONUNBUFFERED': '1'})


def wait_for_line(process: subprocess.Popen, text: str) -> str:
    """Read the output until a line has ``text``; end of file fails."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return line
    raise AssertionError(f'{text!r} is not in the output:\n{"".join(lines)}')


def ended_by(number: int, process: subprocess.Popen, after: str) -> str:
    """Send a signal after a line with ``after``; the exit has to be clean. Return what follows."""
    try:
        wait_for_line(process, after)
        process.send_signal(number)
        output, _ = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    assert process.returncode == 0, output
    return output


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM], ids=['SIGINT', 'SIGTERM'])
def test_signals_end_the_node_cleanly(number):
    output = ended_by(number, start(), 'ready: model stub')
    assert output == '', 'a clean exit has nothing to say'


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM], ids=['SIGINT', 'SIGTERM'])
def test_signals_end_the_node_while_it_loads_its_model(number):
    loading = start(code=START.replace(
        'lambda values: StubDetector()',
        'lambda values: (print("loading", flush=True), __import__("time").sleep(1), '
        'StubDetector())[-1]'))
    output = ended_by(number, loading, 'loading')
    assert output == '', 'neither a traceback nor a node that gets ready'


def test_a_signal_ends_a_node_whose_model_never_comes():
    loading = start(code=START.replace(
        'lambda values: StubDetector()',
        '(lambda values: (print("loading", flush=True), __import__("time").sleep(600)))'))
    assert ended_by(signal.SIGINT, loading, 'loading') == ''


def test_sim_camera_ends_cleanly():
    pytest.importorskip('mujoco', reason='mujoco is missing: run `make setup`')
    process = start('-p', 'rate:=5.0', code=(
        'import sys; sys.path[:0] = sys.argv.pop(1).split(":")\n'
        'from grasp_stn_ros.ros.sim_camera import main\nsys.exit(main(sys.argv))\n'))
    try:
        wait_for_line(process, 'on the table')
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert 'Traceback' not in output


@pytest.mark.parametrize('setting, word', [('mode:=sometimes', 'on_demand'),
                                           ('sync_slop:=99.0', 'sync_slop'),
                                           ('minimum_score:=high', 'minimum_score')])
def test_a_bad_parameter_is_one_line_and_exit_code_2(setting, word):
    process = start('-p', setting)
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 2
    assert word in output
    assert 'Traceback' not in output


def test_a_missing_model_is_one_line_and_exit_code_2(tmp_path):
    pytest.importorskip('torch', reason='torch is missing: run `make setup`')
    process = start('-p', f'model:={tmp_path}/none.safetensors', code=(
        'import sys; sys.path[:0] = sys.argv.pop(1).split(":")\n'
        'from grasp_stn_ros.ros.grasp_node import main\nsys.exit(main(sys.argv))\n'))
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 2
    assert 'none.' in output
    assert 'Traceback' not in output


def run_entry(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, '-m', 'grasp_stn_ros.ros.entry', *arguments],
                          cwd=HERE.parent, capture_output=True, text=True, timeout=DEADLINE,
                          check=False)


@pytest.mark.parametrize('name, word', [('grasp_node', 'docs/node.md'), ('sim_camera', 'objects')])
@pytest.mark.parametrize('flag', ['--help', '-h'])
def test_help_says_how_and_starts_nothing(name, word, flag):
    done = run_entry(name, flag)
    assert done.returncode == 0
    assert f'{name} --ros-args -p' in done.stdout and word in done.stdout
    assert done.stderr == ''


def test_the_help_of_the_camera_names_all_its_parameters():
    code = (HERE.parent / 'grasp_stn_ros' / 'ros' / 'sim_camera.py').read_text()
    names = re.findall(r"self\._declare\('(\w+)'", code)
    text = run_entry('sim_camera', '--help').stdout
    assert len(names) == 5 and all(name in text for name in names)


def test_an_argument_that_ros_would_drop_is_refused():
    done = run_entry('grasp_node', '-p', 'mode:=on_demand')
    assert done.returncode == 2
    assert "unknown argument '-p'" in done.stderr and '--ros-args' in done.stderr


def test_a_parameter_of_a_node_that_is_started_may_have_spaces():
    process = NodeProcess('/spaces', stability__distance=0.5, mode='some times')
    try:
        assert process.process.wait(DEADLINE) == 2
        assert "mode is 'some times'" in process.output
    finally:
        process.close()


def test_wait_until_fails_by_itself():
    """The helper that all ROS tests lean on must not pass by default."""
    with pytest.raises(AssertionError, match='in vain for nothing'):
        wait_until(lambda: False, 'nothing', seconds=0.05)


def test_what_a_killed_process_left_in_shared_memory_is_found_and_freed():
    began = time.time()

    def left() -> set[Path]:
        return set(shared_memory.dead_segments(since=began, youngest=0.0))

    process = start()
    try:
        wait_for_line(process, 'ready: model stub')
        maps = Path(f'/proc/{process.pid}/maps').read_text()
        mapped = {Path(path) for path in re.findall(r'/dev/shm/fastdds_[0-9a-f]{16}\b', maps)}
        assert mapped and not mapped & left(), 'it lives'
    finally:
        process.kill()
        process.communicate()
    # It may have read those of others as well, which live on.
    own = mapped & left()
    assert own
    assert not own & set(shared_memory.dead_segments(since=began)), 'it might have just begun'
    assert shared_memory.remove(own) > 32 << 20
    assert not any(file.exists() for each in own
                   for file in (each, each.with_name(f'{each.name}_el')))
    assert shared_memory.remove(own) == 0


def test_what_only_looks_like_a_segment_is_left_alone(tmp_path):
    for name in ('fastdds_mine', 'fastdds_port7400', 'fastdds_0123456789abcdef'):
        (tmp_path / name).touch()
        (tmp_path / f'{name}_el').touch()
    (tmp_path / 'fastdds_fedcba9876543210_el').touch()  # without its segment
    found = shared_memory.dead_segments(tmp_path, youngest=0.0)
    assert [path.name for path in found] == ['fastdds_0123456789abcdef']

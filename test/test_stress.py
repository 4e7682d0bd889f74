"""``grasp_stn stress`` for real, in short: a node process, DDS, load, faults and the report."""

import json
from pathlib import Path
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

from click.testing import CliRunner
import numpy as np
import pytest
from ros_fixtures import DEADLINE, StubDetector, rig, ros, wait_until  # noqa: F401

from grasp_stn_interfaces.msg import Grasp
from grasp_stn_ros.cli import main
from grasp_stn_ros.evaluation.stress_report import markdown
from grasp_stn_ros.reasons import Reason
from grasp_stn_ros.ros import conversions, stress, stress_scenes
from grasp_stn_ros.ros.stress_settings import Row, Settings

ROOT = Path(__file__).resolve().parents[1]
SHORT = ['--minutes', '0.05', '--calls', '24', '--messages', '200', '--sets', '20', '--signals',
         '2', '--files', '12']


def run(tmp_path, *names):
    """Run rows in a process of their own, as a user does -> their records by name."""
    only = [option for name in names for option in ('--only', name)]
    done = subprocess.run([sys.executable, '-m', 'grasp_stn_ros.cli', 'stress', *SHORT, *only,
                           '--results', str(tmp_path)], check=False, cwd=ROOT,
                          capture_output=True, text=True, timeout=280)
    assert done.returncode in (0, 1), done.stderr
    result = json.loads((tmp_path / 'stress.json').read_text())
    assert done.returncode == (not all(row['passed'] for row in result['rows']))
    table = (tmp_path / 'stress.md').read_text()
    assert all(f'`{name}`' in table for name in names)
    assert result['commit'] is not None and result['machine']['cores']
    return {row['name']: row for row in result['rows']}


def test_load(tmp_path):
    """What depends on how busy the machine is (shares, ages) is in the report, not in a test."""
    rows = run(tmp_path, 'stream', 'service')
    stream, service = rows['stream'], rows['service']
    assert stream['pairs_sent'] == 90 and 0 < stream['pairs_received'] <= 90
    assert stream['seconds'] > 2.5 and stream['detections'] > 0
    assert stream['uncounted'] == 0, 'no message is lost in silence'
    assert stream['memory_end_mib'] > 100
    assert service['calls'] == service['answered'] == 24
    assert service['answered_more_than_once'] == service['wrong'] == 0
    assert service['outcomes']['OK'] > 0
    assert sum(service['outcomes'].values()) == 24


def test_hostile_messages_and_a_full_disk(tmp_path):
    rows = run(tmp_path, 'fuzz', 'full_disk')
    fuzz = rows['fuzz']
    assert (fuzz['messages'], fuzz['crashes'], fuzz['hangs']) == (210, 0, 0), fuzz['problems']
    assert sum(fuzz['outcomes_over_dds'].values()) == 10
    assert rows['full_disk']['passed'], rows['full_disk']['problems']


def test_a_row_that_dies_is_a_line_in_the_report_and_a_traceback_on_stderr(
        ros, tmp_path, monkeypatch, capsys):  # noqa: F811
    missing = tmp_path / 'weights.safetensors'

    def dies(settings):
        raise OSError(f'cannot read {missing} for /camera/color/image_raw\nsecond line')

    monkeypatch.setattr(stress.rclpy, 'init', lambda args, signal_handler_options: None)
    monkeypatch.setattr(stress.rclpy, 'try_shutdown', lambda: None)
    monkeypatch.setitem(stress.ROWS, 'stream', dies)
    (record,) = stress.run(Settings(), ['stream'])
    assert record['problems'] == [
        'OSError: cannot read weights.safetensors for /camera/color/image_raw']
    assert not record['passed']
    printed = capsys.readouterr().err
    assert 'Traceback' in printed and str(missing) in printed


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_all_rows_and_writes_nothing(tmp_path, number):
    code = f"""
import os, sys, threading
from grasp_stn_ros import cli
from grasp_stn_ros.ros import stress
def row(settings):
    os.kill(os.getpid(), {int(number)})
    threading.Event().wait(30)
    raise RuntimeError('went on')
stress.ROWS.update({{name: row for name in stress.ROWS}})
sys.argv = ['grasp_stn', 'stress', '--results', {str(tmp_path)!r}]
cli.main()
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 1
    assert 'Aborted!' in done.stderr and 'went on' not in done.stderr + done.stdout
    assert not list(tmp_path.iterdir())


def test_rows_are_listed_and_unknown_ones_named():
    listed = CliRunner().invoke(main, ['stress', '--list'])
    assert listed.output.split() == list(stress.ROWS)
    refused = CliRunner().invoke(main, ['stress', '--only', 'nothing'])
    assert refused.exit_code == 2 and 'no row is called nothing' in refused.output


def test_every_row_is_explained():
    text = (ROOT / 'docs' / 'stress.md').read_text()
    assert [name for name in stress.ROWS if f'`{name}`' not in text] == []


def test_the_report_says_what_failed():
    row = Row('stream', 'a|b', {'share': 0.5, 'drops': {'busy': 3}})
    row.check(False, 'line\nbreak')
    table = markdown({'rows': [row.record()], 'seed': 1, 'commit': 'c', 'date': 'd',
                      'command': 'x', 'machine': {'cpu': 'cpu', 'cores': 2}})
    line = table.splitlines()[2]
    assert '**no**' in line and 'share 0.5' in line and 'busy 3' in line and 'line break' in line
    assert len(re.findall(r'(?<!\\)\|', line)) == 5, 'four cells'


def grasp_at(x, y, z, degrees, frame=stress_scenes.FRAME):
    """A grasp straight down at a pixel and depth, opened along ``degrees`` in the image."""
    angle = np.radians(degrees)
    pose = np.eye(4)
    opening = np.array([np.cos(angle), np.sin(angle), 0.0])
    pose[:3, 0], pose[:3, 1] = [0, 0, 1], opening
    pose[:3, 2] = np.cross([0, 0, 1], opening)
    pose[:3, 3] = (x - 319.5) / 525 * z, (y - 239.5) / 525 * z, z
    grasp = Grasp(pose=conversions.matrix_to_pose(pose))
    grasp.header.frame_id = frame
    return grasp


def test_the_judge_knows_right_from_wrong():
    """Scene 0 has its box at (250, 200) with the long side at 20 degrees."""
    scene = stress_scenes.make_scene(0)
    assert scene.fault(grasp_at(250, 200, 0.78, 110)) == ''
    assert scene.fault(grasp_at(250, 200, 0.78, -70)) == '', 'a jaw has no front'
    assert 'turned by 90' in scene.fault(grasp_at(250, 200, 0.78, 20))
    assert 'beside' in scene.fault(grasp_at(390, 280, 0.78, 110)), 'the box of another scene'
    assert 'depth' in scene.fault(grasp_at(250, 200, 0.9, 110))
    assert 'frame' in scene.fault(grasp_at(250, 200, 0.78, 110, 'base_link'))
    assert 'finite' in scene.fault(grasp_at(np.nan, 200, 0.78, 110))


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM], ids=['SIGINT', 'SIGTERM'])
def test_a_signal_while_ros_is_imported_is_a_clean_exit(number):
    process = subprocess.Popen([sys.executable, '-m', 'grasp_stn_ros.ros.entry', 'grasp_node'],
                               cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True)
    try:
        maps = Path(f'/proc/{process.pid}/maps')
        wait_until(lambda: 'rclpy' in maps.read_text(), 'the import of rclpy')
        process.send_signal(number)
        output, _ = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
    assert process.returncode == 0 and 'Traceback' not in output, output


def test_the_policy_names_what_the_node_has_and_nothing_else(rig):  # noqa: F811
    """Against the graph of a real node; names with ~ belong to the node."""
    node = rig(wait=False).node
    name, namespace = node.get_name(), node.get_namespace()

    def own(pairs):
        return {n.removeprefix(namespace) for n, _ in pairs}

    tree = ElementTree.parse(ROOT / 'config' / 'sros2' / 'grasp_node.policy.xml').getroot()
    assert (tree.tag, tree.get('version')) == ('policy', '0.2.0')
    profile = tree.find('enclaves/enclave[@path="/grasp_node"]/profiles/profile')
    assert (profile.get('ns'), profile.get('node')) == ('/', name)

    def allowed(kind, right):
        names = {e.text for block in profile.findall(kind) if block.get(right) == 'ALLOW'
                 for e in block}
        return {n.replace('~', f'/{name}') if n[0] in '~/' else f'/{n}' for n in names}

    assert allowed('topics', 'publish') == own(
        node.get_publisher_names_and_types_by_node(name, namespace))
    optional = {'/tf', '/tf_static', '/clock'}
    assert allowed('topics', 'subscribe') - optional == own(
        node.get_subscriber_names_and_types_by_node(name, namespace))
    assert allowed('services', 'reply') == own(
        node.get_service_names_and_types_by_node(name, namespace))
    assert not allowed('services', 'request')


def test_a_grasp_that_is_late_when_it_is_ready_is_kept_back(rig):  # noqa: F811
    """The frame was young enough when it came; the call that waits for it is answered."""
    it = rig(maximum_frame_age=1.0)
    it.detector.gate.clear()
    future = it.call(timeout=20.0)
    wait_until(lambda: it.node.requests.tickets, 'the request')
    sent = it.camera.publish()
    wait_until(lambda: it.detector.calls, 'the detection to begin')
    stamp = sent['color'].header.stamp
    wait_until(lambda: it.node.get_clock().now().nanoseconds
               > (stamp.sec + 1.1) * 1e9 + stamp.nanosec, 'the frame to age')
    it.detector.gate.set()
    assert it.answer(future).success
    stages = it.wait_for('stages')
    assert stages.reason == Reason.STALE_FRAME and 'after the detection' in stages.message
    assert it.node._worker.drops['late'] == 1
    assert not it.received['grasp']
    it.camera.publish()
    it.wait_for('grasp')

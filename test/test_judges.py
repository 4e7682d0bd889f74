"""Scripts that judge: a peer in place of our network, and what the metric calls wrong."""

import json
from pathlib import Path

from click.testing import CliRunner
import cv2
import numpy as np
import pytest
from script_files import load_script
import torch

from grasp_stn_ros.data.sample import DataError
from grasp_stn_ros.detection import Detection
from grasp_stn_ros.evaluation.benchmark import frames, interleaved
from grasp_stn_ros.reasons import Reason
from grasp_stn_ros.rectangle import GraspRectangle, angle_distance
from grasp_stn_ros.simulation.domain import TABLETOP
from grasp_stn_ros.simulation.labels import generate_dataset
from grasp_stn_ros.stn import checkpoint
from grasp_stn_ros.stn.multi_stage import ModelConfig, MultiStageSTN


class Network(torch.nn.Module):
    """
    Stand-in for a peer, the same of every image.

    One peak, its angle against the clock, half the opening.
    """

    def __init__(self, row: float, column: float, angle: float):
        super().__init__()
        self.place, self.angle = (row, column), angle
        self.sizes = []

    def forward(self, x):
        """Four maps for images (1, C, H, W); the place is a share of them."""
        self.sizes.append(tuple(x.shape))
        height, width = x.shape[2:]
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
        away = (rows - self.place[0] * height) ** 2 + (columns - self.place[1] * width) ** 2
        quality = torch.exp(-away / 50.0)[None, None]
        angle = torch.full_like(quality, 2 * self.angle)
        return quality, torch.cos(angle), torch.sin(angle), torch.full_like(quality, 0.5)


def _peer(network, colours):
    return load_script('judge_peer').Peer('GR-ConvNet', network, colours, 224, (100.0,),
                                          (2.0, 2.0, 1.0))


@pytest.mark.parametrize(('view', 'side', 'x', 'y', 'opening'), [
    ('crop', 224, 208 + 168, 128 + 56, 50), ('square', 480, 80 + 360, 120, 50),
    ('resized', 224, 80 + 360, 120, 50 * 480 / 224)])
def test_a_peers_maps_become_rectangles_of_the_image(view, side, x, y, opening):
    """A quarter down and three quarters across what it sees, 30 degrees against the clock."""
    network = Network(0.25, 0.75, np.radians(30))
    detector = load_script('judge_peer').PeerDetector(_peer(network, True), view, 1)
    frame, = frames(1)
    first = detector._candidates(frame, 12.0, 1e9)[0]
    assert network.sizes == [(1, 4, side, side)]
    assert (first.rectangle.x, first.rectangle.y) == pytest.approx((x, y), abs=2)
    assert angle_distance(first.rectangle.theta, np.radians(-30)) < 0.02
    assert first.rectangle.opening == pytest.approx(opening, rel=0.01)
    assert first.rectangle.jaw == 12.0 and first.score == pytest.approx(0.86, abs=0.05)  # smoothed
    found = detector.detect(frame)
    # A pose by depth, or a reason by name.
    assert found.candidates and found.support is not None
    for candidate in found.candidates:
        assert candidate.grasp is not None or candidate.reason.name != 'OK'


def test_a_peer_on_cornell_is_judged_in_every_way(tmp_path):
    """It answers in the middle of what it sees: right where that is around the labels."""
    folder = tmp_path / '01'
    folder.mkdir()
    for number, (x, y), depth in (('0100', (250, 200), True), ('0101', (400, 330), True),
                                  ('0102', (300, 300), False)):
        cv2.imwrite(str(folder / f'pcd{number}r.png'), np.full((480, 640, 3), 200, np.uint8))
        if depth:
            cv2.imwrite(str(folder / f'pcd{number}d.png'), np.full((480, 640), 900, np.uint16))
        label = GraspRectangle(x, y, 0.0, 56.0, 28.0)
        (folder / f'pcd{number}cpos.txt').write_text(
            ''.join(f'{a} {b}\n' for a, b in label.corners))
    network = Network(0.5, 0.5, 0.0)
    peer = _peer(network, False)
    found = load_script('judge_peer').judge_on_cornell(peer, tmp_path)
    assert network.sizes[0] == (1, 1, 224, 224) and network.sizes[1] == (1, 1, 400, 400)
    assert found['n'] == 2 and len(found['ways']) == 4
    for way in found['ways']:
        assert way['plain'] == (1.0 if way['view'].startswith('around') else 0.0)
    for path in folder.glob('*d.png'):
        path.unlink()
    with pytest.raises(DataError, match='no image with depth'):
        load_script('judge_peer').judge_on_cornell(peer, tmp_path)


def test_a_peer_of_a_checkout_is_judged_by_lifts_and_clutter(tmp_path):
    """The same judges as ours, in one file; what is no checkout is named."""
    script = load_script('judge_peer')
    weights = tmp_path / 'ggcnn/src/ggcnn/models/epoch_14_iou_0.82_best'
    for arguments, what in (([], 'name one checkout'), (['--ggcnn', str(tmp_path)], weights.name),
                            (['--ggcnn', str(tmp_path), '--grconvnet', str(tmp_path)],
                             'name one checkout')):
        refused = CliRunner().invoke(script.main, arguments)
        assert refused.exit_code != 0 and what in refused.output.replace('\n', '')
    weights.parent.mkdir(parents=True)
    torch.save(Network(0.5, 0.5, 0.0), weights)
    output = tmp_path / 'peer.json'
    done = CliRunner().invoke(script.main, ['--ggcnn', str(tmp_path), '--scenes', '2', '--tables',
                                            '1', '--seed', '7', '--json', str(output)])
    assert done.exit_code == 0, done.output
    result = json.loads(output.read_text())
    assert result['peer'] == f'GG-CNN, models/{weights.name}' and result['opening'] == 150
    assert result['lifts']['n'] == 2 and result['lifts']['seed'] == result['seed'] == 7
    assert result['clutter']['objects'] == 5 and result['clutter']['attempts'] >= 3


def test_answers_that_the_metric_calls_wrong_are_executed(tmp_path):
    """Every answer is in one group, its share of lifts is that of its trials."""
    generate_dataset(tmp_path / 'data', 3, 41, progress=False, candidates=12, domain=TABLETOP)
    output = tmp_path / 'wrong.json'
    done = CliRunner().invoke(load_script('try_wrong_answers').main, [
        '--data', str(tmp_path / 'data'), '--json', str(output)])
    assert done.exit_code == 0, done.output
    result = json.loads(output.read_text())
    wrong, only_plain, right = (group for group in result['answers'].values())
    assert result['n'] > 0 and result['seed'] == 41
    assert wrong['n'] == round((1 - result['plain']) * result['n'])
    assert only_plain['n'] == round((result['plain'] - result['strict']) * result['n'])
    rows = [row for group in (wrong, only_plain, right) for row in group['rows']]
    assert all(0 <= row['lifts'] <= 1 and row['outcomes'] for row in rows)
    for row in rows:
        assert ('lifted' in row['outcomes']) == (row['lifts'] > 0)


def test_frames_are_timed_beside_a_busy_process_that_ends_with_them(tmp_path, monkeypatch):
    """The busy process is gone afterwards, also where a detection does not start."""
    module = load_script('compare_waiting')
    pids = tmp_path / 'pids'
    monkeypatch.setattr(module, '_BUSY', f'import os; open({str(pids)!r}, "w").write('
                                         'str(os.getpid()))\nwhile True: pass')
    milliseconds = module._measure({'GOMP_SPINCOUNT': '1000'}, 1, 1, 0.5, 1)
    assert milliseconds and min(milliseconds) > 0
    assert not Path('/proc', pids.read_text()).exists()
    with pytest.raises(module.click.ClickException, match='did not start'):
        module._measure({'LD_LIBRARY_PATH': '', 'PYTHONPATH': str(tmp_path / 'nowhere'),
                         'PYTHONHOME': str(tmp_path)}, 1, 0, 0.5, 1)


class _Timed:
    """A detector that takes so many milliseconds, one call after the other."""

    def __init__(self, milliseconds):
        self._milliseconds = iter(milliseconds)

    def warm_up(self):
        pass

    def warm_up_for(self, frame):
        pass

    def detect(self, frame):
        return Detection((), None, Reason.NO_CANDIDATE, '', {'all': next(self._milliseconds)})


@pytest.mark.parametrize(('reference', 'n'), [([400.0, 10.0] + 5 * [10.0], 5), (7 * [400.0], 3)])
def test_a_slow_reference_is_measured_less_often(reference, n):
    other = _Timed(7 * [20.0])
    result = interleaved({'reference': _Timed(reference), 'other': other}, [None], 5)
    assert result['reference']['n'] == n and result['other']['n'] == 5
    assert result['other']['ratio'] == 20.0 / reference[-1]


def test_one_scale_is_timed_against_views_of_400_pixels(tmp_path):
    torch.manual_seed(0)
    generate_dataset(tmp_path / 'data', 4, 41, candidates=4)
    script = load_script('compare_scale').main
    for wanted in (0.0, 12.0):
        checkpoint.save(tmp_path / f'{wanted}.safetensors', MultiStageSTN(ModelConfig(
            width=0.25, features=16, fine_channels=8, seen_jaw=wanted, gripper_input=True)))
    arguments = ['--data', tmp_path / 'data', '--rounds', 2, '--threads', 1,
                 '--json', tmp_path / 'out.json']
    done = CliRunner().invoke(script, [*map(str, arguments),
                                       '--model', str(tmp_path / '12.0.safetensors')])
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / 'out.json').read_text())
    assert (result['n'], result['seed'], result['seen_jaw']) == (8, 41, 12.0)
    assert sum(row['images'] for row in result['sizes'].values()) == 4
    assert max(map(int, result['sizes'])) > 400, 'a camera 0.6 to 1.1 m away needs larger views'
    assert all(row['ms'] > 0 and row['ms_at_400'] > 0 for row in result['sizes'].values())
    done = CliRunner().invoke(script, [*map(str, arguments),
                                       '--model', str(tmp_path / '0.0.safetensors')])
    assert done.exit_code == 1 and 'seen_jaw is 0' in done.output

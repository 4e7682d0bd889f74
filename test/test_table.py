"""Table I: the metric at all thresholds by hand, what is kept and resumed, times, the command."""

from dataclasses import replace
import json
import math
import shutil

from click.testing import CliRunner
import cv2
import numpy as np
import pytest

from grasp_stn_ros.cli import main
from grasp_stn_ros.data.sample import DataError, LabelledFrame
from grasp_stn_ros.detection import Candidate, Detection
from grasp_stn_ros.detector import find_weights
from grasp_stn_ros.evaluation import table, table_run
from grasp_stn_ros.evaluation.accuracy import correct_at, correct_by
from grasp_stn_ros.evaluation.table_report import comparison, markdown
from grasp_stn_ros.names import SYSTEMS
from grasp_stn_ros.reasons import Reason
from grasp_stn_ros.rectangle import GraspRectangle, iou
from grasp_stn_ros.rgbd import RgbdFrame
from grasp_stn_ros.simulation.domain import WIDE
from grasp_stn_ros.simulation.labels import Plan, camera_grasp, generate_dataset, open_scene
from grasp_stn_ros.stn import checkpoint


def right(predicted, *labels):
    """Names of the metrics by which ``predicted`` is correct."""
    return {name for name, correct in correct_at(predicted, list(labels)).items() if correct}


def names(ious, degrees):
    return {f'iou{i}_{d}deg' for i in ious for d in degrees}


ALL = ((25, 30, 40, 50), (30, 20, 10))


def test_metric_by_hand():
    label = GraspRectangle(100, 80, 0.3, 40, 20)
    assert right(label, label) == names(*ALL)
    # Half of the opening beside it: 400 of 1,200 px2 are shared, IoU 1/3.
    along = 20 * np.array([math.cos(0.3), math.sin(0.3)])
    beside = GraspRectangle(100 + along[0], 80 + along[1], 0.3, 40, 20)
    assert iou(beside, label) == pytest.approx(1 / 3)
    assert right(beside, label) == names((25, 30), (30, 20, 10))
    # A quarter of the opening: 600 of 1,000 px2.
    near = GraspRectangle(100 + along[0] / 2, 80 + along[1] / 2, 0.3, 40, 20)
    assert right(near, label) == names(*ALL)
    # Twice as large around the same centre: 800 of 3,200 px2, exactly 25 %, which is not more.
    assert right(GraspRectangle(100, 80, 0.3, 80, 40), label) == set()
    assert right(None, label) == set() and right(label) == set()


def test_both_conditions_hold_for_the_same_label():
    answer = GraspRectangle(100, 80, 0.0, 40, 20)
    turned = GraspRectangle(100, 80, math.radians(80), 40, 20)
    away = GraspRectangle(300, 80, 0.0, 40, 20)
    assert right(answer, turned, away) == set()
    assert not correct_by(answer, [turned, away])
    assert right(answer, turned, away, answer) == names(*ALL)


@pytest.mark.parametrize('degrees, allowed', [
    (9, (30, 20, 10)), (19, (30, 20)), (29, (30,)), (31, ())])
@pytest.mark.parametrize('theta', [0.0, 85.0, -89.0, 45.0])
def test_angles_modulo_half_a_turn(theta, degrees, allowed):
    """A square of 40 x 40 overlaps its turned self enough at any angle."""
    label = GraspRectangle(50, 50, math.radians(theta), 40, 40)
    for turn in (degrees, -degrees, degrees + 180, degrees - 180):
        answer = GraspRectangle(50, 50, math.radians(theta + turn), 40, 40)
        assert iou(answer, label) > 0.5
        assert right(answer, label) == names(ALL[0], allowed)


def test_rectangles_across_the_border_are_not_cut():
    """Half of both rectangles lies outside the image; cut off there, they would overlap more."""
    label = GraspRectangle(0, 0, 0.0, 40, 20)
    answer = GraspRectangle(-24, 0, 0.0, 40, 20)
    # 16 of 40 px along the opening are shared: 320 of 1,280 px2.
    assert iou(answer, label) == pytest.approx(0.25)
    assert right(answer, label) == set()
    assert right(GraspRectangle(-23, 0, 0.0, 40, 20), label) == names((25,), (30, 20, 10))


def test_a_ledger_survives_interruption(tmp_path):
    path = tmp_path / 'folder' / 'answers.jsonl'
    ledger = table.Ledger(path, 'abc')
    ledger.add('0001', {'value': 1})
    ledger.add('0002', {'value': 2})
    with open(path, 'a') as file:
        file.write('{"weights": "abc", "key": "00')
    again = table.Ledger(path, 'abc')
    assert again.entries == {'0001': {'value': 1}, '0002': {'value': 2}}
    again.add('0003', {'value': 3})
    assert list(table.Ledger(path, 'abc').entries) == ['0001', '0002', '0003']
    assert table.Ledger(path, 'other weights').entries == {}


class _Detector:
    """Answers with fixed candidates and remembers who was asked when."""

    def __init__(self, name='detector', asked=None, rectangles=()):
        self.name, self.asked, self.rectangles = name, [] if asked is None else asked, rectangles

    def warm_up(self):
        pass

    def detect(self, frame, region=None, minimum_score=0.0, need_pose=True, jaw_pixels=None):
        self.asked.append(self.name)
        candidates = tuple(Candidate((r.x, r.y), 1.0, r.theta, r, 0.9 - 0.1 * i)
                           for i, r in enumerate(self.rectangles))
        best = candidates[0] if candidates else None
        return Detection(candidates, best, Reason.OK if best else Reason.NO_CANDIDATE, '', {},
                         (0.0, 0.0, 100.0, 100.0))


def _data(count=3, **changes):
    rgb = np.full((100, 100, 3), 90, np.uint8)
    frames = [LabelledFrame(f'{i:06d}', RgbdFrame(rgb, None, None),
                            np.array([[50.0, 50.0, 0.1, 30.0, 12.0]]), np.ones(1))
              for i in range(count)]
    values = {'name': 'simulated', 'train': frames, 'validation': frames, 'test': frames,
              'names': tuple(f.name for f in frames), 'split': {'seed': 1, 'kind': 'unseen'}}
    return table.TableData(**{**values, **changes})


def test_answers_are_judged_and_not_asked_for_twice(tmp_path):
    data, ledger = _data(), table.Ledger(tmp_path / 'a.jsonl', 'abc')
    wrong, good = GraspRectangle(20, 20, 0.1, 30, 12), GraspRectangle(50, 50, 0.1, 30, 12)
    detector = _Detector(rectangles=(wrong, good))
    given = table.answers(detector, data, ledger)
    assert [a['any_candidate'] for a in given] == [True] * 3
    assert not any(any(a['correct'].values()) for a in given)
    assert given[0]['rectangle'] == pytest.approx([20, 20, 0.1, 30, 12])
    assert table.answers(detector, data, table.Ledger(tmp_path / 'a.jsonl', 'abc')) == given
    assert len(detector.asked) == 3
    nothing = table.answers(_Detector(), data, table.Ledger(tmp_path / 'b.jsonl', 'abc'))
    assert nothing[0]['rectangle'] is None and nothing[0]['reason'] == 'NO_CANDIDATE'
    figures = table.summarize(nothing[:1] + table.answers(
        _Detector(rectangles=(good,)), data, table.Ledger(tmp_path / 'c.jsonl', 'x')))
    assert figures['accuracy'] == 0.75 and figures['n'] == 4
    assert figures['accuracy_at']['iou50_10deg'] == 0.75 and figures['any_candidate'] == 0.75


def test_systems_are_timed_in_turns():
    asked = []
    detectors = {name: _Detector(name, asked) for name in ('a', 'b')}
    times = table.interleaved_times(detectors, _data(), rounds=2, repeats=3)
    assert asked == ['a'] * 3 + ['b'] * 3 + ['a'] * 3 + ['b'] * 3
    assert times['a']['rounds'] == 2
    assert 0 < times['a']['milliseconds'] <= times['a']['milliseconds_p95']


def test_mean_and_spread():
    spread = table.mean_and_spread([0.8, 0.9, 1.0])
    assert spread['mean'] == pytest.approx(0.9)
    assert spread['standard_deviation'] == pytest.approx(0.1)


def test_a_picture_with_all_systems():
    data = _data(2)
    good, wrong = [a['rectangle'] for a in ({'rectangle': [50, 50, 0.1, 30, 12]},
                                            {'rectangle': [20, 20, 1.0, 30, 12]})]
    given = {'regression': [{'rectangle': good, 'correct': {'iou25_30deg': True}}] * 2,
             'multi_stage_stn': [{'rectangle': wrong, 'correct': {}},
                                 {'rectangle': None, 'correct': {}}]}
    picture = comparison([data.test[0], data.test[1]], given, None, size=120)
    assert picture.shape == (26 + 2 * 120, 2 * 120, 3)

    def has(cell, colour):
        return (np.abs(cell.astype(int) - colour).sum(axis=2) < 60).sum()

    cells = picture[26:].reshape(2, 120, 2, 120, 3).swapaxes(1, 2)
    green, red = (30, 210, 80), (255, 70, 60)
    assert has(cells[0, 0, :100], green) > 20 and has(cells[0, 0, :100], red) == 0
    # Without an answer there is no rectangle, only the words below.
    assert has(cells[1, 1, :100], red) == 0 and has(cells[1, 1, 100:], red) > 5


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Simulated images of three seeds, few trials each."""
    root = tmp_path_factory.mktemp('table')
    for number, name in enumerate(('train', 'validation', 'test')):
        generate_dataset(root / name, 3, 7000 + number, candidates=8, progress=False)
    return root


def test_test_scenes_must_be_unseen(folders):
    with pytest.raises(DataError, match='another --seed'):
        table.simulated([folders / 'train'], folders / 'validation', folders / 'train')
    with pytest.raises(DataError, match='are trained on too'):
        table.simulated([folders / 'train'], folders / 'train', folders / 'test')


def test_grasps_are_executed_in_the_scene_that_the_image_shows(folders, tmp_path):
    """Of a domain with clutter, in the second of two views."""
    domain = replace(WIDE, views=2)
    generate_dataset(tmp_path / 'wide', 2, 31, candidates=8, domain=domain, progress=False)
    data = table.simulated([folders / 'train'], folders / 'validation', tmp_path / 'wide')
    assert data.names == ('000000', '000001')
    labels = json.loads((tmp_path / 'wide' / '000001.json').read_text())['grasps']
    label = next(g for g in labels if g['successes'] == g['trials'])
    plan = Plan(np.array(label['position']), label['yaw'], label['opening'],
                label['position'][2] + domain.gripper.finger_depth, 'antipodal')
    given = []
    for index in range(2):
        scene = open_scene(31, index, domain=domain)
        try:
            grasp = camera_grasp(plan, scene)
        finally:
            scene.close()
        given.append({'reason': 'OK', 'grasp': {
            key: np.asarray(value).tolist() for key, value in vars(grasp).items()}})
    # Two cameras see the same grasp elsewhere.
    assert not np.allclose(given[0]['grasp']['position'], given[1]['grasp']['position'], atol=0.01)
    assert table.lifts(given, data, table.Ledger(tmp_path / 'l.jsonl', 'abc')) == ['lifted'] * 2


@pytest.mark.parametrize('change, message', [
    ({'meshes': {'mug.stl': 'abc'}}, 'meshes of its own'),
    ({'domain': {'name': 'wide', 'spread': 7}}, 'another version of the domain')])
def test_scenes_that_cannot_be_opened_again_are_refused(folders, tmp_path, change, message):
    shutil.copytree(folders / 'test', tmp_path / 'test')
    settings = tmp_path / 'test' / 'dataset.json'
    settings.write_text(json.dumps({**json.loads(settings.read_text()), **change}))
    refused = run('table', '--train', folders / 'train', '--validation', folders / 'validation',
                  '--test', tmp_path / 'test', '--runs', tmp_path, '--only-train')
    assert refused.exit_code == 1 and message in refused.output


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_the_command_makes_a_table(folders, tmp_path):
    arguments = ('table', '--train', folders / 'train', '--validation', folders / 'validation',
                 '--test', folders / 'test', '--runs', tmp_path / 'runs', '--results',
                 tmp_path / 'results', '--system', 'multi_stage_stn', '--system', 'regression',
                 '--images', 132, '--rounds', 1, '--retrain', '--threads', 1)
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / 'results' / 'table_simulated.json').read_text())
    assert [row['system'] for row in written['rows']] == ['regression', 'multi_stage_stn']
    assert written['n'] == len(written['split']['test']) > 0 and written['seed'] == 7002
    for row in written['rows']:
        assert 0 <= row['accuracy'] <= 1 and 0 <= row['lift'] <= 1 and row['milliseconds'] > 0
        assert row['training']['images'] == 132
    assert written['rows'][1]['before_end_to_end'] is not None
    text = (tmp_path / 'results' / 'table_simulated.md').read_text()
    assert text == markdown(written) and 'Multi-stage STN' in text
    picture = cv2.imread(str(tmp_path / 'runs' / 'table_simulated.png'))
    assert picture is not None and picture.shape[1] == 2 * 220
    # Without the multi-stage STN there is nothing to compare times with.
    alone = run(*arguments[:-11], '--system', 'regression', *arguments[-7:], '--results',
                tmp_path / 'alone')
    assert alone.exit_code == 0, alone.output
    # The weights can be published, and are found again by the split that they know.
    published = run(*arguments, '--publish', tmp_path / 'models')
    assert published.exit_code == 0, published.output
    for system in ('regression', 'multi_stage_stn'):
        card = (tmp_path / 'models' / f'table_simulated_{system}.md').read_text()
        assert '3 simulated images (3 with rgb, depth and normals)' in card
        assert ('ResNet-32' in card) == (system == 'regression')
        sidecar = json.loads((tmp_path / 'models' / f'table_simulated_{system}.json').read_text())
        assert sidecar['split']['seeds']['test'] == [7002]
    # Again: nothing is trained or asked anew.
    weights = tmp_path / 'runs' / 'table_simulated' / 'regression' / 'model.safetensors'
    before = weights.stat().st_mtime_ns, (weights.parent / 'answers.jsonl').read_text()
    assert run(*arguments).exit_code == 0
    assert before == (weights.stat().st_mtime_ns, (weights.parent / 'answers.jsonl').read_text())


def test_answers_of_other_test_images_do_not_count(folders, tmp_path):
    """Scenes of two seeds have the same numbers."""
    data = [table.simulated([folders / 'train'], folders / a, folders / b, limit=1)
            for a, b in (('validation', 'test'), ('test', 'validation'))]
    assert data[0].names == data[1].names
    detector, path = _Detector(), tmp_path / 'answers.jsonl'
    for times in (1, 2):
        for number, part in enumerate(data):
            table.answers(detector, part, table.Ledger(path, 'abc'))
            assert len(detector.asked) == (number + 1 if times == 1 else 2)


def test_weights_that_were_trained_otherwise_are_not_used(folders, tmp_path):
    def train(*changes, train='train', validation='validation', test='test', images=12):
        return run('table', '--train', folders / train, '--validation', folders / validation,
                   '--test', folders / test, '--runs', tmp_path, '--system', 'regression',
                   '--retrain', '--only-train', '--threads', 1, '--images', images, *changes)

    weights = tmp_path / 'table_simulated' / 'regression' / 'model.safetensors'
    assert train().exit_code == 0
    before = weights.stat().st_mtime_ns
    # Tests may be others: what was learned is the same.
    generate_dataset(tmp_path / 'new', 3, 7007, candidates=8, progress=False)
    assert train(test=tmp_path / 'new').exit_code == 0
    generate_dataset(tmp_path / 'few', 3, 7000, candidates=4, progress=False)
    for refused, message in ((train('--seed', 4), 'other settings (seed)'),
                             (train(images=18), 'other settings (images)'),
                             (train(train=tmp_path / 'few'), 'other training images'),
                             (train(validation=tmp_path / 'new'), 'another split')):
        assert refused.exit_code == 1 and message in refused.output, refused.output
        assert f'{weights} was trained' in refused.output and 'remove' in refused.output
    assert before == weights.stat().st_mtime_ns


def test_shipped_weights_only_count_with_the_settings_of_the_run(tmp_path):
    """What is asked for decides whether the weights that come with the package are used."""
    sidecar = checkpoint.read_sidecar(find_weights('table_simulated_regression.safetensors'))
    data = _data(split=sidecar['split'])
    for changes, used in (({}, True), ({'seed': 3}, False), ({'images': 12}, False)):
        plan = table_run.TableRun(tmp_path, tmp_path, systems=('regression',), **changes)
        assert (table_run._other_than(plan, data, 'regression', sidecar) == []) == used
    assert table_run.weights(table_run.TableRun(tmp_path, tmp_path), data, 'regression') == \
        find_weights('table_simulated_regression.safetensors')


@pytest.mark.parametrize('arguments, message', [
    ((), 'give --cornell DIR'), (('--train', '.'), '--validation and --test'),
    (('--train', '.', '--validation', '.', '--test', '.', '--folds'), '--folds needs --cornell')])
def test_the_command_says_what_is_missing(arguments, message):
    result = run('table', *arguments)
    assert result.exit_code == 2 and message in result.output


def test_the_paper_reports_every_system():
    assert tuple(table.PAPER) == SYSTEMS

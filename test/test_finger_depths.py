"""How far down the finger tips go: what the classifier says of it, and how that is learned."""

from dataclasses import replace
import json
import shutil

from click.testing import CliRunner
import numpy as np
import pytest
from script_files import load_script
import torch

from grasp_stn_ros.detector import GraspDetector, default_weights
from grasp_stn_ros.grasp_pose import Gripper, rectangle_to_grasp, rectangles_to_grasps
from grasp_stn_ros.rectangle import GraspRectangle
from grasp_stn_ros.rgbd import CameraIntrinsics, RgbdFrame
from grasp_stn_ros.simulation.gripper import GraspTrial
from grasp_stn_ros.simulation.labels import open_scene
from grasp_stn_ros.stn import checkpoint
from grasp_stn_ros.stn.multi_stage import ModelConfig, MultiStageSTN
from grasp_stn_ros.stn.network import StageOutputs
from grasp_stn_ros.training import finger_depths
from grasp_stn_ros.training.finger_depths import (
    DEPTHS,
    compare_depths,
    forget_depths,
    learn_depths,
    try_depths,
)

SMALL = ModelConfig(features=16, width=0.25, blocks=(0, 0, 0), gripper_input=True)
DEEP = replace(SMALL, finger_depths=DEPTHS)


def outputs(*logits, depths=DEPTHS):
    """One image with a candidate for each of the ``logits``."""
    count = len(logits)
    return StageOutputs(torch.zeros(1, count, 2), torch.zeros(1, count), torch.zeros(1, count),
                        torch.ones(1, count, 5), torch.zeros(1, count, 2), finger_depths=depths,
                        depth_logits=torch.tensor([logits], dtype=torch.float32))


@pytest.mark.parametrize(('longest', 'depth', 'logit'), [
    (0.050, 0.025, 1.5),    # free to choose
    (0.040, 0.025, 1.5),
    (0.030, 0.025, 1.5),
    (0.025, 0.025, 1.5),
    (0.020, 0.020, 1.5),    # counts as the next of the depths that were learned
    (0.010, 0.010, 0.5),
])
def test_the_tips_go_as_deep_as_lifts_best_and_no_deeper_than_the_gripper_can(longest, depth,
                                                                             logit):
    # The lift logit without a depth, 0, has half a say.
    chosen, depths = outputs([1.0, 3.0, 0.0, 1.0]).with_fingers(longest)
    assert depths.tolist() == [[pytest.approx(depth)]]
    assert chosen.score_logits[0, 0].tolist() == [0.0, logit]


def test_where_it_makes_no_difference_the_tips_go_deep():
    chosen, depths = outputs([4.0, 4.0, 4.0, 3.9], [4.0, 4.0, 4.0, 0.0]).with_fingers(0.05)
    assert depths[0].tolist() == pytest.approx([0.05, 0.04])
    # Longer fingers than were tried out count as the longest that were.
    assert outputs([0.0, 0.0, 0.0, 2.0]).with_fingers(0.09)[1].item() == pytest.approx(0.09)
    assert outputs([0.0, 0.0, 2.0, 0.0]).with_fingers(0.09)[1].item() == pytest.approx(0.04)


def test_a_network_that_was_not_taught_uses_the_gripper_as_it_is():
    plain = replace(outputs([]), finger_depths=(), depth_logits=None)
    chosen, depths = plain.with_fingers(0.033)
    assert chosen is plain and depths.item() == pytest.approx(0.033)


def test_the_best_candidates_keep_what_belongs_to_them():
    several = replace(outputs([0.0] * 4, [1.0] * 4, [2.0] * 4), score_logits=torch.tensor(
        [[[0.0, 0.0], [2.0, 2.0], [1.0, 1.0]]]))
    assert several.best(2).depth_logits[0, :, 0].tolist() == [1.0, 2.0]


@pytest.fixture(scope='module')
def block():
    """A block, 60 mm high, on a table that is seen from straight above."""
    rgb = np.full((480, 640, 3), 90, np.uint8)
    depth = np.full((480, 640), 0.8, np.float32)
    rgb[200:280, 300:340], depth[200:280, 300:340] = (200, 60, 40), 0.74
    return RgbdFrame(rgb, depth, CameraIntrinsics(525.0, 525.0, 319.5, 239.5))


def test_each_rectangle_may_have_a_depth_of_its_own(block):
    rectangle = GraspRectangle(319.5, 239.5, 0.0, 55.0, 14.0)
    down = np.array([0.0, 0.0, 1.0])
    grasps = rectangles_to_grasps([rectangle] * 4, block, Gripper(), np.tile(down, (4, 1)), None,
                                  [0.01, 0.03, None, 0.5])
    # The last one stops above the table.
    assert [g.position[2] for g in grasps] == pytest.approx([0.75, 0.77, 0.78, 0.797], abs=1e-4)
    alone = rectangle_to_grasp(rectangle, block, Gripper(), down)
    assert np.allclose(alone.position, grasps[2].position)


def test_the_detector_executes_the_depth_that_the_classifier_prefers(block):
    torch.manual_seed(0)
    network = MultiStageSTN(DEEP).eval()
    with torch.no_grad():
        network.classifier.depths.output.weight.zero_()
        network.classifier.depths.output.bias.copy_(torch.tensor([0.0, 5.0, -5.0, -5.0]))
    for limit, depth in ((0.05, 0.025), (0.012, 0.012)):
        detector = GraspDetector(network, gripper=Gripper(finger_depth=limit), threads=1)
        found = detector.detect(block, minimum_score=0.0)
        assert found.candidates
        assert [c.finger_depth for c in found.candidates] == pytest.approx(
            [depth] * len(found.candidates))
        below = [c.grasp.approach @ (c.grasp.position - c.grasp.surface)
                 for c in found.candidates if c.grasp is not None]
        assert below and max(below) <= depth + 1e-6


def test_one_who_changes_the_gripper_while_it_runs_is_heard(block):
    detector = GraspDetector(MultiStageSTN(SMALL), threads=1)
    detector.gripper = Gripper(finger_depth=0.021)
    assert detector.detect(block, minimum_score=0.0).candidates[0].finger_depth == \
        pytest.approx(0.021)


# ---------------------------------------------------------------------- learning
def patches_of(shallow, rng):
    """Patches for SMALL in which the mean says whether to stay shallow (N,)."""
    mean = np.where(shallow, 0.5, -0.5)[:, None, None, None]
    return (mean + 0.3 * rng.standard_normal((len(shallow), 48, 16, 16))).astype(np.float16)


def write_trials(folder, scenes=40, of_each=20, seed=0):
    """Trials in which what is to be held shallow is never lifted deep, and the other way round."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    for index in range(scenes):
        shallow = rng.random(of_each) < 0.5
        lifted = np.where([[True, True, False, False]], shallow[:, None], ~shallow[:, None])
        lifted = lifted.astype(np.float32)
        lifted[0] = np.nan      # no pose
        np.savez(folder / f'{index:06d}.npz', patches=patches_of(shallow, rng), lifted=lifted,
                 extents=np.full((of_each, 2), 20, np.float32),
                 jaws=np.full(of_each, 11, np.float32), logits=rng.standard_normal((of_each, 2)))


@pytest.fixture(scope='module')
def taught(tmp_path_factory):
    """Folder with weights, with trials and with what was learned from them."""
    folder = tmp_path_factory.mktemp('depths')
    torch.manual_seed(0)
    checkpoint.save(folder / 'plain.safetensors', MultiStageSTN(
        replace(SMALL, without_depth=True, calibration=(2.0, 1.0))), {'licence': 'x'})
    write_trials(folder / 'trials')
    network, notes = learn_depths(folder / 'plain.safetensors', [folder / 'trials'])
    checkpoint.save(folder / 'taught.safetensors', network, notes)
    return folder


def test_what_the_trials_say_is_learned(taught):
    classifier = checkpoint.load(taught / 'taught.safetensors')[0].classifier
    patches = torch.from_numpy(patches_of([True, False], np.random.default_rng(1))).float()
    with torch.no_grad():
        shallow, deep = classifier(patches, torch.full((2, 2), 20.0), torch.full((2,), 11.0))
    assert shallow.shape == (2 + len(DEPTHS),)
    assert shallow[2] > 1 > -1 > shallow[5] and deep[2] < -1 < 1 < deep[5]


def test_nothing_else_changes(taught):
    plain, _ = checkpoint.load(taught / 'plain.safetensors')
    learned, sidecar = checkpoint.load(taught / 'taught.safetensors')
    image = torch.rand(1, 7, 128, 128)
    with torch.no_grad():
        before, after = plain(image, 3), learned(image, 3)
    assert torch.equal(before.rectangles, after.rectangles)
    assert torch.equal(before.score_logits, after.score_logits)
    assert after.depth_logits.shape == (1, 3, len(DEPTHS))
    # Scores mean something else now; the network for images without depth has no depths.
    assert learned.config.calibration == (1.0, 0.0)
    assert learned.without_depth.classifier.depths is None
    notes = sidecar['training']['finger_depths']
    assert sidecar['licence'] == 'x' and (notes['scenes'], notes['candidates']) == (40, 800)
    assert notes['cross_entropy']['held_out'] < 0.5


def test_further_training_starts_without_it(taught):
    learned, _ = checkpoint.load(taught / 'taught.safetensors')
    plain, _ = checkpoint.load(taught / 'plain.safetensors')
    forgotten = forget_depths(learned)
    assert forgotten.config.finger_depths == () and forget_depths(plain) is plain
    assert all(torch.equal(value, plain.state_dict()[name])
               for name, value in forgotten.state_dict().items())
    again, _ = learn_depths(taught / 'taught.safetensors', [taught / 'trials'])
    assert all(torch.equal(value, again.state_dict()[name])
               for name, value in learned.state_dict().items())


def test_candidates_are_tried_once_and_at_every_depth(tmp_path):
    network, _ = checkpoint.load(default_weights())
    assert try_depths(network, 77, range(2), tmp_path) == 2
    arrays = [dict(np.load(path)) for path in sorted(tmp_path.glob('*.npz'))]
    assert len(arrays) == 2
    for found in arrays:
        n = len(found['lifted'])
        assert found['patches'].shape == (n, 64, 16, 16) and found['logits'].shape == (n, 2)
        assert found['extents'].shape == (n, 2) and found['lifted'].shape == (n, len(DEPTHS))
        assert set(found['lifted'][np.isfinite(found['lifted'])]) <= {0.0, 1.0}
    assert any((found['lifted'] == 1).any() for found in arrays)
    times = [path.stat().st_mtime_ns for path in sorted(tmp_path.glob('*.npz'))]
    assert try_depths(network, 77, range(2), tmp_path) == 0
    assert times == [path.stat().st_mtime_ns for path in sorted(tmp_path.glob('*.npz'))]


def test_trials_of_other_weights_or_scenes_are_not_gone_on_with(taught, tmp_path):
    """What a folder of trials is of, without a single trial."""
    plain, learned = (checkpoint.load(taught / f'{name}.safetensors')[0]
                      for name in ('plain', 'taught'))
    torch.manual_seed(1)
    nothing = range(0)
    assert try_depths(plain, 77, nothing, tmp_path / 'a') == 0
    # What is known of depths has no part in the candidates.
    assert try_depths(learned, 77, nothing, tmp_path / 'a') == 0
    with pytest.raises(checkpoint.CheckpointError, match='of other weights; name another folder'):
        try_depths(MultiStageSTN(SMALL), 77, nothing, tmp_path / 'a')
    with pytest.raises(checkpoint.CheckpointError, match='of other scenes, of the seed 77'):
        try_depths(plain, 78, nothing, tmp_path / 'a')
    with pytest.raises(checkpoint.CheckpointError, match='of other scenes, of the seed 77'):
        try_depths(plain, 77, nothing, tmp_path / 'a', crowded=True)
    with pytest.raises(checkpoint.CheckpointError, match='not of which weights and seed'):
        try_depths(plain, 77, nothing, taught / 'trials')
    shutil.copytree(taught / 'trials', tmp_path / 'a', dirs_exist_ok=True)
    assert learn_depths(taught / 'taught.safetensors', [tmp_path / 'a'])
    checkpoint.save(tmp_path / 'other.safetensors', MultiStageSTN(SMALL))
    with pytest.raises(checkpoint.CheckpointError, match='of other weights; name those'):
        learn_depths(tmp_path / 'other.safetensors', [tmp_path / 'a'])
    (tmp_path / 'a' / 'trials.json').write_text('{"seed": 77}')
    with pytest.raises(checkpoint.CheckpointError, match='trials.json does not say whose'):
        learn_depths(taught / 'plain.safetensors', [tmp_path / 'a'])


def test_crowded_scenes_have_several_objects(tmp_path, monkeypatch):
    counts, domains = [], []

    def opened(*arguments, objects=None, domain, **options):
        counts.append(objects)
        domains.append(domain.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(finger_depths, 'open_scene', opened)
    network = MultiStageSTN(SMALL)
    for index in range(5):
        for crowded in (False, True):
            with pytest.raises(KeyboardInterrupt):
                try_depths(network, 77, range(index, index + 1), tmp_path / str(crowded),
                           crowded=crowded)
    # None: as many as the domain draws.
    assert counts[0::2] == [1, None, None, 5, 1]
    assert domains[0::2] == ['basic', 'field', 'large', 'basic', 'basic']
    assert counts[1::2] == [2, 3, 4, 5, 2]


def test_trials_of_several_folders_are_learned_from_together(taught, tmp_path):
    write_trials(tmp_path / 'more', scenes=21, seed=1)
    _, notes = learn_depths(taught / 'plain.safetensors', [taught / 'trials', tmp_path / 'more'])
    learned = notes['training']['finger_depths']
    assert (learned['scenes'], learned['candidates']) == (61, 61 * 20)


def test_a_comparison_says_what_the_choice_is_worth(taught):
    figures = compare_depths(taught / 'plain.safetensors', [taught / 'trials'])
    assert (figures['n'], figures['candidates']) == (40, 800)
    assert [g['longest'] for g in figures['grippers']] == [0.04, 0.05]
    for gripper in figures['grippers']:
        # Every second candidate wants to be held shallow; whoever sees which is hardly wrong.
        assert gripper['without'] < 32 < 36 <= gripper['chosen']
        assert gripper['chosen'] - gripper['without'] == \
            gripper['only_chosen'] - gripper['only_without']


@pytest.mark.parametrize(('content', 'message'), [
    (b'', 'holds no trials'), (b'PK\x03\x04 cut off', 'holds no trials'), (None, 'no trials of')])
def test_trials_that_cannot_be_read_are_named(taught, tmp_path, content, message):
    if content is not None:
        (tmp_path / '000000.npz').write_bytes(content)
    with pytest.raises(checkpoint.CheckpointError, match=message):
        learn_depths(taught / 'plain.safetensors', [tmp_path])


def test_trials_of_another_network_are_refused(taught, tmp_path):
    checkpoint.save(tmp_path / 'wider.safetensors', MultiStageSTN(replace(SMALL, features=24)))
    with pytest.raises(checkpoint.CheckpointError, match='another network'):
        learn_depths(tmp_path / 'wider.safetensors', [taught / 'trials'])


def test_too_few_trials_are_refused(taught, tmp_path):
    write_trials(tmp_path / 'few', scenes=3, of_each=2)
    for use in (learn_depths, compare_depths):
        with pytest.raises(checkpoint.CheckpointError, match='3 scenes'):
            use(taught / 'plain.safetensors', [tmp_path / 'few'])


def test_the_script_learns_and_overwrites_nothing(taught, tmp_path):
    script = load_script('learn_finger_depths')
    of = ['--model', str(taught / 'plain.safetensors'), '--data', str(taught / 'trials')]
    fit = ['fit', *of, '--out', str(tmp_path / 'new.safetensors')]
    first = CliRunner().invoke(script.main, fit)
    assert first.exit_code == 0, first.output
    assert '40 scenes, 800 candidates' in ' '.join(first.output.split())
    second = CliRunner().invoke(script.main, fit)
    assert second.exit_code != 0 and 'exists' in second.output
    third = CliRunner().invoke(script.main, ['compare', *of, '--json',
                                             str(tmp_path / 'compared.json')])
    assert third.exit_code == 0, third.output
    assert third.output.count('of 40 scenes lifted') == 2
    assert json.loads((tmp_path / 'compared.json').read_text())['n'] == 40


# ---------------------------------------------------------------------- the shipped weights
def test_the_shipped_model_lifts_a_bowl_by_its_rim():
    # Deep inside the inner finger tip meets the slope of the wall, and pushes the bowl away.
    scene = open_scene(1022, 138, objects=1)
    try:
        best = GraspDetector(threads=1).detect(scene.frame).best
        assert best is not None and best.finger_depth < Gripper().finger_depth
        assert GraspTrial(scene).execute(scene.world_pose(best.grasp), best.grasp.opening,
                                         0.4).lifted
    finally:
        scene.close()


def test_the_shipped_model_goes_deep_where_that_holds_better(block):
    best = GraspDetector(threads=1).detect(block).best
    assert best is not None and best.finger_depth == 0.04

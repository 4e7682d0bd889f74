"""The script that trains variants: what it keeps, and what it refuses to mix up."""

import json

from click.testing import CliRunner
import pytest
from script_files import load_script

from grasp_stn_ros.simulation.labels import generate_dataset


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Two sets of simulated images, a few trials each."""
    root = tmp_path_factory.mktemp('ablations')
    for seed, name in enumerate(('one', 'two')):
        generate_dataset(root / name, 3, 8100 + seed, candidates=8, progress=False)
    return root


def test_figures_and_weights_of_other_trainings_are_not_used(folders, tmp_path):
    script, runs = load_script('ablations'), tmp_path / 'runs'

    def ablate(data='one', validation='one', images=12):
        return CliRunner().invoke(script.main, [
            '--data', str(folders / data), '--validation', str(folders / validation), '--images',
            str(images), '--seeds', '1', '--only', 'half as wide', '--runs', str(runs)])

    first = ablate()
    assert first.exit_code == 0, first.output
    weights, figures = (runs / 'half_as_wide_0' / name for name in
                        ('model.safetensors', 'judged_half_as_wide.json'))
    kept = [path.stat().st_mtime_ns for path in (weights, figures)]
    assert ablate().exit_code == 0
    assert kept == [path.stat().st_mtime_ns for path in (weights, figures)]
    for refused, message in ((ablate(images=24), 'settings (images)'),
                             (ablate(data='two'), 'training images')):
        assert refused.exit_code == 1 and f'{weights} was trained' in refused.output
        assert f'other {message}' in refused.output
    # Judged on other images, the figures are others.
    before = json.loads(figures.read_text())
    assert ablate(validation='two').exit_code == 0
    after = json.loads(figures.read_text())
    assert kept[0] == weights.stat().st_mtime_ns
    assert before['of']['weights_sha256'] == after['of']['weights_sha256']
    assert before['of']['validation_sha256'] != after['of']['validation_sha256']

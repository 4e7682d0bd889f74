"""Hostile messages and files: the generators hit what they aim at, and nothing gets through."""

from collections import Counter
import errno
import os
import resource
import subprocess
import sys

from hostile import fails_at_two_and_four
import numpy as np
import pytest
from ros_fixtures import rig, ros, wait_until  # noqa: F401

from grasp_stn_ros.atomic import write_atomically
from grasp_stn_ros.evaluation import file_fuzz
from grasp_stn_ros.evaluation.survival import survive
from grasp_stn_ros.reasons import Reason
from grasp_stn_ros.ros import stress_fuzz, stress_messages
from grasp_stn_ros.stn import checkpoint
from grasp_stn_ros.visualization import write_picture


def test_messages_at_the_conversion_layer():
    """Whatever is wrong, there is a frame or a name; convert() raises on everything else."""
    outcomes = Counter(name for number in range(600)
                       for name in stress_fuzz.convert_number(1, number))
    assert outcomes['OK'] > 100, 'mutations that break everything test only the first check'
    for reason in (Reason.INVALID_IMAGE, Reason.INVALID_DEPTH, Reason.SIZE_MISMATCH,
                   Reason.INVALID_INTRINSICS):
        assert outcomes[reason.name] > 10, f'{reason.name} is never reached: {outcomes}'


def test_the_same_number_is_the_same_message():
    first, second = (stress_messages.mutated(3, 17) for _ in range(2))
    assert all(first[name] == second[name] or repr(first[name]) == repr(second[name])
               for name in first)
    assert repr(stress_messages.mutated(3, 18)) != repr(first)


@pytest.mark.parametrize('how', ['die', 'hang'])
def test_the_fuzzer_survives_and_counts_what_kills_others(how):
    outcomes, crashes, hangs = survive(fails_at_two_and_four, 0, 7, how, patience=1.0)
    assert outcomes == {'OK': 5}, 'it goes on behind what failed'
    assert 'number 2: ZeroDivisionError' in crashes.pop(0)
    (failure,) = hangs if how == 'hang' else crashes
    assert len(crashes) + len(hangs) == 1 and 'number 4' in failure


def test_corrupt_and_hostile_files(tmp_path):
    """try_number() raises where something is executed, changed or refused without a name."""
    outcomes = Counter(name for number in range(160)
                       for name in file_fuzz.try_number(2, number, str(tmp_path)))
    for kind in ('weights', 'cornell', 'jacquard', 'simulated'):
        assert any(name.startswith(f'{kind} refused') for name in outcomes), outcomes
    assert not list(tmp_path.iterdir())


def test_the_hostile_pickle_is_one(tmp_path):
    """The marker that must never appear does appear where somebody unpickles."""
    import pickle
    marker = tmp_path / 'executed'
    pickle.loads(file_fuzz._pickled(np.random.default_rng(0), b'', str(marker)))
    assert marker.exists()


@pytest.mark.parametrize('config, word', [
    ({'width': 1e9}, 'width'), ({'features': 4096}, 'shape'),
    ({'blocks': [10**9, 2, 2]}, 'blocks'),
    ({'blocks': [1] * 100}, 'blocks'), ({'features': None}, 'features'),
    ({'width': -1}, 'width'), ({'blocks': [64, 64, 64]}, 'missing'),
    ({'width': float('nan')}, 'width')])
def test_absurd_configurations_cost_neither_memory_nor_time(tmp_path, config, word):
    network = file_fuzz._network()
    path = tmp_path / 'net.safetensors'
    checkpoint.save(path, network, {'config': {**network.config.to_dict(), **config}})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(checkpoint.CheckpointError, match=word):
        checkpoint.load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_json_that_is_too_deep_is_refused(tmp_path):
    path = tmp_path / 'net.safetensors'
    checkpoint.save(path, file_fuzz._network())
    path.with_suffix('.json').write_text('[' * 1_000_000)
    with pytest.raises(checkpoint.CheckpointError, match='cannot be read'):
        checkpoint.load(path)


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from grasp_stn_ros.visualization import write_picture
picture = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_picture(Path(sys.argv[1]), picture)
except OSError as error:
    print(error)
"""


@pytest.mark.parametrize('ending', ['png', 'jpg'])
def test_a_full_disk_costs_no_picture(tmp_path, ending):
    path = tmp_path / f'stages.{ending}'
    path.write_bytes(b'an earlier picture')
    done = subprocess.run([sys.executable, '-c', FULL, str(path)], capture_output=True, text=True,
                          check=True)
    assert f'{os.strerror(errno.EFBIG)}: {str(path)!r}' in done.stdout
    assert path.read_bytes() == b'an earlier picture'
    assert list(tmp_path.iterdir()) == [path], 'nothing half-written is left'
    write_picture(path, np.zeros((8, 8, 3), np.uint8))
    assert path.read_bytes() != b'an earlier picture'


def test_writing_that_fails_leaves_nothing(tmp_path):
    (tmp_path / 'file').mkdir()
    with pytest.raises(OSError):
        write_atomically(tmp_path / 'file', b'content')
    assert [p.name for p in tmp_path.iterdir()] == ['file']


def test_messages_pushed_out_of_a_full_queue_are_counted(rig):  # noqa: F811
    """The middleware reports no loss for them; nothing may be lost in silence."""
    it = rig(sync_queue_size=2)
    it.camera.publish()
    it.wait_for('stages')
    with it.node._condition:  # what stores pairs has to wait
        for _ in range(20):
            it.camera.publish()
        # The last ones are there, the others have been pushed out.
        wait_until(lambda: all(p.wait_for_all_acked() for p in it.camera.publishers.values()),
                   'the middleware')
    gates = it.node._input._gates
    wait_until(lambda: all(g.count + g.skipped == 21 for g in gates), 'every message')
    assert sum(g.skipped for g in gates) > 0
    assert it.node._input.drops['lost in the middleware'] == sum(g.lost for g in gates) > 0

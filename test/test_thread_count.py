"""How many threads a detector computes with, and how it finds out."""

import pytest

pytest.importorskip('torch', reason='torch is missing: run `make setup`')

import torch

from grasp_stn_ros.detector import GraspDetector
from grasp_stn_ros.evaluation.benchmark import frames
from grasp_stn_ros.thread_count import FRAMES, PERIOD, ThreadCount


class Machine:
    """A clock, and frames that take as long as ``milliseconds`` says of a number of threads."""

    def __init__(self, most, milliseconds):
        self.now = 100.0
        self.milliseconds = milliseconds
        self.count = ThreadCount(most, lambda: self.now)

    def run(self, seconds):
        """Return the numbers of threads that frames at 30 Hz were computed with."""
        used = []
        end = self.now + seconds
        while self.now < end:
            threads = self.count.now
            used.append(threads)
            self.count.took(self.milliseconds(threads))
            self.now += 1 / 30
        return used


def test_all_threads_stay_where_they_are_fastest():
    machine = Machine(8, {8: 10.0, 4: 12.0, 2: 16.0, 1: 25.0}.get)
    used = machine.run(60)
    assert machine.count.chosen == 8
    # Those that are slower are tried, and seldom.
    assert set(used) == {4, 8} and used.count(4) <= 60 / PERIOD * FRAMES


def test_beside_other_processes_it_goes_down_to_one_thread_and_later_up_again():
    machine = Machine(8, {8: 60.0, 4: 40.0, 2: 30.0, 1: 25.0}.get)
    machine.run(5 * PERIOD)
    assert machine.count.chosen == 1
    machine.milliseconds = {8: 10.0, 4: 12.0, 2: 16.0, 1: 25.0}.get
    machine.run(9 * PERIOD)
    assert machine.count.chosen == 8


def test_what_is_as_fast_is_no_reason_to_change():
    machine = Machine(6, lambda threads: 20.0 - 0.1 * (threads < 6))
    assert set(machine.run(60)) == {4, 6}
    assert machine.count.chosen == 6


def test_a_single_slow_frame_decides_nothing():
    hiccups = iter(range(10**6))
    # Every seventh frame takes long, whatever it is computed with.
    machine = Machine(2, lambda threads: 500.0 if next(hiccups) % 7 == 0 else 10.0 + 5 * (
        threads == 1))
    machine.run(60)
    assert machine.count.chosen == 2


def test_one_thread_has_nothing_to_choose():
    machine = Machine(1, lambda threads: 20.0)
    assert set(machine.run(60)) == {1}


def test_a_detector_computes_with_the_number_that_was_chosen_and_finds_the_same():
    image, = frames(1)
    before = torch.get_num_threads()
    try:
        fixed = GraspDetector(device='cpu', threads=2)
        expected = fixed.detect(image)
        adapting = GraspDetector(device='cpu', threads=2, adapt_threads=True)
        assert (fixed.threads, adapting.threads) == (2, 2)

        told = []

        class Chosen:
            """Stand-in for a :class:`ThreadCount`: one thread, whatever they took."""

            now = chosen = 1
            took = told.append

        adapting._thread_count = Chosen
        found = adapting.detect(image)
        assert adapting.threads == torch.get_num_threads() == 1
        assert len(told) == 1 and told[0] >= sum(found.milliseconds.values())
        assert found.best.score == pytest.approx(expected.best.score, abs=1e-3)
        assert found.best.rectangle.as_array() == pytest.approx(
            expected.best.rectangle.as_array(), abs=0.05)
    finally:
        torch.set_num_threads(before)


def test_the_node_finds_out_unless_it_is_told_a_number():
    pytest.importorskip('rclpy', reason='rclpy is missing: run `make setup`')
    from grasp_stn_ros.ros import parameters
    from grasp_stn_ros.ros.grasp_node import default_detector
    before = torch.get_num_threads()
    values = {p.name: p.default for p in parameters.PARAMETERS} | {'device': 'cpu'}
    try:
        torch.set_num_threads(2)
        free, told = (default_detector(values | {'threads': threads}) for threads in (0, 2))
        assert isinstance(free._thread_count, ThreadCount) and told._thread_count is None
        assert free.threads == told.threads == 2
    finally:
        torch.set_num_threads(before)

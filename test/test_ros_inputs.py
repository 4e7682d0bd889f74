"""When an image was taken, by the node's clock; see also test_ros_node.py."""

import pytest
from ros_fixtures import ros  # noqa: F401  (skips where ROS is missing)

from grasp_stn_ros.ros.inputs import CaptureClock

SECOND = 1_000_000_000


@pytest.mark.parametrize('lag', [0.0, 0.03, 1.5])
def test_stamps_of_our_clock_are_believed(lag):
    clock = CaptureClock()
    for i in range(30):
        stamp = (1000 + i) * SECOND
        assert clock.taken(stamp, stamp + int(lag * SECOND)) == stamp


@pytest.mark.parametrize('offset', [-5.0, -0.1, 3.0, 1.7e9])
def test_another_clock_is_shifted_to_ours(offset):
    """Lags of 30 to 50 ms on top of the offset: the fastest message tells the offset."""
    clock = CaptureClock()
    for i in range(30):
        stamp = (2_000_000_000 + i) * SECOND
        jitter = 20_000_000 * (i % 3) // 2
        arrived = stamp + int((offset + 0.03) * SECOND) + jitter
        taken = clock.taken(stamp, arrived)
        assert taken <= arrived
        assert arrived - taken <= 20_000_000


def test_a_late_message_of_our_clock_stays_old():
    """A pair that was held up for 5 s was taken 5 s ago, not now."""
    clock = CaptureClock()
    for i in range(5):
        clock.taken((1000 + i) * SECOND, (1000 + i) * SECOND + 30_000_000)
    assert clock.taken(1005 * SECOND, 1010 * SECOND) == 1005 * SECOND


def test_reset_forgets_the_offset():
    clock = CaptureClock()
    clock.taken(1 * SECOND, 1000 * SECOND)
    clock.reset()
    assert clock.taken(1000 * SECOND, 1001 * SECOND) == 1000 * SECOND

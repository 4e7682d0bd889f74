"""Keep every test session apart from other ROS 2 processes and from the user's folders."""

import os
from pathlib import Path
import tempfile
import time

from grasp_stn_ros.doctor import shared_memory

PROJECT = Path(__file__).resolve().parent.parent


def pytest_configure(config):
    """Set what ROS 2 reads when it is first imported or initialized."""
    # 1-101: the domains whose ports lie below Linux's ephemeral ports. Sessions that run at the
    # same time have different process ids, so neighbours get different domains; the processes of
    # one session (pytest-xdist) share the id of their parent and have numbers, four at most.
    session, number = os.getpid(), 0
    if hasattr(config, 'workerinput'):
        session = os.getppid()
        number = 1 + int(config.workerinput['workerid'].removeprefix('gw'))
    os.environ['ROS_DOMAIN_ID'] = str(1 + (5 * session + number) % 101)
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    os.environ['FASTDDS_DEFAULT_PROFILES_FILE'] = str(PROJECT / 'config' / 'fastdds_shm.xml')
    folder = tempfile.TemporaryDirectory(prefix='grasp_stn_test_')
    config.add_cleanup(folder.cleanup)
    os.environ['ROS_LOG_DIR'] = folder.name
    began = time.time()
    # Some tests kill processes. With several test processes, their parent cleans up at the end.
    if not hasattr(config, 'workerinput'):
        config.add_cleanup(lambda: shared_memory.remove(shared_memory.dead_segments(
            since=began, youngest=0.0)))



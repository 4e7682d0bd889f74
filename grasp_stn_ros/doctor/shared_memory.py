"""
What processes that were killed left in shared memory.

Fast DDS keeps a segment for each process, ``fastdds_`` and 16 hexadecimal digits, and beside it a
file ``..._el`` that the process has locked while it lives. Who is killed leaves both, with
config/fastdds_shm.xml 32 MiB each time, until the machine is started again.
"""

from __future__ import annotations

from collections.abc import Iterable
import fcntl
import os
from pathlib import Path
import re
import time

FOLDER = Path('/dev/shm')
_SEGMENT = re.compile(r'fast(?:dds|rtps)_[0-9a-f]{16}')
# A process that is just starting creates its file before it locks it, seconds.
_YOUNGEST = 10.0


def dead_segments(folder: Path | None = None, since: float = 0.0,
                  youngest: float = _YOUNGEST) -> list[Path]:
    """
    Return segments in ``folder`` (None: /dev/shm) whose process is gone, oldest first.

    Of those made after ``since`` (seconds since the epoch) and at least ``youngest`` seconds ago;
    of other users' only what may be read.
    """
    found = []
    for lock in (folder or FOLDER).glob('fast*_el'):
        segment = lock.with_name(lock.name.removesuffix('_el'))
        try:
            made = lock.stat().st_mtime
            if _SEGMENT.fullmatch(segment.name) and since <= made <= time.time() - youngest \
                    and segment.exists() and _is_free(lock):
                found.append((made, segment))
        except OSError:
            continue  # gone meanwhile, or somebody else's
    return [segment for _, segment in sorted(found)]


def _is_free(lock: Path) -> bool:
    descriptor = os.open(lock, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


def remove(segments: Iterable[Path]) -> int:
    """Remove segments and their locks; the bytes that became free."""
    freed = 0
    for segment in segments:
        try:
            size = segment.stat().st_size
            segment.unlink()
            segment.with_name(f'{segment.name}_el').unlink(missing_ok=True)
            freed += size
        except OSError:
            continue
    return freed

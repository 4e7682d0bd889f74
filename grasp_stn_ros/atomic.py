"""Files that are either complete or not there."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: Path, content: bytes, sync: bool = True) -> None:
    """
    Write ``content`` to ``path`` under another name first, then rename it.

    With ``sync`` the file also survives a loss of power, which takes milliseconds: not for
    thousands of files that can be made again. Processes may write the same file at once. Where
    it raises OSError, such as on a full disk, an earlier file is as it was and nothing is left.
    """
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        with open(temporary, 'wb') as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

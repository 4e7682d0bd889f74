"""Files that are either complete or not there."""

from __future__ import annotations

from collections.abc import Mapping
import os
from pathlib import Path


def write_atomically(path: Path, content: bytes, sync: bool = True) -> None:
    """
    Write ``content`` to ``path`` under another name first, then rename it.

    With ``sync`` the file also survives a loss of power, which takes milliseconds: not for
    thousands of files that can be made again. Processes may write the same file at once. Where
    it raises OSError, such as on a full disk, an earlier file is as it was and nothing is left.
    """
    write_together({path: content}, sync)


def write_together(contents: Mapping[Path, bytes], sync: bool = True) -> None:
    """
    Write files as :func:`write_atomically` does, none under its own name before all are complete.

    Only an end of the process between two renamings leaves some of them new and some old.
    """
    temporary = {path: path.with_name(f'.{path.name}.{os.getpid()}.tmp') for path in contents}
    try:
        for path, content in contents.items():
            with open(temporary[path], 'wb') as file:
                file.write(content)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
        for path in contents:
            os.replace(temporary[path], path)
    except BaseException:
        for path in temporary.values():
            path.unlink(missing_ok=True)
        raise

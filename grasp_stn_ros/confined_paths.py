"""
Files that may be read: inside a folder, links resolved, and nothing that is no file.

A name that comes from a parameter or from another machine is checked here before anything is
opened. What a link points to counts, not where the link is; devices, pipes and sockets are
refused, since reading them can wait for ever or never end.
"""

from __future__ import annotations

import os
from pathlib import Path
import stat


class PathRefusedError(ValueError):
    """A path that may not be used; the message names it and says why."""


def inside(path: str | Path, folder: str | Path) -> Path:
    """
    Resolve ``path``, relative ones from ``folder`` -> an absolute path without links.

    Raises :class:`PathRefusedError` where that lies outside of ``folder`` (itself resolved), for
    names with NUL and for links that go round in circles. The path need not exist.
    """
    text = os.fspath(path)
    if '\0' in text or not text:
        raise PathRefusedError(f'{text!r} is no path')
    root = Path(folder)
    if not root.is_dir():
        raise PathRefusedError(f'{root} is no folder')
    root = root.resolve()
    try:
        # No expansion of ~ or variables: what is in a parameter is a path and not a shell word.
        resolved = (root / text).resolve()
    except (OSError, RuntimeError) as error:  # a circle of links; which of both is up to Python
        raise PathRefusedError(f'{text!r} cannot be resolved: {error}') from None
    if not resolved.is_relative_to(root):
        raise PathRefusedError(f'{text!r} leads to {resolved}, outside of {root}')
    return resolved


def read_regular(path: str | Path, limit: int) -> bytes:
    """
    Read a regular file of at most ``limit`` bytes.

    Raises :class:`PathRefusedError` for anything else, without waiting for it, and OSError where
    it cannot be opened.
    """
    # Without O_NONBLOCK, opening a pipe waits for somebody to write into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, 'rb') as file:
        # Of what is open, not of the name: in between, the name may have become another file.
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise PathRefusedError(f'{path} is no regular file')
        content = file.read(limit + 1)
    if len(content) > limit:
        raise PathRefusedError(f'{path} has more than {limit} bytes')
    return content

"""Rerun's viewer as a page on this machine, or as a recording file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
import socket
from urllib.parse import quote

import rerun as rr

from .scene import Scene, Shown, layout
from .sources import SourceError

# Beyond this the oldest frames are dropped, so that a camera may run for days.
MEMORY_LIMIT = '2GiB'


def free_port(wanted: int = 0) -> int:
    """Return ``wanted`` if it is free, or any free port for 0; raises :class:`SourceError`."""
    with socket.socket() as probe:
        # Connections of a page that has ended linger for a minute, and block nobody who listens.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(('127.0.0.1', wanted))
        except OSError as error:
            raise SourceError(f'PORT_IN_USE: port {wanted} of this machine cannot be used '
                              f'({error.strerror}); choose another one with --port') from None
        return probe.getsockname()[1]


class Page:
    """The viewer as a page of this machine that shows a :class:`Scene` while it grows."""

    def __init__(self, scene: Scene, port: int = 0, open_browser: bool = False):
        """
        Serve the page on ``port`` (0 = any) and the data on another one.

        Raises :class:`SourceError` where the port is taken.
        """
        web = free_port(port)
        self._data = scene.recording.serve_grpc(grpc_port=free_port(),
                                                server_memory_limit=MEMORY_LIMIT)
        rr.serve_web_viewer(web_port=web, open_browser=open_browser, connect_to=self._data)
        self.address = f'http://127.0.0.1:{web}/?url={quote(self._data, safe="")}' \
                       '&hide_welcome_screen'

    @property
    def picture_address(self) -> str:
        """The page as it is opened for a picture: dark, drawn by WebGL."""
        return f'{self.address}&renderer=webgl&theme=dark'


def check_new(path: Path) -> None:
    """Raise :class:`SourceError` where no recording file of that name can be begun."""
    if path.suffix != '.rrd':
        raise SourceError(f'BAD_NAME: recordings of the viewer end in .rrd, {path} does not')
    if path.exists():
        raise SourceError(f'FILE_EXISTS: {path} is there already; remove it or give another name')
    if not path.parent.is_dir():
        raise SourceError(f'NO_FOLDER: {path.parent} does not exist')


def save_to(scene: Scene, path: Path) -> None:
    """Write all that ``scene`` logs into a new recording file; raises :class:`SourceError`."""
    check_new(path)
    scene.recording.save(path)


@contextmanager
def saving(scene: Scene, path: Path) -> Iterator[None]:
    """Do :func:`save_to`; where what follows fails, nothing is left."""
    save_to(scene, path)
    try:
        yield
    except Exception:
        scene.recording.disconnect()
        path.unlink(missing_ok=True)
        raise


def arrange(scene: Scene, first: Shown, paused: bool = False) -> None:
    """Send the layout, with the eye placed for the ``first`` frame."""
    scene.recording.send_blueprint(layout(first, paused))

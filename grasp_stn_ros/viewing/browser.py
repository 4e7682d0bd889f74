"""
A real Chromium without a window, driven over its DevTools pipe: for pictures and tests.

``chromium --screenshot`` takes its picture when the page has loaded; a viewer compiled to
WebAssembly starts to draw long after that. Here the picture is taken when the page has stopped
changing, or when a script in it says so, and mouse and keys do what a user would.
"""

from __future__ import annotations

import base64
from contextlib import suppress
import json
import os
from pathlib import Path
import select
import shutil
import subprocess
import tempfile
import time
from typing import Any

import cv2
import numpy as np

from ..atomic import write_atomically

_NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
# Software rendering: a picture is to be the same on every machine, with or without a GPU.
_SWITCHES = ('--headless=new', '--no-sandbox', '--use-angle=swiftshader',
             '--enable-unsafe-swiftshader', '--hide-scrollbars', '--no-first-run',
             '--disable-extensions', '--disable-background-networking', '--disable-sync',
             # Containers have a /dev/shm too small for pages with large images.
             '--disable-dev-shm-usage',
             # Compiled once and plainly: optimizing a viewer takes longer than looking at it.
             '--js-flags=--liftoff-only')
# A page with fewer colours than this is a splash screen, or a layout without images.
_LEAST_COLOURS = 2000
# Share of the pixels that may differ between two looks at a page that is at rest.
_RESTLESS = 0.0005
_PAUSE = 0.7               # seconds between two looks
_ANSWER_SECONDS = 300.0    # software rendering on a busy machine takes its time
_LOOK_AGAIN = 0.02         # seconds between two evaluations of a condition


class BrowserError(RuntimeError):
    """There is no picture; the message says why and what to do."""


def find_chromium() -> str:
    """Path of a Chromium or Chrome; raises :class:`BrowserError` that says how to get one."""
    for name in _NAMES:
        path = shutil.which(name)
        if path:
            return path
    raise BrowserError(f'NO_BROWSER: none of {", ".join(_NAMES)} is installed; on Debian and '
                       'Ubuntu: sudo apt-get install chromium')


class HeadlessPage:
    """One page in a headless browser of its own, which ends with the ``with`` block."""

    def __init__(self, url: str, size: tuple[int, int] = (1600, 1000)):
        """Open ``url`` in a window of ``size`` pixels; raises :class:`BrowserError`."""
        self._number = 0
        self._buffer = b''
        self.console: list[str] = []      # what the page logged as errors
        self.dialogs: list[str] = []      # what the page asked; all of it was agreed to
        self._profile = tempfile.TemporaryDirectory(prefix='grasp_stn_browser_',
                                                    ignore_cleanup_errors=True)
        # Chromium reads commands from file descriptor 3 and answers on 4.
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        shell = 'exec "$@" 3<&$GRASP_STN_COMMANDS 4>&$GRASP_STN_ANSWERS'
        environment = dict(os.environ, GRASP_STN_COMMANDS=str(commands),
                           GRASP_STN_ANSWERS=str(answers))
        self._process = subprocess.Popen(
            ['bash', '-c', shell, 'bash', find_chromium(), *_SWITCHES,
             '--remote-debugging-pipe', f'--user-data-dir={self._profile.name}',
             f'--window-size={size[0]},{size[1]}', 'about:blank'],
            env=environment, pass_fds=(commands, answers), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(commands)
        os.close(answers)
        try:
            target = self._call('Target.createTarget', url='about:blank')['targetId']
            self._session = self._call('Target.attachToTarget', targetId=target,
                                       flatten=True)['sessionId']
            self._page('Emulation.setDeviceMetricsOverride', width=size[0], height=size[1],
                       deviceScaleFactor=1, mobile=False)
            self._page('Runtime.enable')
            self._page('Page.enable')
            self._page('Page.navigate', url=url)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> HeadlessPage:
        """Return the page."""
        return self

    def __exit__(self, *_exception) -> None:
        """End the browser."""
        self.close()

    def close(self) -> None:
        """End the browser and remove its profile."""
        for descriptor in (self._commands, self._answers):
            with suppress(OSError):
                os.close(descriptor)
        # With its pipe closed it ends by itself.
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._profile.cleanup()

    def screenshot(self) -> bytes:
        """Return the page as it is now, as PNG."""
        data = self._page('Page.captureScreenshot', format='png')['data']
        return base64.b64decode(data)

    def settled(self, seconds: float) -> bytes:
        """
        Return the page as PNG once it shows something and has stopped changing.

        Raises :class:`BrowserError` where that takes more than ``seconds``.
        """
        deadline = time.monotonic() + seconds
        previous: np.ndarray | None = None
        while time.monotonic() < deadline:
            try:
                png = self.screenshot()
            except BrowserError:       # between two pages there is none
                time.sleep(_PAUSE)
                continue
            pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
            assert pixels is not None
            drawn = len(np.unique(pixels.reshape(-1, 3), axis=0)) >= _LEAST_COLOURS
            if drawn and previous is not None and \
                    (previous != pixels).any(axis=2).mean() <= _RESTLESS:
                return png
            previous = pixels if drawn else None
            time.sleep(_PAUSE)
        problem = f'; it logged: {self.console[-1]}' if self.console else ''
        raise BrowserError(f'NO_PICTURE: the page did not come to rest within {seconds:.0f} s'
                           f'{problem}')

    def run(self, script: str) -> Any:
        """Value of an expression in the page; raises :class:`BrowserError` for its exceptions."""
        answer = self._page('Runtime.evaluate', expression=script, returnByValue=True,
                            awaitPromise=True)
        if 'exceptionDetails' in answer:
            raise BrowserError(f'PAGE_ERROR: {script}: {_problem(answer["exceptionDetails"])}')
        return answer['result'].get('value')

    def wait_for(self, script: str, seconds: float = 60.0) -> Any:
        """
        First true value of an expression; raises :class:`BrowserError` after ``seconds``.

        Exceptions count as not yet: before a page is loaded its names are not there.
        """
        deadline = time.monotonic() + seconds
        problem = ''
        while time.monotonic() < deadline:
            try:
                value = self.run(script)
            except BrowserError as error:
                problem = f'; {error}'
            else:
                if value:
                    return value
                problem = ''
            time.sleep(_LOOK_AGAIN)
        raise BrowserError(f'PAGE_ERROR: waited {seconds:.0f} s in vain for {script}{problem}')

    def mouse(self, kind: str, x: float, y: float, pressed: bool = False) -> None:
        """Press, move or release ('mousePressed', ...) the left button, in pixels of the page."""
        self._page('Input.dispatchMouseEvent', type=kind, x=x, y=y, clickCount=1,
                   button='none' if kind == 'mouseMoved' else 'left', buttons=int(pressed))

    def key(self, key: str) -> None:
        """Type one key."""
        text = {'text': key} if len(key) == 1 else {}
        self._page('Input.dispatchKeyEvent', type='keyDown', key=key, **text)
        self._page('Input.dispatchKeyEvent', type='keyUp', key=key)

    def _page(self, method: str, **parameters) -> dict[str, Any]:
        return self._call(method, self._session, **parameters)

    def _call(self, method: str, session: str | None = None, **parameters) -> dict[str, Any]:
        """Send one command and wait for its answer; events in between are looked through."""
        number = self._send(method, session, **parameters)
        while True:
            answer = json.loads(self._receive(_ANSWER_SECONDS))
            if answer.get('id') == number:
                if 'error' in answer:
                    raise BrowserError(f'BROWSER_ERROR: {method}: {answer["error"]["message"]}')
                return answer['result']
            self._heard(answer)

    def _send(self, method: str, session: str | None, **parameters) -> int:
        """Send one command -> the number that its answer will have."""
        self._number += 1
        command: dict[str, Any] = {'id': self._number, 'method': method, 'params': parameters}
        if session:
            command['sessionId'] = session
        try:
            os.write(self._commands, json.dumps(command).encode() + b'\0')
        except OSError:
            raise BrowserError('NO_BROWSER: Chromium ended at once; run it by hand to see '
                               'why: chromium --headless=new about:blank') from None
        return self._number

    def _heard(self, event: dict[str, Any]) -> None:
        if event.get('method') == 'Runtime.exceptionThrown':
            self.console.append(_problem(event['params']['exceptionDetails']))
        elif event.get('method') == 'Page.javascriptDialogOpening':
            # Answered here: until then the page stands still, and so does the call that waits.
            self.dialogs.append(event['params']['message'])
            self._send('Page.handleJavaScriptDialog', event.get('sessionId'), accept=True)

    def _receive(self, seconds: float) -> bytes:
        deadline = time.monotonic() + seconds
        while b'\0' not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._answers], [], [], left)[0]:
                raise BrowserError(f'BROWSER_ERROR: no answer from Chromium in {seconds:.0f} s')
            piece = os.read(self._answers, 1 << 20)
            if not piece:
                raise BrowserError('NO_BROWSER: Chromium ended; run it by hand to see why: '
                                   'chromium --headless=new about:blank')
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b'\0')
        return message


def _problem(details: dict[str, Any]) -> str:
    """Exception of a page -> its description."""
    return details.get('exception', {}).get('description') or details.get('text', '')


def take_picture(url: str, path: Path, seconds: float = 60.0,
                 size: tuple[int, int] = (1600, 1000)) -> None:
    """Write a picture (PNG) of the page at ``url`` to ``path``; raises :class:`BrowserError`."""
    if path.suffix.lower() != '.png':
        raise BrowserError(f'BAD_NAME: {path} does not end in .png')
    with HeadlessPage(url, size) as page:
        png = page.settled(seconds)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, png)

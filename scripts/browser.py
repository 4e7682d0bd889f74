"""A real Chromium without a window, driven by its DevTools protocol: for tests and pictures."""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import ExitStack
import json
import os
from pathlib import Path
import re
import shutil
import signal
import subprocess
import tempfile
import time
from types import TracebackType
from typing import Any
from urllib.request import urlopen

from websockets.sync.client import connect

MISSING = 'chromium is missing: sudo apt-get install chromium'
_DEADLINE = 60.0


def find_chromium() -> str | None:
    """Path of Chromium or Chrome, or None."""
    names = ('chromium', 'chromium-browser', 'google-chrome')
    return next(filter(None, map(shutil.which, names)), None)


class Browser:
    """One page of a headless browser; a context manager. RuntimeError where it does not start."""

    def __init__(self, size: tuple[int, int] = (1280, 800)):
        """Start it with a window of ``size`` pixels and a profile of its own."""
        program = find_chromium()
        if program is None:
            raise RuntimeError(MISSING)
        self._profile = tempfile.TemporaryDirectory(prefix='browser_', ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [program, '--headless=new', '--no-sandbox', '--disable-gpu', '--no-first-run',
             '--disable-dev-shm-usage', '--disable-background-networking',
             '--remote-debugging-port=0', f'--user-data-dir={self._profile.name}',
             f'--window-size={size[0]},{size[1]}', 'about:blank'],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        self._number = 0
        self._stack = ExitStack()
        self.dialogs: list[str] = []
        try:
            port = self._wait(self._port, 'the browser to start')
            with urlopen(f'http://127.0.0.1:{port}/json/list', timeout=_DEADLINE) as answer:
                page = next(t for t in json.load(answer) if t['type'] == 'page')
            self._socket = self._stack.enter_context(
                connect(page['webSocketDebuggerUrl'], max_size=None))
            self.call('Emulation.setDeviceMetricsOverride', width=size[0], height=size[1],
                      deviceScaleFactor=1, mobile=False)
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Browser:
        """Return the browser."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """End it."""
        self._end()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result; RuntimeError with its message."""
        self._number += 1
        self._socket.send(json.dumps({'id': self._number, 'method': method,
                                      'params': parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=_DEADLINE))
            if answer.get('method') == 'Page.javascriptDialogOpening':
                # Answered here: until then the page stands still, and so does this call.
                self._number += 1
                self._socket.send(json.dumps({
                    'id': self._number, 'method': 'Page.handleJavaScriptDialog',
                    'params': {'accept': True}}))
                self._number -= 1
                self.dialogs.append(answer['params']['message'])
            elif answer.get('id') == self._number and 'method' not in answer:
                if 'error' in answer:
                    raise RuntimeError(f'{method}: {answer["error"]["message"]}')
                return answer['result']

    def open(self, url: str) -> None:
        """Go to a page and wait until it is loaded."""
        self.dialogs = []
        self.call('Page.enable')
        self.call('Page.navigate', url=url)
        self.wait_for("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """Value of an expression in the page; RuntimeError for its exceptions."""
        result = self.call('Runtime.evaluate', expression=script, returnByValue=True,
                           awaitPromise=True)
        if 'exceptionDetails' in result:
            raise RuntimeError(result['exceptionDetails'].get('exception', {}).get(
                'description', result['exceptionDetails']['text']))
        return result['result'].get('value')

    def wait_for(self, script: str) -> Any:
        """First true value of an expression; TimeoutError."""
        return self._wait(lambda: self.run(script), script)

    def mouse(self, kind: str, x: float, y: float, pressed: bool = False) -> None:
        """Press, move or release ('mousePressed', ...) the left button, pixels of the window."""
        self.call('Input.dispatchMouseEvent', type=kind, x=x, y=y, clickCount=1,
                  button='none' if kind == 'mouseMoved' else 'left', buttons=int(pressed))

    def key(self, key: str) -> None:
        """Type one key."""
        text = {'text': key} if len(key) == 1 else {}
        self.call('Input.dispatchKeyEvent', type='keyDown', key=key, **text)
        self.call('Input.dispatchKeyEvent', type='keyUp', key=key)

    def screenshot(self, path: Path) -> None:
        """Write what is seen as PNG."""
        data = self.call('Page.captureScreenshot', format='png')['data']
        path.write_bytes(base64.b64decode(data))

    def _port(self) -> int | None:
        if self._process.poll() is not None:
            raise RuntimeError(f'the browser ended with status {self._process.returncode}')
        try:
            found = re.match(r'\d+', (Path(self._profile.name) / 'DevToolsActivePort').read_text())
        except OSError:
            return None
        return int(found[0]) if found else None

    @staticmethod
    def _wait(condition: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + _DEADLINE
        while time.monotonic() < deadline:
            value = condition()
            if value:
                return value
            time.sleep(0.02)
        raise TimeoutError(f'waited {_DEADLINE:g} s in vain for {what}')

    def _end(self) -> None:
        self._stack.close()
        # Its children are in its process group.
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(10)
                break
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        self._profile.cleanup()

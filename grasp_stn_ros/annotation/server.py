"""
The page to draw rectangles on, served to this machine only.

``GET /api/images`` lists the images, ``GET /api/labels?name=`` the labels of one, ``PUT`` the
same address replaces them; ``GET /picture?name=&kind=rgb|depth`` is a PNG. Bodies are JSON.
"""

from __future__ import annotations

from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np

from ..data.files import checked_depth, checked_rgb
from ..data.sample import DataError
from ..rectangle import GraspRectangle
from .store import ConflictError, CornellFolder, Label

PAGE = Path(__file__).with_name('page.html')
_LARGEST_BODY = 1_000_000
_FIELDS = ('x', 'y', 'theta', 'opening', 'jaw')


class AnnotationServer(ThreadingHTTPServer):
    """Serves ``folder`` on 127.0.0.1; ``port`` 0 takes a free one. OSError if it is taken."""

    daemon_threads = True

    def __init__(self, folder: CornellFolder, port: int = 0):
        """Listen; :meth:`serve_forever` answers."""
        super().__init__(('127.0.0.1', port), _Handler)
        self.folder = folder

    @property
    def url(self) -> str:
        """Address of the page."""
        return f'http://127.0.0.1:{self.server_address[1]}/'


class _Handler(BaseHTTPRequestHandler):
    server: AnnotationServer

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_PUT(self) -> None:
        self._answer(self._put)

    def log_message(self, *args: Any) -> None:
        """Be quiet: the page says what happens."""

    def _answer(self, method) -> None:
        try:
            self._refuse_strangers()
            method(urlsplit(self.path))
        except ConflictError as error:
            self._json({'error': str(error)}, HTTPStatus.CONFLICT)
        except PermissionError as error:
            self._json({'error': str(error)}, HTTPStatus.FORBIDDEN)
        except KeyError as error:
            self._json({'error': f'no such image or address: {error}'}, HTTPStatus.NOT_FOUND)
        except (DataError, ValueError, TypeError) as error:
            self._json({'error': str(error)}, HTTPStatus.BAD_REQUEST)
        except BrokenPipeError:
            pass                                    # the browser has gone on
        except OSError as error:
            self._json({'error': f'{error.strerror or error}: {error.filename}'},
                       HTTPStatus.INTERNAL_SERVER_ERROR)

    def _refuse_strangers(self) -> None:
        """Refuse pages of other sites that use the user's browser to reach this server."""
        own = self.server.url.split('/')[2]
        if self.headers.get('Host') not in (own, own.replace('127.0.0.1', 'localhost')):
            raise PermissionError('not this host')
        origin = self.headers.get('Origin')
        if origin and urlsplit(origin).netloc != self.headers['Host']:
            raise PermissionError('not from this page')

    def _get(self, url) -> None:
        if url.path == '/':
            self._send(PAGE.read_bytes(), 'text/html; charset=utf-8')
        elif url.path == '/api/images':
            counts = self.server.folder.counts()
            self._json([{'name': p.name, 'has_depth': p.depth is not None,
                         'good': counts[p.name][0], 'bad': counts[p.name][1]}
                        for p in self.server.folder.pictures])
        elif url.path == '/api/labels':
            found = self.server.folder.load(self._picture(url).name)
            self._json({'version': found.version, 'object': found.thing,
                        'labels': [{**dict(zip(_FIELDS, label.rectangle.as_array().tolist(),
                                               strict=True)), 'success': label.success}
                                   for label in found.labels]})
        elif url.path == '/picture':
            picture = self._picture(url)
            if parse_qs(url.query).get('kind', ['rgb'])[0] == 'depth':
                if picture.depth is None:
                    raise KeyError(f'depth of {picture.name}')
                image = colour_depth(checked_depth(picture.depth))
            else:
                image = checked_rgb(picture.rgb)
            self._send(cv2.imencode('.png', image[..., ::-1])[1].tobytes(), 'image/png')
        else:
            raise KeyError(url.path)

    def _put(self, url) -> None:
        if url.path != '/api/labels':
            raise KeyError(url.path)
        length = int(self.headers.get('Content-Length') or 0)
        if not 0 < length <= _LARGEST_BODY:
            raise ValueError(f'a body of {length} bytes')
        body = json.loads(self.rfile.read(length))
        if not isinstance(body, dict):
            raise ValueError('expected an object')
        try:
            labels = [Label(GraspRectangle(*(float(item[k]) for k in _FIELDS)),
                            bool(item['success'])) for item in body['labels']]
        except KeyError as error:
            raise ValueError(f'{error} is missing') from None
        version = self.server.folder.save(
            self._picture(url).name, labels, str(body.get('object', '')),
            str(body.get('version', '')), bool(body.get('overwrite', False)))
        self._json({'version': version})

    def _picture(self, url):
        name = parse_qs(url.query).get('name', [''])[0]
        return {p.name: p for p in self.server.folder.pictures}[name]

    def _json(self, content: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(content).encode(), 'application/json', status)

    def _send(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(len(body)))
        self.send_header('Cache-Control', 'no-store')
        self.end_headers()
        self.wfile.write(body)


def colour_depth(depth: np.ndarray) -> np.ndarray:
    """Depth (H, W) metres -> (H, W, 3) uint8 RGB; near is bright, holes are black."""
    valid = np.isfinite(depth)
    if not valid.any():
        return np.zeros((*depth.shape, 3), np.uint8)
    near, far = np.percentile(depth[valid], (1, 99))
    share = np.clip((far - np.where(valid, depth, far)) / max(far - near, 1e-6), 0, 1)
    image = cv2.applyColorMap((share * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
    return np.where(valid[..., None], image, 0).astype(np.uint8)

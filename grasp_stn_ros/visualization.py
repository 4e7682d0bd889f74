"""
Pictures of what the network considered, like Figs. 7 and 8 of the paper.

Colours run from red (score 0) over yellow to green (score 1); the thin sides of a rectangle are
the opening, the thick ones the jaws.
"""

from __future__ import annotations

from dataclasses import replace
import errno
import math
from pathlib import Path

import cv2
import numpy as np

from .atomic import write_atomically
from .detection import Candidate, Detection
from .names import PICTURES
from .rectangle import GraspRectangle

_SHIFT = 4  # sub-pixel bits of OpenCV's drawing functions
_WHITE, _BLACK, _BEST = (255, 255, 255), (0, 0, 0), (0, 200, 255)
STAGE_TITLES = ('1  STN crop: locations', '2  STN rotation: angles',
                '3  STN scale, crop: rectangles', '4  classifier: scores')


def score_colour(score: float) -> tuple[int, int, int]:
    """Score in [0, 1] -> RGB from red over yellow to green."""
    score = min(1.0, max(0.0, score))
    return (round(255 * min(1.0, 2 - 2 * score)), round(220 * min(1.0, 2 * score)), 30)


def _line(image: np.ndarray, start: np.ndarray, end: np.ndarray, colour: tuple[int, int, int],
          thickness: int = 1) -> None:
    scale = 2 ** _SHIFT
    cv2.line(image, tuple(int(round(v * scale)) for v in start),
             tuple(int(round(v * scale)) for v in end), colour, thickness, cv2.LINE_AA, _SHIFT)


def draw_rectangle(image: np.ndarray, rectangle: GraspRectangle, colour: tuple[int, int, int],
                   thickness: int = 1) -> None:
    """Draw onto (H, W, 3) uint8 in place: the jaws thicker than the opening."""
    corners = rectangle.corners
    for i in range(4):
        _line(image, corners[i], corners[(i + 1) % 4], colour, thickness + 2 * (i % 2))


def write_text(image: np.ndarray, text: str, at: tuple[float, float], colour: tuple[int, int, int],
          size: float = 0.45) -> None:
    """Write text on a dark plate, readable on any background, kept inside the image."""
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    x = int(min(max(at[0], 3), max(3, image.shape[1] - width - 3)))
    y = int(min(max(at[1], height + 3), image.shape[0] - below - 2))
    # A plate and not an outline: OpenCV 4 and 5 place thicker letters differently.
    plate = image[max(0, y - height - 3):y + below + 1, max(0, x - 3):x + width + 3]
    plate[:] = plate // 3
    cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def _draw_location(image: np.ndarray, candidate: Candidate) -> None:
    centre = tuple(int(round(v * 2 ** _SHIFT)) for v in candidate.location)
    colour = score_colour(candidate.location_score)
    cv2.circle(image, centre, 7 * 2 ** _SHIFT, _BLACK, 3, cv2.LINE_AA, _SHIFT)
    cv2.circle(image, centre, 7 * 2 ** _SHIFT, colour, 2, cv2.LINE_AA, _SHIFT)
    write_text(image, f'{candidate.location_score:.2f}',
          (candidate.location[0] + 10, candidate.location[1] - 6), colour)


def _draw_angle(image: np.ndarray, candidate: Candidate) -> None:
    centre = np.array(candidate.location)
    direction = np.array([math.cos(candidate.theta), math.sin(candidate.theta)])
    for colour, thickness in ((_BLACK, 4), (_WHITE, 2)):
        _line(image, centre - 26 * direction, centre + 26 * direction, colour, thickness)
    across = np.array([-direction[1], direction[0]])
    for end in (centre - 26 * direction, centre + 26 * direction):
        _line(image, end - 6 * across, end + 6 * across, _WHITE, 2)
    write_text(image, f'{math.degrees(candidate.theta):.0f} deg',
          (centre[0] + 12, centre[1] - 12), _WHITE)


def draw_detection(rgb: np.ndarray, detection: Detection) -> np.ndarray:
    """Image (H, W, 3) uint8 RGB -> a copy with all rectangles, the best one highlighted."""
    image = rgb.copy()
    for candidate in reversed(detection.candidates):
        if candidate is not detection.best:
            draw_rectangle(image, candidate.rectangle, score_colour(candidate.score))
    if detection.best is not None:
        draw_rectangle(image, detection.best.rectangle, _BLACK, 4)
        draw_rectangle(image, detection.best.rectangle, _BEST, 2)
        write_text(image, f'{detection.best.score:.2f}',
              (detection.best.rectangle.x + 12, detection.best.rectangle.y - 12), _BEST)
    else:
        write_text(image, detection.reason.name, (8, 20), (255, 80, 80), 0.6)
    return image


def draw_stages(rgb: np.ndarray, detection: Detection, height: int = 360,
                titles: tuple[str, str, str, str] = STAGE_TITLES) -> np.ndarray:
    """
    Draw the image and its four stages side by side, called ``titles``.

    Image (H, W, 3) uint8 RGB -> (height, 5 * height, 3) uint8 RGB. The first panel shows what the
    network saw, the others the part of it where the candidates are, enlarged.
    """
    x, y, width, _ = detection.region
    seen = (x, y, width) if width >= 1 else _square(rgb)
    near = _around_candidates(detection, seen)
    first, _ = _panel(rgb, seen, height)
    corner = (np.array(near[:2]) - seen[:2]) * height / seen[2]
    side = near[2] * height / seen[2]
    cv2.rectangle(first, tuple(np.rint(corner).astype(int).tolist()),
                  tuple(np.rint(corner + side).astype(int).tolist()), _WHITE, 1, cv2.LINE_AA)
    panel, matrix = _panel(rgb, near, height)
    panels = [first, *(panel.copy() for _ in range(4))]
    candidates = [_moved(candidate, matrix) for candidate in detection.candidates]
    best = next((i for i, c in enumerate(detection.candidates) if c is detection.best), None)
    for index in reversed(range(len(candidates))):
        candidate = candidates[index]
        _draw_location(panels[1], candidate)
        _draw_angle(panels[2], candidate)
        draw_rectangle(panels[3], candidate.rectangle, _BLACK, 3)
        draw_rectangle(panels[3], candidate.rectangle, _WHITE)
        if index != best:
            colour = score_colour(candidate.score)
            draw_rectangle(panels[4], candidate.rectangle, colour)
            write_text(panels[4], f'{candidate.score:.2f}',
                  (candidate.rectangle.x + 10, candidate.rectangle.y - 10), colour)
    if best is not None:
        rectangle = candidates[best].rectangle
        draw_rectangle(panels[4], rectangle, _BLACK, 4)
        draw_rectangle(panels[4], rectangle, _BEST, 2)
        write_text(panels[4], f'best {candidates[best].score:.2f}',
              (rectangle.x + 12, rectangle.y - 14), _BEST)
    for title, image in zip(('input', *titles), panels, strict=True):
        write_text(image, title, (8, 20), _WHITE, 0.5)
    if best is None:
        write_text(panels[4], f'no grasp: {detection.reason.name}', (8, 44), (255, 110, 110), 0.5)
    return np.ascontiguousarray(np.hstack(panels))


def _square(rgb: np.ndarray) -> tuple[float, float, float]:
    """Left, top and side of the square around the whole image."""
    side = float(max(rgb.shape[:2]))
    return (rgb.shape[1] - side) / 2, (rgb.shape[0] - side) / 2, side


def _around_candidates(detection: Detection, seen: tuple[float, float, float]) \
        -> tuple[float, float, float]:
    """Left, top and side of a square around all candidates, at least a third of what was seen."""
    if not detection.candidates:
        return seen
    points = np.concatenate([np.vstack([c.rectangle.corners, c.location])
                             for c in detection.candidates])
    low, high = points.min(axis=0), points.max(axis=0)
    side = float(max(1.3 * (high - low).max(), seen[2] / 3))
    if side >= seen[2]:
        return seen
    centre = (low + high) / 2
    # Inside what was seen, as far as the candidates are.
    corner = np.clip(centre - side / 2, seen[:2], np.array(seen[:2]) + seen[2] - side)
    return float(corner[0]), float(corner[1]), side


def _panel(rgb: np.ndarray, square: tuple[float, float, float], size: int) \
        -> tuple[np.ndarray, np.ndarray]:
    """Part of the image as (size, size, 3), and the matrix (2, 3) from image to panel pixels."""
    x, y, side = square
    scale = size / side
    # (x, y) is the first pixel of the square, whose border is half a pixel before its centre.
    matrix = np.array([[scale, 0.0, scale * (0.5 - x) - 0.5],
                       [0.0, scale, scale * (0.5 - y) - 0.5]])
    flags = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    return cv2.warpAffine(rgb, matrix, (size, size), flags=flags), matrix


def _moved(candidate: Candidate, matrix: np.ndarray) -> Candidate:
    """Map a candidate into a panel."""
    x, y = matrix[:, :2] @ candidate.location + matrix[:, 2]
    return replace(candidate, location=(float(x), float(y)),
                   rectangle=candidate.rectangle.transformed(matrix))


def write_picture(path: Path, picture: np.ndarray) -> None:
    """
    Write (H, W, 3) uint8 RGB as PNG or JPEG, by the name of ``path``; raises OSError.

    Its ``filename`` and ``strerror`` say what is wrong with which file.
    """
    if path.suffix.lower() not in PICTURES:
        raise OSError(errno.EINVAL, 'pictures are written as .png or .jpg', str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not cv2.imwrite: on a full disk it leaves half a picture and says nothing.
    encoded, content = cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not encoded:
        raise OSError(errno.EINVAL, 'cannot be encoded', str(path))
    try:
        write_atomically(path, content.tobytes(), sync=False)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None

"""
Pictures of what the network considered, like Figs. 7 and 8 of the paper.

Colours run from red (score 0) over yellow to green (score 1); the thin sides of a rectangle are
the opening, the thick ones the jaws.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from .detection import Candidate, Detection
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


def _text(image: np.ndarray, text: str, at: tuple[float, float], colour: tuple[int, int, int],
          size: float = 0.45) -> None:
    """Write text with a dark border, readable on any background, kept inside the image."""
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    x = int(min(max(at[0], 2), max(2, image.shape[1] - width - 2)))
    y = int(min(max(at[1], height + 2), image.shape[0] - 3))
    cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, _BLACK, 3, cv2.LINE_AA)
    cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def _draw_location(image: np.ndarray, candidate: Candidate) -> None:
    centre = tuple(int(round(v * 2 ** _SHIFT)) for v in candidate.location)
    colour = score_colour(candidate.location_score)
    cv2.circle(image, centre, 7 * 2 ** _SHIFT, _BLACK, 3, cv2.LINE_AA, _SHIFT)
    cv2.circle(image, centre, 7 * 2 ** _SHIFT, colour, 2, cv2.LINE_AA, _SHIFT)
    _text(image, f'{candidate.location_score:.2f}',
          (candidate.location[0] + 10, candidate.location[1] - 6), colour)


def _draw_angle(image: np.ndarray, candidate: Candidate) -> None:
    centre = np.array(candidate.location)
    direction = np.array([math.cos(candidate.theta), math.sin(candidate.theta)])
    for colour, thickness in ((_BLACK, 4), (_WHITE, 2)):
        _line(image, centre - 26 * direction, centre + 26 * direction, colour, thickness)
    across = np.array([-direction[1], direction[0]])
    for end in (centre - 26 * direction, centre + 26 * direction):
        _line(image, end - 6 * across, end + 6 * across, _WHITE, 2)
    _text(image, f'{math.degrees(candidate.theta):.0f} deg',
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
        _text(image, f'{detection.best.score:.2f}',
              (detection.best.rectangle.x + 12, detection.best.rectangle.y - 12), _BEST)
    else:
        _text(image, detection.reason.name, (8, 20), (255, 80, 80), 0.6)
    return image


def draw_stages(rgb: np.ndarray, detection: Detection, height: int = 360) -> np.ndarray:
    """
    Draw the image and its four stages side by side.

    Image (H, W, 3) uint8 RGB -> (height, 5 * width, 3) uint8 RGB, each panel showing the region
    that the network saw.
    """
    panels = [rgb.copy() for _ in range(5)]
    for candidate in reversed(detection.candidates):
        _draw_location(panels[1], candidate)
        _draw_angle(panels[2], candidate)
        draw_rectangle(panels[3], candidate.rectangle, _WHITE)
        if candidate is not detection.best:
            draw_rectangle(panels[4], candidate.rectangle, score_colour(candidate.score))
            _text(panels[4], f'{candidate.score:.2f}',
                  (candidate.rectangle.x + 10, candidate.rectangle.y - 10),
                  score_colour(candidate.score))
    best = detection.best
    if best is not None:
        draw_rectangle(panels[4], best.rectangle, _BLACK, 4)
        draw_rectangle(panels[4], best.rectangle, _BEST, 2)
        _text(panels[4], f'best {best.score:.2f}',
              (best.rectangle.x + 12, best.rectangle.y - 14), _BEST)
    left, top, right, bottom = _shown(detection, rgb.shape[1], rgb.shape[0])
    titles = ('input', *STAGE_TITLES)
    result = []
    for title, panel in zip(titles, panels, strict=True):
        panel = panel[top:bottom, left:right]
        width = round(panel.shape[1] * height / panel.shape[0])
        panel = cv2.resize(panel, (width, height), interpolation=cv2.INTER_AREA)
        _text(panel, title, (8, 20), _WHITE, 0.5)
        result.append(panel)
    if best is None:
        _text(result[4], f'no grasp: {detection.reason.name}', (8, 42), (255, 110, 110), 0.5)
    return np.ascontiguousarray(np.hstack(result))


def _shown(detection: Detection, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the region that the network saw, cut to the image."""
    x, y, w, h = detection.region
    if w < 1 or h < 1:
        return 0, 0, width, height
    left, top = max(0, round(x)), max(0, round(y))
    return left, top, min(width, round(x + w)), min(height, round(y + h))

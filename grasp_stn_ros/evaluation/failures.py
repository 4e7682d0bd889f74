"""Pictures of what went wrong, surest failures first: to be looked at, not to be counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..data.sample import Dataset
from ..detection import Candidate
from ..detector import GraspDetector
from ..rectangle import GraspRectangle
from ..rgbd import RgbdFrame
from ..simulation.domain import BASIC, Domain
from ..simulation.objects import SimObject
from ..visualization import write_picture
from .accuracy import Outcome
from .lift import open_single

COUNT, COLUMNS = 24, 6
_TILE = 240
_GOOD, _ANSWER, _JAWS = (60, 200, 60), (230, 60, 40), (40, 90, 250)


def draw_worst(path: str | Path, data: Dataset, outcomes: Sequence[Outcome]) -> None:
    """Draw wrong answers to the rectangle metric with the graspable labels in green."""
    wrong = sorted((o for o in outcomes if not o.plain), key=lambda o: -o.score)[:COUNT]
    tiles = []
    for outcome in wrong:
        sample = data[outcome.index]
        labels = sample.graspable()
        tiles.append(tile(sample.frame.rgb, labels, outcome.best,
                          f'{sample.name} {outcome.score:.2f}'))
    write_sheet(path, tiles)


def draw_failed(path: str | Path, detector: GraspDetector, seed: int, rows: list[dict[str, Any]],
                make: Callable[[np.random.Generator], SimObject] | None,
                domain: Domain = BASIC) -> None:
    """Draw grasps that did not lift, with the outcome of the trial."""
    failed = sorted((r for r in rows if r['outcome'] != 'lifted'),
                    key=lambda r: -(r['score'] or 0.0))[:COUNT]
    tiles = []
    for row in failed:
        scene = open_single(seed, row['scene'], make, domain)
        try:
            assert scene.frame is not None
            best = detector.detect(scene.frame).best
            text = f'{row["family"]}: {row["outcome"]} {row["score"] or 0.0:.2f}'
            tiles.append(tile(scene.frame.rgb, [], best.rectangle if best else None, text,
                              scene.render().segmentation > 0))
        finally:
            scene.close()
    write_sheet(path, tiles)


class FailedAttempts:
    """Collects failed grasps of :func:`clutter.run_scene` and draws the surest ones."""

    def __init__(self) -> None:
        """Nothing has failed yet."""
        self._tiles: list[tuple[float, np.ndarray]] = []

    def watch(self, frame: RgbdFrame, candidate: Candidate, outcome: str) -> None:
        """Remember one; the objects move on, so that it is drawn now."""
        self._tiles.append((candidate.score, tile(frame.rgb, [], candidate.rectangle,
                                                  f'{outcome} {candidate.score:.2f}')))

    def draw(self, path: str | Path) -> None:
        """Write the picture."""
        surest = sorted(self._tiles, key=lambda scored: -scored[0])[:COUNT]
        write_sheet(path, [drawn for _, drawn in surest])


def tile(rgb: np.ndarray, labels: Sequence[GraspRectangle], answer: GraspRectangle | None,
         text: str, mask: np.ndarray | None = None) -> np.ndarray:
    """
    Cut out what matters, draw, and write ``text`` under it: (TILE, TILE, 3) uint8 RGB.

    What matters are ``labels``, ``answer`` and the pixels of ``mask`` (H, W) bool.
    """
    points = [np.array([[r.x, r.y]]) for r in [*labels, *([answer] if answer else [])]]
    if mask is not None and mask.any():
        points.append(np.argwhere(mask)[:, ::-1].astype(float))
    around = np.concatenate(points) if points else np.array([[rgb.shape[1] / 2, rgb.shape[0] / 2]])
    low, high = around.min(axis=0), around.max(axis=0)
    half = float(np.clip(np.max(high - low) / 2 + 30, 60, min(rgb.shape[:2]) / 2))
    scale = _TILE / (2 * half)
    shift = _TILE / 2 - scale * (low + high) / 2
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    drawn = cv2.warpAffine(rgb, matrix, (_TILE, _TILE), borderValue=(127, 127, 127))
    for label in labels:
        _rectangle(drawn, label.transformed(matrix), _GOOD, _GOOD, 1)
    if answer is not None:
        _rectangle(drawn, answer.transformed(matrix), _ANSWER, _JAWS, 2)
    cv2.rectangle(drawn, (0, _TILE - 18), (_TILE, _TILE), (0, 0, 0), -1)
    cv2.putText(drawn, text, (4, _TILE - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1,
                cv2.LINE_AA)
    return drawn


def _rectangle(image: np.ndarray, rectangle: GraspRectangle, sides: tuple[int, int, int],
               jaws: tuple[int, int, int], width: int) -> None:
    corners = np.rint(rectangle.corners).astype(int)
    for i in range(4):
        # Corners 1-2 and 3-0 are the jaw plates.
        cv2.line(image, tuple(map(int, corners[i])), tuple(map(int, corners[(i + 1) % 4])),
                 jaws if i % 2 else sides, width, cv2.LINE_AA)


def write_sheet(path: str | Path, tiles: list[np.ndarray]) -> None:
    """Write tiles (TILE, TILE, 3) uint8 RGB as one picture, six to a row."""
    if not tiles:
        tiles = [np.full((_TILE, _TILE, 3), 255, np.uint8)]
    blank = np.full_like(tiles[0], 255)
    tiles = tiles + [blank] * (-len(tiles) % COLUMNS if len(tiles) > COLUMNS else 0)
    rows = [np.hstack(tiles[i:i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)]
    write_picture(Path(path), np.vstack(rows))

"""Procedural textures: value noise, wood, stripes, labels with letters, dots."""

from __future__ import annotations

import cv2
import numpy as np


def noise(rng: np.random.Generator, size: int, colour, contrast: float,
          wood: bool = False) -> np.ndarray:
    """Fractal noise around ``colour`` (3,) in [0, 1] -> (size, size, 3) uint8."""
    value = np.zeros((size, size), np.float32)
    for octave in range(1, 7):
        cells = 2 ** octave
        # Grain of wood: fine in one direction, slow along the other.
        shape = (4 * cells + 1, max(2, cells // 4) + 1) if wood else (cells + 1, cells + 1)
        grid = rng.standard_normal(shape, np.float32)
        value += cv2.resize(grid, (size, size), interpolation=cv2.INTER_LINEAR) / cells ** 0.8
    value = (value - value.mean()) / (value.std() + 1e-6)
    tint = (np.asarray(colour) * rng.uniform(0.5, 1, 3) * contrast * 0.3).astype(np.float32)
    image = np.asarray(colour, np.float32) + value[..., None] * tint
    return (np.clip(image, 0, 1) * 255).astype(np.uint8)


def table(rng: np.random.Generator, size: int) -> np.ndarray:
    """A table top: mostly light and grey, sometimes coloured, sometimes wood; uint8 RGB."""
    kind = rng.random()
    if kind < 0.6:
        colour = rng.uniform(0.6, 0.98) * rng.uniform(0.93, 1, 3)
    elif kind < 0.75:
        colour = np.array([0.62, 0.45, 0.28]) * rng.uniform(0.6, 1.4)
    else:
        colour = rng.uniform(0.1, 0.9, 3)
    quarter = noise(rng, size // 2, np.clip(colour, 0, 1), rng.uniform(0.02, 0.35),
                    wood=bool(rng.random() < 0.35))
    # Mirrored, so that the repetitions on the table show no seams.
    half = np.concatenate([quarter, quarter[:, ::-1]], axis=1)
    image = np.ascontiguousarray(np.concatenate([half, half[::-1]]))
    if rng.random() < 0.08:
        # A tablecloth or tiles.
        step = int(rng.integers(size // 16, size // 4))
        line = rng.uniform(0, 255, 3)
        width = int(rng.integers(1, max(2, step // 3)))
        for start in range(0, size, step):
            image[start:start + width] = line
            image[:, start:start + width] = line
    return image


def _colour(rng) -> tuple[float, float, float]:
    r, g, b = rng.uniform(0, 255, 3)
    return float(r), float(g), float(b)


def surface(rng: np.random.Generator, size: int, plain: bool = False) -> np.ndarray:
    """
    The surface of an object (size, size, 3) uint8 RGB.

    ``plain`` objects get a colour with some noise only: the parts of a ring or a bowl carry the
    picture each on its own, so a pattern would show their seams.
    """
    image = noise(rng, size, rng.uniform(0.03, 0.97, 3), rng.uniform(0, 0.6),
                  wood=bool(rng.random() < 0.15))
    kind = 0 if plain else int(rng.integers(5))
    if kind in (1, 2):
        for _ in range(int(rng.integers(1, 4))):
            start = int(rng.integers(0, size - 8))
            image[start:start + int(rng.integers(4, size // 3))] = rng.uniform(0, 255, 3)
    if kind == 2:
        for _ in range(int(rng.integers(2, 8))):
            text = ''.join(chr(c) for c in rng.integers(65, 91, int(rng.integers(2, 7))))
            corner = (int(rng.integers(0, size // 2)), int(rng.integers(10, size)))
            cv2.putText(image, text, corner, cv2.FONT_HERSHEY_SIMPLEX,
                        float(rng.uniform(0.3, 1)), _colour(rng), 2)
    if kind == 3:
        for _ in range(int(rng.integers(5, 25))):
            centre = (int(rng.integers(size)), int(rng.integers(size)))
            cv2.circle(image, centre, int(rng.integers(2, size // 6)), _colour(rng), -1)
    return image

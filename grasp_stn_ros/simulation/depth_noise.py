"""
What depth cameras make of the true depth: structured light, active stereo, time of flight.

All take noise-free depth (H, W) in metres and return measured depth (H, W) float32 in metres with
NaN for holes. They are models of the errors that matter for grasping, not of any one device.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from ..rgbd import CameraIntrinsics

BASELINE = 0.075          # metres between projector and camera
DISPARITY_STEP = 1 / 8    # pixels: the sensor's sub-pixel steps
RANGE = (0.35, 4.5)       # metres that the sensor can measure


def structured_light(depth: np.ndarray, intrinsics: CameraIntrinsics,
                     rng: np.random.Generator) -> np.ndarray:
    """
    Noise-free depth (H, W) in metres -> measured depth (H, W) float32 in metres, NaN = hole.

    In the order of the real causes: ragged edges, noisy and quantized disparity (so the error
    grows with z squared), no measurement where the projector does not reach, at depth edges, on
    surfaces seen at a grazing angle, and in random blobs (gloss).
    """
    height, width = depth.shape
    true = np.asarray(depth, np.float32)
    measurable = (true > RANGE[0]) & (true < RANGE[1])                # False for NaN as well
    true = np.where(measurable, true, np.float32(RANGE[1]))
    scale = np.float32(intrinsics.fx * BASELINE)

    def smooth_noise(sigma: float, amplitude: float) -> np.ndarray:
        raw = rng.standard_normal((height, width), np.float32)
        return cv2.GaussianBlur(raw, (0, 0), sigma) * np.float32(amplitude)

    # The correlation window of the matcher moves edges to and fro by about half a pixel.
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32),
                                np.arange(height, dtype=np.float32))
    ragged = cv2.remap(true, columns + smooth_noise(0.8, 1.4), rows + smooth_noise(0.8, 1.4),
                       cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)

    disparity = scale / ragged + smooth_noise(1.0, 0.25)
    disparity = np.round(disparity / DISPARITY_STEP) * DISPARITY_STEP
    measured = scale / np.maximum(disparity, DISPARITY_STEP)

    # Shadow: going left along a row, the projector's column must decrease. A pixel whose column
    # lies beyond one seen farther right is behind a nearer surface there, out of its light.
    projector = columns - scale / true
    nearer = np.minimum.accumulate(projector[:, ::-1], axis=1)[:, ::-1]
    hole = np.zeros((height, width), bool)
    hole[:, :-1] = projector[:, :-1] > nearer[:, 1:] + 1.0

    # Depth change per pixel (metres); times f / z it is the tangent of the incidence angle.
    change = np.hypot(cv2.Sobel(true, cv2.CV_32F, 1, 0, scale=0.125),
                      cv2.Sobel(true, cv2.CV_32F, 0, 1, scale=0.125))
    chance = rng.random((height, width), np.float32)
    hole |= (change > 0.008) & (chance < 0.5)
    hole |= (change * np.float32(intrinsics.fx) / true > 4) & (chance < 0.7)

    blobs = np.zeros((height, width), np.uint8)
    for _ in range(int(rng.poisson(3))):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(1, 7)), int(rng.integers(1, 7)))
        cv2.ellipse(blobs, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    hole |= (blobs > 0) | ~measurable
    return np.where(hole, np.float32(np.nan), measured).astype(np.float32)


def stereo(depth: np.ndarray, intrinsics: CameraIntrinsics,
           rng: np.random.Generator) -> np.ndarray:
    """
    Active stereo (RealSense D4xx, ZED): a matcher with a window of several pixels.

    Depth edges are rounded off and swell by the window, disparity noise is correlated over it,
    and holes lie in bands beside near objects, which the second camera sees from another side.
    Baselines of 50 to 75 mm, windows of 5 to 9 pixels.
    """
    height, width = depth.shape
    baseline, window = rng.uniform(0.05, 0.075), int(rng.choice([5, 7, 9]))
    measurable = np.isfinite(depth) & (depth > 0.2) & (depth < 6.0)
    true = np.where(measurable, depth, np.float32(6.0)).astype(np.float32)
    scale = np.float32(intrinsics.fx * baseline)
    disparity = scale / true
    # The nearer surface wins inside the window, then the matcher averages over it.
    kernel = np.ones((window // 2 + 1, window // 2 + 1), np.uint8)
    disparity = cv2.GaussianBlur(cv2.dilate(disparity, kernel), (0, 0), window / 5)
    raw = rng.standard_normal((height, width), np.float32)
    correlated = cv2.GaussianBlur(raw, (0, 0), window / 3)
    correlated *= np.float32(rng.uniform(0.04, 0.12) / max(float(correlated.std()), 1e-6))
    disparity = disparity + correlated
    disparity = np.round(disparity * 32) / 32
    measured = scale / np.maximum(disparity, np.float32(1 / 32))

    columns = np.arange(width, dtype=np.float32)
    seen_at = columns - scale / true                     # column in the second camera
    nearer = np.minimum.accumulate(seen_at[:, ::-1], axis=1)[:, ::-1]
    hole = np.zeros((height, width), bool)
    hole[:, :-1] = seen_at[:, :-1] > nearer[:, 1:] + 0.5
    hole = cv2.morphologyEx(hole.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 1), np.uint8)) > 0
    hole |= _blobs((height, width), rng, rng.poisson(6), 12) | ~measurable
    # What left the second image on the left has no partner at all.
    hole |= seen_at < 0
    return np.where(hole, np.float32(np.nan), measured).astype(np.float32)


def time_of_flight(depth: np.ndarray, intrinsics: CameraIntrinsics,
                   rng: np.random.Generator) -> np.ndarray:
    """
    Time of flight (Azure Kinect, L515): little noise, but mixed pixels along depth edges.

    Light of both surfaces beside an edge falls into one pixel, whose depth lies in between; some
    of these the camera notices and drops. Concave corners are rounded off by light that was
    reflected twice. Noise of 1 to 4 mm, no structure of a matcher.
    """
    height, width = depth.shape
    measurable = np.isfinite(depth) & (depth > 0.15) & (depth < 6.0)
    true = np.where(measurable, depth, np.float32(6.0)).astype(np.float32)
    mixed = cv2.GaussianBlur(true, (0, 0), rng.uniform(0.6, 1.2))
    # Light that took the longer way over a second surface: concave corners look farther away.
    near = cv2.GaussianBlur(true, (0, 0), 6.0)
    several = np.clip(near - true, -0.02, 0.02) * np.float32(rng.uniform(0, 0.15))
    noise = rng.standard_normal((height, width), np.float32) * np.float32(
        rng.uniform(0.001, 0.003)) * np.maximum(true, 0.5)
    measured = mixed + several + noise
    change = np.abs(mixed - true)
    chance = rng.random((height, width), np.float32)
    hole = (change > 0.02) & (chance < rng.uniform(0.3, 0.9))
    hole |= _blobs((height, width), rng, rng.poisson(2), 8) | ~measurable
    return np.where(hole, np.float32(np.nan), measured).astype(np.float32)


def _blobs(shape: tuple[int, int], rng: np.random.Generator, count: int,
           largest: int) -> np.ndarray:
    """Elliptic spots without measurement (gloss, dark cloth) as a mask (H, W) bool."""
    height, width = shape
    mask = np.zeros(shape, np.uint8)
    for _ in range(int(count)):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(1, largest)), int(rng.integers(1, largest)))
        cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    return mask > 0


def misregistered(depth: np.ndarray, largest: float, rng: np.random.Generator) -> np.ndarray:
    """
    Shift depth (H, W) against colour by up to ``largest`` pixels: a poor hand-eye of the two.

    Half of the frames are well registered; pixels that come from outside are holes.
    """
    if rng.random() < 0.5:
        return depth
    direction, length = rng.uniform(0, 2 * np.pi), rng.uniform(1.0, largest)
    matrix = np.array([[1.0, 0.0, length * np.cos(direction)],
                       [0.0, 1.0, length * np.sin(direction)]])
    return cv2.warpAffine(depth, matrix, depth.shape[::-1], flags=cv2.INTER_NEAREST,
                          borderMode=cv2.BORDER_CONSTANT, borderValue=float('nan'))


SENSORS: dict[str, Callable[[np.ndarray, CameraIntrinsics, np.random.Generator], np.ndarray]] = {
    'structured_light': structured_light, 'stereo': stereo, 'time_of_flight': time_of_flight}

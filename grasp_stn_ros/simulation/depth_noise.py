"""What a structured-light camera (Kinect v1, Astra) makes of the true depth."""

from __future__ import annotations

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

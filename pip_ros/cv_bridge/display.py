"""
Stand-in for ``cvtColorForDisplay`` of ``cv_bridge``: any image as one a viewer can show.

Only installed where the real package is missing.
"""

import cv2
import numpy as np

from .encodings import cvtColor2, parse

_BACKGROUND_LABEL = -1


def _paint_labels(labels):
    """Give every label (H, W) int32 a saturated colour, black to the background: (H, W, 3) BGR."""
    # Steps of 134 degrees (67 of OpenCV's half degrees) keep the hues of neighbours far apart.
    hue = (labels.astype(np.int64) % 180 * 67 % 180).astype(np.uint8)
    full = np.full_like(hue, 255)
    painted = cv2.cvtColor(np.dstack([hue, full, full]), cv2.COLOR_HSV2BGR)
    painted[labels == _BACKGROUND_LABEL] = 0
    return painted


def _finite_range(image):
    """Return (least, greatest) of the finite pixels, (0, 0) if there is none."""
    finite = image[np.isfinite(image)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def cvtColorForDisplay(
        source, encoding_in, encoding_out, do_dynamic_scaling=False, min_image_value=0.0,
        max_image_value=0.0, colormap=-1):
    """
    Return ``source`` as an image that a viewer can show.

    - ``encoding_out``: an 8-bit colour or mono encoding; '' means bgr8.
    - ``do_dynamic_scaling``: stretch the finite pixels to 0-255 (single channel only).
    - ``min_image_value``, ``max_image_value``: stretch this range instead, if they differ.
    - ``colormap``: one of OpenCV's (``cv2.COLORMAP_JET``) for the stretched image; -1 for grey.

    Labels (32SC1 to bgr8) get one colour each, -1 gets black.
    """
    encoding_out = encoding_out or 'bgr8'
    target = parse(encoding_out)
    if target.depth != '8U' or target.layout not in ('GRAY', 'RGB', 'BGR', 'RGBA', 'BGRA'):
        raise RuntimeError(f'[{encoding_out}] is not an 8-bit colour or mono encoding')
    if encoding_in == '32SC1' and encoding_out == 'bgr8':
        return _paint_labels(source)

    low, high = float(min_image_value), float(max_image_value)
    if do_dynamic_scaling:
        low, high = _finite_range(source)
        if low == high:
            shape = source.shape[:2] if target.channels == 1 else (*source.shape[:2],
                                                                   target.channels)
            return np.full(shape, 128, np.uint8)
    if low == high:
        # Nothing to stretch: 16-bit depth counts as mono, the rest has to say what it is.
        return cvtColor2(source, 'mono16' if encoding_in == '16UC1' else encoding_in, encoding_out)

    if parse(encoding_in).channels != 1:
        raise RuntimeError('only images of one channel can be stretched')
    finite = np.isfinite(source)
    stretched = (np.where(finite, source, low).astype(np.float64) - low) * 255 / (high - low)
    grey = np.rint(np.clip(stretched, 0, 255)).astype(np.uint8)
    if colormap == -1:
        return cvtColor2(grey, 'mono8', encoding_out)
    coloured = cv2.applyColorMap(grey, colormap)
    coloured[~finite] = 0
    return cvtColor2(coloured, 'bgr8', encoding_out)

"""
What is different on a GPU: the input is prepared there, and the network may be one CUDA graph.

:class:`TensorPreprocessor` does what :func:`preprocessing.preprocess` does, with tensors of any
device; on the CPU it is the slower one of the two and only there to be compared. Only the fit of
the support plane, to 2000 pixels, stays on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
import math

import cv2
import numpy as np
import torch
from torch import Tensor
import torch.nn.functional as F

from .preprocessing import (
    CHANNELS,
    HEIGHT_RANGE,
    HEIGHT_SCALE,
    NORMAL_KERNEL,
    NORMAL_SIGMA,
    NetworkInput,
    View,
    ViewDepth,
    rotation_to_z,
    view_depth,
)
from .reasons import GraspError, Reason
from .rgbd import CameraIntrinsics, RgbdFrame
from .support_plane import SupportPlane


class TensorPreprocessor:
    """Prepares frames on ``device``; buffers for the copies are kept and, for CUDA, pinned."""

    def __init__(self, device: torch.device):
        """Make the constant kernels; buffers come with the first frame."""
        self.device = device
        self._staging: dict[str, Tensor] = {}
        gauss = cv2.getGaussianKernel(NORMAL_KERNEL, NORMAL_SIGMA, cv2.CV_32F)[:, 0]
        self._gauss = torch.from_numpy(gauss).to(device)
        sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
        self._sobel = torch.stack([sobel, sobel.T])[:, None].to(device)

    def _upload(self, name: str, array: np.ndarray) -> Tensor:
        """Copy ``array`` to the device through a pinned buffer, without waiting for the copy."""
        source = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type != 'cuda':
            return source
        buffer = self._staging.get(name)
        if buffer is None or buffer.shape != source.shape or buffer.dtype != source.dtype:
            buffer = self._staging[name] = torch.empty(source.shape, dtype=source.dtype,
                                                       pin_memory=True)
        # The result of the last frame has been fetched: nothing reads this buffer any more.
        buffer.copy_(source)
        return buffer.to(self.device, non_blocking=True)

    def __call__(self, frame: RgbdFrame, view: View, use_rgb: bool = True,
                 use_depth: bool = True,
                 known: ViewDepth | None = None) -> tuple[Tensor, NetworkInput]:
        """
        Prepare ``frame`` -> channels (1, 7, S, S) on the device, and the rest of the result.

        The ``channels`` of that rest are empty. Raises :class:`GraspError` (NO_DEPTH).
        """
        size = view.size
        channels = torch.zeros(1, CHANNELS, size, size, device=self.device)
        seen = view_depth(frame, view, known=known) if use_depth else None
        if not use_rgb and (seen is None or not seen.valid.any()):
            raise GraspError(Reason.NO_DEPTH, 'neither colour nor depth to work with')
        if use_rgb:
            channels[0, :3] = self._colour(frame.rgb, view)
        valid = np.zeros((size, size), bool) if seen is None else seen.valid
        rest = NetworkInput(np.zeros((CHANNELS, 0, 0), np.float32), valid, view, None)
        if seen is not None and seen.valid.any():
            plane = seen.plane or SupportPlane(np.array([0.0, 0.0, -1.0]),
                                               float(np.nanmedian(seen.depth)), 0.0)
            channels[0, 3:] = self._depth(self._upload('depth', seen.depth), seen.camera, plane)
            rest = NetworkInput(rest.channels, valid, view, seen.support, seen.density)
        return channels.contiguous(memory_format=torch.channels_last), rest

    def _colour(self, rgb: np.ndarray, view: View) -> Tensor:
        """Warp (H, W, 3) uint8 into the view -> (3, S, S) in [-1, 1], 0 outside the image."""
        image = self._upload('rgb', rgb).permute(2, 0, 1)[None].float() / 127.5 - 1.0
        matrix = view.inverse
        factor = int(1 / view.scale + 1e-6)
        if factor >= 2:
            # As on the CPU: averages over whole pixels first, with the border repeated.
            right, below = -image.shape[3] % factor, -image.shape[2] % factor
            image = F.avg_pool2d(F.pad(image, (0, right, 0, below), mode='replicate'), factor)
            # Pixel centres: x_small = (x + 0.5) / factor - 0.5.
            matrix = np.concatenate([matrix[:, :2] / factor,
                                     (matrix[:, 2:] + 0.5) / factor - 0.5], axis=1)
        height, width = image.shape[2:]
        size = view.size
        line = torch.arange(size, device=self.device, dtype=torch.float32)
        (a, b, c), (d, e, f) = matrix.tolist()
        x = a * line[None, :] + b * line[:, None] + c
        y = d * line[None, :] + e * line[:, None] + f
        grid = torch.stack([(x + 0.5) * (2 / width) - 1, (y + 0.5) * (2 / height) - 1], -1)
        return F.grid_sample(image, grid[None], align_corners=False)[0]

    def _depth(self, depth: Tensor, camera: CameraIntrinsics, plane: SupportPlane) -> Tensor:
        """Height and normals (4, S, S) of ``depth`` (S, S) with NaN for holes."""
        size = depth.shape[0]
        valid = torch.isfinite(depth)
        line = torch.arange(size, device=self.device, dtype=torch.float32)
        x = ((line - camera.cx) / camera.fx)[None, :]
        y = ((line - camera.cy) / camera.fy)[:, None]
        nx, ny, nz = plane.normal.tolist()
        slope = nx * x + ny * y + nz
        height = slope * torch.where(valid, depth, 0.0) + plane.offset
        height = fill_holes(height, valid)
        z = (self._blurred(height) - plane.offset) / slope.clamp(max=-0.05)
        padded = F.pad(z[None, None], (1, 1, 1, 1), mode='reflect')
        first, second = F.conv2d(padded, self._sobel)[0]
        first, second = first * camera.fx, second * camera.fy
        normal = torch.stack([first, second, first * x + second * y + z])
        normal = normal / (normal.norm(dim=0) + 1e-9) * valid
        turn = rotation_to_z(plane.normal * [1.0, 1.0, -1.0]).tolist()
        # Numbers, not a tensor: nothing is copied to the device, and nothing waited for.
        turned = [row[0] * normal[0] + row[1] * normal[1] + row[2] * normal[2] for row in turn]
        return torch.stack([(height * HEIGHT_SCALE).clamp(*HEIGHT_RANGE), *turned])

    def _blurred(self, image: Tensor) -> Tensor:
        """Gaussian of :data:`NORMAL_SIGMA` over (S, S)."""
        reach = len(self._gauss) // 2
        padded = F.pad(image[None, None], (reach,) * 4, mode='reflect')
        rows = F.conv2d(padded, self._gauss.view(1, 1, -1, 1))
        return F.conv2d(rows, self._gauss.view(1, 1, 1, -1))[0, 0]


def fill_holes(values: Tensor, valid: Tensor) -> Tensor:
    """
    Fill ``values`` (S, S) where ``valid`` (S, S) is False; as :func:`preprocessing.fill_holes`.

    Always down to one pixel: whether a level still has holes would have to be fetched first.
    """
    weight = valid.float()[None, None]
    level = torch.where(valid, values, 0.0)[None, None]
    pyramid = []
    for _ in range(math.ceil(math.log2(max(values.shape)))):
        pyramid.append((level, weight))
        size = [(n + 1) // 2 for n in level.shape[2:]]
        total = F.interpolate(level * weight, size=size, mode='area')
        weight = F.interpolate(weight, size=size, mode='area')
        level = total / weight.clamp_min(1e-6)
    for finer, finer_weight in reversed(pyramid):
        coarse = F.interpolate(level, size=finer.shape[2:], mode='bilinear')
        level = torch.where(finer_weight > 0, finer, coarse)
    return level[0, 0]


class CudaGraph:
    """
    A function of tensors as one CUDA graph: a single launch instead of some hundred.

    The shapes are those of the examples. What is returned belongs to the graph and is overwritten
    by the next call.
    """

    def __init__(self, function: Callable[..., Tensor], *examples: Tensor):
        """Run ``function`` some times, as capturing demands, and record it."""
        self._inputs = [example.clone() for example in examples]
        # Streams are those of the current device, which need not be that of the examples.
        self._device = self._inputs[0].device
        with torch.cuda.device(self._device):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    function(*self._inputs)
            torch.cuda.current_stream().wait_stream(stream)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._output = function(*self._inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Replay on other inputs of the same shapes."""
        with torch.cuda.device(self._device):
            for kept, value in zip(self._inputs, inputs, strict=True):
                kept.copy_(value)
            self._graph.replay()
        return self._output

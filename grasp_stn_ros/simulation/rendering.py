"""
Offscreen rendering with one OpenGL context for all models of a thread.

``mujoco.Renderer`` makes a context of its own for every model, and a software renderer then
compiles its shaders anew: 0.7 s for each scene. Sharing the context makes that 0.05 s.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading

import mujoco
import numpy as np

# Chosen here rather than by mujoco, which decides when it is first imported by anybody: without
# a display unless asked otherwise.
if sys.platform == 'linux' and os.environ.get('MUJOCO_GL', 'egl') == 'egl':
    from mujoco.egl import GLContext
else:
    from mujoco.rendering.classic.gl_context import GLContext

_contexts = threading.local()


def _load_triton_first() -> None:
    """
    Import Triton, which comes with PyTorch for CUDA, before the OpenGL driver is loaded.

    Mesa's software renderer and Triton each bring an LLVM of their own. Where Mesa's is there
    first, importing Triton ends the process with a segmentation fault (seen with LLVM 15 and
    Triton 3.7); PyTorch imports it late, with the first optimizer.
    """
    with contextlib.suppress(ImportError):
        importlib.import_module('triton')


def _make_current() -> None:
    """Bind this thread's OpenGL context, creating it at first use; it lives as the thread does."""
    if getattr(_contexts, 'context', None) is None:
        _load_triton_first()
        _contexts.context = GLContext(0, 0)
    _contexts.context.make_current()


class OffscreenRenderer:
    """Pictures of one model; to be used and closed in the thread that made it."""

    def __init__(self, model: mujoco.MjModel, width: int, height: int):
        """Upload the textures and meshes of ``model``; images are (height, width)."""
        self._model = model
        self._shape = (height, width)
        _make_current()
        self._scene = mujoco.MjvScene(model, maxgeom=500)
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
        self._rectangle = mujoco.MjrRect(0, 0, width, height)
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED

    def upload_texture(self, texture: int) -> None:
        """Take over a change in ``model.tex_data``."""
        _make_current()
        mujoco.mjr_uploadTexture(self._model, self._context, texture)

    def _draw(self, data: mujoco.MjData, camera: str, option: mujoco.MjvOption,
              segments: bool) -> None:
        _make_current()
        self._camera.fixedcamid = self._model.camera(camera).id
        mujoco.mjv_updateScene(self._model, data, option, None, self._camera,
                               mujoco.mjtCatBit.mjCAT_ALL.value, self._scene)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = segments
        self._scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = segments
        mujoco.mjr_render(self._rectangle, self._scene, self._context)

    def colour(self, data: mujoco.MjData, camera: str, option: mujoco.MjvOption) -> np.ndarray:
        """RGB (H, W, 3) uint8."""
        self._draw(data, camera, option, segments=False)
        image = np.empty((*self._shape, 3), np.uint8)
        mujoco.mjr_readPixels(image, None, self._rectangle, self._context)
        return np.flipud(image).copy()

    def geometry(self, data: mujoco.MjData, camera: str,
                 option: mujoco.MjvOption) -> tuple[np.ndarray, np.ndarray]:
        """Depth z (H, W) float32 in metres, and the id of the geom seen, -1 for none."""
        self._draw(data, camera, option, segments=True)
        codes = np.empty((*self._shape, 3), np.uint8)
        buffer = np.empty(self._shape, np.float32)
        mujoco.mjr_readPixels(codes, buffer, self._rectangle, self._context)
        near = np.float32(self._model.vis.map.znear * self._model.stat.extent)
        far = np.float32(self._model.vis.map.zfar * self._model.stat.extent)
        # Reversed depth buffer: 1 at the near plane, 0 at the far one.
        if self._scene.camera[0].orthographic:
            depth = far - buffer * (far - near)
        else:
            depth = near * far / (near + buffer.astype(np.float64) * (far - near))
        ids = codes.astype(np.int32) @ np.array([1, 1 << 8, 1 << 16], np.int32)
        geoms = np.full(self._scene.ngeom + 1, -1)
        for geom in self._scene.geoms[:self._scene.ngeom]:
            if geom.segid != -1 and geom.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                geoms[geom.segid + 1] = geom.objid
        return np.flipud(depth).astype(np.float32), np.flipud(geoms[ids])

    def close(self) -> None:
        """Free what was uploaded."""
        _make_current()
        self._context.free()

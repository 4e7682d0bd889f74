"""
Objects from mesh files (STL, OBJ, PLY, in metres): what people have of their own things.

MuJoCo collides the convex hull of a mesh, which closes every mug and fills every bowl. Meshes are
therefore taken apart into convex parts by CoACD (Wei et al. 2022), once: the parts are kept beside
each other in a cache, under the hash of the file and of the settings.

Needs ``trimesh`` and ``coacd``, which nothing else does.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any
import zipfile
import zlib

import numpy as np
from scipy.spatial import ConvexHull

from ..atomic import write_atomically
from .objects import DENSITY, MASS, SimObject, object_from_parts

SUFFIXES = ('.stl', '.obj', '.ply')
THRESHOLD = 0.06                  # concavity that is left, of the object's size
MOST_PARTS = 24
# A shorter search than CoACD's defaults, which take minutes for thin walls.
_SEARCH = {'mcts_iterations': 40, 'mcts_nodes': 10, 'mcts_max_depth': 2, 'resolution': 1000}
# Share of the surface that must lie within half the threshold of the hull of an undivided mesh.
_COVERED = 0.98
_SETTINGS = f'coacd threshold={THRESHOLD} parts={MOST_PARTS} {sorted(_SEARCH.items())} 4'
# What the simulated gripper and table are made for, metres.
SIZES = (0.01, 0.5)
_SMALLEST_PART = 1e-9             # m^3; slivers that MuJoCo would refuse


class MeshError(ValueError):
    """A mesh cannot be used; the message names the file and says why."""


def default_cache() -> Path:
    """Folder where decompositions are kept: grasp_stn/meshes in the user's cache folder."""
    base = os.environ.get('XDG_CACHE_HOME')
    return (Path(base) if base else Path.home() / '.cache') / 'grasp_stn' / 'meshes'


def convex_parts(path: Path, cache: Path | None = None) -> list[np.ndarray]:
    """
    Mesh file -> vertices (N, 3) in metres of its convex parts.

    Raises :class:`MeshError` for a file that is no mesh, or of a size that is not in metres.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MeshError(f'{path} cannot be read: {error.strerror or error}') from None
    key = hashlib.sha256(content + _SETTINGS.encode()).hexdigest()[:24]
    kept = (cache or default_cache()) / f'{path.stem}-{key}.npz'
    if kept.exists():
        try:
            with np.load(kept, allow_pickle=False) as arrays:
                return [arrays[name] for name in arrays.files]
        except (OSError, ValueError, zipfile.BadZipFile, zlib.error):
            pass                                    # broken: made again below
    parts = _decompose(path)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, *parts)
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(kept, buffer.getvalue())
    return parts


def _decompose(path: Path) -> list[np.ndarray]:
    try:
        import coacd
        import trimesh
    except ImportError as error:
        raise MeshError(f'{error.name} is missing; meshes need: pip install trimesh coacd'
                        ) from None
    try:
        mesh: Any = trimesh.load(path, force='mesh')
        vertices, faces = np.asarray(mesh.vertices, float), np.asarray(mesh.faces)
    except Exception as error:           # every loader of trimesh raises something else
        raise MeshError(f'{path} is no mesh that trimesh can read: {error}') from None
    if len(faces) < 4 or not np.isfinite(vertices).all():
        raise MeshError(f'{path} has {len(faces)} triangles or broken vertices')
    extent = float(np.ptp(vertices, axis=0).max())
    if not SIZES[0] <= extent <= SIZES[1]:
        raise MeshError(f'{path} is {extent:g} long; expected metres, {SIZES[0]:g} to '
                        f'{SIZES[1]:g} (a file in millimetres has to be scaled by 0.001)')
    if _nearly_convex(mesh, extent):
        return [vertices[ConvexHull(vertices).vertices]]
    coacd.set_log_level('error')
    found = coacd.run_coacd(coacd.Mesh(vertices, faces), threshold=THRESHOLD,
                            max_convex_hull=MOST_PARTS, seed=0, **_SEARCH)
    parts = []
    for points, _ in found:
        try:
            hull = ConvexHull(np.asarray(points, float))
        except Exception:                # flat: nothing to collide with
            continue
        if hull.volume > _SMALLEST_PART:
            parts.append(np.asarray(points, float)[hull.vertices])
    if not parts:
        raise MeshError(f'{path} has no volume')
    return parts


def _nearly_convex(mesh: Any, extent: float) -> bool:
    """
    Tell whether nearly all of the surface lies near its convex hull: nothing to take apart.

    CoACD would search for minutes what to cut off the rim of a can.
    """
    try:
        planes = ConvexHull(mesh.vertices).equations
    except Exception:                    # flat, which is found out later
        return False
    centres, areas = mesh.triangles_center, mesh.area_faces
    depth = np.concatenate([-(part @ planes[:, :3].T + planes[:, 3]).max(axis=1)
                            for part in np.array_split(centres, len(centres) // 1000 + 1)])
    order = np.argsort(depth)
    covered = np.cumsum(areas[order]) / areas.sum()
    return bool(depth[order][np.searchsorted(covered, _COVERED)] < THRESHOLD / 2 * extent)


def mesh_object(path: Path, rng: np.random.Generator, cache: Path | None = None) -> SimObject:
    """Object from a mesh file, with a random density; its family is the name of the file."""
    parts = convex_parts(path, cache)
    volume = sum(ConvexHull(part).volume for part in parts)
    mass = float(np.clip(volume * rng.uniform(*DENSITY), *MASS))
    return object_from_parts(path.stem, parts, mass)


def list_meshes(folder: Path) -> list[Path]:
    """Mesh files in ``folder`` and below, by name; raises :class:`MeshError` if there is none."""
    found = sorted((p for p in folder.rglob('*') if p.suffix.lower() in SUFFIXES),
                   key=lambda p: (p.name, str(p)))
    if not found:
        raise MeshError(f'{folder} has no meshes ({", ".join(SUFFIXES)})')
    return found

"""
Labelled images of people's own meshes: which can be used, which are in the images, what came out.

A mesh can be used when it has convex parts (see :mod:`.meshes`) and comes to rest on the table.
Whether it can be *grasped* the trials show: :func:`outcomes` counts them by mesh.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from .domain import BASIC, Domain
from .meshes import MeshError, convex_parts, mesh_object
from .objects import SimObject
from .scene import TableScene, UnsettledError

_DROPS = 8


@dataclass(frozen=True)
class MeshOutcome:
    """Trials with one mesh: images with it alone, grasps tried in them, and those that lift."""

    name: str
    images: int
    tried: int
    lifted: int

    @property
    def remark(self) -> str:
        """What is wrong, if nothing could be learned about grasping it."""
        if not self.images:
            return 'not drawn yet: more --scenes'
        if not self.tried:
            return 'no grasp was found to try: larger than the gripper opens?'
        if not self.lifted:
            return 'no grasp lifted it: too wide, too smooth or too heavy for this gripper'
        return ''


class MeshObjects:
    """Draws a :class:`SimObject` from ``paths``, all equally often."""

    def __init__(self, paths: Iterable[Path], cache: Path | None = None):
        """Keep the meshes, which must be usable."""
        self.paths, self._cache = list(paths), cache

    def __call__(self, rng: np.random.Generator) -> SimObject:
        """Draw one."""
        return mesh_object(self.paths[int(rng.integers(len(self.paths)))], rng, self._cache)

    def settings(self) -> dict[str, str]:
        """Name of each mesh and a hash of its content: what a data set depends on."""
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16]
                for path in self.paths}


def check_meshes(paths: Iterable[Path], domain: Domain = BASIC, cache: Path | None = None) \
        -> tuple[list[Path], list[tuple[Path, str]]]:
    """Take apart and drop each mesh once: those that can be used, the others with the reason."""
    good: list[Path] = []
    bad: list[tuple[Path, str]] = []
    stems: dict[str, Path] = {}
    for path in paths:
        try:
            convex_parts(path, cache)
            if path.stem in stems:
                raise MeshError(f'{path} has the same name as {stems[path.stem]}')
            _drop(path, domain, cache)
        except MeshError as error:
            bad.append((path, str(error)))
        else:
            stems[path.stem] = path
            good.append(path)
    return good, bad


def _drop(path: Path, domain: Domain, cache: Path | None) -> None:
    rng = np.random.default_rng(0)
    try:
        scene = TableScene([mesh_object(path, rng, cache)], rng, domain=domain)
    except ValueError as error:                     # MuJoCo's compiler
        raise MeshError(f'{path} cannot be simulated: {error}') from None
    try:
        scene.settle(rng, _DROPS)
    except UnsettledError:
        raise MeshError(f'{path} does not come to rest on the table in {_DROPS} drops: it rolls '
                        'away, or its parts are badly shaped') from None
    finally:
        scene.close()


def outcomes(folder: Path, maker: MeshObjects) -> list[MeshOutcome]:
    """Count the trials in a data set of these meshes, from images that show one object only."""
    counts: dict[str, list[int]] = {path.stem: [0, 0, 0] for path in maker.paths}
    for path in sorted(folder.glob('[0-9]*.json')):
        content: dict[str, Any] = json.loads(path.read_text())
        names = [thing['family'] for thing in content['objects']]
        if len(names) == 1 and names[0] in counts:
            count = counts[names[0]]
            count[0] += 1
            count[1] += len(content['grasps'])
            count[2] += sum(2 * g['successes'] > g['trials'] for g in content['grasps'])
    return [MeshOutcome(name, *count) for name, count in counts.items()]



"""
Procedural objects of convex parts: unlimited, ours, and exact in collision.

MuJoCo collides the convex hull of a mesh, so a hollow or bent thing has to be put together from
convex parts: a bowl is a ring of wedges, a banana a chain of segments. A part is nothing but an
(N, 3) array of vertices in metres; MuJoCo makes its hull. Every family draws its dimensions from
the given generator. The z axis of a family points up when the object stands as people put it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull

# kg/m^3 of the parts taken as solid: from hollow plastic to wood.
DENSITY = (150.0, 500.0)
MASS = (0.02, 0.5)


@dataclass(frozen=True)
class SimObject:
    """
    One object, centred at its centre of mass.

    ``parts`` are the vertices (N, 3) of its convex parts in metres, ``volumes`` theirs in m^3,
    ``materials`` the index (0 or 1) of the surface each part has. ``mass`` is in kilograms.
    """

    name: str
    family: str
    parts: tuple[np.ndarray, ...]
    volumes: tuple[float, ...]
    materials: tuple[int, ...]
    mass: float

    @property
    def vertices(self) -> np.ndarray:
        """All vertices of all parts (N, 3) in metres."""
        return np.concatenate(self.parts)


Parts = list[np.ndarray]


def _ellipse(radius: float, z: float, count: int, flatness: float = 1.0) -> np.ndarray:
    """Points (count, 3) on an ellipse around the z axis; ``flatness`` scales y."""
    angle = np.arange(count) * (2 * np.pi / count)
    return np.stack([radius * np.cos(angle), flatness * radius * np.sin(angle),
                     np.full(count, z)], axis=1)


def _frustum(bottom: float, top: float, height: float, count: int = 20) -> np.ndarray:
    """A cone section around z with the centre at half its height."""
    return np.concatenate([_ellipse(bottom, -height / 2, count), _ellipse(top, height / 2, count)])


def _cylinder(radius: float, height: float, count: int) -> np.ndarray:
    """A prism around z over a regular polygon of ``count`` corners."""
    return _frustum(radius, radius, height, count)


def _along_x(points: np.ndarray) -> np.ndarray:
    """Turn the z axis into the x axis."""
    return points[:, [2, 0, 1]]


def _along_y(points: np.ndarray) -> np.ndarray:
    """Turn the z axis into the y axis."""
    return points[:, [1, 2, 0]]


def _yawed(points: np.ndarray, angle: float) -> np.ndarray:
    """Rotate about z by ``angle`` radians."""
    c, s = np.cos(angle), np.sin(angle)
    return points @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1.0]])


def _box(x: float, y: float, z: float, bevel: float = 0.0) -> np.ndarray:
    """A cuboid with edge lengths x, y, z whose edges are cut off by ``bevel``."""
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
    half = np.array([x, y, z]) / 2
    if bevel <= 0:
        return signs * half
    return np.concatenate([signs * (half - bevel * (np.arange(3) != axis)) for axis in range(3)])


def _superellipsoid(semi_axes, e1: float = 1.0, e2: float = 1.0) -> np.ndarray:
    """Points on a superellipsoid: exponents below 1 make it boxy, above 1 pointed."""
    latitude, longitude = (g.ravel() for g in np.meshgrid(
        np.linspace(-np.pi / 2, np.pi / 2, 11), np.linspace(-np.pi, np.pi, 20, endpoint=False)))

    def power(value, exponent):
        return np.sign(value) * np.abs(value) ** exponent

    ring = power(np.cos(latitude), e1)
    unit = np.stack([ring * power(np.cos(longitude), e2), ring * power(np.sin(longitude), e2),
                     power(np.sin(latitude), e1)], axis=1)
    return unit * np.asarray(semi_axes)


def _tube(path: np.ndarray, radii, count: int = 10, flatness: float = 1.0) -> Parts:
    """A chain of segments along ``path`` (N, 3); ``flatness`` scales the second cross axis."""
    radii = np.broadcast_to(radii, len(path))
    angle = np.arange(count) * (2 * np.pi / count)
    parts = []
    for i in range(len(path) - 1):
        direction = path[i + 1] - path[i]
        direction = direction / np.linalg.norm(direction)
        first = np.cross(direction, [0, 0, 1.0])
        norm = np.linalg.norm(first)
        first = first / norm if norm > 1e-3 else np.array([1.0, 0, 0])
        second = np.cross(direction, first) * flatness
        circle = np.cos(angle)[:, None] * first + np.sin(angle)[:, None] * second
        # A little overlap closes the wedge-shaped gaps on the outside of the bends.
        parts.append(np.concatenate([path[i] + (circle - 0.15 * direction) * radii[i],
                                     path[i + 1] + (circle + 0.15 * direction) * radii[i + 1]]))
    return parts


def _loop(rx: float, ry: float, count: int) -> np.ndarray:
    """A closed ellipse (count + 1, 3) in the x-y plane, first point repeated at the end."""
    angle = np.linspace(0, 2 * np.pi, count + 1)
    return np.stack([rx * np.cos(angle), ry * np.sin(angle), 0 * angle], axis=1)


def _shell(profile: np.ndarray, thickness: float, count: int = 14) -> Parts:
    """A vessel: walls of wedges along the outer ``profile`` (N, 2) of (radius, z), and a floor."""
    parts = []
    for (r0, z0), (r1, z1) in zip(profile[:-1], profile[1:], strict=True):
        for i in range(count):
            angle = np.array([i, i + 1]) * (2 * np.pi / count)
            parts.append(np.array([
                [radius * np.cos(a), radius * np.sin(a), z]
                for r, z in ((r0, z0), (r1, z1))
                for radius in (r, max(r - thickness, 5e-4)) for a in angle]))
    r, z = profile[0]
    parts.append(np.concatenate([_ellipse(r, z, count), _ellipse(r, z + thickness, count)]))
    return parts


def _make_box(rng) -> Parts:
    a, b, c = np.sort(rng.uniform(0.012, 0.08, 3))
    return [_box(a, b, c * rng.uniform(1, 2.2), bevel=a * rng.uniform(0, 0.2))]


def _make_can(rng) -> Parts:
    radius = rng.uniform(0.010, 0.042)
    return [_cylinder(radius, rng.uniform(0.03, 0.17), 24)]


def _make_prism(rng) -> Parts:
    return [_frustum(rng.uniform(0.015, 0.04), rng.uniform(0.01, 0.04), rng.uniform(0.02, 0.15),
                     int(rng.integers(3, 8)))]


def _make_wedge(rng) -> Parts:
    u = rng.uniform
    return [np.array([[0, 0, 0], [u(0.04, 0.12), 0, 0], [0, u(0.02, 0.05), 0],
                      [0, 0, u(0.02, 0.05)], [u(0.02, 0.06), u(0.02, 0.05), 0],
                      [u(0.02, 0.06), 0, u(0.02, 0.05)]])]


def _make_bottle(rng) -> tuple[Parts, list[int]]:
    u = rng.uniform
    radius, height, flatness = u(0.018, 0.04), u(0.10, 0.22), u(0.6, 1)
    neck = u(0.3, 0.6) * radius
    z = height * np.array([0, u(0.02, 0.1), u(0.5, 0.65), u(0.72, 0.82), 1])
    r = [radius * u(0.8, 1), radius, radius * u(0.85, 1), neck, neck * u(0.9, 1.1)]
    # The neck is round even where the body is flat.
    flat = [flatness, flatness, flatness, 1, 1]
    parts = [np.concatenate([_ellipse(r[i], z[i], 22, flat[i]),
                             _ellipse(r[i + 1], z[i + 1], 22, flat[i + 1])]) for i in range(4)]
    parts.append(_cylinder(neck * 1.25, 0.018, 16) + [0, 0, height])
    return parts, [0, 0, 0, 0, 1]


def _make_superquadric(rng) -> Parts:
    u = rng.uniform
    return [_superellipsoid([u(0.015, 0.042), u(0.015, 0.05), u(0.015, 0.08)],
                            u(0.2, 1.6), u(0.2, 1.6))]


def _vessel(rng, rim, height, foot, rings) -> tuple[Parts, np.ndarray]:
    """Walls and floor of a bowl or cup, and its outer profile."""
    rim, height = rng.uniform(*rim), rng.uniform(*height)
    foot = rim * rng.uniform(*foot)
    t = np.linspace(0, 1, rings)
    profile = np.stack([foot + (rim - foot) * t ** 0.6, height * t], axis=1)
    return _shell(profile, rng.uniform(0.0025, 0.005)), profile


def _make_bowl(rng) -> Parts:
    return _vessel(rng, (0.05, 0.085), (0.03, 0.06), (0.4, 0.65), 4)[0]


def _make_cup(rng) -> Parts:
    return _vessel(rng, (0.028, 0.045), (0.06, 0.12), (0.65, 1), 2)[0]


def _make_mug(rng) -> tuple[Parts, list[int]]:
    walls, profile = _vessel(rng, (0.028, 0.045), (0.06, 0.12), (0.65, 1), 2)
    height = profile[-1, 1]
    reach = height * rng.uniform(0.28, 0.38)
    angle = np.linspace(-np.pi / 2, np.pi / 2, 7)
    start = np.interp(height / 2, profile[:, 1], profile[:, 0]) - 0.003
    path = np.stack([start + np.cos(angle) * reach * 0.8, 0 * angle,
                     height / 2 + np.sin(angle) * reach], axis=1)
    handle = _tube(path, rng.uniform(0.003, 0.006), 8)
    return walls + handle, [0] * len(walls) + [int(rng.integers(2))] * len(handle)


def _make_blob(rng) -> tuple[Parts, list[int]]:
    u = rng.uniform
    parts = []
    for _ in range(int(rng.integers(2, 5))):
        part = (_box(*(u(0.015, 0.09, 3) * [1, 0.5, 0.5])) if rng.random() < 0.6
                else _cylinder(u(0.008, 0.025), u(0.03, 0.11), 14))
        axis, angle = int(rng.integers(3)), rng.choice([0, np.pi / 2, np.pi / 4])
        order = [(axis + k) % 3 for k in (1, 2, 0)]
        turned = np.empty_like(part)
        turned[:, order] = _yawed(part[:, order], angle)
        parts.append(turned + u(-0.02, 0.02, 3))
    return parts, [int(i % 2) for i in range(len(parts))]


def _make_screwdriver(rng) -> tuple[Parts, list[int]]:
    u = rng.uniform
    length, radius = u(0.09, 0.18), u(0.006, 0.016)
    handle = _frustum(radius, radius * u(0.7, 1.1), length / 2, 10 if rng.random() < 0.5 else 6)
    shaft = _cylinder(radius * u(0.3, 0.5), length * 0.55, 10)
    parts = [_along_x(handle), _along_x(shaft) + [length / 2, 0, 0]]
    if rng.random() < 0.5:
        parts.append(_box(0.015, radius * u(1, 2), radius * u(0.2, 0.5)) + [length * 0.78, 0, 0])
    return parts, [0] + [1] * (len(parts) - 1)


def _make_hammer(rng) -> tuple[Parts, list[int]]:
    u = rng.uniform
    length, radius, head = u(0.12, 0.24), u(0.006, 0.014), u(0.01, 0.018)
    return [_along_x(_cylinder(radius, length, 10)),
            _along_y(_cylinder(head, u(0.05, 0.09), 12)) + [length / 2, 0, 0]], [0, 1]


def _make_ring(rng) -> Parts:
    radius = rng.uniform(0.02, 0.045)
    return _tube(_loop(radius, radius, 16), rng.uniform(0.004, 0.012), 8, rng.uniform(0.6, 1.2))


def _make_paddle(rng) -> tuple[Parts, list[int]]:
    """A ring with a handle: magnifying glass, key, tape with a grip."""
    radius, tube = rng.uniform(0.02, 0.045), rng.uniform(0.004, 0.012)
    ring = _tube(_loop(radius, radius, 16), tube, 8, rng.uniform(0.6, 1.2))
    length = rng.uniform(0.06, 0.13)
    bar = _box(length, tube * 1.6, tube * 1.2) + [radius + length / 2 - 0.003, 0, 0]
    return [*ring, bar], [0] * len(ring) + [1]


def _make_banana(rng) -> Parts:
    bend, arc = rng.uniform(0.05, 0.12), rng.uniform(0.9, 2.2)
    angle = np.linspace(0, arc, 9)
    radii = rng.uniform(0.012, 0.022) * np.interp(np.linspace(0, 1, 9), [0, 0.15, 0.5, 0.85, 1],
                                                  [0.4, 0.85, 1, 0.85, 0.35])
    return _tube(bend * np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1), radii)


def _make_scissors(rng) -> tuple[Parts, list[int]]:
    length, spread = rng.uniform(0.08, 0.12), rng.uniform(0.15, 0.5)
    parts, materials = [], []
    for side in (-1, 1):
        eye = rng.uniform(0.014, 0.022)
        half = [_box(length, 0.012, 0.005) + [length / 2 - 0.01, 0, side * 0.0025],
                _box(0.05, 0.009, 0.006) + [-0.03, -side * 0.003, side * 0.001]]
        half += [segment + [-0.045 - eye, -side * 0.012, side * 0.001]
                 for segment in _tube(_loop(eye, 0.8 * eye, 12), 0.0045, 6)]
        parts += [_yawed(part, side * spread / 2) for part in half]
        materials += [1] + [0] * (len(half) - 1)
    return parts, materials


def _make_spoon(rng) -> Parts:
    u = rng.uniform
    length = u(0.10, 0.16)
    return [_box(length, u(0.007, 0.012), u(0.003, 0.006)),
            _superellipsoid([u(0.018, 0.03), u(0.013, 0.022), u(0.004, 0.008)])
            + [length / 2 + 0.015, 0, 0.001]]


def _make_dumbbell(rng) -> tuple[Parts, list[int]]:
    u = rng.uniform
    length, grip = u(0.07, 0.13), u(0.006, 0.014)
    weight, depth, count = u(0.018, 0.032), u(0.015, 0.04), 6 if rng.random() < 0.5 else 16
    parts = [_along_x(_cylinder(grip, length, 12))]
    parts += [_along_x(_cylinder(weight, depth, count)) + [side * length / 2, 0, 0]
              for side in (-1, 1)]
    return parts, [0, 1, 1]


def _make_pen(rng) -> tuple[Parts, list[int]]:
    u = rng.uniform
    length, radius, count = u(0.10, 0.16), u(0.004, 0.008), int(rng.choice([6, 8, 16]))
    tip = 0.012
    parts = [_along_x(_cylinder(radius, length, count)),
             _along_x(_frustum(radius, 0.001, tip, count)) + [(length + tip) / 2, 0, 0]]
    if rng.random() < 0.5:
        cap = u(0.03, 0.05)
        parts.append(_along_x(_cylinder(radius * 1.15, cap, 16))
                     - [(length - cap) / 2 + 0.001, 0, 0])
    return parts, [0, 1, 1][:len(parts)]


_FAMILIES: dict[str, Callable] = {
    'box': _make_box, 'can': _make_can, 'prism': _make_prism, 'wedge': _make_wedge,
    'bottle': _make_bottle, 'superquadric': _make_superquadric, 'bowl': _make_bowl,
    'cup': _make_cup, 'mug': _make_mug, 'blob': _make_blob, 'screwdriver': _make_screwdriver,
    'hammer': _make_hammer, 'ring': _make_ring, 'paddle': _make_paddle, 'banana': _make_banana,
    'scissors': _make_scissors, 'spoon': _make_spoon, 'dumbbell': _make_dumbbell,
    'pen': _make_pen,
}
FAMILIES = tuple(_FAMILIES)


def object_from_parts(family: str, parts: list[np.ndarray], mass: float,
                      materials: list[int] | None = None, name: str = '') -> SimObject:
    """Centre ``parts`` ((N, 3) vertices each, metres) at the centre of mass of the whole."""
    volumes, centroids, hulls = [], [], []
    for part in parts:
        hull = ConvexHull(part)
        corners = part[hull.simplices]                                       # (F, 3, 3)
        inside = part.mean(axis=0)
        # The hull as tetrahedra between its triangles and a point inside it.
        signed = np.linalg.det(corners - inside) / 6
        weights = np.abs(signed)
        volumes.append(float(weights.sum()))
        centroids.append(weights @ ((corners.sum(axis=1) + inside) / 4) / weights.sum())
        hulls.append(part[hull.vertices])
    centre = np.average(centroids, axis=0, weights=volumes)
    return SimObject(name or family, family, tuple(hull - centre for hull in hulls),
                     tuple(volumes), tuple(materials or [0] * len(parts)), float(mass))


def make_object(rng: np.random.Generator, family: str | None = None,
                scale: float = 1.0) -> SimObject:
    """
    Draw an object of ``family``, or of any one of :data:`FAMILIES`; ValueError if unknown.

    ``scale`` enlarges it in all directions; its density stays what it is.
    """
    if family is None:
        family = FAMILIES[rng.integers(len(FAMILIES))]
    if family not in _FAMILIES:
        raise ValueError(f'no object family {family!r}; there are {", ".join(FAMILIES)}')
    made = _FAMILIES[family](rng)
    parts, materials = made if isinstance(made, tuple) else (made, None)
    parts = [part * scale for part in parts]
    # Parts overlap a little, so this is not exact; the draw of the density is far coarser.
    volume = sum(ConvexHull(part).volume for part in parts)
    mass = float(np.clip(volume * rng.uniform(*DENSITY), *MASS))
    return object_from_parts(family, parts, mass, materials)

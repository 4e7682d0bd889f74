"""
Labelled images: candidate grasps, each tried out several times.

Candidates come from the noise-free height map: random points and directions on the object, the
width of what lies there, room for the fingers, and how squarely the two flanks face the jaws.
Most are chosen to be good and diverse, some to be bad. Every candidate goes through full trials
with its own friction, the first as planned and the others jittered, so that the share of
successes says how robust a grasp is.

Scene ``i`` of a data set depends on (seed, i) alone: interrupted, resumed or sharded runs write
the same bytes, and :func:`open_scene` brings back the very scene for an evaluation. Image
``i * views + v`` shows scene ``i`` to its camera ``v``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
import json
import math
from pathlib import Path

import cv2
import numpy as np
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from ..atomic import write_atomically
from ..data.simulated import DEPTH_UNIT, encode_depth
from ..detection import Grasp
from ..grasp_pose import MIDDLE, Gripper, grasp_axes, grasp_to_rectangle
from . import gripper as physics
from . import scene as scenes
from .domain import BASIC, Domain, draw
from .gripper import GraspTrial
from .mesh_data import MeshObjects
from .objects import SimObject, make_object
from .scene import HEIGHT_MAP_SIZE, HEIGHT_MAP_STEP, TableScene, UnsettledError, random_scene

FORMAT = 1
ANTIPODAL_SHARE = 0.6               # of the candidates; the others are bad ones
JITTER_POSITION, JITTER_HEIGHT = 0.002, 0.001     # metres, one sigma
JITTER_YAW = math.radians(3)
JITTER_OPENING = 0.001
_MIN_QUALITY = 0.85
_MARGIN = (0.003, 0.012)            # metres added to the width on each side
_PROPOSALS = 1000
_DOWN = np.array([0.0, 0.0, -1.0])


@dataclass(frozen=True)
class Plan:
    """
    A top-down grasp in the world, metres.

    ``position`` (3,) lies between the finger tips, ``yaw`` is the angle of the opening direction
    against the world's x axis, ``surface`` the height of the surface level, ``kind`` 'antipodal'
    or 'random'.
    """

    position: np.ndarray
    yaw: float
    opening: float
    surface: float
    kind: str

    @property
    def pose(self) -> np.ndarray:
        """Pose (4, 4) in the world: x = approach (down), y = opening direction."""
        pose = np.eye(4)
        pose[:3, :3] = grasp_axes(_DOWN, np.array([math.cos(self.yaw), math.sin(self.yaw), 0]))
        pose[:3, 3] = self.position
        return pose


def _lookup(heights: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """World (x, y) -> (row, column) of the height map, clipped to it."""
    half = HEIGHT_MAP_SIZE / 2 - 0.5
    column = np.rint(x / HEIGHT_MAP_STEP + half).astype(int)
    row = np.rint(half - y / HEIGHT_MAP_STEP).astype(int)
    last = len(heights) - 1
    return np.clip(row, 0, last), np.clip(column, 0, last)


def propose(heights: np.ndarray, gripper: Gripper, rng: np.random.Generator,
            count: int = _PROPOSALS) -> tuple[list[Plan], np.ndarray, np.ndarray]:
    """
    Draw ``count`` grasps on whatever stands in the height map (N, N) of metres.

    Returns the plans, a mask (n,) of those where the object fits between the jaws and the
    fingers have room, and their antipodal quality (n,) in [-1, 1].
    """
    rows, columns = np.nonzero(heights > 0.004)
    if len(rows) < 30:
        return [], np.zeros(0, bool), np.zeros(0)
    half = HEIGHT_MAP_SIZE / 2 - 0.5
    chosen = rng.integers(len(rows), size=count)
    x = (columns[chosen] + rng.uniform(-0.5, 0.5, count) - half) * HEIGHT_MAP_STEP
    y = (half - rows[chosen] - rng.uniform(-0.5, 0.5, count)) * HEIGHT_MAP_STEP
    yaw = rng.uniform(0, math.pi, count)
    margin = rng.uniform(*_MARGIN, count)
    cos, sin = np.cos(yaw)[:, None, None], np.sin(yaw)[:, None, None]

    # A strip under the gripper: u along the opening in mm, v over the height of the jaw plates.
    reach = round((gripper.maximum_opening / 2 + gripper.finger_thickness) * 1000) + 15
    u = np.arange(-reach, reach + 1) * 0.001                                    # (U,)
    v = np.linspace(-0.5, 0.5, 7) * gripper.jaw_size
    row, column = _lookup(heights,
                          x[:, None, None] + cos * u[:, None] - sin * v,
                          y[:, None, None] + sin * u[:, None] + cos * v)
    profile = heights[row, column].max(axis=2)                                  # (n, U)

    def extent(centre: np.ndarray):
        """Surface level, tips and the solid run around ``centre`` (n,) along u."""
        middle = np.abs(u - centre[:, None]) <= MIDDLE
        surface = np.where(middle, profile, 0).max(axis=1)
        tips = np.maximum(surface - gripper.finger_depth, gripper.support_clearance)
        solid = profile > (tips + 0.002)[:, None]
        before, after = u <= centre[:, None], u >= centre[:, None]
        low = np.where(before & ~solid, u, -1).max(axis=1) + 0.0005
        high = np.where(after & ~solid, u, 1).min(axis=1) - 0.0005
        return surface, tips, low, high

    # Twice, because the level at the middle of the run may differ from that where it was hit.
    _, _, low, high = extent(np.zeros(count))
    bounded = (low > -0.9) & (high < 0.9)
    centre = np.where(bounded, (low + high) / 2, 0.0)
    surface, tips, low, high = extent(centre)
    bounded &= (low > -0.9) & (high < 0.9)
    width = np.where(bounded, 2 * np.maximum(high - centre, centre - low), 0.0)
    opening = np.minimum(width + 2 * margin, gripper.maximum_opening)

    offset = np.abs(u - centre[:, None])
    landing = ((offset >= opening[:, None] / 2)
               & (offset <= opening[:, None] / 2 + gripper.finger_thickness))
    free = np.where(landing, profile, -1).max(axis=1) < tips - 0.001
    palm = profile.max(axis=1) < tips + physics.finger_length(gripper) - 0.003
    fits = bounded & (width > 0.003) & (opening > width + 0.005) & free & palm

    smooth = cv2.GaussianBlur(heights, (0, 0), 1.2)
    slope_x = cv2.Sobel(smooth, cv2.CV_32F, 1, 0)
    slope_y = -cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    across = np.array([-0.006, 0.0, 0.006])
    cos, sin = cos[..., 0], sin[..., 0]                                          # (n, 1)

    def facing(contact: np.ndarray, side: int) -> np.ndarray:
        """Cosine between the flank's outward direction and that of the jaw, mean of 3 lines."""
        at = _lookup(heights, x[:, None] + cos * contact[:, None] - sin * across,
                     y[:, None] + sin * contact[:, None] + cos * across)
        down_x, down_y = -slope_x[at], -slope_y[at]
        length = np.hypot(down_x, down_y) + 1e-9
        return (side * (down_x * cos + down_y * sin) / length).mean(axis=1)

    quality = np.minimum(facing(np.where(bounded, low, 0), -1),
                         facing(np.where(bounded, high, 0), 1))
    x, y = x + cos[:, 0] * centre, y + sin[:, 0] * centre
    plans = [Plan(np.array([x[i], y[i], tips[i]]), float(yaw[i]), float(opening[i]),
                  float(surface[i]), 'antipodal') for i in range(count)]
    return plans, fits, quality


def choose(plans: list[Plan], fits: np.ndarray, quality: np.ndarray, gripper: Gripper,
           rng: np.random.Generator, count: int = BASIC.candidates) -> list[Plan]:
    """
    Pick ``count`` plans to try out.

    Diverse antipodal candidates, some that do not face the flanks, some at random.
    """
    chosen: list[Plan] = []
    good = np.nonzero(fits & (quality > _MIN_QUALITY))[0]
    for i in good[np.argsort(-(quality[good] + rng.uniform(0, 0.15, len(good))))]:
        plan = plans[i]
        if all(np.hypot(*(plan.position - other.position)[:2]) > 0.006
               or abs((plan.yaw - other.yaw + math.pi / 2) % math.pi - math.pi / 2) > 0.25
               for other in chosen):
            chosen.append(plan)
        if len(chosen) == round(ANTIPODAL_SHARE * count):
            break
    bad = rng.permutation(np.nonzero(fits & (quality <= _MIN_QUALITY))[0])
    anywhere = rng.permutation(len(plans))
    # Some of the bad ones fit but do not face the flanks; the others do not even have to fit:
    # beside the middle of the object, and opened by any width.
    wanted = count - len(chosen)
    chosen += [replace(plans[i], kind='random') for i in bad[:wanted - count // 4]]
    for i in anywhere[:count - len(chosen)]:
        beside = rng.normal(0, 0.008, 2)
        chosen.append(replace(
            plans[i], position=plans[i].position + [*beside, 0],
            opening=float(rng.uniform(min(0.015, gripper.maximum_opening),
                                      gripper.maximum_opening)), kind='random'))
    return chosen


def jittered(plan: Plan, gripper: Gripper, rng: np.random.Generator) -> Plan:
    """The same grasp as an imprecise robot executes it."""
    shift = rng.standard_normal(3) * [JITTER_POSITION, JITTER_POSITION, JITTER_HEIGHT]
    position = plan.position + shift
    position[2] = max(position[2], 0.5 * gripper.support_clearance)
    opening = np.clip(plan.opening + rng.normal(0, JITTER_OPENING), 0.005,
                      gripper.maximum_opening)
    return Plan(position, plan.yaw + rng.normal(0, JITTER_YAW), float(opening), plan.surface,
                plan.kind)


def camera_grasp(plan: Plan, scene: TableScene) -> Grasp:
    """The plan in the optical frame of the scene's camera."""
    to_camera = np.linalg.inv(scene.camera_pose)
    pose = to_camera @ plan.pose
    surface = to_camera @ np.array([*plan.position[:2], plan.surface, 1.0])
    return Grasp(pose[:3, 3], pose[:3, :3], plan.opening, scene.gripper.jaw_size, surface[:3],
                 to_camera[:3, :3] @ scene.support_normal_world)


def try_out(plan: Plan, trial: GraspTrial, domain: Domain, rng: np.random.Generator) -> list:
    """Outcomes of the trials of one candidate: the first as planned, the others jittered."""
    outcomes = [trial.execute(plan.pose, plan.opening, rng=rng)]
    for i in range(1, domain.trials + domain.more_trials):
        if i >= domain.trials and len({result.lifted for result in outcomes}) == 1:
            break
        again = jittered(plan, domain.gripper, rng)
        outcomes.append(trial.execute(again.pose, again.opening, rng=rng))
    return [result.outcome for result in outcomes]


# ---------------------------------------------------------------------- scenes and files
def _draw_object(rng: np.random.Generator, domain: Domain) -> SimObject:
    return make_object(rng, domain.draw_family(rng), draw(rng, domain.scale))


def _open(seed: int, index: int, objects: int | None, domain: Domain,
          make: Callable[[np.random.Generator], SimObject] | None = None
          ) -> tuple[TableScene, np.ndarray, np.random.Generator]:
    """The scene, its object masks, and the generator in the state for what comes next."""
    rng = np.random.default_rng([seed, index])
    while True:
        drawn = 1 + int(rng.choice(len(domain.object_counts), p=domain.object_counts))
        count = objects or drawn
        try:
            things = [make(rng) if make else _draw_object(rng, domain) for _ in range(count)]
            scene = random_scene(rng, things, gripper=domain.gripper, domain=domain)
        except UnsettledError:
            continue
        _, true = scene.observe(rng)
        return scene, true.segmentation, rng


def open_scene(seed: int, index: int, objects: int | None = None,
               domain: Domain = BASIC,
               make: Callable[[np.random.Generator], SimObject] | None = None) -> TableScene:
    """
    What image ``index`` of the data set with ``seed`` shows, settled, as when it was labelled.

    ``scene.frame`` is the RGB-D frame of the files, bit for bit. ``objects`` overrides the number
    of objects that is drawn otherwise, and thereby makes another scene; ``make`` draws an object,
    None = a procedural one of the domain.
    """
    index, view = divmod(index, domain.views)
    scene = _open(seed, index, objects, domain, make)[0]
    if view:
        _change_view(scene, seed, index, view)
    return scene


def dataset_settings(seed: int, candidates: int = BASIC.candidates,
                     domain: Domain = BASIC, meshes: dict[str, str] | None = None) -> dict:
    """
    What a data set depends on; two with equal settings have equal scenes.

    ``meshes`` names the mesh files with a hash of their contents, None = procedural objects.
    """
    # Basic data sets were made before there were domains, and name none.
    named: dict = {} if domain == BASIC else {'domain': domain.to_dict()}
    if meshes is not None:
        named['meshes'] = meshes
    return {
        'format': FORMAT,
        'seed': seed,
        'units': {'position': 'm', 'opening': 'm', 'yaw': 'rad', 'rectangle': 'px, rad',
                  'depth_png': DEPTH_UNIT, 'depth_png_hole': 0},
        'gripper': asdict(domain.gripper),
        'physics': {'closing_force': physics.CLOSING_FORCE, 'friction': list(physics.FRICTION),
                    'lift': physics.LIFT, 'hold': physics.HOLD, 'timestep': scenes.TIMESTEP},
        'camera': {'size': list(scenes.IMAGE_SIZE), 'focal_length': domain.focal_length[0]},
        'labels': {'candidates': candidates, 'antipodal': ANTIPODAL_SHARE,
                   'trials': domain.trials, 'more_trials': domain.more_trials,
                   'jitter_position': JITTER_POSITION,
                   'jitter_height': JITTER_HEIGHT, 'jitter_yaw': JITTER_YAW,
                   'jitter_opening': JITTER_OPENING, 'object_counts': list(domain.object_counts)},
        **named,
    }


def _png(image: np.ndarray) -> bytes:
    return cv2.imencode('.png', image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def write_scene(out: Path, seed: int, index: int, candidates: int = BASIC.candidates,
                domain: Domain = BASIC,
                make: Callable[[np.random.Generator], SimObject] | None = None) -> list[dict]:
    """
    Simulate, label and write one scene; returns what the JSON file of each image holds.

    The trials are made once, in the world; each of the domain's views shows them from elsewhere.
    """
    scene, mask, rng = _open(seed, index, None, domain, make)
    try:
        plans, fits, quality = propose(scene.height_map(), domain.gripper, rng)
        candidates = max(candidates, domain.candidates_per_object * len(scene.objects))
        trial = GraspTrial(scene)
        chosen = choose(plans, fits, quality, domain.gripper, rng, candidates) if plans else []
        tried = [(plan, try_out(plan, trial, domain, rng)) for plan in chosen]
        contents = []
        for view in range(domain.views):
            if view:
                mask = _change_view(scene, seed, index, view)
            contents.append(_view_content(scene, tried, view))
            _write_view(out / f'{index * domain.views + view:06d}', scene, mask, contents[-1])
        return contents
    finally:
        scene.close()


def _change_view(scene: TableScene, seed: int, index: int, view: int) -> np.ndarray:
    """See the scene as its image ``view`` does; returns the object mask."""
    rng = np.random.default_rng([seed, index, view])
    scene.restore()
    scene.change_camera(rng)
    return scene.observe(rng)[1].segmentation


def _view_content(scene: TableScene, tried: list[tuple[Plan, list]], view: int) -> dict:
    grasps = []
    for plan, outcomes in tried:
        rectangle = grasp_to_rectangle(camera_grasp(plan, scene), scene.intrinsics)
        grasps.append({
            'rectangle': [round(float(v), 4) for v in rectangle.as_array()],
            'position': [round(float(v), 6) for v in plan.position],
            'yaw': round(plan.yaw, 6), 'opening': round(plan.opening, 6),
            'trials': len(outcomes), 'successes': outcomes.count('lifted'),
            'outcomes': outcomes, 'kind': plan.kind})
    return {
        'intrinsics': asdict(scene.intrinsics),
        'camera_pose': scene.camera_pose.tolist(),
        **({} if scene.domain == BASIC else {'sensor': scene.sensor, 'view': view}),
        'objects': [{'name': thing.name, 'family': thing.family, 'mass': thing.mass}
                    for thing in scene.objects],
        'grasps': grasps}


def _write_view(path: Path, scene: TableScene, mask: np.ndarray, content: dict) -> None:
    assert scene.frame is not None and scene.frame.depth is not None
    for suffix, image in (('rgb', scene.frame.rgb[..., ::-1]),
                          ('depth', encode_depth(scene.frame.depth)), ('mask', mask)):
        write_atomically(path.with_name(f'{path.name}_{suffix}.png'), _png(image), sync=False)
    # Last: its presence says that the image is complete.
    write_atomically(path.with_name(path.name + '.json'), json.dumps(content).encode(),
                     sync=False)


def prepare_folder(out: Path, seed: int, candidates: int = BASIC.candidates,
                   domain: Domain = BASIC, meshes: dict[str, str] | None = None) -> None:
    """Create the folder of a data set, or make sure that it is one with the same settings."""
    out.mkdir(parents=True, exist_ok=True)
    settings = dataset_settings(seed, candidates, domain, meshes)
    path = out / 'dataset.json'
    if path.exists():
        if json.loads(path.read_text()) != json.loads(json.dumps(settings)):
            raise ValueError(f'{out} holds a data set with other settings (see dataset.json '
                             'there); choose another folder')
    else:
        write_atomically(path, (json.dumps(settings, indent=1) + '\n').encode(), sync=False)


def generate_dataset(out: str | Path, images: int, seed: int, shard: tuple[int, int] = (0, 1),
                     progress: bool = True, candidates: int | None = None,
                     domain: Domain = BASIC, meshes: MeshObjects | None = None) -> int:
    """
    Write the scenes of ``shard`` (index, count) that ``images`` take to the folder ``out``.

    A scene has as many images as its domain has views, and is written as a whole.

    ``candidates`` are tried out in each image, None = the domain's number, from which training
    learns; a test set wants more, because a good grasp where no candidate was tried counts as
    wrong. ``meshes`` draws the objects, None = procedural ones.

    Scenes that are there already are kept. Returns how many images were made. Raises ValueError
    where the folder holds a data set with other settings.
    """
    part, parts = shard
    if not 0 <= part < parts:
        raise ValueError(f'shard {part}/{parts}: the index must be below the count')
    out = Path(out)
    candidates = candidates or domain.candidates
    prepare_folder(out, seed, candidates, domain, meshes.settings() if meshes else None)
    cv2.setNumThreads(1)
    made = 0
    scenes = math.ceil(images / domain.views)
    for index in _tracked(range(part, scenes, parts), f'scenes of {out.name}', progress):
        files = range(index * domain.views, (index + 1) * domain.views)
        if not all((out / f'{file:06d}.json').exists() for file in files):
            made += len(write_scene(out, seed, index, candidates, domain, meshes))
    return made


def _tracked(sequence: range, what: str, progress: bool) -> Iterator[int]:
    if not progress:
        yield from sequence
        return
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as bar:
        yield from bar.track(sequence, description=what)

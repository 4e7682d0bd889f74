"""Reader of the data that ``grasp_stn simulate`` writes (by ``simulation/labels.py``)."""

from __future__ import annotations

from dataclasses import asdict
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from ..grasp_pose import Gripper
from ..reasons import GraspError
from ..rgbd import CameraIntrinsics, RgbdFrame, clean_depth
from ..simulation.domain import BASIC, DOMAINS, OF_TRIALS
from .sample import DataError, LabelledFrame

DEPTH_UNIT = 1e-4              # metres: what the simulated sensor and the files resolve
# What reading files of any content raises.
_BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError,
           RecursionError, GraspError)


def encode_depth(depth: np.ndarray) -> np.ndarray:
    """Depth in metres with NaN -> uint16 in steps of :data:`DEPTH_UNIT` with 0 for holes."""
    steps = np.rint(np.nan_to_num(depth, nan=0.0) / DEPTH_UNIT)
    return np.where(steps > 65535, 0, steps).astype(np.uint16)


def decode_depth(raw: np.ndarray) -> np.ndarray:
    """Inverse of :func:`encode_depth`: float32 metres with NaN for holes."""
    return clean_depth(raw.astype(np.float32) * np.float32(DEPTH_UNIT))


def own_path(labels: Path) -> Path:
    """Where the trials of a network's own candidates are, for the label file ``labels``."""
    return labels.with_name(labels.stem + '_own.json')


class SimulatedDataset:
    """
    Frames of one or more folders, in the order of their names.

    With ``cache`` the decoded images stay in memory (1.5 MB a frame), which a training needs;
    ``limit`` takes the first frames only. ``own`` adds what a network's own candidates came to in
    trials (``grasp_stn own-trials``) to the labels.
    """

    def __init__(self, *folders: str | Path, cache: bool = False, limit: int | None = None,
                 own: bool = False):
        """List the frames; raises :class:`DataError` where there is none."""
        self._own = own
        self._entries: list[Path] = []
        for folder in map(Path, folders):
            if not (folder / 'dataset.json').exists():
                raise DataError(f'{folder} is no simulated data set: dataset.json is missing; '
                                'make one with: grasp_stn simulate')
            # The label file is written last, so its presence means that the frame is complete.
            found = sorted(p for p in folder.glob('*.json') if p.stem.isdigit())
            if not found:
                raise DataError(f'{folder} has no finished frame yet')
            self._entries += found
        self._entries = self._entries[:limit]
        self._cache: dict[int, tuple] | None = {} if cache else None
        described = {Path(f): _described(Path(f) / 'dataset.json') for f in folders}
        self.seeds = [each.seed for each in described.values()]
        self._described = described
        self.seed = self.seeds[0]
        # That was chosen for these images, None = the domain's, which detectors do not have.
        self.gripper = next(iter(described.values())).gripper

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._entries)

    def __getitem__(self, index: int) -> LabelledFrame:
        """Read one frame; raises :class:`DataError` that names the broken file."""
        if self._cache is not None and index in self._cache:
            rgb, raw, labels = self._cache[index]
        else:
            rgb, raw, labels = self._read(self._entries[index])
            if self._cache is not None:
                self._cache[index] = rgb, raw, labels
        depth = decode_depth(raw)
        jaw = self._described[self._entries[index].parent].jaw
        frame = RgbdFrame(rgb, depth, CameraIntrinsics(**labels['intrinsics']))
        return LabelledFrame(labels['name'], frame, labels['rectangles'], labels['success'],
                             labels['objects'], jaw_size=jaw)

    @property
    def names(self) -> list[str]:
        """Numbers of the scenes, such as 000123."""
        return [entry.stem for entry in self._entries]

    @property
    def identities(self) -> list[str]:
        """Names with a hash of the settings that the scenes follow from; see sample.identities."""
        return [f'{self._described[entry.parent].settings}/{entry.stem}{self._own_trials(entry)}'
                for entry in self._entries]

    @property
    def scenes(self) -> list[str]:
        """Names with a hash of what the pictures follow from; see sample.scenes."""
        return [f'{self._described[entry.parent].pictures}/{entry.stem}'
                for entry in self._entries]

    def _own_trials(self, entry: Path) -> str:
        """Return what tells the trials of a network's own candidates from others, or nothing."""
        if not self._own or not own_path(entry).exists():
            return ''
        return '+own:' + hashlib.sha256(own_path(entry).read_bytes()).hexdigest()[:16]

    def index_of(self, index: int) -> int:
        """Return the scene index in the data set (with its seed it names the scene)."""
        return int(self._entries[index].stem)

    def mask(self, index: int) -> np.ndarray:
        """Object mask (H, W) uint8 of a frame: 0 = background, i + 1 = object i."""
        return _image(self._entries[index].with_name(self._entries[index].stem + '_mask.png'),
                      np.uint8, 2)

    def _read(self, path: Path) -> tuple[np.ndarray, np.ndarray, dict]:
        record, rectangles, success = _grasps(path)
        own = own_path(path)
        if self._own and own.exists():
            _, more, shares = _grasps(own)
            rectangles, success = np.concatenate([rectangles, more]), np.append(success, shares)
        try:
            labels: dict[str, Any] = {
                'name': path.stem,
                'intrinsics': {k: float(record['intrinsics'][k]) for k in ('fx', 'fy', 'cx',
                                                                           'cy')},
                'rectangles': rectangles, 'success': success,
                'objects': tuple(o['family'] for o in record['objects']),
            }
            CameraIntrinsics(**labels['intrinsics'])
        except _BROKEN as error:
            raise DataError(f'{path} is no valid label file: {error!r}') from None
        bgr = _image(path.with_name(path.stem + '_rgb.png'), np.uint8, 3)
        raw = _image(path.with_name(path.stem + '_depth.png'), np.uint16, 2)
        return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), raw, labels


def _grasps(path: Path) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Content of a label file, its rectangles (N, 5) and shares of lifts (N,)."""
    try:
        record = json.loads(path.read_text())
        grasps = record['grasps']
        rectangles = np.array([g['rectangle'] for g in grasps], float).reshape(-1, 5)
        success = np.array([g['successes'] / g['trials'] for g in grasps], float)
        # NaN is in no range.
        good = np.isfinite(rectangles).all(axis=1) & (rectangles[:, 3:] > 0).all(axis=1) \
            & (success >= 0) & (success <= 1)
        if not good.all():
            bad = int(np.argmin(good))
            raise ValueError(f'grasp {bad} has the rectangle {rectangles[bad].tolist()} and lifts '
                             f'in {success[bad]:g} of its trials; expected finite numbers, '
                             'opening and jaw above 0, a share from 0 to 1')
        return record, rectangles, success
    except _BROKEN as error:
        raise DataError(f'{path} is no valid label file: {error!r}') from None


class _Description(NamedTuple):
    """
    What dataset.json says: the seed, the jaw size in metres of the gripper that made the labels,
    that gripper if it is not the domain's, and hashes of all of it and of what pictures show.
    """

    seed: int
    jaw: float | None
    gripper: Gripper | None
    settings: str
    pictures: str


def _described(path: Path) -> _Description:
    try:
        settings = json.loads(path.read_text())
        seed, lengths = int(settings['seed']), settings.get('gripper', {})
        jaw = lengths.get('jaw_size')
        # Basic data sets name no domain, unless a gripper was chosen for them.
        named = settings.get('domain', BASIC.to_dict())
        domain = DOMAINS.get(named['name'])
        gripper = None
        if 'domain' in settings and domain is not None and lengths != asdict(domain.gripper):
            gripper = Gripper(**lengths)
        shown = {key: value for key, value in named.items() if key not in OF_TRIALS}
        return _Description(seed, None if jaw is None else float(jaw), gripper, _hash(settings),
                            _hash({'seed': seed, 'meshes': settings.get('meshes'),
                                   'domain': shown}))
    except _BROKEN as error:
        raise DataError(f'{path} does not describe a simulated data set: {error!r}') from None


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _image(path: Path, dtype: type, dimensions: int) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise DataError(f'{path} is missing or no image')
    if image.dtype != dtype or image.ndim != dimensions:
        raise DataError(f'{path} has shape {image.shape} and type {image.dtype}')
    return image

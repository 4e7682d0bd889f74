"""
Learn how far down the finger tips go, from trials of a network's own candidates.

The last step of a training, in which the rest of the network stays as it is: what says how deep
starts as a copy of the classifier and sees the same patches. Every candidate is executed several
times with one friction, and nothing but the depth of the tips differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
import copy
from dataclasses import replace
import io
import json
from pathlib import Path
from typing import Any
import zipfile

import numpy as np
import torch
from torch import Tensor, nn
import torch.nn.functional as F

from ..atomic import write_atomically
from ..grasp_pose import Gripper, rectangles_to_grasps
from ..preprocessing import View, at_scale, preprocess
from ..reasons import GraspError
from ..rectangle import GraspRectangle, transform_rectangles
from ..rgbd import RgbdFrame
from ..simulation.domain import BASIC, FIELD, LARGE
from ..simulation.gripper import FRICTION, GraspTrial
from ..simulation.labels import open_scene
from ..simulation.scene import TableScene
from ..stn import checkpoint
from ..stn.multi_stage import MultiStageSTN
from ..stn.network import GraspNetwork, StageOutputs
from ..stn.stages import GraspClassifier, PatchNetwork
from ..support_plane import SupportPlane

# Metres below the surface. The fingers of the simulated gripper are 55 mm long.
DEPTHS = (0.015, 0.025, 0.040, 0.050)
# Where STN_crop's logit is below, there is hardly anything to grasp.
_LOCATED = -8.0
_BATCH, _EPOCHS, _RATE, _DECAY, _DROPOUT = 128, 8, 1e-3, 0.05, 0.3
# Every so many-th scene tells how good it became instead of being learned from.
_HELD = 10
_FOLDS = 5
_FEWEST = 2 * _HELD
# Beside the trials: what made them.
_ORIGIN = 'trials.json'
# Scenes of one folder, at most: those of the next are numbered from there.
_SCENES = 1_000_000


class _Candidates:
    """What a network proposes in a frame, and what its classifier sees and says of it."""

    def __init__(self, network: MultiStageSTN, frame: RgbdFrame, gripper: Gripper):
        view, known = at_scale(frame, View.square(frame.size), network.config.seen_jaw)
        prepared = preprocess(frame, view, known=known)
        image = torch.from_numpy(prepared.channels)[None]
        jaw = torch.tensor([prepared.jaw(gripper.jaw_size)])
        with torch.inference_mode():
            outputs = network(image, jaw=jaw)
            patches, extents, jaws = network.classified(
                network.trunk_features(image), image, outputs.rectangles, jaw)
        usable = (outputs.location_logits[0] > _LOCATED).numpy()
        self.seen: dict[str, np.ndarray] = {
            'patches': patches.numpy()[usable].astype(np.float16),
            'extents': extents.numpy()[usable],
            'logits': outputs.score_logits[0].numpy()[usable]}
        if jaws is not None:
            self.seen['jaws'] = jaws.numpy()[usable]
        self.rectangles = [GraspRectangle(*values) for values in transform_rectangles(
            outputs.rectangles[0].double().numpy()[usable], prepared.view.inverse).tolist()]
        self.support: SupportPlane | None = prepared.support


def load_multi_stage(weights: str | Path) -> tuple[MultiStageSTN, dict[str, Any]]:
    """Network and sidecar of ``weights``; raises :class:`checkpoint.CheckpointError`."""
    network, sidecar = checkpoint.load(weights)
    if not isinstance(network, MultiStageSTN):
        raise checkpoint.CheckpointError(f'{weights} holds no {MultiStageSTN.ARCHITECTURE}')
    return network, sidecar


def _open(seed: int, index: int, crowded: bool) -> TableScene:
    """Of five, two with one object, one with two to five, one of ``field``, one of ``large``."""
    if crowded:
        return open_scene(seed, index, objects=2 + index % 4, domain=BASIC)
    if index % 5 in (1, 2):
        domain = FIELD if index % 5 == 1 else LARGE
        return open_scene(seed, index * domain.views + index % domain.views, domain=domain)
    return open_scene(seed, index, objects=2 + index % 4 if index % 5 == 3 else 1, domain=BASIC)


def try_depths(network: MultiStageSTN, seed: int, scenes: range, folder: str | Path,
               progress: Callable[[range], Iterable[int]] = iter, crowded: bool = False) -> int:
    """
    Execute the candidates of ``network`` in ``scenes`` of ``seed`` at each of :data:`DEPTHS`.

    A fifth of the scenes, or all where they are to be ``crowded``, have two to five objects. One
    file for each scene in ``folder``; those that are there are kept. Returns how many were made.
    Raises :class:`checkpoint.CheckpointError` where ``folder`` holds trials of other weights
    or scenes.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made_by = {'weights_sha256': _made_by(network), 'seed': seed, 'crowded': crowded}
    found = _origin(folder)
    if found is None and any(folder.glob('*.npz')):
        raise checkpoint.CheckpointError(f'{folder} holds trials, but not of which weights and '
                                         'seed; name another folder')
    if found is None:
        write_atomically(folder / _ORIGIN, (json.dumps(made_by) + '\n').encode())
    elif found != made_by:
        what = 'weights' if found['weights_sha256'] != made_by['weights_sha256'] else \
            f'scenes, {"crowded ones " if found["crowded"] else ""}of the seed {found["seed"]}'
        raise checkpoint.CheckpointError(f'{folder} holds trials of other {what}; name another '
                                         'folder')
    made = 0
    for index in progress(scenes):
        path = folder / f'{index:06d}.npz'
        if path.exists():
            continue
        scene = _open(seed, index, crowded)
        try:
            arrays = _trials(network, scene, np.random.default_rng([seed, index, 9]))
        finally:
            scene.close()
        content = io.BytesIO()
        np.savez(content, **arrays)  # type: ignore[arg-type]
        write_atomically(path, content.getvalue(), sync=False)
        made += 1
    return made


def _made_by(network: MultiStageSTN) -> str:
    """SHA-256 of the weights that candidates come from: what is known of depths is no part."""
    return checkpoint.digest(forget_depths(network))


def _origin(folder: Path) -> dict[str, Any] | None:
    """SHA-256 of the weights, and the scenes, that the trials in ``folder`` are of, if known."""
    path = folder / _ORIGIN
    try:
        found = json.loads(path.read_text())
        return {'weights_sha256': str(found['weights_sha256']), 'seed': int(found['seed']),
                'crowded': bool(found.get('crowded', False))}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise checkpoint.CheckpointError(f'{path} does not say whose trials these are: {error!r}; '
                                         'name another folder') from None


def _trials(network: MultiStageSTN, scene: TableScene, rng: np.random.Generator) \
        -> dict[str, np.ndarray]:
    """``lifted`` (N, depths), NaN where there is no pose, and what the classifier saw."""
    assert scene.frame is not None
    gripper = Gripper()
    seen = _Candidates(network, scene.frame, gripper)
    frictions = rng.uniform(*FRICTION, len(seen.rectangles))
    lifted = np.full((len(seen.rectangles), len(DEPTHS)), np.nan, np.float32)
    if seen.support is not None:
        trial = GraspTrial(scene)
        approaches = np.tile(seen.support.approach, (len(seen.rectangles), 1))
        poses: dict[int, np.ndarray] = {}
        for j, depth in enumerate(DEPTHS):
            grasps = rectangles_to_grasps(seen.rectangles, scene.frame, gripper, approaches,
                                          seen.support, [depth] * len(seen.rectangles))
            for i, grasp in enumerate(grasps):
                if isinstance(grasp, GraspError):
                    continue
                before, poses[i] = poses.get(i), scene.world_pose(grasp)
                # Above a table the tips of low objects end at one height, whatever the depth.
                if before is not None and np.allclose(before, poses[i], atol=1e-5):
                    lifted[i, j] = lifted[i, j - 1]
                else:
                    lifted[i, j] = trial.execute(poses[i], grasp.opening, frictions[i]).lifted
    return {**seen.seen, 'lifted': lifted}


class _Trials:
    """All trials of some folders, which a network made."""

    def __init__(self, folders: Sequence[Path], network: MultiStageSTN):
        found: dict[str, list[np.ndarray]] = {}
        scenes: list[int] = []
        for number, folder in enumerate(folders):
            origin = _origin(folder)
            if origin is not None and origin['weights_sha256'] != _made_by(network):
                raise checkpoint.CheckpointError(f'{folder} holds trials of other weights; name '
                                                 'those that made them')
            paths = sorted(folder.glob('*.npz'))
            if not paths:
                raise checkpoint.CheckpointError(f'{folder} holds no trials of finger depths')
            for path in paths:
                self._read(path, found)
                scenes += [number * _SCENES + int(path.stem)] * len(found['lifted'][-1])
        tensors = {name: torch.from_numpy(np.concatenate(arrays))
                   for name, arrays in found.items()}
        # In half precision, as on disk: there are gigabytes of them.
        self.patches, self.lifted = tensors['patches'], tensors['lifted']
        self.logits = tensors['logits'].float()
        self.beside = GraspClassifier.beside(tensors['extents'].float(), tensors.get('jaws'))
        self.scenes = torch.tensor(scenes)
        channels = network.config.features + network.config.fine_channels
        named = ', '.join(map(str, folders))
        if self.patches.shape[1] != channels or ('jaws' in tensors) != \
                network.config.gripper_input:
            raise checkpoint.CheckpointError(f'{named} holds trials of another network, with '
                                             'other channels or without the size of the jaws; '
                                             'name the weights that made them')
        if len(self.scenes.unique()) < _FEWEST:
            raise checkpoint.CheckpointError(f'{named} holds trials of '
                                             f'{len(self.scenes.unique())} scenes, which is too '
                                             f'few to learn from; at least {_FEWEST}')

    @staticmethod
    def _read(path: Path, found: dict[str, list[np.ndarray]]) -> None:
        """Add the trials of one scene to what was ``found``."""
        try:
            with np.load(path) as arrays:
                for name in ('patches', 'extents', 'logits', 'lifted', 'jaws'):
                    if name != 'jaws' or name in arrays:
                        found.setdefault(name, []).append(arrays[name])
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise checkpoint.CheckpointError(f'{path} holds no trials: {error}; remove it '
                                             'and try its scene again') from None

    def loss(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Cross entropy of the ``logits`` (N, depths) of ``rows``, of the depths tried."""
        lifted = self.lifted[rows]
        tried = torch.isfinite(lifted)
        return F.binary_cross_entropy_with_logits(logits[tried], lifted[tried])

    def answers(self, depths: PatchNetwork, rows: Tensor) -> Tensor:
        """Logits (N, depths) of ``rows``."""
        with torch.inference_mode():
            return torch.cat([depths(self.patches[part].float(), self.beside[part])
                              for part in rows.split(512)])

    def first_lifts(self, outputs: StageOutputs, depths: Tensor) -> np.ndarray:
        """Of each scene whether its best candidate with a pose lifts with the tips that deep."""
        tried = torch.tensor(DEPTHS)
        place = (depths[0, :, None] - tried).abs().argmin(dim=1)
        lifted = self.lifted.gather(1, place[:, None])[:, 0]
        scores = torch.where(torch.isfinite(lifted), outputs.scores[0], -torch.ones(()))
        result = []
        for scene in self.scenes.unique():
            rows = torch.nonzero(self.scenes == scene).flatten()
            result.append(float(lifted[rows[scores[rows].argmax()]]) == 1.0)
        return np.array(result)


def learn_depths(weights: str | Path, folders: Sequence[str | Path], seed: int = 0) \
        -> tuple[GraspNetwork, dict[str, Any]]:
    """
    Network of ``weights`` that knows how deep to grasp, and the notes for its sidecar.

    ``folders`` hold what :func:`try_depths` wrote. Its score has no calibration any more. Raises
    :class:`checkpoint.CheckpointError`.
    """
    network, sidecar = load_multi_stage(weights)
    trials = _Trials([Path(folder) for folder in folders], network)
    learned = MultiStageSTN(replace(network.config, finger_depths=DEPTHS, calibration=(1.0, 0.0)))
    learned.load_state_dict(forget_depths(network).state_dict(), strict=False)
    held = trials.scenes % _HELD == 0
    known, unknown = torch.nonzero(~held).flatten(), torch.nonzero(held).flatten()
    depths = learned.classifier.depths = _fit(network, trials, known, seed)
    losses = {name: float(trials.loss(trials.answers(depths, rows), rows))
              for name, rows in (('trained', known), ('held_out', unknown))}
    return learned.eval(), {
        **checkpoint.notes(sidecar),
        'training': {**sidecar.get('training', {}), 'finger_depths': {
            'scenes': len(trials.scenes.unique()), 'candidates': len(trials.scenes),
            'cross_entropy': losses, 'seed': seed}}}


def compare_depths(weights: str | Path, folders: Sequence[str | Path], seed: int = 0) \
        -> dict[str, Any]:
    """
    What the choice of a depth is worth: lifts of the best candidate with and without it.

    Cross-validated over the scenes of ``folders``: each is judged by what was learned from the
    other four fifths. Returns the number of scenes and, for grippers whose fingers reach
    40 and 50 mm, how many were lifted and by which of both alone. Raises
    :class:`checkpoint.CheckpointError`.
    """
    network, _ = load_multi_stage(weights)
    trials = _Trials([Path(folder) for folder in folders], network)
    # Consecutive scenes are of different kinds, five of them all kinds.
    folds = trials.scenes // 5 % _FOLDS
    depth_logits = torch.zeros(len(trials.scenes), len(DEPTHS))
    for fold in range(_FOLDS):
        rest, judged = (torch.nonzero(which).flatten() for which in (folds != fold, folds == fold))
        depth_logits[judged] = trials.answers(_fit(network, trials, rest, seed + fold), judged)
    nothing = torch.zeros(1, len(trials.scenes))
    usual = StageOutputs(nothing[..., None].expand(-1, -1, 2), nothing, nothing,
                         nothing[..., None].expand(-1, -1, 5), trials.logits[None])
    taught = replace(usual, finger_depths=DEPTHS, depth_logits=depth_logits[None])
    results = []
    for longest in DEPTHS[-2:]:
        without, chosen = (trials.first_lifts(*outputs.with_fingers(longest))
                           for outputs in (usual, taught))
        results.append({'longest': longest, 'without': int(without.sum()),
                        'chosen': int(chosen.sum()), 'only_without': int((without > chosen).sum()),
                        'only_chosen': int((chosen > without).sum())})
    return {'n': len(trials.scenes.unique()), 'candidates': len(trials.scenes), 'seed': seed,
            'split': f'{_FOLDS} folds by scene', 'grippers': results}


def _fit(network: MultiStageSTN, trials: _Trials, rows: Tensor, seed: int) -> PatchNetwork:
    """Train on ``rows`` what says how deep, from a copy of the classifier of ``network``."""
    torch.manual_seed(seed)
    lifting = network.classifier.network
    depths = copy.deepcopy(lifting)
    depths.output = nn.Linear(lifting.output.in_features, len(DEPTHS))
    with torch.no_grad():
        # At first it says of all depths what the classifier says of lifting.
        depths.output.weight.copy_(lifting.output.weight[1:].expand(len(DEPTHS), -1))
        depths.output.bias.copy_(lifting.output.bias[1:].expand(len(DEPTHS)))
    # Not in training mode: the statistics of its normalization come from far more patches.
    depths.eval().requires_grad_(True)
    steps = max(1, _EPOCHS * len(rows) // _BATCH)
    optimizer = torch.optim.AdamW(depths.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps,
                                                   pct_start=0.1)
    for step in range(steps):
        batch = rows[torch.randint(len(rows), (_BATCH,))]
        patches = trials.patches[batch].float()
        # A mirrored grasp lifts as well as the grasp; to its features that is nearly true.
        mirrored = [axis for axis, every in ((2, 2), (3, 4)) if step % every >= every // 2]
        summary = depths.summary(patches.flip(mirrored), trials.beside[batch])
        loss = trials.loss(depths.output(F.dropout(summary, _DROPOUT)), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return depths


def forget_depths(network: GraspNetwork) -> GraspNetwork:
    """
    Return ``network`` without what it learned about depths, itself where that is nothing.

    For further training, which changes what the depths are read from.
    """
    if not isinstance(network, MultiStageSTN) or not network.config.finger_depths:
        return network
    rest = MultiStageSTN(replace(network.config, finger_depths=()))
    state = network.state_dict()
    rest.load_state_dict({name: state[name] for name in rest.state_dict()})
    return rest

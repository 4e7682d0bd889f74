"""
Learn how far down the finger tips go, from trials of a network's own candidates.

The last step of a training, after which the network stays as it is: it only learns to read what
its classifier makes of a patch anyway. Every candidate is executed several times with one
friction, and nothing but the depth of the tips differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
import io
from pathlib import Path
from typing import Any
import zipfile

import numpy as np
import torch
from torch import Tensor
import torch.nn.functional as F

from ..atomic import write_atomically
from ..grasp_pose import Gripper, rectangles_to_grasps
from ..preprocessing import View, preprocess
from ..reasons import GraspError
from ..rectangle import GraspRectangle, transform_rectangles
from ..rgbd import RgbdFrame
from ..simulation.domain import BASIC, FIELD
from ..simulation.gripper import FRICTION, GraspTrial
from ..simulation.labels import open_scene
from ..simulation.scene import TableScene
from ..stn import checkpoint
from ..stn.multi_stage import MultiStageSTN
from ..stn.network import GraspNetwork
from ..stn.stages import DepthHead
from ..support_plane import SupportPlane

# Metres below the surface. The fingers of the simulated gripper are 55 mm long.
DEPTHS = (0.015, 0.025, 0.040, 0.050)
# Where STN_crop's logit is below, there is hardly anything to grasp.
_LOCATED = -8.0
_BATCH, _STEPS, _RATE, _DECAY = 1024, 800, 3e-3, 0.3
# Every so many-th scene tells how good it became instead of being learned from.
_HELD = 10


class _Candidates:
    """What a network proposes in a frame, and what its classifier makes of it."""

    def __init__(self, network: MultiStageSTN, frame: RgbdFrame, gripper: Gripper):
        prepared = preprocess(frame, View.square(frame.size))
        image = torch.from_numpy(prepared.channels)[None]
        jaw = torch.tensor([prepared.jaw(gripper.jaw_size)])
        with torch.inference_mode():
            outputs = network(image, jaw=jaw)
            summaries, logits = _summarized(network, image, outputs.rectangles, jaw)
        usable = (outputs.location_logits[0] > _LOCATED).numpy()
        self.summaries: np.ndarray = summaries.numpy()[usable]
        self.lift_logits: np.ndarray = logits.numpy()[usable, 1]
        self.rectangles = [GraspRectangle(*values) for values in transform_rectangles(
            outputs.rectangles[0].double().numpy()[usable], prepared.view.inverse).tolist()]
        self.support: SupportPlane | None = prepared.support


def _summarized(network: MultiStageSTN, image: Tensor, rectangles: Tensor, jaw: Tensor) \
        -> tuple[Tensor, Tensor]:
    """Summaries (N, 128) and logits (N, 2) of the classifier for ``rectangles`` (1, N, 5)."""
    patches, extents, jaws = network.classified(network.trunk_features(image), image, rectangles,
                                                jaw)
    summaries = network.classifier.summary(patches, extents, jaws)
    return summaries, network.classifier.network.output(summaries)


def _open(seed: int, index: int) -> TableScene:
    """Three in five with one object, one with two to five, one of the domain ``field``."""
    if index % 5 == 1:
        return open_scene(seed, index * FIELD.views + index % FIELD.views, domain=FIELD)
    return open_scene(seed, index, objects=2 + index % 4 if index % 5 == 3 else 1, domain=BASIC)


def try_depths(network: MultiStageSTN, seed: int, scenes: range, folder: str | Path,
               progress: Callable[[range], Iterable[int]] = iter) -> int:
    """
    Execute the candidates of ``network`` in ``scenes`` of ``seed`` at each of :data:`DEPTHS`.

    One file for each scene in ``folder``; those that are there are kept. Returns how many were
    made.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made = 0
    for index in progress(scenes):
        path = folder / f'{index:06d}.npz'
        if path.exists():
            continue
        scene = _open(seed, index)
        try:
            arrays = _trials(network, scene, np.random.default_rng([seed, index, 9]))
        finally:
            scene.close()
        content = io.BytesIO()
        np.savez(content, **arrays)  # type: ignore[arg-type]
        write_atomically(path, content.getvalue(), sync=False)
        made += 1
    return made


def _trials(network: MultiStageSTN, scene: TableScene, rng: np.random.Generator) \
        -> dict[str, np.ndarray]:
    """``lifted`` (N, depths) is NaN where there is no pose; ``summaries`` (N, 128)."""
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
    return {'summaries': seen.summaries, 'lift_logits': seen.lift_logits, 'lifted': lifted}


class _Trials:
    """All trials of a folder."""

    def __init__(self, folder: Path):
        summaries, lift, lifted, scenes = [], [], [], []
        for path in sorted(folder.glob('*.npz')):
            try:
                arrays = np.load(path)
                summaries.append(arrays['summaries'])
                lift.append(arrays['lift_logits'])
                lifted.append(arrays['lifted'])
            except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
                raise checkpoint.CheckpointError(f'{path} holds no trials: {error}; remove it '
                                                 'and try its scene again') from None
            scenes += [int(path.stem)] * len(lift[-1])
        if not scenes:
            raise checkpoint.CheckpointError(f'{folder} holds no trials of finger depths')
        self.summaries = torch.from_numpy(np.concatenate(summaries))
        self.lift = torch.from_numpy(np.concatenate(lift))[:, None]
        self.lifted = torch.from_numpy(np.concatenate(lifted))
        self.scenes = torch.tensor(scenes)

    def loss(self, head: DepthHead, rows: Tensor) -> Tensor:
        """Cross entropy of ``rows``, of the depths that were tried."""
        lifted = self.lifted[rows]
        tried = torch.isfinite(lifted)
        logits = head(self.summaries[rows], self.lift[rows])
        return F.binary_cross_entropy_with_logits(logits[tried], lifted[tried])


def learn_depths(weights: str | Path, folder: str | Path, seed: int = 0) \
        -> tuple[GraspNetwork, dict[str, Any]]:
    """
    Network of ``weights`` that knows how deep to grasp, and the notes for its sidecar.

    ``folder`` holds what :func:`try_depths` wrote. Its score has no calibration any more. Raises
    :class:`checkpoint.CheckpointError`.
    """
    network, sidecar = checkpoint.load(weights)
    if not isinstance(network, MultiStageSTN):
        raise checkpoint.CheckpointError(f'{weights} holds no {MultiStageSTN.ARCHITECTURE}')
    trials = _Trials(Path(folder))
    learned = MultiStageSTN(replace(network.config, finger_depths=DEPTHS, calibration=(1.0, 0.0)))
    state = forget_depths(network).state_dict()
    learned.load_state_dict(state, strict=False)
    head = learned.classifier.depths
    assert head is not None
    held = trials.scenes % _HELD == 0
    known, unknown = torch.nonzero(~held).flatten(), torch.nonzero(held).flatten()
    _fit(head, trials, known, seed)
    with torch.no_grad():
        losses = {'trained': float(trials.loss(head, known)),
                  'held_out': float(trials.loss(head, unknown))}
    return learned.eval(), {
        **checkpoint.notes(sidecar),
        'training': {**sidecar.get('training', {}), 'finger_depths': {
            'scenes': len(trials.scenes.unique()), 'candidates': len(trials.scenes),
            'cross_entropy': losses, 'seed': seed}}}


def _fit(head: DepthHead, trials: _Trials, rows: Tensor, seed: int) -> None:
    """Train ``head`` in place on ``rows``."""
    torch.manual_seed(seed)
    for layer in (head.hidden, head.output):
        layer.reset_parameters()
    mean, spread = trials.summaries[rows].mean(0), trials.summaries[rows].std(0) + 1e-3
    head.train()
    optimizer = torch.optim.AdamW(head.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    plain = trials.summaries
    # Training wants numbers around zero; afterwards the first layer takes them as they come.
    trials.summaries = (plain - mean) / spread
    for _ in range(_STEPS):
        loss = trials.loss(head, rows[torch.randint(len(rows), (_BATCH,))])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    head.eval()
    trials.summaries = plain
    with torch.no_grad():
        head.hidden.bias.sub_(head.hidden.weight @ (mean / spread))
        head.hidden.weight.div_(spread)


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

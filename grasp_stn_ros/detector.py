"""The detector: one RGB-D frame in, the best grasp and every stage's candidates out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
import copy
import dataclasses
import functools
import math
from pathlib import Path
import time
import warnings

import cv2
import numpy as np
import torch

from . import ensemble
from .cuda_path import CudaGraph, TensorPreprocessor
from .detection import MINIMUM_SCORE, Candidate, Detection, refusal
from .device import has_bf16, pick_device
from .grasp_pose import APPROACHES, Gripper, approach_vector, rectangles_to_grasps
from .middle import distances_from_middle, prefer_middle
from .names import MODALITIES
from .package_files import places
from .preprocessing import (
    CHANNELS,
    HEIGHT_SCALE,
    MINIMUM_REGION,
    USUAL_JAW,
    NetworkInput,
    View,
    ViewDepth,
    at_scale,
    preprocess,
    size_for_jaw,
    view_sizes,
)
from .reasons import GraspError, Reason
from .rectangle import GraspRectangle, transform_rectangles, wrap_angle
from .rgbd import CameraIntrinsics, RgbdFrame
from .stn import checkpoint
from .stn.backbone import fold_batch_norm, round_to_bf16
from .stn.network import GraspNetwork, StageOutputs
from .stn.tracing import Tracer
from .stn.trunk import Trunk
from .thread_count import ThreadCount

DEFAULT_MODEL = 'multi_stage_stn.safetensors'
# The camera that the detector warms up with, and how many of its pixels a side are looked at.
_CAMERA, _SHOWN = CameraIntrinsics(525.0, 525.0, 319.5, 239.5), 480
# A location that STN_crop itself does not believe in is no candidate.
_MIN_LOCATION_SCORE = 1e-3


def find_weights(name: str) -> Path:
    """
    Path of the weights ``name`` that come with the package, in the source tree or installed.

    Raises :class:`checkpoint.CheckpointError` where they are nowhere.
    """
    paths = places(f'models/{name}')
    for path in paths:
        if path.exists():
            return path
    raise checkpoint.CheckpointError(
        f'the weights {name} that come with the package are not where they belong '
        f'({paths[0]} or share/grasp_stn_ros/models); install the package again or name a file')


def default_weights() -> Path:
    """Path of the weights that are used unless others are named; see :func:`find_weights`."""
    return find_weights(DEFAULT_MODEL)


class GraspDetector:
    """
    Load a model once, then detect on frame after frame.

    Not thread-safe: one thread at a time may call :meth:`detect`.
    """

    def __init__(self, weights: str | Path | GraspNetwork = 'default', device: str = 'auto',
                 threads: int = 0, candidates: int = 0, gripper: Gripper | None = None,
                 approach: str = 'support_plane',
                 approach_direction: tuple[float, float, float] = (0.0, 0.0, 1.0),
                 precision: str = 'auto', modality: str = 'rgbd', cuda_graph: bool = False,
                 turns: int = 1, middle_weight: float | None = None,
                 adapt_threads: bool = False):
        """
        Load ``weights`` ('default', a .safetensors path, or a network) onto ``device``.

        ``device`` is 'auto' (CUDA where there is one), 'cpu', 'cuda' or 'cuda:N'; ``threads`` of
        the CPU, 0 = leave as it is; ``candidates`` K, 0 = the model's; ``approach`` one of
        :data:`grasp_pose.APPROACHES`; ``precision`` 'auto', 'fp32' or 'bf16'; ``modality`` one of
        :data:`names.MODALITIES`, what of a frame the network sees (poses need depth all the same,
        and where the network sees none there is no support plane to approach against);
        ``cuda_graph`` runs the network as one graph, on a GPU and of the package's own kind only;
        ``turns`` > 1 is an ensemble of so many turned views of each image (see :mod:`ensemble`),
        which takes as many times as long; ``middle_weight`` (1/m) prefers grasps near the middle
        of their object, by so much of the logit of the score before its calibration for each metre
        from it (see :mod:`middle`), where there is depth; None = the model's; ``adapt_threads``
        computes on the CPU with as many threads, up to ``threads``, as are fastest beside whatever
        else runs (see :class:`ThreadCount`).
        Raises :class:`checkpoint.CheckpointError` or ValueError.
        """
        if not 1 <= turns <= 16:
            raise ValueError(f'turns must lie between 1 and 16, got {turns}')
        if middle_weight is not None and not middle_weight >= 0:
            raise ValueError(f'middle_weight must not be negative, got {middle_weight}')
        if modality not in MODALITIES:
            raise ValueError(f'modality {modality!r}, expected one of {", ".join(MODALITIES)}')
        if approach not in APPROACHES:
            raise ValueError(f'approach {approach!r}, expected one of {", ".join(APPROACHES)}')
        if precision not in ('auto', 'fp32', 'bf16'):
            raise ValueError(f'precision {precision!r}, expected auto, fp32 or bf16')
        if not 0 <= candidates <= 256:
            raise ValueError(f'candidates must lie between 0 and 256, got {candidates}')
        self.device = pick_device(device)
        if isinstance(weights, GraspNetwork):
            # A copy: what is done to the weights here is of no concern to a training.
            model, self.model_name = copy.deepcopy(weights), 'unnamed'
        else:
            path = default_weights() if str(weights) == 'default' else Path(weights)
            model, _ = checkpoint.load(path)
            self.model_name = path.stem
        if threads > 0:
            torch.set_num_threads(threads)
        self._may_fall_back = device == 'auto'
        self.fallback = ''  # what happened, where the network is not on the device asked for
        self._model = fold_batch_norm(model.eval()).requires_grad_(False)
        self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._asked_precision = precision
        self.precision = self._precision_there()
        self.modality = modality
        self.turns = turns
        self.middle_weight = middle_weight
        self._on_gpu: TensorPreprocessor | None = None
        self._cuda_graph = cuda_graph and model.TRACEABLE
        # For images with and without depth, the finger depth that is a part of them, with and
        # without a mask: the number of inputs, and the size of the view.
        self._graphs: dict[tuple[bool, float, int, int], CudaGraph] = {}
        # Of all frames: fresh memory for each would cost a millisecond of page faults.
        self._input = _Input()
        # With depth, size of the view, with a mask.
        self._warm: set[tuple[bool, int, bool]] = set()
        # Where the network may use a second core, its input may as well.
        self._helper = (ThreadPoolExecutor(1, 'preprocessing')
                        if torch.get_num_threads() > 1 else None)
        self._threads = torch.get_num_threads()
        self._thread_count = ThreadCount(self._threads) if adapt_threads else None
        self._place()
        self.candidates = candidates or model.config.candidates
        self.stage_titles = model.TITLES
        self.gripper = gripper or Gripper()
        self.approach = approach
        self.approach_direction = approach_direction

    @property
    def threads(self) -> int:
        """Threads of the CPU that the network is computed with, at present."""
        return self._threads if self._thread_count is None else self._thread_count.chosen

    def warm_up(self, with_depth: bool = True) -> None:
        """Run the whole way until the first real frame, with or without depth, is not slow."""
        frame = _block_on_table(0.8)
        self.warm_up_for(frame if with_depth else dataclasses.replace(frame, depth=None))

    def warm_up_everywhere(self) -> Iterator[int]:
        """
        Warm up for a camera at any distance: for each size that a view has where depth tells it.

        Yields each size, in pixels a side, when it is done, so that who waits may give up; none
        where the network is shown all images at one size.
        """
        wanted = self._model.config.seen_jaw
        for size in view_sizes(with_depth=True) if wanted else ():
            # From so far away jaws have as many pixels as are wanted in a view of that size.
            self.warm_up_for(_block_on_table(_CAMERA.fx * USUAL_JAW * size / (_SHOWN * wanted)))
            yield size

    def warm_up_for(self, frame: RgbdFrame,
                    region: tuple[float, float, float, float] | None = None,
                    jaw_pixels: float | None = None, mask: np.ndarray | None = None) -> None:
        """
        Run the whole way with ``frame`` until the next one that is looked at as large is not slow.

        With a ``mask``, until the next one with a mask is not. Does nothing where that was done
        before. Raises :class:`GraspError` as :meth:`detect` does.
        """
        view = _view(frame, region)
        key = (_has_depth(frame, view.region), self._at_scale(view, frame, jaw_pixels)[0].size,
               mask is not None and self._model.STEERABLE)
        if key in self._warm:
            return
        # TorchScript watches the first two runs, and optimizes what it has seen.
        for _ in range(1 if self._model.for_images(key[0]).tracer is None else 3):
            self.detect(frame, region, jaw_pixels=jaw_pixels, mask=mask)
        self._warm.add(key)

    def suspend(self) -> None:
        """Move the network off a GPU and free its memory there, until :meth:`resume`."""
        if self.device.type == 'cuda':
            self._model.to('cpu')
            self._graphs.clear()
            self._warm.clear()
            torch.cuda.empty_cache()

    def resume(self) -> None:
        """Move the network back to its device; a no-op where it is there."""
        if self.device.type == 'cuda':
            self._place()

    def detect(self, frame: RgbdFrame, region: tuple[float, float, float, float] | None = None,
               minimum_score: float = MINIMUM_SCORE, need_pose: bool = True,
               jaw_pixels: float | None = None, mask: np.ndarray | None = None) -> Detection:
        """
        Find the best grasp in ``frame``.

        ``region`` (x, y, width, height) in pixels is what the network looks at, as a whole; None
        is the largest centred square. Without ``need_pose`` the best candidate is the one with
        the best score, whether or not depth allows a pose. ``jaw_pixels`` is the height of the
        gripper's plates in the image, for frames without depth or camera; None = from the gripper
        and the depth, where they are known. Without depth the view has more pixels then where the
        network wants that, which takes longer (see :func:`preprocessing.size_for_jaw`). ``mask``
        (H, W) of the image is not 0 where grasps are looked for, such as the pixels of one object:
        all K candidates start there, where the network can be told so; what the fit moves out of
        it is up to :func:`limits.apply`.
        Where there is no grasp, the result says why. Raises :class:`GraspError` only for a region
        or a mask that does not fit the image and for a device that is out of memory.
        """
        if mask is not None:
            frame.check_mask(mask)
        if self._thread_count is None or self.device.type != 'cpu':
            return self._detect(frame, region, minimum_score, need_pose, jaw_pixels, mask)
        # Only where it differs: PyTorch forgets what it has prepared for convolutions.
        if torch.get_num_threads() != self._thread_count.now:
            torch.set_num_threads(self._thread_count.now)
        clock = _Stopwatch()
        detection = self._detect(frame, region, minimum_score, need_pose, jaw_pixels, mask)
        clock.lap('all')
        self._thread_count.took(clock.milliseconds['all'])
        return detection

    def _detect(self, frame: RgbdFrame, region: tuple[float, float, float, float] | None,
                minimum_score: float, need_pose: bool, jaw_pixels: float | None,
                mask: np.ndarray | None) -> Detection:
        # Denormals make single operations up to a hundred times slower. It is a setting of the
        # calling thread, which need not be the one that made the detector.
        torch.set_flush_denormal(True)
        view = _view(frame, region)
        clock = _Stopwatch()
        view, known = self._at_scale(view, frame, jaw_pixels)
        seen: list[list[Candidate]] = []
        first: NetworkInput | None = None
        for turned_view in ensemble.turned(view, self.turns) if self.turns > 1 else [view]:
            try:
                image, prepared = self._prepare(frame, turned_view, known)
            except GraspError as error:
                return Detection((), None, error.reason, str(error), {}, view.region)
            clock.lap('preprocessing')
            outputs = self._infer(image, prepared.jaw(self.gripper.jaw_size, jaw_pixels),
                                  prepared.pixels_per_metre is not None, clock.lap,
                                  None if mask is None else _allowed_cells(mask, turned_view))
            self._prefer_middle(outputs, image, prepared)
            seen.append(self._decode(outputs, prepared, region))
            first = first or prepared
        assert first is not None
        candidates = ensemble.vote(seen) if self.turns > 1 else seen[0]
        candidates = self._with_poses(candidates, frame, first)
        clock.lap('grasp_pose')
        best, reason, message = choose(candidates, minimum_score, need_pose)
        if mask is not None and self._model.STEERABLE and not candidates:
            reason, message = Reason.MASKED, Reason.MASKED.sentence
        return Detection(tuple(candidates), best, reason, message, clock.milliseconds,
                         view.region, first.support)

    def _at_scale(self, view: View, frame: RgbdFrame,
                  jaw_pixels: float | None) -> tuple[View, ViewDepth | None]:
        """
        Show as much as ``view``, with as many pixels as the network wants jaws to have.

        Also what was learned about the depth, where a view can be prepared with it.
        """
        config = self._model.config
        if self.modality != 'rgb' and _has_depth(frame, view.region):
            view, known = at_scale(frame, view, config.seen_jaw)
            # A camera that is turned sees the plane in another place.
            return view, known if self.turns == 1 else None
        if not config.told_jaw or jaw_pixels is None:
            return view, None
        return View.of_region(*view.region, size_for_jaw(jaw_pixels * view.scale,
                                                         config.told_jaw)), None

    def _place(self) -> None:
        """Move the network to the device, or do what is left when that is full."""
        try:
            self._model.to(self.device)
            if self.device.type == 'cuda':
                self._on_gpu = TensorPreprocessor(self.device)
            self._prepare_for_cpu()
        except torch.OutOfMemoryError as error:
            self._fall_back(error)

    def _fall_back(self, error: Exception) -> None:
        """Go on with the CPU where the device is free to choose; raises :class:`GraspError`."""
        if not self._may_fall_back or self.device.type == 'cpu':
            raise GraspError(Reason.OUT_OF_MEMORY, str(error).split('\n', 1)[0]) from None
        self.fallback = (f'{self.device} is out of memory, the network runs on the CPU and is '
                         'slower; free memory there and configure the node again')
        warnings.warn(self.fallback, RuntimeWarning, stacklevel=2)
        self.device = torch.device('cpu')
        self._on_gpu = None
        self._graphs.clear()
        self.precision = self._precision_there()
        self._model.to('cpu')
        self._prepare_for_cpu()
        torch.cuda.empty_cache()

    def _precision_there(self) -> str:
        """Return 'fp32' or 'bf16': what was asked for, or what is faster on the device."""
        if self._asked_precision != 'auto':
            return self._asked_precision
        return 'bf16' if has_bf16(self.device) else 'fp32'

    def _prepare_for_cpu(self) -> None:
        """Weights as they are multiplied; stages traced when they are first used."""
        if self.device.type != 'cpu':
            return
        if self.precision == 'bf16':
            round_to_bf16(self._model)
        for network in {self._model.for_images(with_depth) for with_depth in (True, False)}:
            if network.TRACEABLE:
                network.tracer = Tracer(network, self.precision == 'bf16')
        self._warm.clear()

    def _prepare(self, frame: RgbdFrame, view: View,
                 known: ViewDepth | None = None) -> tuple[torch.Tensor, NetworkInput]:
        """
        Return the network's input (1, 7, S, S) on the device, and what comes with it.

        With channels last, as the convolutions want it; on the CPU the next frame overwrites it.
        """
        use_rgb, use_depth = self.modality != 'depth', self.modality != 'rgb'
        if self._on_gpu is not None:
            try:
                return self._on_gpu(frame, view, use_rgb, use_depth, known)
            except torch.OutOfMemoryError as error:
                self._fall_back(error)
        channels, image = self._input.of_size(view.size)
        return image, preprocess(frame, view, use_rgb, use_depth, channels, self._helper,
                                 image[0].permute(1, 2, 0).numpy(), known)

    def _infer(self, image: torch.Tensor, jaw: float, with_depth: bool,
               lap: Callable[[str], None], allowed: np.ndarray | None) -> dict[str, np.ndarray]:
        """One forward pass, once more on the CPU where the GPU is full."""
        try:
            return self._run(image, jaw, with_depth, lap, allowed)
        except torch.OutOfMemoryError as error:
            self._fall_back(error)
            return self._run(image.to(self.device), jaw, with_depth, lap, allowed)

    def _run(self, image: torch.Tensor, jaw: float, with_depth: bool,
             lap: Callable[[str], None],
             allowed: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """
        One forward pass of (1, 7, S, S) float32 and jaw size -> arrays without the batch axis.

        ``allowed`` (S / 4, S / 4) bool, where locations may be proposed; None = everywhere.

        On a GPU the stages run asynchronously and only their sum is meaningful: it falls to the
        classifier, behind which the results are fetched.
        """
        # Filled on the device: a number that is copied there would be waited for.
        jaws = torch.full((1,), jaw, device=self.device)
        network = self._model.for_images(with_depth)
        inputs = [image, jaws]
        if allowed is not None and network.STEERABLE:
            inputs.append(torch.from_numpy(allowed[None]).to(self.device))
        with torch.inference_mode():
            if self._cuda_graph and self.device.type == 'cuda':
                key = with_depth, self.gripper.finger_depth, len(inputs), image.shape[-1]
                if key not in self._graphs:
                    # Of another gripper's fingers nobody will ask again.
                    self._graphs = {k: g for k, g in self._graphs.items() if k[1] == key[1]}
                    self._graphs[key] = CudaGraph(functools.partial(self._forward, network),
                                                  *inputs)
                packed = self._graphs[key](*inputs)
            else:
                packed = self._forward(network, *inputs, lap=lap)
            # The one copy from the GPU, but for what _prefer_middle asks for where that is wanted,
            # and the one synchronization.
            result = packed.cpu().numpy().astype(np.float64)
        return {'locations': result[:, :2], 'location_logits': result[:, 2],
                'theta': result[:, 3], 'rectangles': result[:, 4:9], 'scores': result[:, 9],
                'finger_depths': result[:, 10]}

    def _forward(self, network: GraspNetwork, image: torch.Tensor, jaw: torch.Tensor,
                 *allowed: torch.Tensor,
                 lap: Callable[[str], None] = lambda name: None) -> torch.Tensor:
        """All that ``network`` decides, as one tensor (K, 11); ``allowed`` are none or one."""
        # Cached casts of the weights would be freed under a recorded graph. Traced stages have
        # casts of their own.
        with torch.autocast(self.device.type, torch.bfloat16, cache_enabled=not self._cuda_graph,
                            enabled=self.precision == 'bf16' and network.tracer is None):
            outputs: StageOutputs = network(image, self.candidates, lap, jaw, *allowed)
        outputs, depths = outputs.with_fingers(self.gripper.finger_depth)
        return torch.cat([outputs.locations, outputs.location_logits[..., None],
                          outputs.theta[..., None], outputs.rectangles,
                          outputs.scores[..., None], depths[..., None]], dim=-1)[0].float()

    def _prefer_middle(self, outputs: dict[str, np.ndarray], image: torch.Tensor,
                       prepared: NetworkInput) -> None:
        """Lower the scores of grasps far from the middle of their object."""
        config = self._model.config
        weight = config.middle_weight if self.middle_weight is None else self.middle_weight
        if not weight or prepared.support is None or prepared.pixels_per_metre is None:
            return
        # Behind the results, so that on a GPU nothing is left to be waited for.
        distances = distances_from_middle(image[0, 3].cpu().numpy(), outputs['rectangles'][:, :2],
                                          prepared.pixels_per_metre, HEIGHT_SCALE)
        # The scores are calibrated already.
        outputs['scores'] = prefer_middle(outputs['scores'], distances,
                                          weight * config.calibration[0])

    def _decode(self, outputs: dict[str, np.ndarray], prepared: NetworkInput,
                region: tuple[float, float, float, float] | None) -> list[Candidate]:
        """View pixels -> image pixels; descending by score; without what is no candidate."""
        inverse = prepared.view.inverse
        location_scores = 1 / (1 + np.exp(-outputs['location_logits'].clip(-60, 60)))
        usable = ((location_scores >= _MIN_LOCATION_SCORE)
                  & np.isfinite(outputs['rectangles']).all(axis=1))
        rectangles = transform_rectangles(outputs['rectangles'], inverse)
        locations = prepared.view.to_image(outputs['locations'])
        thetas = wrap_angle(outputs['theta'] + math.atan2(inverse[1, 0], inverse[0, 0]))
        candidates = []
        for i in np.argsort(-outputs['scores'], kind='stable'):
            if not usable[i]:
                continue
            fitted = GraspRectangle(*rectangles[i].tolist())
            if region is not None and not _inside(fitted, region):
                continue
            candidates.append(Candidate(tuple(locations[i].tolist()), float(location_scores[i]),
                                        float(thetas[i]), fitted, float(outputs['scores'][i]),
                                        # Single precision made 39.999999 mm of 40.
                                        finger_depth=round(float(outputs['finger_depths'][i]), 6)))
        return candidates

    def _with_poses(self, candidates: list[Candidate], frame: RgbdFrame,
                    prepared: NetworkInput) -> list[Candidate]:
        """Add to each the grasp in space, or the reason why there is none."""
        done, feasible = list(candidates), {}
        # What the network saw is not asked: where it sees no depth, poses need it all the same.
        blind = prepared.pixels_per_metre is None and not _has_depth(frame, prepared.view.region)
        for i, candidate in enumerate(candidates):
            try:
                if frame.intrinsics is None:
                    raise GraspError(Reason.INVALID_INTRINSICS)
                if blind:
                    raise GraspError(Reason.NO_DEPTH, 'not one pixel of the view has depth')
                feasible[i] = approach_vector(self.approach, self.approach_direction, frame,
                                              candidate.rectangle, prepared.support)
            except GraspError as error:
                done[i] = dataclasses.replace(candidate, reason=error.reason,
                                              detail=error.detail)
        if not feasible:
            return done
        grasps = rectangles_to_grasps([candidates[i].rectangle for i in feasible], frame,
                                      self.gripper, np.array([*feasible.values()]),
                                      prepared.support,
                                      [candidates[i].finger_depth for i in feasible])
        for i, grasp in zip(feasible, grasps, strict=True):
            done[i] = dataclasses.replace(candidates[i], reason=grasp.reason,
                                          detail=grasp.detail) \
                if isinstance(grasp, GraspError) else \
                dataclasses.replace(candidates[i], grasp=grasp)
        return done


def choose(candidates: list[Candidate], minimum_score: float,
           need_pose: bool) -> tuple[Candidate | None, Reason, str]:
    """Max pooling over what can be executed."""
    good = [c for c in candidates if c.score >= minimum_score]
    if not good:
        best_score = candidates[0].score if candidates else 0.0
        detail = f'best score {best_score:.4g}, minimum score {minimum_score:.4g}'
        return None, Reason.NO_CANDIDATE, f'{Reason.NO_CANDIDATE.sentence} ({detail})'
    for candidate in good:
        if candidate.grasp is not None or not need_pose:
            return candidate, Reason.OK, Reason.OK.sentence
    return None, good[0].reason, refusal(good[0], len(good))


def _block_on_table(distance: float) -> RgbdFrame:
    """Something to propose, and a pose to compute, seen from ``distance`` metres above."""
    rgb = np.full((_SHOWN, 640, 3), 90, np.uint8)
    depth = np.full((_SHOWN, 640), distance, np.float32)
    rgb[210:270, 300:340], depth[210:270, 300:340] = (200, 60, 40), distance - 0.05
    return RgbdFrame(rgb, depth, _CAMERA)


def _has_depth(frame: RgbdFrame, region: tuple[float, float, float, float]) -> bool:
    """Whether any pixel of ``region`` (x, y, width, height) has depth."""
    if frame.depth is None:
        return False
    left, top, right, bottom = (max(0, round(v)) for v in (
        region[0], region[1], region[0] + region[2], region[1] + region[3]))
    depth = frame.depth[top:bottom, left:right]
    # A few of them settle it for most frames.
    return bool(np.isfinite(depth[::16, ::16]).any() or np.isfinite(depth).any())


def _allowed_cells(mask: np.ndarray, view: View) -> np.ndarray:
    """Mask (H, W) of the image -> cells (S / 4, S / 4) bool of the location map that touch it."""
    seen = cv2.warpAffine((mask != 0).astype(np.uint8), view.matrix, (view.size, view.size),
                          flags=cv2.INTER_NEAREST)
    cells = view.size // Trunk.STRIDE
    return seen.reshape(cells, Trunk.STRIDE, cells, Trunk.STRIDE).max(axis=(1, 3)) > 0


def _inside(rectangle: GraspRectangle, region: tuple[float, float, float, float]) -> bool:
    """Centre inside the region: the view is square and shows more than a narrow region."""
    x, y, width, height = region
    return x - 0.5 <= rectangle.x <= x + width - 0.5 and y - 0.5 <= rectangle.y <= y + height - 0.5


def _view(frame: RgbdFrame, region: tuple[float, float, float, float] | None) -> View:
    """Return what the network looks at: ``region``, or the largest centred square."""
    if region is None:
        return View.square(frame.size)
    return View.of_region(*_checked_region(region, frame.size))


def _checked_region(region: tuple[float, float, float, float],
                    image_size: tuple[int, int]) -> tuple[float, float, float, float]:
    x, y, width, height = map(float, region)
    fits = x >= 0 and y >= 0 and x + width <= image_size[0] and y + height <= image_size[1]
    if not np.isfinite([x, y, width, height]).all() or not fits or min(width, height) < 1 \
            or max(width, height) < MINIMUM_REGION:
        raise GraspError(Reason.INVALID_REQUEST,
                         f'region x={x:g} y={y:g} {width:g}x{height:g} in an image of '
                         f'{image_size[0]}x{image_size[1]}, at least {MINIMUM_REGION} px long')
    return x, y, width, height


class _Input:
    """
    Memory of the network's input on the CPU, kept from one frame to the next.

    One for all sizes of views, of the largest so far: one each would be up to 25 MB a size.
    """

    def __init__(self) -> None:
        self._channels = np.empty(0, np.float32)
        self._image = torch.empty(0)

    def of_size(self, size: int) -> tuple[np.ndarray, torch.Tensor]:
        """Channels (7, S, S) float32 and an image (1, 7, S, S) with channels last, to write to."""
        count = CHANNELS * size * size
        if self._channels.size < count:
            self._channels, self._image = np.empty(count, np.float32), torch.empty(count)
        return (self._channels[:count].reshape(CHANNELS, size, size),
                self._image[:count].view(1, size, size, CHANNELS).permute(0, 3, 1, 2))


class _Stopwatch:
    """Wall time per stage in milliseconds."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        # Stages that an ensemble goes through several times add up.
        self.milliseconds[name] = self.milliseconds.get(name, 0.0) + (now - self._last) * 1e3
        self._last = now

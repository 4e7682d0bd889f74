"""The order of training: stage by stage on ground truth, then end to end from the last block."""

from __future__ import annotations

from dataclasses import dataclass

from .losses import STAGES


@dataclass(frozen=True)
class Phase:
    """
    A part of the training.

    ``share`` of all images; ``stages`` that are trained; ``own`` are those that also see what the
    blocks before them really propose; ``rate`` is a factor of the learning rate.
    """

    name: str
    share: float
    stages: frozenset[str]
    own: frozenset[str] = frozenset()
    rate: float = 1.0


def paper_schedule() -> tuple[Phase, ...]:
    """
    Return the schedule of section III-E.

    The blocks join one after the other, each on ground truth. Then they meet their predecessors'
    real output, starting with the last block: the classifier first, then the fit as well (its
    gradient reaches location and angle through the sampler), then the rotation.
    """
    everything = frozenset(STAGES)
    return (
        Phase('ground truth: crop', 0.08, frozenset(STAGES[:1])),
        Phase('ground truth: + rotation', 0.08, frozenset(STAGES[:2])),
        Phase('ground truth: + scale, crop', 0.09, frozenset(STAGES[:3])),
        Phase('ground truth: + classifier', 0.30, everything),
        Phase('end to end: classifier', 0.10, everything, frozenset({'classifier'})),
        Phase('end to end: + scale, crop', 0.10, everything,
              frozenset({'classifier', 'scale_crop'})),
        Phase('end to end: + rotation', 0.25, everything,
              frozenset({'classifier', 'scale_crop', 'rotation'})),
    )


def fine_tuning() -> tuple[Phase, ...]:
    """All blocks on ground truth and on their predecessors' output, for a trained network."""
    everything = frozenset(STAGES)
    return (Phase('fine-tuning', 1.0, everything, everything - {STAGES[0]}),)


def separate_schedule(stages: tuple[str, ...], ground_truth: tuple[float, ...],
                      end_to_end: tuple[float, ...]) -> tuple[Phase, ...]:
    """
    Return a schedule for blocks that share nothing: each alone on ground truth, then end to end.

    ``ground_truth`` are the shares of the phases of each block in ``stages``, ``end_to_end`` those
    of the phases in which the last block, the last two, and so on meet the real output of their
    predecessors.
    """
    phases = [Phase(f'ground truth: {stage}', share, frozenset({stage}))
              for stage, share in zip(stages, ground_truth, strict=True)]
    for back, share in enumerate(end_to_end, 1):
        last = frozenset(stages[-back:])
        phases.append(Phase(f'end to end: from {stages[-back]}', share, last, last, rate=0.3))
    return tuple(phases)


def within_phase(phases: tuple[Phase, ...], progress: float) -> float:
    """How much of the phase at ``progress`` is done, in [0, 1]."""
    total = sum(p.share for p in phases)
    index = phase_at(phases, progress)
    start = sum(p.share for p in phases[:index]) / total
    return min(1.0, max(0.0, (progress - start) / (phases[index].share / total)))


def phase_at(phases: tuple[Phase, ...], progress: float) -> int:
    """Index of the phase at ``progress`` in [0, 1]."""
    total = sum(p.share for p in phases)
    end = 0.0
    for index, phase in enumerate(phases):
        end += phase.share / total
        if progress < end - 1e-9:
            return index
    return len(phases) - 1

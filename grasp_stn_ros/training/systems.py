"""
All systems that can be trained: network, objective, phases and settings, by name.

The names are those of :data:`names.SYSTEMS`, the rows of Table I, and ``shipped`` for the
network that comes with the package. Table I is trained without augmentation, as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ..architectures import ARCHITECTURES
from ..data.augmentation import Augmentation, FixedView
from ..data.sample import Dataset
from ..preprocessing import INPUT_SIZE
from ..stn.multi_stage import ModelConfig
from ..stn.network import GraspNetwork, NetworkConfig
from . import objectives
from .losses import LossSettings
from .schedule import Phase, paper_schedule, separate_schedule
from .settings import TrainingSettings

# (network, batch, phase, settings) -> losses; the network is of the objective's own class, and one
# of them takes teachers, which a common type cannot say.
Objective = Callable[..., dict[str, Tensor]]


@dataclass(frozen=True)
class System:
    """One system: what is trained, for what, in which order, with which settings."""

    architecture: str
    objective: Objective
    phases: tuple[Phase, ...]
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    config: NetworkConfig | None = None      # of the network; None = the default one

    @property
    def network(self) -> type[GraspNetwork]:
        """Class of the network."""
        return ARCHITECTURES[self.architecture]

    def settings_for(self, data: Dataset, **changes: Any) -> TrainingSettings:
        """Return the system's settings for the part of the images that ``data`` is looked at."""
        settings = replace(self.settings, **changes)
        region = getattr(data, 'region', None)
        if region is None:
            return settings
        view: Augmentation | FixedView = settings.augmentation
        if isinstance(view, FixedView):
            view = replace(view, region=tuple(region))
        else:
            view = replace(view, nominal=INPUT_SIZE / max(region[2:]))
        return replace(settings, augmentation=view)


def _paper_settings(images: int, choose: str = 'plain', measure_every: int = 0,
                    **losses: Any) -> TrainingSettings:
    """
    Without augmentation: every image is seen as it is, some without their depth.

    The blocks behind a block are trained *around* the ground truth, as far from it as that block
    is on images it has not seen. The learning rate falls in each phase anew, since each trains
    other blocks.
    """
    return TrainingSettings(
        images=images, batch=6, average=0.99, learning_rate=1e-3, choose=choose,
        measure_every=measure_every,
        augmentation=FixedView(no_depth=0.1), restart=True,
        losses=LossSettings(**{'locations': 4, 'classified': 12, 'location_jitter': 10.0,
                               'angle_jitter': 0.15, **losses}))


SHIPPED = System('MultiStageSTN', objectives.multi_stage, paper_schedule(),
                 TrainingSettings(augmentation=Augmentation(anywhere=0.1, no_colour=0.1,
                                                            no_depth=0.2)),
                 ModelConfig(gripper_input=True, candidates=8, refinements=1))

TRAINABLE: dict[str, System] = {
    'shipped': SHIPPED,
    'sae_sliding_window': System(
        'sae_sliding_window', objectives.windows,
        (Phase('without labels: autoencoder 1', 0.25, frozenset({'autoencoder 1'})),
         Phase('without labels: autoencoder 2', 0.15, frozenset({'autoencoder 2'})),
         Phase('fine-tuning', 0.6, frozenset({'classifier'}))),
        _paper_settings(12_000, 'windows', 2_000, classified=24)),
    'cnn_sliding_window': System(
        'cnn_sliding_window', objectives.windows,
        (Phase('classification', 1.0, frozenset({'classifier'})),),
        _paper_settings(12_000, 'windows', 2_000, classified=24)),
    'regression': System(
        'regression', objectives.regression,
        (Phase('regression', 1.0, frozenset({'regression'})),),
        _paper_settings(9_000, measure_every=3_000)),
    'single_stage_stn': System(
        'single_stage_stn', objectives.single_stage,
        separate_schedule(('localization', 'classifier'), (0.6, 0.2), (0.08, 0.12)),
        _paper_settings(12_000)),
    'multi_stage_stn': System(
        'multi_stage_stn', objectives.paper,
        separate_schedule(('crop', 'rotation', 'scale_crop', 'classifier'),
                          (0.5, 0.13, 0.13, 0.1), (0.02, 0.03, 0.04, 0.05)),
        _paper_settings(16_000)),
}

"""Everything that decides the result of a training, apart from the data and the system."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..data.augmentation import Augmentation, FixedView
from ..settings_check import AT_LEAST_ONE, POSITIVE, SHARE, check
from .losses import LossSettings


@dataclass(frozen=True)
class TrainingSettings:
    """Numbers of a training; ``batch`` counts over all processes."""

    images: int = 24_000          # seen in total, with repetition
    batch: int = 12
    learning_rate: float = 2e-3
    weight_decay: float = 0.03
    warm_up: int = 100            # steps
    average: float = 0.995        # decay of the exponential moving average of the weights
    seed: int = 0
    augmentation: Augmentation | FixedView = field(default_factory=Augmentation)
    losses: LossSettings = field(default_factory=LossSettings)
    restart: bool = False         # the learning rate falls in every phase anew
    measure_every: int = 0        # images between validations; 0 = after every phase only
    choose: str = ''              # validation figure by which the best weights are kept, or none

    def __post_init__(self) -> None:
        """Raise ValueError, which names the field, where a value cannot be used."""
        check(self, images=AT_LEAST_ONE, batch=AT_LEAST_ONE, learning_rate=POSITIVE,
              warm_up=AT_LEAST_ONE, average=SHARE)

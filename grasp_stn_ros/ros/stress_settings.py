"""How much a stress test does, and the row that comes out."""

from __future__ import annotations

from dataclasses import dataclass, field
import itertools
import os
from typing import Any

_numbers = itertools.count()


@dataclass(frozen=True)
class Settings:
    """Extent of the rows; the defaults are those of the published report."""

    minutes: float = 10.0
    calls: int = 1000
    clients: int = 4
    messages: int = 10_000
    dds_messages: int = 500
    sets: int = 500
    reconfigurations: int = 3
    signals: int = 12
    files: int = 200
    seed: int = 0
    model: str = 'default'

    def parameters(self, **values: Any) -> dict[str, Any]:
        """Return the parameters of a node under test."""
        return {'model': self.model, **values}


def new_namespace() -> str:
    """Return a namespace that no other node of this session has."""
    return f'/stress_{os.getpid()}_{next(_numbers)}'


@dataclass
class Row:
    """One row of the report: figures, and what was not as it has to be."""

    name: str
    expected: str
    figures: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def check(self, passed: bool, problem: str) -> None:
        """Note ``problem`` unless ``passed``."""
        if not passed:
            self.problems.append(problem)

    def record(self) -> dict[str, Any]:
        """Return the row as it is written."""
        return {'name': self.name, 'passed': not self.problems, 'expected': self.expected,
                **self.figures, 'problems': self.problems}

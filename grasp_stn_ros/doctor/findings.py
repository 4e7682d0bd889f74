"""What a check found, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
import enum
from typing import Any


class Level(str, enum.Enum):
    """How bad a finding is."""

    OK = 'ok'
    NOTE = 'note'          # good to know
    WARNING = 'warning'    # works, but badly or not always
    ERROR = 'error'        # does not work


@dataclass(frozen=True)
class Finding:
    """
    The outcome of one check.

    ``name`` is stable (``dds.profile``) and for scripts; ``message`` says what was found and
    ``remedy`` what to do, empty where nothing has to be done.
    """

    name: str
    level: Level
    message: str
    remedy: str = ''

    def record(self) -> dict[str, Any]:
        """Return it JSON-serializable."""
        return {**asdict(self), 'level': self.level.value}


def ok(name: str, message: str) -> Finding:
    """Nothing has to be done."""
    return Finding(name, Level.OK, message)


def note(name: str, message: str, remedy: str = '') -> Finding:
    """Good to know."""
    return Finding(name, Level.NOTE, message, remedy)


def warning(name: str, message: str, remedy: str) -> Finding:
    """Works, but badly or not always."""
    return Finding(name, Level.WARNING, message, remedy)


def error(name: str, message: str, remedy: str) -> Finding:
    """Does not work."""
    return Finding(name, Level.ERROR, message, remedy)


def worst(findings: Iterable[Finding]) -> Level:
    """Return the worst level; OK without findings."""
    order = list(Level)
    return max((f.level for f in findings), key=order.index, default=Level.OK)

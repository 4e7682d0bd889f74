"""Settings that may come from a command line or a file: of the right kind, finite, in range."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
import math
from numbers import Integral, Real
import sys
from typing import Any

# Lowest and highest value; an infinite one is a value that is not allowed itself.
Range = tuple[float, float]
AT_LEAST_ONE: Range = (1, math.inf)
SHARE: Range = (0, 1)
# From the smallest number above zero.
POSITIVE: Range = (math.ulp(0.0), math.inf)


def check(settings: Any, **ranges: Range) -> None:
    """
    Raise ValueError, which names the field, where a field of a dataclass cannot be used.

    Numbers are finite and, unless ``ranges`` says otherwise, not negative; those declared int are
    whole. Elements of tuples are numbers in the range of their field. Other dataclasses and what
    may be None are let be. What is declared is read as text: the module of the dataclass has
    ``from __future__ import annotations``.
    """
    for field in fields(settings):
        value, declared = getattr(settings, field.name), str(field.type)
        if is_dataclass(value) or value is None and 'None' in declared:
            continue
        low, high = ranges.get(field.name, (0, math.inf))
        wrong = _wrong(value, declared.removesuffix(' | None'), low, high)
        if wrong:
            raise ValueError(f'{field.name} is {value!r}, expected {wrong}')


def _wrong(value: Any, declared: str, low: float, high: float) -> str:
    """Return what was expected instead of ``value``, or nothing where that will do."""
    if declared == 'bool':
        return '' if isinstance(value, bool) else 'true or false'
    if declared == 'str':
        return '' if isinstance(value, str) else 'text'
    whole = 'int' in declared
    if declared.startswith('tuple'):
        length = None if '...' in declared else declared.count(',') + 1
        if not isinstance(value, (tuple, list)) or length not in (None, len(value)):
            return 'a list' + (f' of {length} numbers' if length else '')
        flat = _numbers(value)
        wrong = next(filter(None, (_wrong(v, 'int' if whole else 'float', low, high)
                                   for v in flat)), '')
        return f'a list, each element {wrong}' if wrong else ''
    if low <= _number(value, Integral if whole else Real) <= min(high, sys.float_info.max):
        return ''
    kind = f'a {"whole" if whole else "finite"} number'
    if not math.isfinite(low):
        return kind
    if math.isfinite(high):
        return f'{kind} from {low:g} to {high:g}'
    return f'{kind} above 0' if low == POSITIVE[0] else f'{kind} of at least {low:g}'


def _number(value: Any, kind: type) -> float:
    """Return ``value``, NaN where it is not of the ``kind`` or too large for a float."""
    if not isinstance(value, kind) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        return math.nan


def _numbers(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from _numbers(value)
        else:
            yield value

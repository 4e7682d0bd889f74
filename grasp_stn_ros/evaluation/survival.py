"""Calling something that may raise, hang or die, again and again, and counting what it does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
import multiprocessing
import os
from typing import Any

# One call may take this long on a busy machine, seconds.
PATIENCE = 30.0
# A process that is started imports what it calls, seconds.
_START = 180.0


def _work(function: Callable, seed: int, first: int, end: int, current, pipe, extra) -> None:
    """In a child: call ``function(seed, number, *extra)``; what raises is sent and passed over."""
    # The decoders of images have a line for every broken file; a crash is told by the exit code.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for number in range(first, end):
        current.value = number
        try:
            pipe.send((number, function(seed, number, *extra), ''))
        except Exception as error:
            pipe.send((number, [], f'{type(error).__name__}: {error}'))


def survive(function: Callable[..., list[str]], seed: int, count: int, *extra: Any,
            patience: float = PATIENCE) -> tuple[Counter[str], list[str], list[str]]:
    """
    Call ``function(seed, number, *extra)`` for all numbers, in a process that may die or hang.

    A number that takes more than ``patience`` seconds hangs. Return outcomes, crashes (exceptions
    and ended processes) and hangs, each with its number.
    """
    context = multiprocessing.get_context('spawn')
    outcomes: Counter[str] = Counter()
    crashes: list[str] = []
    hangs: list[str] = []
    first = 0
    while first < count:
        ours, theirs = context.Pipe(duplex=False)
        current = context.Value('q', first)
        child = context.Process(target=_work, daemon=True,
                                args=(function, seed, first, count, current, theirs, extra))
        child.start()
        theirs.close()
        seconds = _START + patience     # the first answer comes after the imports
        try:
            while first < count:
                if not ours.poll(seconds):
                    hangs.append(f'number {current.value}')
                    first = current.value + 1
                    break
                number, results, crash = ours.recv()
                seconds = patience
                outcomes.update(results)
                if crash:
                    crashes.append(f'number {number}: {crash}')
                first = number + 1
        except EOFError:
            child.join()
            crashes.append(f'number {current.value}: ended with exit code {child.exitcode}')
            first = current.value + 1
        finally:
            child.kill()
            child.join()
            ours.close()
    return outcomes, crashes, hangs

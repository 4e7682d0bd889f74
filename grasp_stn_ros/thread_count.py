"""How many threads to compute with, found out while computing."""

from __future__ import annotations

from collections.abc import Callable
import statistics
import time

# Seconds between two comparisons, and the frames with each of both numbers that one takes. The
# first of each is not counted: what depends on the number of threads is prepared then.
PERIOD, FRAMES = 5.0, 5
# Share of the time that has to be saved: below it is noise.
_GAIN = 0.05


class ThreadCount:
    """
    The number of threads that frames take the least time with, as long as they do.

    On idle cores a network is faster with all of them. Beside other processes its threads wait
    for the one whose core is taken, and fewer are faster, down to one that waits for nobody. Which
    of it holds changes while a robot runs, so every :data:`PERIOD` some frames are computed with
    half or twice as many threads, in turns with frames as before, and what was faster stays.

    Ask :attr:`now` before a frame and tell :meth:`took` after it. Not thread-safe.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic):
        """Start with ``most`` threads; ``clock`` in seconds."""
        # 1, 2, 4, ... and most.
        self._counts = [*(2 ** i for i in range(most.bit_length()) if 2 ** i < most), most]
        self._place = len(self._counts) - 1
        self._step = -1
        self._turns: list[int] = []
        self._taken: dict[int, list[float]] = {}
        self._clock = clock
        self._next = clock() + PERIOD

    @property
    def chosen(self) -> int:
        """What was fastest in the last comparison."""
        return self._counts[self._place]

    @property
    def now(self) -> int:
        """Threads for the next frame."""
        return self._counts[self._turns[0] if self._turns else self._place]

    def took(self, milliseconds: float) -> None:
        """Learn how long the frame took for which :attr:`now` was asked."""
        if self._turns:
            self._taken.setdefault(self._turns.pop(0), []).append(milliseconds)
            if not self._turns:
                self._decide()
        elif len(self._counts) > 1 and self._clock() >= self._next:
            self._compare()

    def _compare(self) -> None:
        """Begin to compare with half as many threads or, the next time, with twice as many."""
        if not 0 <= self._place + self._step < len(self._counts):
            self._step = -self._step
        self._taken = {}
        self._turns = [self._place + self._step, self._place] * FRAMES

    def _decide(self) -> None:
        rival = self._place + self._step
        usual, other = (statistics.median(self._taken[place][1:])
                        for place in (self._place, rival))
        if other < (1 - _GAIN) * usual:
            self._place = rival
        else:
            self._step = -self._step
        self._next = self._clock() + PERIOD

"""Multi-stage spatial transformer network for grasp detection (Park & Chun 2018)."""

import os

__version__ = '0.1.0'


def _let_threads_sleep() -> None:
    """
    Let threads of OpenMP that wait look for work 4,000 times, some 100 microseconds.

    A detection is some hundred parallel operations with mostly less than that between them, so
    asleep at once they would have to be woken a hundred times. Left alone, they look 300,000 times and take
    the core from the very thread that they wait for as soon as anything else runs: beside one
    busy core a frame then takes up to a second (docs/time.md has the figures). GCC's
    library, which PyTorch brings, reads this when PyTorch is loaded, hence so early.
    """
    if not any(os.environ.get(name) for name in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')):
        os.environ['GOMP_SPINCOUNT'] = '4000'


_let_threads_sleep()

"""Multi-stage spatial transformer network for grasp detection (Park & Chun 2018)."""

import os

__version__ = '0.1.0'


def _looks(cpu_info: str = '/proc/cpuinfo') -> int:
    """Return how often a thread of OpenMP looks for work in some 100 microseconds."""
    try:
        with open(cpu_info, encoding='utf-8', errors='replace') as lines:
            vendor = next((line for line in lines if line.startswith('vendor_id')), '')
    except OSError:
        vendor = ''
    # Between two looks it pauses, 0.03 us on an Intel Xeon and 0.1 us on an AMD EPYC.
    return 4000 if 'GenuineIntel' in vendor else 1000


def _let_threads_sleep() -> None:
    """
    Let threads of OpenMP that wait look for work for some 100 microseconds before they sleep.

    A detection is some hundred parallel operations with mostly less than that between them, so
    asleep at once they would have to be woken a hundred times. Left alone, they look 300,000
    times and take the core from the very thread that they wait for as soon as anything else runs:
    beside one busy core a frame then takes up to a second (docs/time.md has the figures). GCC's
    library, which PyTorch brings, reads this when PyTorch is loaded, hence so early.
    """
    if not any(os.environ.get(name) for name in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')):
        os.environ['GOMP_SPINCOUNT'] = str(_looks())


_let_threads_sleep()

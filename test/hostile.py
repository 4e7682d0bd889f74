"""What the fuzzer has to survive, in a module of its own: the processes it starts import it."""

import os
import threading


def fails_at_two_and_four(seed, number, how):
    """Raise at 2; at 4 ``how`` = die ends the process, and hang never returns."""
    if number == 2:
        raise ZeroDivisionError('defect')
    if number == 4 and how == 'die':
        os.abort()
    if number == 4:
        threading.Event().wait()
    return ['OK']

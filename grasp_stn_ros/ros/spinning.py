"""Executors that spin in a thread and stop in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import signal
import threading

from rclpy.exceptions import InvalidHandle
from rclpy.executors import Executor, ExternalShutdownException

_LOOK = 0.2  # seconds between two looks at the event that ends the loop


def stop_event() -> threading.Event:
    """Return an event that SIGINT and SIGTERM set; call it in the main thread, before rclpy."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


@contextmanager
def interruptible(stop: threading.Event) -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGINT and SIGTERM within: loading a model takes seconds."""
    def interrupt(*_):
        stop.set()
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        if stop.is_set():
            raise KeyboardInterrupt
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class Spinner:
    """
    Spins an executor in a thread of its own until :meth:`stop`.

    ``Executor.shutdown`` from another thread pulls handles from under a callback that is being
    executed; here the loop has ended before it is called. ``failure`` is what a callback raised.
    """

    def __init__(self, executor: Executor, on_end: Callable[[], None] = lambda: None):
        """Start spinning; ``on_end`` is called when the loop ends, for whatever reason."""
        self.failure: BaseException | None = None
        self._executor = executor
        self._stop = threading.Event()
        self._on_end = on_end
        self._thread = threading.Thread(target=self._spin, name='executor', daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    self._executor.spin_once(timeout_sec=_LOOK)
                except InvalidHandle:
                    # A transition destroyed what rclpy was about to wait for (its event handlers
                    # are not guarded as the rest is); the next round does without it.
                    continue
        except ExternalShutdownException:
            pass
        except BaseException as error:
            self.failure = error
        finally:
            self._on_end()

    def stop(self, timeout: float | None = None) -> bool:
        """
        End the loop, wait for running callbacks, and shut the executor down.

        With a ``timeout`` in seconds, return False when callbacks still run by then; nothing is
        shut down in that case.
        """
        self._stop.set()
        waiting = threading.Thread(target=self._drain, daemon=True)
        waiting.start()
        waiting.join(timeout)
        if waiting.is_alive():
            return False
        self._executor.shutdown()
        return True

    def _drain(self) -> None:
        self._thread.join()
        # A multi-threaded executor destroys its handles before its threads have returned.
        pool = getattr(self._executor, '_executor', None)
        if pool is not None:
            pool.shutdown(wait=True)

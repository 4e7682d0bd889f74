"""Executors that spin in a thread and stop in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
import signal
import threading
from typing import TypeVar

from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.executors import (
    Executor,
    ExternalShutdownException,
    ShutdownException,
    TimeoutException,
)
from rclpy.service import Service
from rclpy.task import Task

T = TypeVar('T')

_LOOK = 0.2  # seconds between two looks at what ends the loop


class StopRequest:
    """
    A flag that a signal handler may set at any moment, and that the main thread may wait for.

    ``threading.Event`` is not for that: its ``wait`` holds a lock for an instant that ``set``
    takes, and a handler that runs in that instant, in the same thread, waits for itself for ever.
    """

    def __init__(self):
        """Create it, not set."""
        self._is_set = False
        self._wake: SimpleQueue[None] = SimpleQueue()  # whose put() may interrupt its get()

    def set(self) -> None:
        """Set it, for good."""
        self._is_set = True
        self._wake.put(None)

    def is_set(self) -> bool:
        """Whether anybody has set it."""
        return self._is_set

    def wait(self) -> None:
        """Wait until it is set; for one thread."""
        while not self._is_set:
            # A signal that comes just before the system is asked to wait does not end that wait.
            with suppress(Empty):
                self._wake.get(timeout=_LOOK)


def stop_on_signals() -> StopRequest:
    """Return what SIGINT and SIGTERM set; call it in the main thread, before rclpy."""
    stop = StopRequest()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


@contextmanager
def interruptible(stop: StopRequest) -> Iterator[None]:
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


class NotReturnedError(RuntimeError):
    """What was begun still runs, long after it was asked to stop."""


def run_until(stop: StopRequest, patience: float, action: Callable[[], T]) -> T:
    """
    Run ``action`` in a thread of its own and return or raise what comes of it.

    For what takes seconds in libraries: a signal handler that raised an exception there would
    leave them half done. Raises :class:`NotReturnedError` where it still runs ``patience``
    seconds after ``stop`` was set.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(action())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name='start', daemon=True).start()
    while not outcome.done() and not stop.is_set():
        wait([outcome], _LOOK)
    if not outcome.done():
        wait([outcome], patience)
    if not outcome.done():
        raise NotReturnedError(f'{patience} s after it was asked to stop')
    return outcome.result()


class ServingExecutor(Executor):
    """
    Runs callbacks in the thread that spins, those of services in threads of their own.

    A call may wait for a camera, a transition for a model; images must come in meanwhile. Not
    rclpy's ``MultiThreadedExecutor``: until a thread of its pool has begun a task it finds that
    task ready again, and again hands it out (ros2/rclpy issue 1452). Where the interpreter is busy
    that becomes tens of thousands of entries in a list that it searches each time, seconds without
    a message taken, and memory that never comes back.
    """

    def __init__(self, *, context: Context | None = None):
        """Create it for ``context`` (None: rclpy's default)."""
        super().__init__(context=context)
        self._serving: list[tuple[threading.Thread, Task]] = []

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Run what is ready next; raises what a callback raised, here or in its thread."""
        self._raise_failures()
        try:
            task, entity, _ = self.wait_for_ready_callbacks(timeout_sec)
        except (ShutdownException, TimeoutException):
            return
        if not isinstance(entity, Service):
            task()
            task.result()
        elif not any(task is begun for _, begun in self._serving):
            thread = threading.Thread(target=task, name='service', daemon=True)
            thread.start()
            self._serving.append((thread, task))

    def _raise_failures(self) -> None:
        ended = [pair for pair in self._serving if not pair[0].is_alive()]
        self._serving = [pair for pair in self._serving if pair not in ended]
        for _, task in ended:
            task.result()

    def join(self) -> None:
        """Wait for the services that are being called; the executor must not spin any more."""
        for thread, _ in self._serving:
            thread.join()


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
        if isinstance(self._executor, ServingExecutor):
            self._executor.join()

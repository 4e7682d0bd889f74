"""
The node: images in, grasps out. A managed (lifecycle) shell around detector and inference thread.

========== ======================================================================================
configure  loads and warms up the model, creates the publishers, listens to tf2
activate   subscribes, starts the inference thread, offers the services
deactivate unsubscribes, ends the thread, answers whoever waits, moves the model off the GPU
cleanup    drops model and publishers
========== ======================================================================================

Three kinds of threads meet, under one condition: the executor's subscription callback stores the
newest pair and notifies; the inference thread (:mod:`.worker`) takes it; each call of
``~/detect_grasp`` has a thread (:class:`.spinning.ServingExecutor`), which waits until there is an
answer or its deadline has passed, whichever comes first.
"""

from __future__ import annotations

from collections.abc import Callable
import os
import sys
import threading
import traceback
from typing import Any

import rclpy
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions

from ..confined_paths import inside
from ..node_settings import detector_settings
from ..reasons import GraspError
from . import parameters
from .diagnostics import Diagnostics
from .inputs import PairInput
from .outputs import Outputs
from .requests import Requests
from .spinning import NotReturnedError, ServingExecutor, Spinner, run_until, stop_on_signals
from .transforms import Transforms
from .worker import Worker

# Longest waits after a signal, seconds: for callbacks that are running, and for a step of the
# start, such as importing PyTorch, which takes many on a slow disk and leaves nothing behind.
_STOP_SECONDS, _START_SECONDS = 1.5, 1.0


class StartError(RuntimeError):
    """The node could not be configured or activated; the reason has been logged."""


def default_detector(values: dict[str, Any]):
    """Create the detector that the parameters describe; loads the weights."""
    from ..detector import GraspDetector  # PyTorch takes seconds to import
    weights = values['model']
    if values['model_folder'] and weights != 'default':
        weights = inside(weights, values['model_folder'])
    return GraspDetector(weights=weights, device=values['device'],
                         threads=values['threads'], adapt_threads=values['threads'] == 0,
                         candidates=values['candidates'],
                         **detector_settings(values))


class GraspNode(LifecycleNode):
    """Detects grasps in synchronized RGB-D images, continuously or on demand."""

    def __init__(self, detector_factory: Callable[[dict[str, Any]], Any] = default_detector,
                 interrupted: Callable[[], bool] = lambda: False, **node_arguments):
        """
        Declare the parameters and, with ``autostart``, configure and activate.

        Raises ValueError on a bad parameter, :class:`StartError` when the start fails, and
        KeyboardInterrupt where ``interrupted()`` between two steps of configuring.
        """
        super().__init__('grasp_node', **node_arguments)
        self._interrupted = interrupted
        parameters.declare(self)
        self._values = parameters.values(self)
        self.add_on_set_parameters_callback(parameters.validator(self))
        self.add_post_set_parameters_callback(self._apply_parameters)
        self._condition = threading.Condition()
        self._detector_factory = detector_factory
        self._detector: Any = None
        self._outputs: Outputs | None = None
        self._transforms: Transforms | None = None
        self._input: PairInput | None = None
        self._worker: Worker | None = None
        self.requests = Requests(self, self._condition, self._values)
        self._diagnostics = Diagnostics(self)
        if self._values['autostart']:
            self._start()

    @property
    def state(self) -> str:
        """The lifecycle state, such as ``unconfigured`` or ``active``."""
        return self._state_machine.current_state[1]

    @property
    def dropped(self) -> int:
        """Pairs that a newer one replaced before anybody looked at them."""
        return self._worker.drops['busy'] if self._worker is not None else 0

    def _start(self) -> None:
        success = TransitionCallbackReturn.SUCCESS
        if self.trigger_configure() != success or self.trigger_activate() != success:
            message = self._diagnostics.failure
            self.destroy_node()
            raise StartError(message)

    def close(self) -> None:
        """Answer whoever waits and release everything; the node publishes no more."""
        if self.state in ('unconfigured', 'inactive', 'active'):
            self.trigger_shutdown()

    def _apply_parameters(self, _changed) -> None:
        values = parameters.values(self)
        with self._condition:
            self._values = self.requests.values = values
            if self._worker is not None:
                self._worker.changed(values)
            self._condition.notify_all()

    # Transitions. rclpy would swallow what they raise, so nothing leaves them.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and warm up the model; FAILURE leaves the node unconfigured."""
        return self._attempt('configure', self._configure, self._release_configuration)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and work; FAILURE leaves the node inactive."""
        def activate() -> None:
            super(GraspNode, self).on_activate(state)  # the publishers
            self._activate()

        return self._attempt('activate', activate, lambda: self._deactivate('activation failed'))

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop working and free the GPU."""
        super().on_deactivate(state)
        return self._attempt('deactivate', lambda: self._deactivate('the node was deactivated'))

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Drop the model."""
        return self._attempt('cleanup', self._release_configuration)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything, from any state."""
        super().on_deactivate(state)
        return self._attempt('shutdown', self._release_all)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release what is left; the node can be configured anew."""
        super().on_deactivate(state)
        failure = self._diagnostics.failure
        result = self._attempt('error processing', self._release_all)
        self._diagnostics.failure = failure
        return result

    def _attempt(self, name: str, action: Callable[[], None],
                 undo: Callable[[], None] | None = None) -> TransitionCallbackReturn:
        """
        Run a transition and log what it raises.

        One that can be undone fails cleanly. One that tears down cannot: what is half gone is
        neither active nor inactive, so it is an ERROR, after which :meth:`on_error` lets go of
        the rest.
        """
        try:
            action()
        except Exception as error:
            expected = isinstance(error, (ValueError, OSError, GraspError, RuntimeError))
            self.get_logger().error(f'{name} failed: '
                                    f'{error if expected else traceback.format_exc()}')
            self._diagnostics.failure = f'{name} failed: {error}'
            if undo is None:
                return TransitionCallbackReturn.ERROR
            try:
                undo()
            except Exception:
                self.get_logger().error(f'undoing {name} failed: {traceback.format_exc()}')
                return TransitionCallbackReturn.ERROR
            return TransitionCallbackReturn.FAILURE
        self._diagnostics.failure = ''
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        values = self._values
        if values['target_frame']:
            self._transforms = Transforms(self, values)
        self._detector = self._detector_factory(values)
        self._raise_if_interrupted()
        self._detector.warm_up()
        self._raise_if_interrupted()
        if values['moving_camera']:
            for _ in self._detector.warm_up_everywhere():
                self._raise_if_interrupted()
        self._outputs = Outputs(self, values)
        self._diagnostics.configured(self._detector)

    def _raise_if_interrupted(self) -> None:
        if self._interrupted():
            raise KeyboardInterrupt

    def _activate(self) -> None:
        assert self._outputs is not None
        values = self._values
        self._detector.resume()
        worker = Worker(self, self._detector, self._outputs, self.requests, self._diagnostics,
                        self._transforms, self._condition, values)

        def jumped() -> None:
            self.requests.clock_jumped()
            worker.forget()
            if self._transforms is not None:
                self._transforms.forget()

        self._worker = worker
        # Another calibration is another camera to the tracker. Requests go on waiting for the next
        # pair: where autofocus moves the calibration with every frame, they would for ever.
        self._input = PairInput(self, values, self._condition, worker.count_dropped, jumped,
                                worker.forget)
        self._diagnostics.activated(self._input, worker.drops)
        worker.start(self._input)
        # Last: where the service exists, the node is ready.
        self.requests.open(self._input)
        self.get_logger().info(
            f'ready: model {self._detector.model_name} on {self._detector.device}, mode '
            f'{values["mode"]}, waiting for {", ".join(self._input.counts)}')

    def _deactivate(self, why: str) -> None:
        with self._condition:
            self.requests.close(why)
        self._diagnostics.deactivated()
        if self._input is not None:
            self._input.close()
            self._input = None
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
        if self._detector is not None:
            self._detector.suspend()

    def _release_configuration(self) -> None:
        self._diagnostics.configured(None)
        self._detector = None
        if self._outputs is not None:
            self._outputs.close()
            self._outputs = None
        if self._transforms is not None:
            self._transforms.close()
            self._transforms = None

    def _release_all(self) -> None:
        try:
            self._deactivate('the node is shutting down')
        finally:
            self._release_configuration()


def main(args: list[str] | None = None,
         detector_factory: Callable[[dict[str, Any]], Any] = default_detector) -> int:
    """
    Run the node until SIGINT or SIGTERM; the exit code.

    The main thread only waits: Python runs signal handlers there, and a thread inside DDS or
    PyTorch would delay them until it comes back.
    """
    stop = stop_on_signals()
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = run_until(stop, _START_SECONDS,
                         lambda: GraspNode(detector_factory, interrupted=stop.is_set))
    except KeyboardInterrupt:
        rclpy.try_shutdown()
        return 0
    except NotReturnedError:
        os._exit(0)  # as below
    except StartError:
        rclpy.try_shutdown()
        return 2
    except ValueError as error:
        print(f'grasp_node: {error}', file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    executor = ServingExecutor()
    executor.add_node(node)
    spinner = Spinner(executor, on_end=stop.set)
    stop.wait()
    node.close()
    if not spinner.stop(_STOP_SECONDS):
        # A transition or a detection that cannot be interrupted; nothing here needs saving.
        rclpy.try_shutdown()
        os._exit(0)
    node.destroy_node()
    rclpy.try_shutdown()
    if spinner.failure is not None:
        print(f'grasp_node: {spinner.failure!r}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())

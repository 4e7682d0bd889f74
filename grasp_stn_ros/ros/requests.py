"""
The services: ~/detect_grasp, whose calls wait for a pair taken after they came, and
~/detect_grasp_in_images, whose calls bring one.

Each call occupies an executor thread, which waits until the inference thread has an answer or the
deadline has passed, whichever comes first.
"""

from __future__ import annotations

from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
import threading
import time
import traceback
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.qos import QoSProfile
from std_msgs.msg import Header

from grasp_stn_interfaces.srv import DetectGrasp, DetectGraspInImages

from ..detection import Detection
from ..messages import pose_numbers, stamp_nanoseconds
from ..node_settings import region_from
from ..reasons import GraspError, Reason
from . import conversions
from .inputs import Pair, PairInput
from .outputs import Result

# Requests that may wait at the same time; each has a thread.
MAXIMUM_REQUESTS = 16
_LONGEST_TIMEOUT = 600.0
# Failed grasps that a request may bring; each is compared with every candidate.
_MOST_FAILED = 100

Region = tuple[int, int, int, int]
# Of each grasp its frame and its pose: x, y, z, and the quaternion x, y, z, w.
Failed = tuple[tuple[str, tuple[float, ...]], ...]


@dataclass(eq=False)
class Ticket:
    """One request on its way; :attr:`answer` gets a result or a GraspError."""

    region: Region | None
    minimum_score: float
    failed: Failed         # grasps that lifted nothing
    deadline: float        # time.monotonic()
    after: int             # nanoseconds of the node's clock: a pair must be taken later
    pairs_before: int
    pair: Pair | None = None  # that came with the request; None = wait for the camera's
    too_early: int = 0     # pairs that came after the request but were taken before it
    unstamped: int = 0     # those of them that have no stamp
    stale: int = 0         # pairs that were refused for their age
    started: bool = False
    answer: Future = field(default_factory=Future)

    def resolve(self, outcome: Result | GraspError) -> None:
        """Give the answer, unless it has been given."""
        try:
            if isinstance(outcome, GraspError):
                self.answer.set_exception(outcome)
            else:
                self.answer.set_result(outcome)
        except InvalidStateError:
            pass  # by close()


class Requests:
    """
    Serves both services; the condition guards :attr:`tickets` and ``values``.

    ``values`` are the node's parameters; the node replaces them when one changes.
    """

    def __init__(self, node, condition: threading.Condition, values: dict[str, Any]):
        """Wait for :meth:`open`."""
        self.tickets: list[Ticket] = []
        self.values = values
        self._node = node
        self._condition = condition
        self._input: PairInput | None = None
        self._services: list[Any] = []

    def open(self, pairs: PairInput) -> None:
        """Serve from ``pairs``; the first time, create the services."""
        with self._condition:
            self._input = pairs
        if self._services:
            return
        for kind, name, serve in (
                (DetectGraspInImages, '~/detect_grasp_in_images', self._serve_given),
                (DetectGrasp, '~/detect_grasp', self._serve)):
            # The default queue of 10 loses what a burst of calls brings beyond that, in silence.
            self._services.append(self._node.create_service(
                kind, name, serve, qos_profile=QoSProfile(depth=100),
                callback_group=ReentrantCallbackGroup()))

    def close(self, why: str) -> None:
        """Answer whoever waits and, until opened again, whoever comes (the condition is held)."""
        self._input = None
        for ticket in self.tickets:
            ticket.resolve(GraspError(Reason.NOT_ACTIVE, why))

    def clock_jumped(self) -> None:
        """Count from now, by the clock as it is now, what came before (the condition is held)."""
        now = self._node.get_clock().now().nanoseconds
        for ticket in self.tickets:
            ticket.after = now

    @property
    def waiting(self) -> bool:
        """Whether a request waits for a pair of the camera (the condition is held)."""
        return any(not ticket.started and ticket.pair is None for ticket in self.tickets)

    @property
    def brought(self) -> bool:
        """Whether a request waits that brought its pair (the condition is held)."""
        return any(not ticket.started and ticket.pair is not None for ticket in self.tickets)

    def next_brought(self) -> Ticket:
        """Return the oldest request that brought its pair, as started (the condition is held)."""
        ticket = next(t for t in self.tickets if not t.started and t.pair is not None)
        ticket.started = True
        return ticket

    def ready_for(self, pair: Pair) -> list[Ticket]:
        """Return the requests that ``pair`` may answer, as started (the condition is held)."""
        ready = []
        for ticket in self.tickets:
            if ticket.started or ticket.pair is not None or pair.number <= ticket.pairs_before:
                continue
            if pair.taken < ticket.after:
                ticket.too_early += 1
                ticket.unstamped += not stamp_nanoseconds(pair.color)
            elif is_stale(pair, self.values):
                ticket.stale += 1
            else:
                ticket.started = True
                ready.append(ticket)
        return ready

    def _serve(self, request: DetectGrasp.Request,
               response: DetectGrasp.Response) -> DetectGrasp.Response:
        return self._answer(request, None, response)

    def _serve_given(self, request: DetectGraspInImages.Request,
                     response: DetectGraspInImages.Response) -> DetectGraspInImages.Response:
        now = self._node.get_clock().now().nanoseconds
        # An empty message is none.
        mask = request.mask if request.mask.width or request.mask.data else None
        pair = Pair(request.color, request.depth, request.camera_info, 0, now, now, mask, True)
        return self._answer(request, pair, response)

    def _answer(self, request: Any, pair: Pair | None, response: Any) -> Any:
        """Fill in ``response`` to one call, whatever happens."""
        ticket = None
        began = time.monotonic()
        try:
            ticket = self._accept(request, pair)
            result = ticket.answer.result(max(ticket.deadline - time.monotonic(), 0.0))
            response.reason = int(result.detection.reason)
            response.message = sentence(result.detection)
            if pair is not None:
                pairs = self._input
                camera = None if pairs is None else pairs.camera_frame
                response.stages = conversions.stages_message(
                    result.detection,
                    image_header(pair, self.values, is_foreign(pair, camera)))
            if result.grasps:
                response.success = True
                response.grasp, *response.alternatives = result.grasps
        except GraspError as error:
            response.reason, response.message = int(error.reason), str(error)
        except FutureTimeoutError:
            error = self._missed(ticket, time.monotonic() - began)
            response.reason, response.message = int(error.reason), str(error)
        except Exception as error:
            self._node.get_logger().error(f'request failed: {traceback.format_exc()}')
            response.reason = int(Reason.INTERNAL_ERROR)
            response.message = str(GraspError(Reason.INTERNAL_ERROR, repr(error)))
        finally:
            if ticket is not None:
                with self._condition:
                    self.tickets.remove(ticket)
        if not response.success:
            self._node.get_logger().warning(f'request answered {response.message}',
                                            throttle_duration_sec=2.0)
        return response

    def _accept(self, request: Any, pair: Pair | None) -> Ticket:
        """Check a request and queue it; raises :class:`GraspError`."""
        timeout = request.timeout or self.values['service_timeout']
        if not 0 < timeout <= _LONGEST_TIMEOUT:
            raise GraspError(Reason.INVALID_REQUEST, f'timeout {timeout} s, expected 0 to '
                                                     f'{_LONGEST_TIMEOUT:g}')
        if not 0 <= request.minimum_score <= 1:
            raise GraspError(Reason.INVALID_REQUEST,
                             f'minimum_score {request.minimum_score}, expected 0 to 1')
        region = conversions.region_from_message(request.region)
        failed = _failed_in(request)
        with self._condition:
            if self._input is None:
                raise GraspError(Reason.NOT_ACTIVE)
            if len(self.tickets) >= MAXIMUM_REQUESTS:
                raise GraspError(Reason.INVALID_REQUEST,
                                 f'{MAXIMUM_REQUESTS} requests are waiting already')
            ticket = Ticket(region or region_from(self.values),
                            request.minimum_score or self.values['minimum_score'], failed,
                            time.monotonic() + timeout,
                            self._node.get_clock().now().nanoseconds, self._input.pairs, pair)
            self.tickets.append(ticket)
            if pair is not None:
                self._condition.notify_all()
        return ticket

    def _missed(self, ticket: Ticket, waited: float) -> GraspError:
        """Say what a request has been waiting for in vain."""
        if ticket.started:
            return GraspError(Reason.TIMEOUT, 'a pair arrived, but detection took too long; '
                                              'raise the timeout')
        if ticket.pair is not None:
            return GraspError(Reason.TIMEOUT, 'the detector was busy with others; raise the '
                                              'timeout')
        if ticket.stale:
            return GraspError(Reason.STALE_FRAME, f'{ticket.stale} pairs were older than '
                              f'maximum_frame_age = {self.values["maximum_frame_age"]} s')
        if ticket.unstamped:
            return GraspError(Reason.TIMEOUT, f'the stamps of {ticket.unstamped} pairs are zero, '
                              'so that nobody knows whether they were taken after the request; '
                              'let the driver stamp its images with the time of capture')
        if ticket.too_early:
            return GraspError(Reason.TIMEOUT, f'{ticket.too_early} pairs arrived, all taken '
                                              'before the request; raise the timeout')
        pairs = self._input
        if pairs is None:
            return GraspError(Reason.NOT_ACTIVE)
        if pairs.pairs > ticket.pairs_before:
            return GraspError(Reason.TIMEOUT, 'a pair arrived, but the detector was busy')
        arrivals = pairs.pair_arrivals
        if arrivals.age < 2 * arrivals.period:
            return GraspError(Reason.TIMEOUT, f'no pair came within {waited:.2f} s: one comes '
                              f'every {arrivals.period:.2f} s; raise the timeout above that')
        return GraspError(Reason.TIMEOUT, pairs.diagnosis(waited))


def _failed_in(request: Any) -> Failed:
    """Return the grasps that have failed; raises :class:`GraspError` for what is none."""
    if len(request.failed) > _MOST_FAILED:
        raise GraspError(Reason.INVALID_REQUEST, f'{len(request.failed)} failed grasps, at most '
                                                 f'{_MOST_FAILED} are taken')
    try:
        return tuple((grasp.header.frame_id, pose_numbers(grasp.pose)) for grasp in request.failed)
    except ValueError as error:
        raise GraspError(Reason.INVALID_REQUEST,
                         f'failed: {error}; send grasps as they came') from None


def is_stale(pair: Pair, values: dict[str, Any]) -> bool:
    """Whether ``pair`` is older than the parameters allow; what was given never is."""
    return not pair.given and 0 < values['maximum_frame_age'] < pair.age


def is_foreign(pair: Pair, camera: str | None) -> bool:
    """
    Whether ``pair`` came with a request and is of another camera.

    ``camera`` is the frame that the camera's own images name, None where none have come.
    """
    return pair.given and camera is not None and pair.color.header.frame_id not in ('', camera)


def image_header(pair: Pair, values: dict[str, Any], foreign: bool) -> Header:
    """
    Return stamp and frame of the colour image, or the frame that the parameters say.

    They say it of the camera: images that are ``foreign`` (:func:`is_foreign`) keep their own.
    """
    header = pair.color.header
    named = '' if foreign else values['frame_id']
    return Header(stamp=header.stamp, frame_id=named or header.frame_id)


def sentence(detection: Detection) -> str:
    """Return the message of a detection with the name of its reason in front."""
    name = detection.reason.name
    text = detection.message or detection.reason.sentence
    return text if text.startswith(name) else f'{name}: {text}'

"""A node of somebody else: its parameters, and the topics that it hears and publishes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import os
import signal
import time
from typing import Any

from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import GetParameters, ListParameters
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from .environment import shared_memory_profile
from .inputs import source
from .spinning import StopRequest, stop_on_signals
from .topics import INPUTS, resolved

DISCOVERY_SECONDS = 5.0


class GraphError(RuntimeError):
    """The node is not there or does not answer; the message says what to do."""


@contextmanager
def joined(name: str) -> Iterator[tuple[Node, SingleThreadedExecutor]]:
    """Join the graph as ``name`` with an executor that the caller spins."""
    # As the launch files do: without it images get lost on the way.
    os.environ.update(shared_memory_profile())
    context = Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(name, context=context, enable_rosout=False,
                             start_parameter_services=False)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        yield node, executor
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown(context=context)


@contextmanager
def until_interrupted() -> Iterator[StopRequest]:
    """Return what SIGINT and SIGTERM set within; what they did before comes back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop_on_signals()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Followed:
    """A running node that is looked at: its full name, parameters and topics, and what spins."""

    name: str
    parameters: dict[str, Any]
    topics: dict[str, str]
    node: Node
    executor: SingleThreadedExecutor
    stop: StopRequest


@contextmanager
def following(wanted: str, own: str, refused: type[Exception] = GraphError) -> Iterator[Followed]:
    """
    Join the graph as ``own`` and find the node ``wanted``, until SIGINT or SIGTERM set ``stop``.

    Raises ``refused`` where it is not there or does not answer; the message says what to do.
    """
    with until_interrupted() as stop, joined(own) as (node, executor):
        try:
            name = find(node, executor, wanted)
            values = parameters(node, executor, name)
        except GraphError as error:
            raise refused(str(error)) from None
        yield Followed(name, values, resolved(name, values), node, executor, stop)


def full_name(name: str) -> str:
    """Return the name of a node with its namespace."""
    return name if name.startswith('/') else f'/{name}'


def node_names(node: Node) -> list[str]:
    """Return the full names of all nodes but ``node`` itself."""
    own = node.get_fully_qualified_name()
    names = (f'{namespace.rstrip("/")}/{name}'
             for name, namespace in node.get_node_names_and_namespaces())
    return sorted({name for name in names if name != own})


def find(node: Node, executor, wanted: str, seconds: float = DISCOVERY_SECONDS) -> str:
    """Wait until the node ``wanted`` is seen; raises :class:`GraphError` that names others."""
    wanted = full_name(wanted)
    deadline = time.monotonic() + seconds
    while wanted not in node_names(node):
        if time.monotonic() > deadline:
            others = [n for n in node_names(node) if not n.rpartition('/')[2].startswith('_')]
            similar = [n for n in others if n.endswith('/grasp_node')]
            seen = f'; did you mean --node {similar[0]}?' if similar else \
                f'; nodes that are there: {", ".join(others) or "none"}. Is it running, with ' \
                f'the same ROS_DOMAIN_ID ({os.environ.get("ROS_DOMAIN_ID", "0")})?'
            raise GraphError(f'NO_NODE: there is no node {wanted}{seen}')
        executor.spin_once(timeout_sec=0.1)
    return wanted


def parameters(node: Node, executor, name: str,
               seconds: float = DISCOVERY_SECONDS) -> dict[str, Any]:
    """Return all parameters of the node ``name``; raises :class:`GraphError`."""
    listed = _call(node, executor, ListParameters, f'{name}/list_parameters',
                   ListParameters.Request(), seconds)
    names = list(listed.result.names)
    answer = _call(node, executor, GetParameters, f'{name}/get_parameters',
                   GetParameters.Request(names=names), seconds)
    return {key: _value(value) for key, value in zip(names, answer.values, strict=True)}


def _call(node: Node, executor, kind, service: str, request, seconds: float):
    client = node.create_client(kind, service)
    try:
        deadline = time.monotonic() + seconds
        while not client.service_is_ready():
            if time.monotonic() > deadline:
                raise GraphError(f'NO_SERVICE: {service} is not there; is the node still '
                                 'starting?')
            executor.spin_once(timeout_sec=0.05)
        future = client.call_async(request)
        while not future.done():
            if time.monotonic() > deadline + seconds:
                raise GraphError(f'NO_ANSWER: {service} does not answer')
            executor.spin_once(timeout_sec=0.05)
        return future.result()
    finally:
        node.destroy_client(client)


def _value(value: ParameterValue) -> Any:
    fields = {ParameterType.PARAMETER_BOOL: 'bool_value',
              ParameterType.PARAMETER_INTEGER: 'integer_value',
              ParameterType.PARAMETER_DOUBLE: 'double_value',
              ParameterType.PARAMETER_STRING: 'string_value',
              ParameterType.PARAMETER_BOOL_ARRAY: 'bool_array_value',
              ParameterType.PARAMETER_INTEGER_ARRAY: 'integer_array_value',
              ParameterType.PARAMETER_DOUBLE_ARRAY: 'double_array_value',
              ParameterType.PARAMETER_STRING_ARRAY: 'string_array_value'}
    field = fields.get(value.type)
    content = getattr(value, field) if field else None
    return content if isinstance(content, (bool, int, float, str, type(None))) else list(content)


def input_types(values: dict[str, Any]) -> dict[str, type]:
    """Return the message types of color, depth and camera_info with the parameter ``values``."""
    return {role: source(role, {f'{role}_topic': '', **values})[0] for role in INPUTS}

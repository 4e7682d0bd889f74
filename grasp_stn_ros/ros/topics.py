"""
Which topic is what: by the parameters, and as a running node has resolved it.

Remappings are known to the node alone. So it tells the full names in parameters of its own,
``topics.color`` and so on, which nobody can set; whoever follows the node reads them there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor, ParameterType
from rclpy.exceptions import InvalidTopicNameException
from rclpy.expand_topic_name import expand_topic_name
from rclpy.validate_topic_name import validate_topic_name

from .inputs import full_name, source

INPUTS = ('color', 'depth', 'camera_info')
_OUTPUTS = {'stages': '~/stages', 'grasp': '~/grasp', 'markers': '~/markers',
            'debug_image': '~/debug_image', 'diagnostics': '/diagnostics'}
_PREFIX = 'topics.'


def unresolved(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the topics that the parameter ``values`` name, by role."""
    inputs = {role: source(role, {f'{role}_topic': '', **values})[1] for role in INPUTS}
    return {**inputs, **_OUTPUTS}


def declare(node, values: Mapping[str, Any]) -> None:
    """Let ``node`` tell its topics; raises ValueError for a name that cannot be one."""
    for role, topic in unresolved(values).items():
        try:
            validate_topic_name(topic)
        except InvalidTopicNameException as error:
            raise ValueError(f'parameter {role}_topic: {error}') from None
        node.declare_parameter(
            f'{_PREFIX}{role}',
            full_name(node, role, dict(values)) if role in INPUTS
            else node.resolve_topic_name(topic),
            ParameterDescriptor(type=ParameterType.PARAMETER_STRING, read_only=True,
                                description=f'Full name of the topic of {role}, remapped.'),
            ignore_override=True)


def resolved(name: str, values: Mapping[str, Any]) -> dict[str, str]:
    """
    Return the full names of the topics of the node ``name`` with parameter ``values``, by role.

    They are what the node tells; where none runs, what the parameters name, without remappings.
    """
    namespace, _, own = name.rpartition('/')
    return {role: values.get(f'{_PREFIX}{role}') or expand_topic_name(topic, own, namespace or '/')
            for role, topic in unresolved(values).items()}

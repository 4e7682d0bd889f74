"""
The parameters of the node, in one table.

The node declares its parameters from :data:`PARAMETERS`, the README's table is what
``python -m grasp_stn_ros.ros.parameters`` prints, and a test compares the files in ``config/``
with it. So there is one place to look up a name, a default or a range, and one to change it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
import math
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    ParameterType,
    SetParametersResult,
)

from ..detection import MINIMUM_SCORE
from ..grasp_pose import APPROACHES, Gripper

_GRIPPER = Gripper()


@dataclass(frozen=True)
class Parameter:
    """
    One parameter: its type is the type of ``default``.

    ``limits`` are the smallest and largest number allowed, for an array of each element;
    ``choices`` the strings allowed, ``length`` the number of elements of an array. A ``live``
    parameter may be changed while the node runs; the others are read-only.
    """

    name: str
    default: Any
    description: str
    limits: tuple[float, float] | None = None
    choices: tuple[str, ...] | None = None
    length: int | None = None
    live: bool = False

    @property
    def type_name(self) -> str:
        """The type in the words of ``ros2 param describe``."""
        if isinstance(self.default, list):
            return 'double array' if isinstance(self.default[0], float) else 'integer array'
        return {bool: 'boolean', int: 'integer', float: 'double', str: 'string'}[
            type(self.default)]

    @property
    def range_text(self) -> str:
        """The range as it is printed in tables and error messages."""
        if self.choices:
            return ', '.join(f'`{c}`' for c in self.choices)
        if self.limits:
            return f'{self.limits[0]:g} to {self.limits[1]:g}'
        return ''

    def problem(self, value: Any) -> str | None:
        """Say what is wrong with ``value``, or None; the type has been checked by rclpy."""
        if self.choices and value not in self.choices:
            return f'{self.name} is {value!r}, expected one of {", ".join(self.choices)}'
        elements = list(value) if isinstance(self.default, list) else [value]
        if self.length is not None and len(elements) != self.length:
            return f'{self.name} has {len(elements)} elements, expected {self.length}'
        if isinstance(self.default, (bool, str)):
            return None
        low, high = self.limits or (-math.inf, math.inf)
        for element in elements:
            # NaN fails the comparison, which is what it should do.
            if not (math.isfinite(element) and low <= element <= high):
                return f'{self.name} is {value}, expected {self.range_text or "a finite number"}'
        return None

    def descriptor(self) -> ParameterDescriptor:
        """Return what ``ros2 param describe`` shows; rclpy enforces type and read-only."""
        types = {'boolean': ParameterType.PARAMETER_BOOL,
                 'integer': ParameterType.PARAMETER_INTEGER,
                 'double': ParameterType.PARAMETER_DOUBLE,
                 'string': ParameterType.PARAMETER_STRING,
                 'double array': ParameterType.PARAMETER_DOUBLE_ARRAY,
                 'integer array': ParameterType.PARAMETER_INTEGER_ARRAY}
        descriptor = ParameterDescriptor(
            name=self.name, type=types[self.type_name], description=self.description,
            additional_constraints=self.range_text.replace('`', ''), read_only=not self.live)
        if self.limits and self.type_name == 'double':
            descriptor.floating_point_range = [FloatingPointRange(
                from_value=float(self.limits[0]), to_value=float(self.limits[1]), step=0.0)]
        if self.limits and self.type_name == 'integer':
            descriptor.integer_range = [IntegerRange(
                from_value=int(self.limits[0]), to_value=int(self.limits[1]), step=1)]
        return descriptor


_QOS = ('sensor_data', 'reliable')

PARAMETERS: tuple[Parameter, ...] = (
    # Inputs.
    Parameter('color_topic', 'color/image_raw', 'Colour image (rgb8, bgr8, rgba8, bgra8, mono8).'),
    Parameter('depth_topic', 'depth/image_rect_raw',
              'Depth image aligned to the colour image (16UC1 in mm or 32FC1 in m).'),
    Parameter('camera_info_topic', 'color/camera_info', 'Calibration of the colour camera.'),
    Parameter('color_qos', 'sensor_data',
              'Reliability asked of the colour image; sensor_data (best effort) also accepts '
              'reliable publishers.', choices=_QOS),
    Parameter('depth_qos', 'sensor_data', 'Reliability asked of the depth image.', choices=_QOS),
    Parameter('camera_info_qos', 'sensor_data', 'Reliability asked of camera_info.',
              choices=_QOS),
    Parameter('sync', 'approximate', 'Pair messages by nearest or by equal stamps.',
              choices=('approximate', 'exact')),
    Parameter('sync_slop', 0.05, 'Largest difference of the stamps in a pair, seconds '
              '(approximate only).', limits=(0.001, 10.0)),
    Parameter('sync_queue_size', 10, 'Messages kept per input while waiting for the others.',
              limits=(1, 1000)),
    Parameter('intrinsics', 'K', 'Matrix of camera_info to use: K where the images are raw, P '
              'where they are rectified.', choices=('K', 'P')),
    Parameter('frame_id', '', 'Frame of everything published; empty = the frame of the colour '
              'image.'),
    Parameter('maximum_frame_age', 0.0, 'Refuse pairs whose stamp is older than this when they '
              'arrive, seconds; 0 = accept any age (bags without /clock).', limits=(0.0, 3600.0),
              live=True),
    # Model.
    Parameter('model', 'default', 'Weights: `default` (in models/) or the path of a '
              '.safetensors file.'),
    Parameter('device', 'auto', 'Device that the network runs on: `auto` (CUDA where there is '
              'one), `cpu`, `cuda` or `cuda:N`.'),
    Parameter('threads', 0, 'CPU threads of the network; 0 = PyTorch decides.', limits=(0, 256)),
    Parameter('candidates', 0, 'Locations proposed by the first stage (K in the paper); '
              "0 = the model's own number.", limits=(0, 256)),
    # When to run and what to return.
    Parameter('mode', 'continuous', 'Detect in every pair, or only when ~/detect_grasp is called.',
              choices=('continuous', 'on_demand'), live=True),
    Parameter('maximum_rate', 0.0, 'Largest rate of detections in continuous mode, Hz; 0 = no '
              'limit.', limits=(0.0, 1000.0), live=True),
    Parameter('minimum_score', MINIMUM_SCORE, 'Candidates below this score are no grasp.',
              limits=(0.0, 1.0), live=True),
    Parameter('service_timeout', 5.0, 'Deadline of a request that names none, seconds.',
              limits=(0.01, 600.0), live=True),
    Parameter('region', [0, 0, 0, 0], 'Region of interest x, y, width, height in pixels; zeros = '
              'the largest centred square.', limits=(0, 65535), length=4, live=True),
    # From the rectangle to the grasp.
    Parameter('approach', 'support_plane', 'Approach direction: against the normal of the '
              'support plane, along the optical axis, against the local surface normal, or '
              'approach_direction.', choices=APPROACHES),
    Parameter('approach_direction', [0.0, 0.0, 1.0], 'Approach for `direction`, in the optical '
              'frame (x right, y down, z forward).', limits=(-1e6, 1e6), length=3),
    Parameter('gripper.maximum_opening', _GRIPPER.maximum_opening,
              'Largest distance between the jaws, metres.', limits=(0.001, 0.999)),
    Parameter('gripper.jaw_size', _GRIPPER.jaw_size, 'Height of the jaw plates across the '
              'opening, metres.', limits=(0.001, 0.999)),
    Parameter('gripper.finger_depth', _GRIPPER.finger_depth, 'How far the finger tips reach '
              'below the surface, metres.', limits=(0.001, 0.999)),
    Parameter('gripper.finger_thickness', _GRIPPER.finger_thickness, 'Thickness of one jaw along '
              'the opening, metres.', limits=(0.001, 0.999)),
    Parameter('gripper.support_clearance', _GRIPPER.support_clearance, 'Distance kept between '
              'the tips and the support, metres.', limits=(0.0, 0.999)),
    # Display.
    Parameter('marker_lifetime', 0.0, 'Lifetime of the markers, seconds; 0 = two periods of the '
              'detections, and until the next detection in on_demand mode.',
              limits=(0.0, 3600.0), live=True),
)

BY_NAME = {p.name: p for p in PARAMETERS}


def declare(node) -> None:
    """
    Declare every parameter on ``node`` and check the values it was started with.

    Raises ValueError with a sentence that names the parameter, whatever was wrong with it.
    """
    for parameter in PARAMETERS:
        try:
            node.declare_parameter(parameter.name, parameter.default, parameter.descriptor())
        except Exception as error:  # rclpy has half a dozen types for one situation
            raise ValueError(f'parameter {parameter.name}: {error}') from error
    problem = first_problem((p.name, node.get_parameter(p.name).value) for p in PARAMETERS)
    if problem:
        raise ValueError(problem)


def first_problem(values: Iterable[tuple[str, Any]]) -> str | None:
    """Return what is wrong with the first bad one of the (name, value) pairs, or None."""
    for name, value in values:
        if name in BY_NAME and (problem := BY_NAME[name].problem(value)):
            return problem
    return None


def validate(parameters) -> SetParametersResult:
    """On-set callback: refuse a change that the table does not allow, with a sentence."""
    problem = first_problem((p.name, p.value) for p in parameters)
    return SetParametersResult(successful=problem is None, reason=problem or '')


def values(node) -> dict[str, Any]:
    """Return the current value of every parameter; arrays as lists."""
    current = {p.name: node.get_parameter(p.name).value for p in PARAMETERS}
    return {name: list(value) if isinstance(BY_NAME[name].default, list) else value
            for name, value in current.items()}


def markdown_table() -> str:
    """Return the README's table of parameters."""
    lines = ['| Parameter | Type | Default | Range | Live | Meaning |',
             '|---|---|---|---|---|---|']
    for p in PARAMETERS:
        default = f"`'{p.default}'`" if isinstance(p.default, str) else f'`{p.default}`'
        lines.append(f'| `{p.name}` | {p.type_name} | {default} | {p.range_text} | '
                     f'{"yes" if p.live else ""} | {p.description} |')
    return '\n'.join(lines)


if __name__ == '__main__':
    print(markdown_table())

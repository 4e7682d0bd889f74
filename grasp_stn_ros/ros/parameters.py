"""
The parameters of the node, in one table.

The node declares its parameters from :data:`PARAMETERS`; the table in docs/node.md is what
``python -m grasp_stn_ros.ros.parameters`` prints, ``config/grasp_node.yaml`` what it prints with
``--yaml``, and a test compares. So there is one place to look up a name, a default or a range, and
one to change it.
"""

from __future__ import annotations

import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
import difflib
import json
import math
import sys
import textwrap
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
from ..limits import box
from ..node_settings import region_from
from ..preprocessing import MINIMUM_REGION
from ..stability import Stability
from . import topics

_GRIPPER = Gripper()
_STABILITY = Stability()


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
        """Say what is wrong with ``value``, or None."""
        if not self._has_type(value):
            return (f'{self.name} is {value!r} ({type(value).__name__}), expected '
                    f'{self.type_name}, such as {json.dumps(self.default)}')
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

    def _has_type(self, value: Any) -> bool:
        if not isinstance(self.default, list):
            return type(value) is type(self.default)
        # rclpy hands arrays over as array.array, and an empty one without its type.
        return isinstance(value, (list, tuple, array.array)) and all(
            type(element) is type(self.default[0]) for element in value)

    def descriptor(self) -> ParameterDescriptor:
        """Return what ``ros2 param describe`` shows; rclpy enforces ranges and read-only."""
        types = {'boolean': ParameterType.PARAMETER_BOOL,
                 'integer': ParameterType.PARAMETER_INTEGER,
                 'double': ParameterType.PARAMETER_DOUBLE,
                 'string': ParameterType.PARAMETER_STRING,
                 'double array': ParameterType.PARAMETER_DOUBLE_ARRAY,
                 'integer array': ParameterType.PARAMETER_INTEGER_ARRAY}
        descriptor = ParameterDescriptor(
            name=self.name, type=types[self.type_name], description=self.description,
            additional_constraints=self.range_text.replace('`', ''), read_only=not self.live,
            # rclpy's own check says "expected '3' got '4'"; ours has a name and a remedy.
            dynamic_typing=True)
        if self.limits and self.type_name == 'double':
            descriptor.floating_point_range = [FloatingPointRange(
                from_value=float(self.limits[0]), to_value=float(self.limits[1]), step=0.0)]
        if self.limits and self.type_name == 'integer':
            descriptor.integer_range = [IntegerRange(
                from_value=int(self.limits[0]), to_value=int(self.limits[1]), step=1)]
        return descriptor


_QOS = ('sensor_data', 'reliable')

PARAMETERS: tuple[Parameter, ...] = (
    Parameter('autostart', True, 'Configure and activate at start; false = wait for a lifecycle '
              'manager.'),
    # Inputs.
    Parameter('color_topic', 'color/image_raw', 'Colour image (rgb8, bgr8, rgba8, bgra8, mono8).'),
    Parameter('depth_topic', 'depth/image_rect_raw',
              'Depth image aligned to the colour image (16UC1 in mm or 32FC1 in m).'),
    Parameter('camera_info_topic', 'color/camera_info', 'Calibration of the colour camera.'),
    Parameter('color_transport', 'raw', 'compressed = JPEG or PNG from image_transport, on '
              '`color_topic`/compressed.', choices=('raw', 'compressed')),
    Parameter('depth_transport', 'raw', 'compressedDepth = PNG from image_transport, on '
              '`depth_topic`/compressedDepth.', choices=('raw', 'compressedDepth')),
    Parameter('color_qos', 'sensor_data',
              'Reliability asked of the colour image; sensor_data (best effort) also accepts '
              'reliable publishers.', choices=_QOS),
    Parameter('depth_qos', 'sensor_data', 'Reliability asked of the depth image.', choices=_QOS),
    Parameter('camera_info_qos', 'sensor_data', 'Reliability asked of camera_info.',
              choices=_QOS),
    Parameter('sync', 'approximate', 'Pair messages by near or by equal stamps.',
              choices=('approximate', 'exact')),
    Parameter('sync_slop', 0.05, 'Largest difference of the stamps in a pair, seconds '
              '(approximate only); never more than 0.6 of the time between two images.',
              limits=(0.001, 10.0)),
    Parameter('sync_queue_size', 10, 'Messages kept per input while waiting for the others.',
              limits=(1, 1000)),
    Parameter('intrinsics', 'K', 'Matrix of camera_info to use: K where the images are raw, P '
              'where they are rectified.', choices=('K', 'P')),
    Parameter('frame_mismatch', 'refuse', 'What to do with a pair whose depth and colour name '
              'different frames.', choices=('refuse', 'warn'), live=True),
    Parameter('maximum_frame_age', 0.0, 'Refuse pairs whose stamp is older than this when they '
              'arrive, and keep back grasps of the stream that are older when they are ready, '
              'seconds; 0 = accept any age (bags without /clock).', limits=(0.0, 3600.0),
              live=True),
    # Frames.
    Parameter('frame_id', '', 'Name of the optical frame of the colour camera, for drivers that '
              'leave it empty or wrong; empty = as in the image.'),
    Parameter('target_frame', '', 'Frame of the published grasps, by tf2 at the stamp of the '
              'image; empty = the frame of the colour image.'),
    Parameter('transform_timeout', 0.2, 'Longest wait for the transform to target_frame, '
              'seconds.', limits=(0.0, 10.0), live=True),
    Parameter('camera_pose', [0.0] * 7, 'Fixed pose of the colour camera in target_frame, x y z '
              'in metres and quaternion x y z w, in place of tf2; zeros = tf2.',
              limits=(-1000.0, 1000.0), length=7, live=True),
    Parameter('approach_offset', 0.1, 'Distance of the pre-grasp from the grasp, back along the '
              'approach, metres.', limits=(0.0, 1.0), live=True),
    # Model.
    Parameter('model', 'default', 'Weights: `default` (in models/) or the path of a '
              '.safetensors file.'),
    Parameter('model_folder', '', 'Folder that `model` has to lie in, links resolved; relative '
              'paths count from there; empty = anywhere.'),
    Parameter('device', 'auto', 'Device that the network runs on: `auto` (CUDA where there is '
              'one), `cpu`, `cuda` or `cuda:N`.'),
    Parameter('threads', 0, 'CPU threads of the network; 0 = as many as are fastest beside what '
              'else runs at the time, at most as PyTorch has by itself.', limits=(0, 256)),
    Parameter('candidates', 0, 'Locations proposed by the first stage (K in the paper); '
              "0 = the model's own number.", limits=(0, 256)),
    Parameter('moving_camera', False, 'Prepare the network for every distance of the camera when '
              'it is configured, which takes ten seconds and more, so that no frame of a camera '
              'that moves is slow.'),
    # When to run and what to return.
    Parameter('mode', 'continuous', 'Detect in every pair, or only when ~/detect_grasp is called.',
              choices=('continuous', 'on_demand'), live=True),
    Parameter('maximum_rate', 0.0, 'Largest rate of detections in continuous mode, Hz; 0 = no '
              'limit.', limits=(0.0, 1000.0), live=True),
    Parameter('minimum_score', MINIMUM_SCORE, 'Candidates below this score are no grasp.',
              limits=(0.0, 1.0), live=True),
    Parameter('middle_weight', -1.0, 'Prefer grasps near the middle of their object: the logit '
              'of the score is lowered by so much for each metre from it; 0 = do not, -1 = as the '
              'model card says.', limits=(-1.0, 1000.0), live=True),
    Parameter('service_timeout', 5.0, 'Deadline of a request that names none, seconds.',
              limits=(0.01, 600.0), live=True),
    Parameter('region', [0, 0, 0, 0], 'Region of interest x, y, width, height in pixels, at least '
              f'{MINIMUM_REGION} on the longer side; zeros = the largest centred square.',
              limits=(0, 65535), length=4, live=True),
    Parameter('maximum_alternatives', 16, 'Largest number of grasps in ~/grasps and of '
              'alternatives in an answer, in descending order of score.', limits=(0, 256),
              live=True),
    # What the cell allows. Candidates beyond are marked with the reason and never the best.
    Parameter('workspace.minimum', [0.0] * 3, 'Lower corner x y z of the box for finger tips, '
              'metres in target_frame; both corners zero = no box.', limits=(-1000.0, 1000.0),
              length=3, live=True),
    Parameter('workspace.maximum', [0.0] * 3, 'Upper corner of the box.',
              limits=(-1000.0, 1000.0), length=3, live=True),
    Parameter('minimum_depth', 0.0, 'Least distance of the grasped surface along the optical '
              'axis, metres; 0 = no limit.', limits=(0.0, 100.0), live=True),
    Parameter('maximum_depth', 0.0, 'Largest one, metres; 0 = no limit.', limits=(0.0, 100.0),
              live=True),
    Parameter('support_margin', 0.0, 'Least distance of every corner of the finger tips from '
              'the support plane (table), metres; 0 = not checked.', limits=(0.0, 0.5),
              live=True),
    Parameter('opening_preference', [0.0] * 3, 'Direction in target_frame: of the two ways to '
              'turn a parallel jaw, the one whose opening direction (y) is nearer to it is '
              'taken; zeros = either.', limits=(-1e6, 1e6), length=3, live=True),
    Parameter('mask_topic', '', 'Image (mono8, 8UC1, same size as colour) that is non-zero '
              'where grasps are allowed; empty = everywhere.'),
    Parameter('mask_qos', 'sensor_data', 'Reliability asked of the mask; transient_local also '
              'gets one that was published, once, before the node came.',
              choices=(*_QOS, 'transient_local')),
    Parameter('maximum_mask_age', 1.0, 'Refuse masks whose stamp is further from the pair than '
              'this, seconds; 0 = any.', limits=(0.0, 3600.0), live=True),
    # Stability of the choice over frames (continuous mode).
    Parameter('stability.enabled', False, 'Keep the chosen grasp until another one is clearly '
              'better, in place of the best of each frame.', live=True),
    Parameter('stability.distance', _STABILITY.distance, 'Grasps of two frames this near to '
              'each other are the same, metres.', limits=(0.0, 1.0), live=True),
    Parameter('stability.angle', _STABILITY.angle, 'The same for the opening direction, '
              'radians.', limits=(0.0, 1.5708), live=True),
    Parameter('stability.margin', _STABILITY.margin, 'Change the choice for an average score '
              'that is higher by this.', limits=(0.0, 1.0), live=True),
    Parameter('stability.patience', _STABILITY.patience, 'Frames that a grasp which is '
              'missing is remembered for.', limits=(0, 100), live=True),
    # From the rectangle to the grasp.
    Parameter('approach', 'support_plane', 'Approach direction: against the normal of the '
              'support plane, along the optical axis, against the local surface normal, or '
              'approach_direction.', choices=APPROACHES, live=True),
    Parameter('approach_direction', [0.0, 0.0, 1.0], 'Approach for `direction`, in the optical '
              'frame (x right, y down, z forward).', limits=(-1e6, 1e6), length=3,
              live=True),
    Parameter('gripper.maximum_opening', _GRIPPER.maximum_opening,
              'Largest distance between the jaws, metres.', limits=(0.001, 0.999), live=True),
    Parameter('gripper.jaw_size', _GRIPPER.jaw_size, 'Height of the jaw plates across the '
              'opening, metres.', limits=(0.001, 0.999), live=True),
    Parameter('gripper.finger_depth', _GRIPPER.finger_depth, 'How far the finger tips may '
              'reach below the surface, metres.', limits=(0.001, 0.999), live=True),
    Parameter('gripper.finger_thickness', _GRIPPER.finger_thickness, 'Thickness of one jaw along '
              'the opening, metres.', limits=(0.001, 0.999), live=True),
    Parameter('gripper.support_clearance', _GRIPPER.support_clearance, 'Distance kept between '
              'the tips and the support, metres.', limits=(0.0, 0.999), live=True),
    Parameter('gripper.tcp_offset', 0.0, "From the gripper's mounting face to the point between "
              'the finger tips, along the approach, metres.', limits=(0.0, 1.0), live=True),
    # Display.
    Parameter('marker_lifetime', 0.0, 'Lifetime of the markers, seconds; 0 = two periods of the '
              'detections, and until the next detection in on_demand mode.',
              limits=(0.0, 3600.0), live=True),
)

BY_NAME = {p.name: p for p in PARAMETERS}

# What ROS hands to any node, whether or not its version declares it.
_OF_ROS = ('use_sim_time', 'start_type_description_service', 'qos_overrides')
# Names as similar as this are taken for misspelt ones (difflib's ratio).
_SIMILAR = 0.8


def _contradiction(values: Mapping[str, Any]) -> str | None:
    """Say what is wrong with ``values`` (all of them) together, or None."""
    try:
        box(values['workspace.minimum'], values['workspace.maximum'])
    except ValueError as error:
        return f'workspace.minimum, workspace.maximum: {error}'
    region = region_from(values)
    if region and (min(region[2:]) < 1 or max(region[2:]) < MINIMUM_REGION):
        return (f'region is {[*region]} (x, y, width, height), expected at least {MINIMUM_REGION} '
                'px on the longer side and 1 on the other')
    low, high = values['minimum_depth'], values['maximum_depth']
    if 0 < high <= low:
        return f'minimum_depth is {low} m, expected less than maximum_depth = {high} m'
    length = math.hypot(*values['camera_pose'][3:])
    if any(values['camera_pose']) and abs(length - 1) > 0.01:
        return (f'camera_pose has a quaternion of length {length:.3f}, expected 1 (x y z, then '
                'quaternion x y z w)')
    if any(values['camera_pose']) and not values['target_frame']:
        return 'camera_pose is set, but target_frame, in which it is the pose, is empty'
    if values['approach'] == 'direction' and not any(values['approach_direction']):
        return 'approach is direction, but approach_direction is zero'
    return None


def declare(node) -> None:
    """
    Declare every parameter on ``node`` and check the values it was started with.

    Beside the table, ``topics.*`` tell the topics of the node: see :mod:`.topics`.
    Raises ValueError with a sentence that names the parameter, whatever was wrong with it, and for
    a misspelt one: ROS ignores it, and with it a limit that somebody relies on. What resembles no
    parameter may be meant for another node that reads the same file; it is logged.
    """
    for parameter in PARAMETERS:
        try:
            node.declare_parameter(parameter.name, parameter.default, parameter.descriptor())
        except Exception as error:  # rclpy has half a dozen types for one situation
            raise ValueError(f'parameter {parameter.name}: {error}') from error
    problem = first_problem((p.name, node.get_parameter(p.name).value) for p in PARAMETERS)
    current = values(node)
    problem = problem or _contradiction(current)
    if problem:
        raise ValueError(problem)
    topics.declare(node, current)
    strangers = [name for name in sorted(getattr(node, '_parameter_overrides', ()))
                 if not node.has_parameter(name) and name.partition('.')[0] not in _OF_ROS]
    if misspelt := {name: meant for name in strangers if (meant := _meant_by(name))}:
        raise ValueError('no such parameter: ' + '; '.join(
            f'{name} (did you mean {meant}?)' for name, meant in misspelt.items()))
    if strangers:
        node.get_logger().error('ignored, because this node has no such parameter: '
                                f'{", ".join(strangers)}')


def _meant_by(name: str) -> str | None:
    """Return the parameter that an unknown ``name`` resembles, or None."""
    name = name.lower()
    group, dot, own = name.partition('.')
    # Not `enabled` alone, which is any node's.
    if '_' in name and (without_group := [k for k in BY_NAME if k.endswith(f'.{name}')]):
        return without_group[0]
    members = [known for known in BY_NAME if known.startswith(f'{group}.')] if dot else []
    near = difflib.get_close_matches(name, members or BY_NAME, 1, 0.0 if members else _SIMILAR)
    return near[0] if near else None


def first_problem(values: Iterable[tuple[str, Any]]) -> str | None:
    """Return what is wrong with the first bad one of the (name, value) pairs, or None."""
    for name, value in values:
        if name in BY_NAME and (problem := BY_NAME[name].problem(value)):
            return problem
    return None


def validator(node):
    """Return the on-set callback: it refuses what the table does not allow, with a sentence."""
    def validate(parameters) -> SetParametersResult:
        problem = first_problem((p.name, p.value) for p in parameters)
        if problem is None:
            problem = _contradiction({**values(node), **{p.name: p.value for p in parameters}})
        return SetParametersResult(successful=problem is None, reason=problem or '')

    return validate


def values(node) -> dict[str, Any]:
    """Return the current value of every parameter; arrays as lists."""
    current = {p.name: node.get_parameter(p.name).value for p in PARAMETERS}
    return {name: list(value) if isinstance(BY_NAME[name].default, list) else value
            for name, value in current.items()}


def markdown_table() -> str:
    """Return the table of parameters in docs/node.md."""
    lines = ['| Parameter | Type | Default | Range | Live | Meaning |',
             '|---|---|---|---|---|---|']
    for p in PARAMETERS:
        default = f"`'{p.default}'`" if isinstance(p.default, str) else f'`{p.default}`'
        lines.append(f'| `{p.name}` | {p.type_name} | {default} | {p.range_text} | '
                     f'{"yes" if p.live else ""} | {p.description} |')
    return '\n'.join(lines)


def yaml_file() -> str:
    """Return config/grasp_node.yaml: every parameter with its default, commented."""
    lines = ['# Every parameter of grasp_node with its default. Written by',
             '# `python -m grasp_stn_ros.ros.parameters --yaml`; a test compares.',
             '/**:', '  ros__parameters:']
    group = ''
    for p in PARAMETERS:
        prefix, _, name = p.name.rpartition('.')
        if prefix and prefix != group:
            lines.append(f'    {prefix}:')
        group = prefix
        indent = ' ' * (6 if prefix else 4)
        about = f'{p.description} {f"[{p.range_text}] " if p.range_text else ""}' + (
            '(live)' if p.live else '(read-only)')
        lines += textwrap.wrap(about.replace('`', ''), 94, initial_indent=f'{indent}# ',
                               subsequent_indent=f'{indent}# ')
        lines.append(f'{indent}{name}: {json.dumps(p.default)}')
    return '\n'.join(lines)


if __name__ == '__main__':
    print(yaml_file() if '--yaml' in sys.argv[1:] else markdown_table())

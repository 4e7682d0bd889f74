"""Checks that need ROS: the middleware, the node, and what its camera sends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
import os
from pathlib import Path
import shutil
import sys
import time
from typing import Any

from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy, qos_profile_sensor_data
from rclpy.utilities import get_rmw_implementation_identifier

from grasp_stn_interfaces.msg import GraspStages

from ..doctor import camera, machine
from ..doctor.camera import Heard
from ..doctor.findings import Finding, error, note, ok, warning
from ..reasons import Reason
from . import graph, parameters
from .environment import share_directory
from .topics import resolved

_DISCOVERY = 4.0     # seconds until the graph is known


@dataclass(frozen=True)
class Options:
    """What to look at: the node, topics where there is none, and for how many seconds."""

    node: str = '/grasp_node'
    topics: Mapping[str, str] | None = None
    seconds: float = 4.0


def middleware(environ: Mapping[str, str]) -> Iterator[Finding]:
    """ROS itself, and whether images fit through DDS."""
    name = get_rmw_implementation_identifier()
    distribution = environ.get('ROS_DISTRO') or 'from wheels'
    yield ok('ros', f'ROS 2 ({distribution}), {name}, ROS_DOMAIN_ID '
                    f'{environ.get("ROS_DOMAIN_ID", "0")}, discovery '
                    f'{environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")}')
    profile = str(share_directory() / 'config' / 'fastdds_shm.xml')
    yield from machine.check_dds(environ, name, profile)
    yield from machine.check_shared_memory()


def examine(options: Options, environ: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """Look at ROS, the node and its camera, in this order."""
    environ = dict(os.environ if environ is None else environ)
    yield from middleware(environ)
    with graph.joined('grasp_stn_doctor') as (node, executor):
        values: dict[str, Any] = {p.name: p.default for p in parameters.PARAMETERS}
        name = graph.full_name(options.node)
        running = False
        try:
            name = graph.find(node, executor, name, _DISCOVERY)
            values.update(graph.parameters(node, executor, name))
            running = True
            yield ok('node', f'{name} is running, model {values["model"]}, mode {values["mode"]}')
        except graph.GraphError as problem:
            yield note('node', str(problem), f'{_start_command()}; its topics are looked at all '
                       'the same, or those of --color, --depth and --camera-info')
        topics = {**resolved(name, values), **(options.topics or {})}
        kinds = graph.input_types(values)
        heard, stages = _listen(node, executor, topics, kinds, options.seconds)
        for each in heard.values():
            yield from _publishers(node, each, kinds[each.role], values[f'{each.role}_qos'])
        yield from _clock(node, values)
        yield from camera.check_rates(list(heard.values()), options.seconds)
        yield from camera.check_images(heard['color'], heard['depth'])
        yield from camera.check_camera_info(heard['camera_info'], heard['color'],
                                            values['intrinsics'])
        yield from camera.check_stamps(heard['color'], heard['depth'], values['sync_slop'])
        if running:
            yield from _results(name, stages, values, heard['color'], options.seconds)


def _start_command() -> str:
    """How the node is started here: the wheels bring no ``ros2``."""
    if shutil.which('ros2'):
        return 'ros2 launch grasp_stn_ros grasp.launch.py'
    executable = Path(sys.executable).with_name('grasp_node')
    return str(executable) if executable.is_file() else 'python -m grasp_stn_ros.ros.grasp_node'


def _listen(node: Node, executor, topics: Mapping[str, str], kinds: Mapping[str, type],
            seconds: float) -> tuple[dict[str, Heard], list[GraspStages]]:
    """Take notice of what comes on the topics for some ``seconds``."""
    heard = {role: Heard(role, topics[role]) for role in kinds}
    stages: list[GraspStages] = []
    for role, kind in kinds.items():
        node.create_subscription(
            kind, topics[role], lambda m, h=heard[role]: h.add(m, time.time_ns()),
            qos_profile_sensor_data)
    node.create_subscription(GraspStages, topics['stages'], stages.append, 10)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        executor.spin_once(timeout_sec=0.1)
    return heard, stages


def _publishers(node: Node, heard: Heard, kind: type, wanted: str) -> Iterator[Finding]:
    """Who publishes a topic, with which type and quality of service."""
    name, topic = f'topic.{heard.role}', heard.topic
    publishers = node.get_publishers_info_by_topic(topic)
    expected = f'sensor_msgs/msg/{kind.__name__}'
    if not publishers:
        similar = _similar(node, topic, expected)
        hint = f'; {expected} is on: {", ".join(similar)}' if similar else \
            f'; nothing publishes {expected} here'
        yield error(name, f'nobody publishes {topic}{hint}',
                    f'start the camera, or set {heard.role}_topic (launch argument '
                    f'{heard.role}_topic:=TOPIC, or camera:=NAME for a known one)')
        return
    kinds = {p.topic_type for p in publishers}
    if kinds != {expected}:
        yield error(name, f'{topic} is {", ".join(sorted(kinds))}, expected {expected}',
                    f'set {heard.role}_topic to the raw stream, or {heard.role}_transport to what '
                    'is published' if heard.role != 'camera_info' else
                    'set camera_info_topic to the calibration of the colour camera')
        return
    best_effort = any(p.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
                      for p in publishers)
    if wanted == 'reliable' and best_effort:
        yield error(name, f'{topic} is published best effort, and {heard.role}_qos asks for '
                    'reliable: they do not connect', f'set {heard.role}_qos to sensor_data')
    elif not heard.stamps:
        yield error(name, f'{topic} has {len(publishers)} publisher(s), but nothing came',
                    'is the driver paused, or are images lost on the way? See dds.profile')
    elif len(publishers) > 1:
        names = ', '.join(sorted({f'{p.node_namespace.rstrip("/")}/{p.node_name}'
                                  for p in publishers}))
        yield warning(name, f'{topic} has {len(publishers)} publishers: {names}',
                      'stop all but one; images of two cameras would be mixed')
    else:
        yield ok(name, f'{topic} is published by {publishers[0].node_name}')


def _similar(node: Node, topic: str, kind: str) -> list[str]:
    """Topics of the same type that are published, those with the same ending first."""
    ending = topic.rpartition('/')[2]
    found = [name for name, kinds in node.get_topic_names_and_types()
             if kind in kinds and node.count_publishers(name)]
    return sorted(found, key=lambda name: (not name.endswith(ending), name))[:4]


def _clock(node: Node, values: dict[str, Any]) -> Iterator[Finding]:
    if values.get('use_sim_time') and not node.count_publishers('/clock'):
        yield error('clock', 'the node has use_sim_time, but nobody publishes /clock: its time '
                    'stands still', 'set use_sim_time to false, or play the bag with --clock')


def _results(name: str, stages: list[GraspStages], values: dict[str, Any], color: Heard,
             seconds: float) -> Iterator[Finding]:
    """What the node makes of it."""
    if not stages:
        if values['mode'] == 'on_demand':
            yield note('results', 'the node is in mode on_demand: it detects when asked',
                       f'ros2 service call {name}/detect_grasp '
                       'grasp_stn_interfaces/srv/DetectGrasp "{timeout: 5.0}"'
                       if shutil.which('ros2') else 'examples/simple_client.py asks for a grasp')
        else:
            yield error('results', f'the node found nothing out in {seconds:.0f} s',
                        'mend the errors above; the node says more on /diagnostics')
        return
    spent = sorted(sum(s.stage_milliseconds) for s in stages)[len(stages) // 2]
    share = sum(s.reason == Reason.OK for s in stages) / len(stages)
    rate = len(stages) / seconds
    text = f'{rate:.1f} detections a second, {spent:.0f} ms each, a grasp in {share:.0%} of them'
    if share == 0:
        last = stages[-1]
        # A node of another version may have reasons that are not known here.
        reason = next((r for r in Reason if r == last.reason), None)
        name = reason.name if reason else f'reason {last.reason}'
        yield warning('results', f'{text}; last: {name}',
                      reason.sentence if reason else last.message)
    elif color.rate > 0 and rate < 0.5 * color.rate and not values['maximum_rate']:
        yield note('results', f'{text}, of {color.rate:.1f} images', 'older images are dropped, '
                   'which does no harm; a GPU, or fewer programs on this CPU, make it faster')
    else:
        yield ok('results', text)

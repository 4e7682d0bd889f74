"""
Write the reference of the ROS interface, docs/reference/ros.md, from what the code really offers.

    .venv/bin/python scripts/make_reference.py            # write it
    .venv/bin/python scripts/make_reference.py --check    # exit status 1 if it is out of date

Topics and services come from a running node, parameters from its table, messages and their
comments from the files of grasp_stn_interfaces, reasons from their list.
"""

from __future__ import annotations

import argparse
from pathlib import Path
import re
import sys
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / 'docs' / 'reference' / 'ros.md'
INTERFACES = ROOT / 'grasp_stn_interfaces'

# What a topic or service is for; a node that offers another one has to be described here.
MEANING = {
    'color/image_raw': 'Colour image: rgb8, bgr8, rgba8, bgra8 or mono8.',
    'depth/image_rect_raw': 'Depth **aligned to the colour image**: 16UC1 (mm, 0 = hole) or 32FC1 '
                            '(m, NaN = hole).',
    'color/camera_info': 'Calibration of the colour camera; K for raw images, P for rectified '
                         'ones (parameter `intrinsics`).',
    '~/grasp': "The best grasp, with the image's stamp and frame; nothing where there is none.",
    '~/pregrasp': 'Where the gripper waits before it moves straight to the best grasp.',
    '~/grasps': 'All grasps that can be executed, the best one first.',
    '~/stages': 'Every candidate with what each stage decided, the index of the best, the reason '
                'where there is none, and the wall time of each stage.',
    '~/markers': 'The stages in 3-D for RViz, one namespace a stage.',
    '~/debug_image': 'The picture with the rectangles; drawn only while somebody subscribes.',
    '/diagnostics': 'Silent topics, rates, dropped pairs, age of the input, last reason, time.',
    '~/detect_grasp': 'One grasp in a pair that was taken after the request; always answers '
                      'before its timeout.',
    '~/detect_grasp_in_images': 'One grasp in the images of the request, with a mask of the '
                                'object where only one is meant; always answers before its '
                                'timeout.',
    '~/transition_event': 'Every change of the lifecycle state.',
    '~/change_state': 'Lifecycle: configure, activate, deactivate, cleanup, shutdown.',
    '~/get_state': 'Lifecycle: the present state.',
    '~/get_available_states': 'Lifecycle: all states.',
    '~/get_available_transitions': 'Lifecycle: the transitions of the present state.',
    '~/get_transition_graph': 'Lifecycle: all transitions.',
}
_OF_EVERY_NODE = re.compile(r'/(rosout|parameter_events)$|parameters(_atomically)?$|'
                            r'/get_type_description$|parameter_types$')
HEADER = """\
# ROS interface

<!-- Written by scripts/make_reference.py; edit that, or the code, and run it again. -->

All names are relative to the node `grasp_node` (`~/` is its own name); inputs follow its
namespace and can be remapped or set as parameters. Poses have **x = approach, y = opening
direction, z = x cross y**, with the origin midway between the finger tips: see
[your gripper](../gripper.md). Stamp and frame of everything published are the image's.
"""


class _NoDetector:
    """The detector's interface for a node that never sees an image."""

    model_name, device = 'none', 'cpu'

    def warm_up(self) -> None:
        """Do nothing."""

    def suspend(self) -> None:
        """Do nothing."""

    def resume(self) -> None:
        """Do nothing."""


def running_interface() -> dict[str, list[tuple[str, str, str]]]:
    """
    Start the node and ask it -> name, type and quality of service by kind.

    Kinds are 'Subscribed topics', 'Published topics' and 'Services'. Raises KeyError for what
    :data:`MEANING` does not describe.
    """
    import rclpy

    from grasp_stn_ros.ros.grasp_node import GraspNode
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    node: Any = None
    try:
        node = GraspNode(lambda _: _NoDetector(), context=context)
        found = {
            'Subscribed topics': [_row(node, s.topic_name, s.msg_type, s.qos_profile)
                                  for s in node.subscriptions],
            'Published topics': [_row(node, p.topic_name, p.msg_type, p.qos_profile)
                                 for p in node.publishers],
            'Services': [_row(node, s.srv_name, s.srv_type, None) for s in node.services]}
    finally:
        if node is not None:
            node.close()
            node.destroy_node()
        rclpy.try_shutdown(context=context)
    order = list(MEANING)
    return {kind: sorted({row for row in rows if row}, key=lambda row: order.index(row[0]))
            for kind, rows in found.items()}


def _row(node: Any, name: str, kind: Any, qos: Any) -> tuple[str, str, str] | None:
    full = node.resolve_service_name(name) if qos is None else node.resolve_topic_name(name)
    if _OF_EVERY_NODE.search(full):
        return None
    own = node.get_fully_qualified_name()
    short = '~' + full.removeprefix(own) if full.startswith(own + '/') else full
    if short not in MEANING and short[1:] in MEANING:
        short = short[1:]
    if short not in MEANING:
        raise KeyError(f'{short} is not described: add it to MEANING in scripts/make_reference.py')
    package = kind.__module__.split('.')
    quality = '' if qos is None else \
        f'{qos.reliability.name.lower().replace("_", " ")}, depth {qos.depth}'
    return short, f'{package[0]}/{package[1]}/{kind.__name__}', quality


def interface_tables() -> str:
    """Tables of topics and services in Markdown."""
    lines = []
    for kind, rows in running_interface().items():
        quality = kind != 'Services'
        lines += [f'\n## {kind}\n',
                  '| Name | Type | ' + ('QoS | ' if quality else '') + 'What |',
                  '|---|---|' + ('---|' if quality else '') + '---|']
        for name, kind_name, qos in rows:
            lines.append(f'| `{name}` | `{kind_name}` | ' + (f'{qos} | ' if quality else '')
                         + f'{MEANING[name]} |')
    return '\n'.join(lines)


def message_section(path: Path) -> str:
    """
    One interface file -> Markdown: the comment at its top, then a table of its fields.

    A comment beside a field describes it, and goes on in indented lines; one on lines of its own
    describes the file.
    """
    parts = re.split(r'^---$', path.read_text(), flags=re.MULTILINE)
    titles = ['Request', 'Response'] if len(parts) == 2 else ['']
    lines = [f'\n### {path.stem}\n', f'`grasp_stn_interfaces/{path.parent.name}/{path.stem}`']
    for title, text in zip(titles, parts, strict=True):
        about, fields, constants = _parse(text)
        if title:
            lines.append(f'\n**{title}**')
        if about:
            lines.append('\n' + about)
        if fields:
            lines += ['\n| Field | Type | Meaning |', '|---|---|---|']
            lines += [f'| `{name}` | `{kind}` | {comment} |' for kind, name, comment in fields]
        if constants:
            lines.append('\nConstants: ' + ', '.join(f'`{c}`' for c in constants) + '.')
    return '\n'.join(lines)


def _parse(text: str) -> tuple[str, list[tuple[str, str, str]], list[str]]:
    about, fields, constants = [], [], []
    for line in text.splitlines():
        code, _, comment = (part.strip() for part in line.partition('#'))
        if not code and line.startswith(' ') and fields:
            kind, name, begun = fields[-1]
            fields[-1] = kind, name, f'{begun} {comment}'
        elif not code:
            about.append(comment)
        elif '=' in code:
            constants.append(code.split(None, 1)[1])
        else:
            kind, name = code.split()
            fields.append((kind, name, comment))
    paragraphs = '\n'.join(about).strip()
    return paragraphs, fields, constants


def reason_table() -> str:
    """All reasons with their number and what to do, in Markdown."""
    from grasp_stn_ros.reasons import Reason
    lines = ['| Value | Name | Meaning |', '|---:|---|---|']
    for r in Reason:
        name = f'[`{r.name}`](../troubleshooting.md#{r.name.lower()})' if r else f'`{r.name}`'
        lines.append(f'| {r.value} | {name} | {r.sentence} |')
    return '\n'.join(lines)


def page() -> str:
    """Return the whole page."""
    from grasp_stn_ros.ros import parameters
    files = [*sorted((INTERFACES / 'msg').glob('*.msg')), *sorted((INTERFACES / 'srv').glob('*'))]
    return '\n'.join([
        HEADER + interface_tables(),
        '\n## Parameters\n\nLive parameters can be changed with `ros2 param set`; the others are '
        'read-only. `topics.color` and so on, which nobody can set, tell the full names of the '
        "node's topics after remapping.\n", parameters.markdown_table(),
        '\n## Messages and service', *map(message_section, files),
        '\n## Reasons\n\nWhy there is a grasp, or why there is none; the same names appear in '
        'responses, logs, diagnostics and `grasp_stn detect --json`.\n', reason_table(), ''])


def main() -> int:
    """Write or check the page; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.strip().split('\n')[0])
    parser.add_argument('--check', action='store_true', help='do not write, only compare')
    check = parser.parse_args().check
    text = page()
    if TARGET.exists() and TARGET.read_text() == text:
        return 0
    if check:
        print(f'{TARGET.relative_to(ROOT)} is out of date: run scripts/make_reference.py')
        return 1
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(text)
    print(f'{TARGET.relative_to(ROOT)} written')
    return 0


if __name__ == '__main__':
    sys.exit(main())

"""
What RViz refuses, warns about, or silently does not draw in a MarkerArray.

Written down from the behaviour of rviz_default_plugins' Marker and MarkerArray displays: their
status messages are what a rule here says.
"""

import math

from visualization_msgs.msg import Marker

# Of a unit quaternion, as RViz checks it.
_NORM_TOLERANCE = 1e-3
_SOLIDS = (Marker.CUBE, Marker.SPHERE, Marker.CYLINDER)


def problems(array) -> list[str]:
    """Return everything that RViz would complain about, with the marker it is about."""
    found, seen = [], set()
    for position, marker in enumerate(array.markers):
        name = f'{marker.ns}/{marker.id}'
        if marker.action == Marker.DELETEALL:
            # Whatever its namespace: RViz removes all markers of the display.
            if any(m.action == Marker.ADD for m in array.markers[:position]):
                found.append(f'{name}: DELETEALL behind markers, which will never be shown')
        elif (marker.ns, marker.id) in seen:
            found.append(f'{name}: the same ns and id twice in one array')
        seen.add((marker.ns, marker.id))
        if not marker.header.frame_id:
            found.append(f'{name}: empty frame_id')
        if marker.action == Marker.ADD:
            found += [f'{name}: {problem}' for problem in _of_added(marker)]
    return found


def _of_added(marker) -> list[str]:
    found = []
    p, q, s, c = marker.pose.position, marker.pose.orientation, marker.scale, marker.color
    numbers = [p.x, p.y, p.z, q.x, q.y, q.z, q.w, s.x, s.y, s.z, c.r, c.g, c.b, c.a]
    numbers += [v for point in marker.points for v in (point.x, point.y, point.z)]
    if not all(map(math.isfinite, numbers)):
        found.append('contains invalid floating point values (nans or infs)')
    if abs(q.x**2 + q.y**2 + q.z**2 + q.w**2 - 1.0) > _NORM_TOLERANCE:
        found.append('the quaternion is not normalized')
    if c.a == 0.0:
        found.append('the marker is fully transparent')
    if not all(0.0 <= v <= 1.0 for v in (c.r, c.g, c.b, c.a)):
        found.append('a colour is not between 0 and 1')
    if marker.lifetime.sec < 0 or marker.lifetime.nanosec >= 10**9:
        found.append('the lifetime is no duration')
    if not marker.ns:
        found.append('without a namespace there is no switch for it')
    return found + _of_kind(marker)


def _of_kind(marker) -> list[str]:
    s, count = marker.scale, len(marker.points)
    if marker.type == Marker.ARROW:
        return [*(['an arrow has 0 or 2 points'] if count not in (0, 2) else []),
                *(['an arrow between two points needs shaft and head diameter']
                  if count == 2 and min(s.x, s.y) <= 0 else [])]
    if marker.type == Marker.LINE_LIST:
        return [*(['the line width (scale.x) is not positive'] if s.x <= 0 else []),
                *(['scale.y and scale.z of lines are ignored'] if s.y or s.z else []),
                *(['a line list needs pairs of points'] if count == 0 or count % 2 else [])]
    if marker.type == Marker.TEXT_VIEW_FACING:
        return [*(['the text height (scale.z) is not positive'] if s.z <= 0 else []),
                *(['scale.x and scale.y of a text are ignored'] if s.x or s.y else []),
                *(['the text is empty'] if not marker.text.strip() else [])]
    if marker.type in _SOLIDS:
        return [*(['a side of it is not positive'] if min(s.x, s.y, s.z) <= 0 else []),
                *(['points are ignored'] if count else [])]
    return [f'type {marker.type} is not among those that are checked here']

"""
The message types in a recording, as their definitions without comments.

An MCAP file carries the definition of every type in it. A recording that is made without ROS takes
them from here, and a test compares them with those of the ROS installation.
"""

from __future__ import annotations

_FIELDS = {
    'builtin_interfaces/Time': 'int32 sec\nuint32 nanosec',
    'std_msgs/Header': 'builtin_interfaces/Time stamp\nstring frame_id',
    'geometry_msgs/Point': 'float64 x\nfloat64 y\nfloat64 z',
    'geometry_msgs/Quaternion': 'float64 x 0\nfloat64 y 0\nfloat64 z 0\nfloat64 w 1',
    'geometry_msgs/Pose': 'Point position\nQuaternion orientation',
    'geometry_msgs/PoseStamped': 'std_msgs/Header header\nPose pose',
    'sensor_msgs/Image': 'std_msgs/Header header\nuint32 height\nuint32 width\nstring encoding\n'
                         'uint8 is_bigendian\nuint32 step\nuint8[] data',
    'sensor_msgs/CompressedImage': 'std_msgs/Header header\nstring format\nuint8[] data',
    'sensor_msgs/RegionOfInterest': 'uint32 x_offset\nuint32 y_offset\nuint32 height\n'
                                    'uint32 width\nbool do_rectify',
    'sensor_msgs/CameraInfo': 'std_msgs/Header header\nuint32 height\nuint32 width\n'
                              'string distortion_model\nfloat64[] d\nfloat64[9] k\n'
                              'float64[9] r\nfloat64[12] p\nuint32 binning_x\n'
                              'uint32 binning_y\nRegionOfInterest roi',
    'grasp_stn_interfaces/GraspRectangle': 'float32 x\nfloat32 y\nfloat32 theta\n'
                                           'float32 opening\nfloat32 jaw',
    'grasp_stn_interfaces/GraspCandidate': 'float32 x\nfloat32 y\nfloat32 location_score\n'
                                           'float32 theta\nGraspRectangle rectangle\n'
                                           'float32 score\nuint8 reason\n'
                                           'geometry_msgs/Pose pose\nfloat32 opening\n'
                                           'float32 jaw_size',
    'grasp_stn_interfaces/GraspStages': 'std_msgs/Header header\nGraspCandidate[] candidates\n'
                                        'int32 best\nuint8 reason\nstring message\n'
                                        'geometry_msgs/Pose[] failed\n'
                                        'string[] stage_names\nfloat32[] stage_milliseconds',
}
_PRIMITIVE = {'bool', 'byte', 'char', 'string', 'wstring', 'float32', 'float64',
              *(f'{sign}int{bits}' for sign in ('', 'u') for bits in (8, 16, 32, 64))}
_SEPARATOR = '=' * 80


def fields(definition: str) -> list[str]:
    """Lines of a ``.msg`` file -> its fields and constants, without comments and spare blanks."""
    lines = (line.split('#')[0].split() for line in definition.splitlines())
    return [' '.join(words) for words in lines if words]


def dependencies(name: str, definition: str) -> list[str]:
    """Return the message types (``package/Name``) that the fields of ``name`` use, in order."""
    found: list[str] = []
    for line in fields(definition):
        kind = line.split()[0].split('[')[0].split('<')[0]
        if kind not in _PRIMITIVE:
            full = kind if '/' in kind else f'{name.split("/")[0]}/{kind}'
            found.append(full.replace('/msg/', '/'))
    return found


def known(name: str) -> str | None:
    """Return the fields of ``package/Name`` as they are stated here, or None."""
    return _FIELDS.get(name)


def schema(kind: str, look_up=known) -> str:
    """
    Return the definition of ``package/msg/Name`` with those of all types in it.

    ``look_up(package/Name)`` returns the text of a ``.msg`` file or None. Raises KeyError.
    """
    top = kind.replace('/msg/', '/')
    waiting, parts = [top], {}
    while waiting:
        name = waiting.pop(0)
        if name in parts:
            continue
        text = look_up(name)
        if text is None:
            raise KeyError(f'there is no definition of {name}')
        parts[name] = '\n'.join(fields(text))
        waiting += dependencies(name, text)
    body = parts.pop(top)
    return '\n'.join([body, *(f'{_SEPARATOR}\nMSG: {name}\n{text}'
                              for name, text in parts.items())]) + '\n'

"""What the launch files share: files, settings of the middleware; nothing here needs rclpy."""

from __future__ import annotations

from collections.abc import MutableMapping
import os
from pathlib import Path
from typing import Any

import yaml

# Whoever has set one of these has decided about transports.
_PROFILE_VARIABLES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE',
                      'FASTDDS_BUILTIN_TRANSPORTS')


def share_directory() -> Path:
    """Return the folder with config/ and launch/: of the source tree, or as installed."""
    source = Path(__file__).resolve().parents[2]
    if (source / 'config' / 'grasp_node.yaml').exists():
        return source
    from ament_index_python.packages import get_package_share_directory
    return Path(get_package_share_directory('grasp_stn_ros'))


def shared_memory_profile(environ: MutableMapping[str, str] | None = None) -> dict[str, str]:
    """
    Return the variables that let Fast DDS carry images in shared memory, empty if the user chose.

    Its default segment is smaller than one image; best-effort images are then lost in silence.
    """
    environ = os.environ if environ is None else environ
    if any(environ.get(name) for name in _PROFILE_VARIABLES):
        return {}
    return {_PROFILE_VARIABLES[0]: str(share_directory() / 'config' / 'fastdds_shm.xml')}


def end_launch(event: Any, context: Any) -> list:
    """
    End the whole launch: the ``on_exit`` of a node that it is for.

    After a failure this raises RuntimeError, which is how a launch comes to an exit code of 1.
    """
    if context.is_shutdown:
        return []
    if event.returncode:
        raise RuntimeError(f'{event.process_name} ended with exit code {event.returncode}; the '
                           'lines above say why')
    from launch.actions import Shutdown
    return [Shutdown(reason=f'{event.process_name} ended')]


def parameters_in(path: Path) -> dict[str, Any]:
    """
    Return the parameters in a ROS parameter file, of whatever node, nested as they are there.

    Raises ValueError that names the file and what is expected, which ROS itself does not.
    """
    try:
        tree = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f'{path} cannot be read as YAML: {error}') from None
    values: dict[str, Any] = {}

    def collect(section: Any, name: str) -> None:
        if not isinstance(section, dict):
            raise ValueError(f'{path}: {name} is {section!r}, expected parameters of a node: '
                             '"/**:", in it "ros__parameters:", and in that "name: value"')
        for key, content in section.items():
            if key == 'ros__parameters' and isinstance(content, dict):
                values.update(content)
            elif content is not None:
                collect(content, str(key))

    if tree is not None:
        collect(tree, 'the whole file')
    return values

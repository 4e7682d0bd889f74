"""What the launch files share: files, settings of the middleware; nothing here needs rclpy."""

from __future__ import annotations

from collections.abc import MutableMapping
import os
from pathlib import Path
from typing import Any

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

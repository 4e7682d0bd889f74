"""Where the files that come with the package are: in the source tree, or installed in share/."""

from __future__ import annotations

from pathlib import Path
import sys


def places(name: str) -> list[Path]:
    """
    Return where the file or folder ``name`` of the package may be, the source tree's first.

    An installed package has them in share/, below the prefix that its lib/ folder is in.
    """
    inside = [parent / sub / name for parent in Path(__file__).resolve().parents[1:]
              for sub in ('', 'share/grasp_stn_ros')]
    return [*inside, Path(sys.prefix) / 'share/grasp_stn_ros' / name]

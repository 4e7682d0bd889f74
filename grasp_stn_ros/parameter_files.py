"""Files of ROS parameters, read without ROS, which does not say what is wrong with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


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

"""
All networks by the name that the sidecar of their weights gives them.

``MultiStageSTN`` is the network that comes with the package; the others are the five systems of
the paper's Table I, each in the setting of its own paper.
"""

from __future__ import annotations

from typing import Any

from .baselines.regression import Regression
from .baselines.single_stage import SingleStageSTN
from .baselines.sliding_window import CNNSlidingWindow, SAESlidingWindow
from .stn.multi_stage import MultiStageSTN
from .stn.network import GraspNetwork
from .stn.paper import PaperSTN

ARCHITECTURES: dict[str, type[GraspNetwork]] = {
    network.ARCHITECTURE: network
    for network in (MultiStageSTN, SAESlidingWindow, CNNSlidingWindow, Regression, SingleStageSTN,
                    PaperSTN)}


def build(name: str, config: dict[str, Any] | None = None) -> GraspNetwork:
    """
    Build an untrained network of the architecture ``name``.

    Raises KeyError for an unknown name, TypeError or ValueError for a configuration that does not
    fit.
    """
    network = ARCHITECTURES[name]
    return network(network.CONFIG(**(config or {})))

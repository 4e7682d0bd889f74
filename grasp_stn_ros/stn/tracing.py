"""
Parts of a network as TorchScript: the same arithmetic without Python between the operations.

The stages behind the trunk are some hundred small operations, for which Python takes as long as
the processor. A part is traced when it is first called with tensors of its shapes; everything else
that it depends on is a constant from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any
import warnings

import torch
from torch import Tensor, nn

from .backbone import PackedConv, pack_convolutions

Part = Callable[..., Any]


class _Module(nn.Module):
    """A function as a module. Of what it refers to only convolutions become a part of it."""

    def __init__(self, function: Part, network: nn.Module):
        super().__init__()
        self._function = (function,)
        # Their weights are no tensors, which would be constants, and have to be found here.
        self.convolutions = nn.ModuleList(
            module for module in network.modules() if isinstance(module, PackedConv))

    def forward(self, *tensors: Tensor) -> Any:
        """Call it."""
        return self._function[0](*tensors)


class Tracer:
    """
    Call functions of tensors as TorchScript, for inference on the CPU.

    They are traced under autocast to bf16 where ``bf16`` is set, and have to be called without it:
    the casts are part of them, also those that a module forgoes. The convolutions that they use
    are packed before; the network is for inference only from then on.
    """

    def __init__(self, network: nn.Module, bf16: bool = False):
        """Trace functions that use parts of ``network``; nothing is traced yet."""
        self._network = network
        self._bf16 = bf16
        self._parts: dict[Hashable, Part] = {}

    def __call__(self, key: Hashable, function: Part, *tensors: Tensor) -> Any:
        """
        Return function(*tensors).

        ``key`` tells apart what differs in anything but the shapes of ``tensors``.
        """
        full = key, *[t.shape for t in tensors]
        part = self._parts.get(full)
        if part is None:
            part = self._parts[full] = self._traced(function, tensors)
        return part(*tensors)

    def _traced(self, function: Part, tensors: tuple[Tensor, ...]) -> Part:
        try:
            # Sizes that become constants are meant to; that TorchScript is no longer developed
            # is known, and torch.compile needs a C++ compiler on the robot.
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                with self._autocast():
                    pack_convolutions(self._network, lambda: function(*tensors))
                    traced = torch.jit.trace(_Module(function, self._network).eval(), tensors,
                                             check_trace=False)
                # Not under autocast, which would take away the precision of Exact modules.
                return torch.jit.freeze(traced)
        except Exception as error:  # a PyTorch that has no TorchScript any more: slower, not wrong
            warnings.warn('a part of the network is not traced and runs slower (the PyTorch of '
                          f'requirements.txt can trace it): {error}', RuntimeWarning, stacklevel=3)

        def eager(*values: Tensor) -> Any:
            with self._autocast():
                return function(*values)
        return eager

    def _autocast(self) -> torch.autocast:
        # Cached casts of the weights would be constants that nothing else frees.
        return torch.autocast('cpu', torch.bfloat16, enabled=self._bf16, cache_enabled=False)

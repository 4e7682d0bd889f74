"""Convolutional building blocks, and how they are prepared for use."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn
import torch.nn.functional as F

Network = TypeVar('Network', bound=nn.Module)


class ConvBlock(nn.Module):
    """Convolution, batch norm and, unless ``activate`` is False, ReLU."""

    ACTIVATION: ClassVar[Callable[..., Tensor]] = staticmethod(F.relu)

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1,
                 activate: bool = True, groups: int = 1):
        """Pad so that outputs lie in the middle of the ``stride`` inputs that they stand for."""
        super().__init__()
        padding = kernel // 2 if kernel % 2 else (kernel - stride) // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        x = self.norm(self.conv(x))
        return self.ACTIVATION(x, inplace=True) if self.activate else x


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016)."""

    def __init__(self, channels: int):
        """Start as the identity: the last batch norm's weight is zero."""
        super().__init__()
        self.first = ConvBlock(channels, channels)
        self.second = ConvBlock(channels, channels, activate=False)
        assert isinstance(self.second.norm, nn.BatchNorm2d)
        nn.init.zeros_(self.second.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return F.relu(x + self.second(self.first(x)))


def fold_batch_norm(module: Network) -> Network:
    """Fold every :class:`ConvBlock`'s batch norm into its convolution; in place, for inference."""
    for block in module.modules():
        if isinstance(block, ConvBlock) and isinstance(block.norm, nn.BatchNorm2d):
            block.conv = nn.utils.fuse_conv_bn_eval(block.conv.eval(), block.norm.eval())
            block.norm = nn.Identity()
    return module


class Exact(nn.Module):
    """
    A module that computes in single precision wherever it is used.

    Where candidates are compared, by the location map and by the classifier, and where features of
    several resolutions are added, the eight bits of bf16 let near equals change places.
    """

    def exactly(self, like: Tensor) -> torch.autocast:
        """Return the context to compute in, on the device of ``like``."""
        return torch.autocast(like.device.type, enabled=False)


class ExactConv2d(nn.Conv2d, Exact):
    """A convolution that computes in single precision, whatever it is given."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, ...) float32."""
        with self.exactly(x):
            return super().forward(x.float())


def round_to_bf16(module: Network) -> Network:
    """
    Keep weights in bf16 as autocast would round them, in place, instead of in every frame.

    Those of :class:`Exact` modules stay what they are.
    """
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        module.to(torch.bfloat16)
    for child in module.children():
        if not isinstance(child, Exact):
            round_to_bf16(child)
    return module


class PackedConv(nn.Module):
    """
    A convolution for inference on the CPU: weights in the order in which oneDNN multiplies them.

    A plain one puts them into that order in every call. A ReLU behind it is computed on the way.
    """

    def __init__(self, conv: nn.Conv2d, relu: bool, size: torch.Size):
        """Do what ``conv`` does, for inputs of ``size`` (B, C, H, W); others take longer."""
        super().__init__()
        self._dtype = conv.weight.dtype
        self.context = torch.ops.mkldnn_prepacked.conv2d_prepack(
            conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups,
            list(size), 'relu' if relu else 'none')

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, ...) in the precision of the weights."""
        return torch.ops.mkldnn_prepacked.conv2d_run(x.to(self._dtype), self.context)


def pack_convolutions(network: nn.Module, run: Callable[[], object]) -> None:
    """
    Replace every convolution of ``network`` that ``run`` uses, in place, for inference.

    Those that oneDNN does not have on this processor, in bf16 without AVX-512, stay as they are.
    """
    if not hasattr(torch.ops.mkldnn_prepacked, 'conv2d_prepack'):
        return  # a PyTorch without oneDNN
    sizes: dict[nn.Module, torch.Size] = {}
    hooks = [module.register_forward_pre_hook(
        lambda conv, inputs: sizes.update({conv: inputs[0].shape}))
        for module in network.modules() if isinstance(module, nn.Conv2d)]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    for parent in [*network.modules()]:
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d) and child in sizes:
                block = parent if (isinstance(parent, ConvBlock) and parent.ACTIVATION is F.relu
                                   and isinstance(parent.norm, nn.Identity)) else None
                relu = block is not None and block.activate
                try:
                    packed = PackedConv(child, relu, sizes[child])
                except RuntimeError:
                    continue
                setattr(parent, name, packed)
                if block is not None:
                    block.activate = False

"""Where a network runs: the device by its name, and whether that multiplies bf16."""

from __future__ import annotations

import torch

_EXPECTED = 'expected auto, cpu, cuda or cuda:N'


def pick_device(name: str) -> torch.device:
    """
    Return the device ``name``: 'auto' (CUDA where there is one), 'cpu', 'cuda' or 'cuda:N'.

    Raises ValueError for another name and for a device that PyTorch does not find.
    """
    if name == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    kind, _, index = name.partition(':')
    if kind not in ('cpu', 'cuda') or name != kind and (kind == 'cpu' or not index.isdecimal()):
        raise ValueError(f'device {name!r}, {_EXPECTED}')
    if kind == 'cuda':
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise ValueError(f'device {name!r} was asked for, but PyTorch finds no CUDA device; '
                             'use auto or cpu')
        if int(index or 0) >= count:
            raise ValueError(f'device {name!r} was asked for, but PyTorch finds {count} CUDA '
                             f'device{"s" * (count > 1)}, the first of which is cuda:0')
    return torch.device(name)


def has_bf16(device: torch.device) -> bool:
    """Tell whether ``device`` multiplies bf16 matrices in hardware, where that is faster."""
    if device.type == 'cuda':
        # GPUs before Ampere only emulate it, slower than fp32 (not tried out: there was no GPU).
        return torch.cuda.get_device_capability(device)[0] >= 8
    return cpu_has_bf16()


def cpu_has_bf16() -> bool:
    """Tell whether this CPU multiplies bf16 matrices in hardware (AMX or AVX512-BF16)."""
    capabilities = getattr(torch.backends.cpu, 'get_cpu_capability', lambda: '')()
    if 'AVX512' not in str(capabilities):
        return False
    cpu = getattr(torch, 'cpu', None)
    return any(getattr(cpu, name, lambda: False)()
               for name in ('_is_amx_tile_supported', '_is_avx512_bf16_supported'))

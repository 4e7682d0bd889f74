"""
Several processes train one network: what ``torchrun`` starts, on one machine or many.

Each process takes its part of every batch; gradients are averaged, so that all processes hold the
same weights. Statistics of batch norm are those of the first process, as in PyTorch's
DistributedDataParallel, which cannot be used as it is because the objectives call the blocks of a
network one by one. Without ``torchrun`` all of this does nothing.
"""

from __future__ import annotations

import os

import torch
from torch import nn
import torch.distributed as dist

from ..device import pick_device


def start(device: str = 'cpu') -> str:
    """
    Join the group of processes, if ``torchrun`` started several; return this one's device.

    The backend is gloo on the CPU and nccl on 'cuda', where every process has the GPU that its
    LOCAL_RANK numbers (not tried out: there was no machine with GPUs). Raises ValueError where
    'cuda:N' would give all of them the same, and where there is no such device.
    """
    if device == 'auto':
        device = pick_device(device).type
    if int(os.environ.get('WORLD_SIZE', '1')) == 1:
        return str(pick_device(device))
    own = str(pick_device(own_device(device, int(os.environ.get('LOCAL_RANK', '0')))))
    if not dist.is_initialized():
        if own.startswith('cuda'):
            torch.cuda.set_device(own)
        dist.init_process_group('nccl' if own.startswith('cuda') else 'gloo')
    return own


def own_device(device: str, local_rank: int) -> str:
    """Return the device of the process ``local_rank`` of a machine; raises ValueError."""
    if device.startswith('cuda:'):
        raise ValueError(f'{device} would be shared by all processes of this machine; name '
                         "'cuda', and each has a GPU of its own")
    return f'cuda:{local_rank}' if device == 'cuda' else device


def stop() -> None:
    """Leave the group."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def rank() -> int:
    """Return the number of this process; the first one, 0, writes the files."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def processes() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def average_gradients(model: nn.Module) -> None:
    """Replace all gradients by their mean over the processes; in place."""
    if processes() == 1:
        return
    trained = [p for p in model.parameters() if p.requires_grad]
    # What a part of the batch did not need has a gradient in some of the processes, or in none.
    there = [float(p.grad is not None) for p in trained]
    # One message instead of hundreds.
    flat = torch.cat([*[(torch.zeros_like(p) if p.grad is None else p.grad).flatten()
                        for p in trained], trained[0].new_tensor(there)])
    dist.all_reduce(flat)
    *means, counts = flat.split([*[p.numel() for p in trained], len(trained)])
    for parameter, mean, count in zip(trained, means, counts.tolist(), strict=True):
        parameter.grad = mean.view_as(parameter) / processes() if count else None


def share_buffers(model: nn.Module) -> None:
    """Give all processes the statistics of the first; in place."""
    if processes() == 1:
        return
    for buffer in model.buffers():
        dist.broadcast(buffer, 0)


def barrier() -> None:
    """Wait for all processes."""
    if processes() > 1:
        dist.barrier()

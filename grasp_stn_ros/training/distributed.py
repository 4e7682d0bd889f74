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


def start() -> None:
    """Join the group of processes, if ``torchrun`` started several (backend gloo, or nccl)."""
    if int(os.environ.get('WORLD_SIZE', '1')) > 1 and not dist.is_initialized():
        dist.init_process_group('nccl' if torch.cuda.is_available() else 'gloo')


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

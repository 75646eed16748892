"""Several processes on one batch: what they tell each other. Every function is the identity when there is one process.

Gradients are added up here, after all micro-batches of a step, and not by DistributedDataParallel's hooks during them: a
process that runs out of memory half way through a backward pass would leave the others waiting in a collective for ever.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from apex_train.engine.device import Placement

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)  # rank 0 evaluates and writes while the others wait


@contextlib.contextmanager
def process_group(placement: Placement) -> Iterator[None]:
    """The group of torchrun's processes: NCCL on GPUs, gloo on CPUs."""
    if placement.world == 1:
        yield
        return
    if placement.on_cuda:
        torch.cuda.set_device(placement.device)
    device = placement.device if placement.on_cuda else None
    dist.init_process_group("nccl" if placement.on_cuda else "gloo", timeout=TIMEOUT, device_id=device)
    try:
        yield
    finally:
        dist.destroy_process_group()


class Peers:
    """The other processes of a run, seen from one of them."""

    def __init__(self, placement: Placement) -> None:
        self.placement = placement

    @property
    def alone(self) -> bool:
        """True when there is nobody else."""
        return self.placement.world == 1

    def total(self, values: Tensor) -> Tensor:
        """Sum over the processes."""
        if not self.alone:
            dist.all_reduce(values)
        return values

    def count(self, value: int) -> int:
        """Sum of whole numbers."""
        return value if self.alone else int(self.total(torch.tensor(value, device=self.placement.device)))

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """Per flag: does one of the processes raise it."""
        if self.alone:
            return list(flags)
        raised = torch.tensor([float(flag) for flag in flags], device=self.placement.device)
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return [bool(value) for value in raised.tolist()]

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Gradients summed over the processes, in one transfer; a parameter that has none anywhere keeps none."""
        if self.alone:
            return
        sent = torch.tensor([float(p.grad is not None) for p in parameters], device=self.placement.device)
        parts = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten().float() for p in parameters]
        flat = self.total(torch.cat([sent, *parts]))
        offset = len(parameters)
        for parameter, reached in zip(parameters, flat[:offset].tolist(), strict=True):
            piece = flat[offset : offset + parameter.numel()].view_as(parameter)
            # In the memory layout of the parameter, which the fused optimiser takes for granted without a check.
            parameter.grad = torch.empty_like(parameter).copy_(piece).detach() if reached else None
            offset += parameter.numel()

    def average_statistics(self, model: nn.Module) -> None:
        """Running statistics of the norms: their mean over the processes, so that all keep the same model."""
        buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        if self.alone or not buffers:
            return
        flat = self.total(torch.cat([buffer.flatten() for buffer in buffers])) / self.placement.world
        for buffer, piece in zip(buffers, flat.split([buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(piece.view_as(buffer))

    def gather(self, item: T) -> list[T]:
        """One item of every process, in their order, in every process."""
        if self.alone:
            return [item]
        items: list[Any] = [None] * self.placement.world
        dist.all_gather_object(items, item)
        return items

    def from_leader(self, item: T) -> T:
        """Rank 0's item in every process."""
        if self.alone:
            return item
        items: list[Any] = [item]
        dist.broadcast_object_list(items, src=0, device=self.placement.device)
        return items[0]

"""Several processes on one batch: what they tell each other. Every function is the identity when there is one process.

Gradients are added up here, after all micro-batches of a step, and not by DistributedDataParallel's hooks during them: a
process that runs out of memory half way through a backward pass would leave the others waiting in a collective for ever.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from apex_runtime.errors import ApexError
from apex_train.engine.device import Placement
from apex_train.engine.meeting import meet

T = TypeVar("T")


class LostPeersError(ApexError):
    """Other processes of the run do not answer: one of them ended, or its host or the network is gone."""


class PeerError(ApexError):
    """What went wrong in another process, with its message and exit code, so that nobody waits for it."""

    def __init__(self, message: str, remedy: str, exit_code: int) -> None:
        super().__init__(message, remedy)
        self.exit_code = exit_code


@contextlib.contextmanager
def process_group(placement: Placement, timeout: float) -> Iterator[None]:
    """The group of torchrun's processes: NCCL on GPUs, gloo on CPUs.

    A process that does not answer within ``timeout`` seconds is lost, here and in every call of ``Peers``. Raises LostPeersError.
    """
    if placement.world == 1:
        yield
        return
    if placement.on_cuda:
        torch.cuda.set_device(placement.device)
    device = placement.device if placement.on_cuda else None
    with _named(placement):
        limit = timedelta(seconds=timeout)
        store, rank, world = next(rendezvous("env://", timeout=limit))
        ours = meet(store, rank, world, timeout)
        backend = "nccl" if placement.on_cuda else "gloo"
        dist.init_process_group(backend, store=ours, rank=rank, world_size=world, timeout=limit, device_id=device)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def _named(placement: Placement) -> Iterator[None]:
    """What torch raises when the others are gone, as an error with a remedy."""
    try:
        yield
    except RuntimeError as error:  # every error of torch.distributed is one, and gloo raises nothing better
        said = str(error).strip() or type(error).__name__
        raise LostPeersError(
            f"{_who(placement)}: the other processes do not answer ({said.splitlines()[0]}).",
            "One of them ended (its own error says why), or its host or the network is gone. What was saved last is whole: "
            "go on with --resume, or let torchrun do it (--max-restarts, and fit --auto-resume).",
        ) from error


def _who(placement: Placement) -> str:
    return f"process {placement.rank} of {placement.world} on {socket.gethostname()}"


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
            with _named(self.placement):
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
        with _named(self.placement):
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
        with _named(self.placement):
            dist.all_gather_object(items, item)
        return items

    def from_leader(self, item: T) -> T:
        """Rank 0's item in every process."""
        if self.alone:
            return item
        items: list[Any] = [item]
        with _named(self.placement):
            dist.broadcast_object_list(items, src=0, device=self.placement.device)
        return items[0]

    def together(self, work: Callable[[], T]) -> T:
        """What ``work`` gives in this process, once it has succeeded in every one; ``work`` itself asks the others nothing.

        Raises its own ApexError or OSError, or PeerError with that of the first other process that has one.
        """
        if self.alone:
            return work()
        failure: ApexError | OSError | None = None
        try:
            done = work()
        except (ApexError, OSError) as error:
            failure = error
        told = self.gather(None if failure is None else self._as_told(failure))
        if failure is not None:
            raise failure
        for other in told:
            if other is not None:
                raise PeerError(*other)
        return done

    def in_leader(self, work: Callable[[], T]) -> T:
        """What ``work`` gives in rank 0, which alone does it, in every process. Raises as ``together``."""
        return self.from_leader(cast(T, self.together(lambda: work() if self.placement.leads else None)))

    def _as_told(self, error: ApexError | OSError) -> tuple[str, str, int]:
        """An error in words for the others: message, remedy, exit code."""
        said = (error.message, error.remedy, error.exit_code) if isinstance(error, ApexError) else (str(error), "", 1)
        return f"{_who(self.placement)}: {said[0]}", *said[1:]

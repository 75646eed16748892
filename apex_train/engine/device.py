"""Where a run computes: one resolver that everything asks (``auto | cpu | cuda | cuda:1 | ddp``)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from apex_runtime.backends.capabilities import probe_cuda
from apex_runtime.backends.reasons import ReasonCode, argument_error
from apex_runtime.errors import UsageError

Amp = Literal["off", "bf16", "fp16"]
AmpWish = Literal["auto", "off", "bf16", "fp16"]
LAUNCH = "torchrun --nproc-per-node 2 --no-python apex-train fit --device ddp ..."


@dataclass(frozen=True)
class Placement:
    """This process' device and its place among ``world`` processes that share every batch; rank 0 writes."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """True in the one process that writes files and speaks."""
        return self.rank == 0

    @property
    def on_cuda(self) -> bool:
        """True when the device is a CUDA GPU."""
        return self.device.type == "cuda"

    @property
    def label(self) -> str:
        """For logs and reports: the device by its own name, and how many there are."""
        name = torch.cuda.get_device_name(self.device) if self.on_cuda else "cpu"
        return name if self.world == 1 else f"{self.world} x {name}"


def resolve_device(asked: str, environment: Mapping[str, str] = os.environ) -> Placement:
    """The placement that ``asked`` means here. auto: ddp under torchrun, else the first GPU, else the CPU.

    Raises UsageError with a stable reason code when it does not exist.
    """
    under_torchrun = int(environment.get("WORLD_SIZE", "1")) > 1
    if asked == "auto":
        asked = "ddp" if under_torchrun else "cuda" if torch.cuda.is_available() else "cpu"
    if asked == "ddp":
        return _member(environment)
    if under_torchrun:
        raise UsageError(f"--device {asked}: torchrun started several processes.", "Use --device ddp, or start one process.")
    if asked == "cpu":
        return Placement(torch.device("cpu"))
    match = re.fullmatch(r"cuda(?::(\d{1,3}))?", asked)
    if match is None:
        raise UsageError(f"--device {asked}: expected auto, cpu, cuda, cuda:N or ddp.", "Leave it out for the best there is.")
    return Placement(_cuda(int(match[1] or 0), f"--device {asked}"))


def _member(environment: Mapping[str, str]) -> Placement:
    """One of torchrun's processes: the GPU of its local rank, or the CPU where there is no GPU at all."""
    missing = [name for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE") if name not in environment]
    if missing:
        raise UsageError(f"--device ddp: torchrun did not start this process (no {missing[0]}).", f"Start it with {LAUNCH}")
    rank, local, world = (int(environment[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    device = _cuda(local, "--device ddp") if torch.cuda.is_available() else torch.device("cpu")
    return Placement(device, rank, world)


def _cuda(index: int, what: str) -> torch.device:
    answer = probe_cuda(index)
    if answer.reason is not None:
        raise argument_error(answer.reason, f"{what}: {answer.detail}.")
    if not torch.cuda.is_available():
        raise argument_error(ReasonCode.TORCH_WITHOUT_CUDA, f"{what}: torch {torch.__version__} cannot use the GPU.")
    return torch.device("cuda", index)


def resolve_amp(asked: AmpWish, device: torch.device) -> Amp:
    """The type of mixed precision; auto: off on a CPU, on a GPU bf16 where the hardware has it, else fp16.

    Raises UsageError for fp16 on a CPU, whose small range needs the loss scaling that only GPUs are tested with.
    """
    if asked == "auto":
        if device.type != "cuda":
            return "off"
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if asked == "fp16" and device.type == "cpu":
        raise UsageError("train.amp fp16: not on a CPU.", "Use bf16, which needs no loss scaling, or off.")
    return asked


def be_deterministic() -> None:
    """The same numbers from the same run on the same machine, at some cost; an operation that cannot warns by name."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when its first handle is made
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)

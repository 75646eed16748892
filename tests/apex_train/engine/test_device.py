"""Where a run computes: what every wish means on a machine without, with one and with several GPUs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from apex_runtime.backends.capabilities import Answer
from apex_runtime.backends.reasons import ReasonCode
from apex_runtime.errors import UsageError
from apex_train.engine import device as device_module
from apex_train.engine.device import resolve_amp, resolve_device

TORCHRUN = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}


@pytest.fixture
def gpus(monkeypatch):
    """Pretend to have so many GPUs, or a torch that cannot use them."""

    def pretend(count: int, torch_sees: bool = True) -> None:
        def probe(index: int = 0) -> Answer:
            if count == 0:
                return Answer(ReasonCode.CUDA_UNAVAILABLE, "libcuda.so.1 is not on this machine")
            if index >= count:
                return Answer(ReasonCode.CUDA_DEVICE_INDEX_OUT_OF_RANGE, f"there is no cuda:{index}")
            return Answer()

        monkeypatch.setattr(device_module, "probe_cuda", probe)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: torch_sees and count > 0)

    return pretend


@pytest.mark.parametrize(
    ("count", "asked", "environment", "found"),
    [
        (0, "auto", {}, ("cpu", 0, 1)),
        (1, "auto", {}, ("cuda:0", 0, 1)),
        (2, "auto", TORCHRUN, ("cuda:1", 1, 2)),
        (0, "auto", TORCHRUN, ("cpu", 1, 2)),
        (2, "cpu", {}, ("cpu", 0, 1)),
        (2, "cuda", {}, ("cuda:0", 0, 1)),
        (2, "cuda:1", {}, ("cuda:1", 0, 1)),
        (0, "ddp", TORCHRUN, ("cpu", 1, 2)),
        (2, "ddp", TORCHRUN, ("cuda:1", 1, 2)),
        (1, "ddp", {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}, ("cuda:0", 0, 1)),
    ],
)
def test_what_a_wish_means(gpus, count: int, asked: str, environment: dict, found: tuple) -> None:
    gpus(count)
    placement = resolve_device(asked, environment)
    assert (str(placement.device), placement.rank, placement.world) == found
    assert placement.leads == (placement.rank == 0)


@pytest.mark.parametrize(
    ("count", "asked", "environment", "words"),
    [
        (0, "cuda", {}, "cuda_unavailable"),
        (1, "cuda:1", {}, "cuda_device_index_out_of_range"),
        (1, "ddp", TORCHRUN, "cuda_device_index_out_of_range"),
        (0, "ddp", {}, "torchrun"),
        (1, "cuda", TORCHRUN, "several processes"),
        (0, "tpu", {}, "expected auto"),
        (0, "cuda:x", {}, "expected auto"),
    ],
)
def test_what_does_not_exist_is_said(gpus, count: int, asked: str, environment: dict, words: str) -> None:
    gpus(count)
    with pytest.raises(UsageError, match=words) as caught:
        resolve_device(asked, environment)
    assert caught.value.remedy and caught.value.exit_code == 2


def test_a_torch_without_cuda_is_told_from_a_machine_without(gpus) -> None:
    gpus(1, torch_sees=False)
    with pytest.raises(UsageError, match="torch_without_cuda"):
        resolve_device("cuda", {})
    assert resolve_device("auto", {}).device.type == "cpu"


def test_mixed_precision(monkeypatch) -> None:
    cpu, gpu = torch.device("cpu"), SimpleNamespace(type="cuda")
    assert resolve_amp("auto", cpu) == "off" and resolve_amp("bf16", cpu) == "bf16"
    for native, expected in ((True, "bf16"), (False, "fp16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True, native=native: native)
        assert resolve_amp("auto", gpu) == expected
    assert resolve_amp("fp16", gpu) == "fp16"
    with pytest.raises(UsageError, match="fp16"):
        resolve_amp("fp16", cpu)

"""The facts of a machine: what the system says, and nothing where it says nothing."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

import pytest

from apex_runtime import machine
from apex_runtime.machine import LIBRARIES, gpus, memory_bytes, processor, state, usable_cpus, versions


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``nvidia_smi(text, code)`` puts a program of that name in front that prints the text."""

    def make(text: str, code: int = 0) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/asked\ncat <<'END'\n{text}\nEND\nexit {code}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return make


def test_gpus_as_nvidia_smi_lists_them(nvidia_smi, tmp_path: Path) -> None:
    nvidia_smi("NVIDIA H100 80GB HBM3, 580.65.06, 81559, 9.0\nQuadro, [N/A], [N/A], 12.0")
    assert gpus() == [
        {"name": "NVIDIA H100 80GB HBM3", "driver": "580.65.06", "memory_bytes": 81559 * 2**20, "compute_capability": 90},
        {"name": "Quadro", "driver": "[N/A]", "memory_bytes": None, "compute_capability": 120},
    ]
    asked = (tmp_path / "asked").read_text()
    assert "--query-gpu=name,driver_version,memory.total,compute_cap" in asked and "noheader,nounits" in asked


@pytest.mark.parametrize(
    ("text", "code"), [("NVIDIA-SMI has failed", 9), ("No devices were found", 0), ("", 0), ("a, b, 1, 9.0", 1)]
)
def test_no_gpus_where_it_fails(nvidia_smi, text: str, code: int) -> None:
    nvidia_smi(text, code)
    assert gpus() == []


def test_no_gpus_without_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus() == []


def test_versions_are_those_of_the_distributions() -> None:
    found = versions()
    assert {"python", *LIBRARIES} <= set(found)
    for name in LIBRARIES:
        assert found[name] == version(name)


def test_a_missing_library_is_named_and_a_missing_optional_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LIBRARIES", ("numpy", "a-library-nobody-has"))
    monkeypatch.setattr(machine, "OPTIONAL_LIBRARIES", ("another-one-nobody-has",))
    found = versions()
    assert set(found) == {"python", "numpy", "a-library-nobody-has"} and found["a-library-nobody-has"] is None


def test_processor_memory_and_state_where_the_system_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processor() and 1 <= usable_cpus() <= (os.cpu_count() or 1)
    total = next((line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")), "")
    assert memory_bytes() == pytest.approx(int(total.split()[1]) * 1024, rel=0.05)
    now = state()
    assert set(now) == {"governor", "megahertz", "load"} and len(now["load"]) == 3
    monkeypatch.setattr(machine, "_from_cpuinfo", lambda _field: None)
    monkeypatch.setattr(machine, "_first_line", lambda _path: None)
    assert processor() and state()["megahertz"] is None and state()["governor"] is None

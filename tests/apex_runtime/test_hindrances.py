"""What the system counts, and nothing where it counts nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from apex_runtime import hindrances
from apex_runtime.hindrances import Counters, between, read


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose counters are files of ours; 100 ticks a second, two processors."""
    for name, path in (("_STAT", "stat"), ("_CORES", "cpu"), ("_QUOTA", "cpu.stat")):
        monkeypatch.setattr(hindrances, name, tmp_path / path)
    monkeypatch.setattr(hindrances.os, "sysconf", lambda _name: 100)
    monkeypatch.setattr(hindrances.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(hindrances, "nvidia_smi", lambda _fields: [])
    return tmp_path


def write(system: Path, stolen: int, hot: int, quota: int) -> None:
    (system / "stat").write_text(f"cpu  1 2 3 4 5 6 7 {stolen} 9 10\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    for core in (0, 1):
        folder = system / "cpu" / f"cpu{core}" / "thermal_throttle"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "core_throttle_count").write_text(f"{hot + core}\n")
    (system / "cpu.stat").write_text(f"usage_usec 5\nnr_throttled 3\nthrottled_usec {quota}\n")


def test_what_happened_in_between(system: Path) -> None:
    write(system, stolen=100, hot=4, quota=1_000_000)
    before = read()
    assert (before.stolen_seconds, before.thermal_throttles, before.quota_seconds) == (1.0, 9, 1.0)
    write(system, stolen=300, hot=5, quota=1_250_000)
    after = replace(read(), clock=before.clock + 10)
    assert between(before, after) == {"stolen_share": 0.1, "thermal_throttles": 2, "quota_seconds": 0.25, "gpus": []}


@pytest.mark.parametrize(("stat", "quota"), [(None, None), ("cpu 1 2\n", "throttled_usec many\n"), ("intr 5", "throttled_usec")])
def test_a_system_that_does_not_tell(system: Path, stat: str | None, quota: str | None) -> None:
    for name, text in (("stat", stat), ("cpu.stat", quota)):
        if text is not None:
            (system / name).write_text(text)
    found = read()
    assert (found.stolen_seconds, found.thermal_throttles, found.quota_seconds) == (None, None, None)
    assert between(found, found) == {"stolen_share": None, "thermal_throttles": None, "quota_seconds": None, "gpus": []}


def test_clocks_of_gpus_and_what_they_do_not_say(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [["1980", "1980", "41", "120.5", "0x0000000000000004"], ["[N/A]"] * 5]
    monkeypatch.setattr(hindrances, "nvidia_smi", lambda _fields: rows)
    still = Counters(0, None, None, None)
    first, second = between(still, still)["gpus"]
    assert first == {
        "megahertz": 1980,
        "most_megahertz": 1980,
        "celsius": 41,
        "watts": 120.5,
        "throttle_reasons": "0x0000000000000004",
    }
    assert set(second.values()) == {None}

"""What held a measurement up that is not the engine: time that a hypervisor took, throttling, the clocks of the GPUs.

Counters of the system, read before and after; what it does not tell is None. Nothing here fails.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apex_runtime.machine import nvidia_smi, usable_cpus

_STAT = Path("/proc/stat")
_CORES = Path("/sys/devices/system/cpu")
_QUOTA = Path("/sys/fs/cgroup/cpu.stat")
_STOLEN_FIELD = 8  # of the line "cpu" in /proc/stat (proc(5)), in ticks, all processors together
_GPU_FIELDS = ("clocks.sm", "clocks.max.sm", "temperature.gpu", "power.draw", "clocks_throttle_reasons.active")


@dataclass(frozen=True)
class Counters:
    """Since the machine started, but ``clock``, which only differences mean something of. Seconds and events."""

    clock: float
    stolen_seconds: float | None
    thermal_throttles: int | None
    quota_seconds: float | None


def read() -> Counters:
    """The counters of now."""
    return Counters(time.monotonic(), _stolen(), _thermal(), _quota())


def between(before: Counters, after: Counters) -> dict[str, Any]:
    """What happened between two readings.

    ``stolen_share``: of the time of the processors, what a hypervisor gave to others. ``thermal_throttles``: how often a core
    was slowed because it was hot. ``quota_seconds``: how long the control group was stopped for its quota. ``gpus``: clocks and
    limits as they are after it.
    """
    seconds = (after.clock - before.clock) * (os.cpu_count() or usable_cpus())
    stolen = _difference(before.stolen_seconds, after.stolen_seconds)
    quota = _difference(before.quota_seconds, after.quota_seconds)
    return {
        "stolen_share": None if stolen is None or seconds <= 0 else round(min(stolen / seconds, 1.0), 4),
        "thermal_throttles": _difference(before.thermal_throttles, after.thermal_throttles),
        "quota_seconds": None if quota is None else round(quota, 3),
        "gpus": [_gpu(row) for row in nvidia_smi(_GPU_FIELDS)],
    }


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else max(after - before, 0)


def _stolen() -> float | None:
    words = _words(_STAT)
    if words[:1] != ["cpu"] or len(words) <= _STOLEN_FIELD or not words[_STOLEN_FIELD].isdecimal():
        return None
    return int(words[_STOLEN_FIELD]) / os.sysconf("SC_CLK_TCK")


def _thermal() -> int | None:
    counts = [_words(path) for path in sorted(_CORES.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"))]
    found = [int(words[0]) for words in counts if words and words[0].isdecimal()]
    return sum(found) if found else None


def _quota() -> float | None:
    words = _words(_QUOTA)
    pairs = dict(zip(words[::2], words[1::2], strict=False))
    return int(pairs["throttled_usec"]) / 1e6 if pairs.get("throttled_usec", "").isdecimal() else None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return []


def _gpu(row: Iterable[str]) -> dict[str, Any]:
    clock, most, temperature, power, reasons = row
    return {
        "megahertz": _number(clock),
        "most_megahertz": _number(most),
        "celsius": _number(temperature),
        "watts": _number(power),
        "throttle_reasons": reasons if reasons.startswith("0x") else None,
    }


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:  # [N/A]
        return None

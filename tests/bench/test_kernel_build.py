"""What the compilation of the kernels took and what they need is what was promised; reports are put together by kernel."""

from __future__ import annotations

import json
from pathlib import Path

from kernel_build import REACH_CACHED, REACH_COLD, by_kernel, of_kernel


def test_reports_are_put_together_by_kernel() -> None:
    def row(kernel: str, architecture: str, registers: int, spills: int) -> dict[str, object]:
        return {"kernel": kernel, "architecture": architecture, "registers": registers, "shared": 8, "stack": 0, "spills": spills}

    first, second = by_kernel([row("a", "sm_75", 30, 0), row("b", "sm_75", 40, 0), row("a", "sm_80", 32, 4)])
    assert of_kernel(first) == {"kernel": "a", "registers": {"sm_75": 30, "sm_80": 32}, "shared": 8, "stack": 0, "spills": 4}
    assert of_kernel(second)["registers"] == {"sm_75": 40}


def test_the_evidence_keeps_what_was_promised(repo_root: Path) -> None:
    found = json.loads((repo_root / "bench" / "evidence" / "kernel-build.json").read_text(encoding="utf-8"))
    assert len(found["cold"]) >= 3 and found["circumstances"]["machine"]["cpus"] == 2
    assert max(row["seconds"] for row in found["cold"]) <= REACH_COLD
    assert max(row["seconds"] for row in found["cached"]) <= REACH_CACHED
    assert found["spills"] == 0 and all(len(row["registers"]) == 7 for row in found["kernels"])

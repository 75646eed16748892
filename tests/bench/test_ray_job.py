"""The judge of jobs notices what went wrong; workers are found among the processes of a command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray_job import answered_once, figures, node_figures
from worker_processes import workers_of


def output(folder: Path, done: list[str], failed: list[str]) -> Path:
    folder.mkdir()
    (folder / "results.jsonl").write_text("".join(json.dumps({"file_name": name}) + "\n" for name in done))
    (folder / "failures.json").write_text(json.dumps([{"file_name": name} for name in failed]))
    return folder


def test_every_image_once(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (images / name).touch()
    assert answered_once(output(tmp_path / "right", ["a.png", "c.png"], ["b.png"]), images)
    for number, (done, failed) in enumerate(
        [(["a.png", "c.png"], []), (["a.png", "a.png", "c.png"], ["b.png"]), (["a.png", "b.png", "c.png"], ["b.png"])]
    ):
        assert not answered_once(output(tmp_path / str(number), done, failed), images)


def sample(plain: float, ray: float, equal: bool = True) -> dict[str, Any]:
    block = {"images": 10, "seconds": 2.0, "bytes": 500}
    seconds = {"plain_seconds": plain, "ray_seconds": ray, "plain_wall_seconds": plain + 1, "ray_wall_seconds": ray + 9}
    driver = {"listing": 0.1, "store": 0.2, "merge": 0.3, "coco": 0.4, "cpu": 1.5}
    more = {"first_block_seconds": 5.0, "driver": driver, "read_bytes": 4000, "blocks": [block, block]}
    return {"images": 20, "equal": equal, "exact": True} | seconds | more


def test_ratios_are_over_all_rounds() -> None:
    found = figures([sample(8.0, 10.0), sample(12.0, 10.0)])
    assert found["ratio"] == pytest.approx(1.0) and found["ratio_of_rounds"] == pytest.approx([0.8, 1.2]) and found["equal"]
    assert found["wall_ratio"] == pytest.approx(22 / 38) and found["ray_images_per_second"] == pytest.approx(2.0)
    assert not figures([sample(8.0, 10.0), sample(8.0, 10.0, equal=False)])["equal"]


def test_what_a_node_needs_is_by_image_and_by_block() -> None:
    found = node_figures([sample(8.0, 10.0), sample(12.0, 10.0)], 2, 0.01)
    assert found["read_bytes_per_image"] == 200 and found["result_bytes_per_image"] == 50 and found["start_seconds"] == 3.0
    assert found["driver_seconds_per_image"]["coco"] == pytest.approx(0.02)
    assert found["driver_seconds_per_block"] == 0.01 and len(found["blocks"]) == 4


def test_workers_are_found_below_a_process_by_their_name() -> None:
    inner = "import subprocess, sys; subprocess.run(['bash', '-c', 'exec -a ray::MapWorker sleep 60'])"
    with subprocess.Popen([sys.executable, "-c", inner]) as process:
        found: list[int] = []
        for _ in range(200):
            found = workers_of(process.pid)
            if found:
                break
            subprocess.run(["sleep", "0.05"])
        try:
            assert len(found) == 1 and b"sleep" not in Path(f"/proc/{found[0]}/cmdline").read_bytes().split(b"\0")[0]
        finally:
            for pid in found:
                subprocess.run(["kill", str(pid)])
        process.wait()

"""The scaling model gives what can be reckoned by hand, and names what holds a cluster up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ray_scaling import Cluster, draw, main, row, simulate


def node(**changes: Any) -> dict[str, Any]:
    """10 seconds for a block of 100 images, and nothing else costs anything."""
    free = {"listing": 0.0, "store": 0.0, "merge": 0.0, "coco": 0.0}
    found = {
        "start_seconds": 0.0,
        "read_bytes_per_image": 0.0,
        "driver_seconds_per_block": 0.0,
        "driver_seconds_per_image": free,
        "blocks": [{"images": 100, "seconds": 10.0, "bytes": 0.0}],
    }
    return found | changes


def cluster(nodes: int = 10, **changes: float) -> Cluster:
    return Cluster(**({"nodes": nodes, "workers": 4, "store": 1e9, "network": 1e9, "speed": 1.0} | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("nodes", [1, 10, 100])
def test_nothing_shared_means_nothing_lost(nodes: int) -> None:
    found = row(node(), cluster(nodes), 100 * 400)  # a whole number of turns of all workers
    assert found["seconds"] == pytest.approx(10 * 400 / (4 * nodes)) and found["efficiency"] == pytest.approx(1)
    assert found["bottleneck"] == "none"
    assert row(node(), cluster(nodes, speed=2.0), 100 * 400)["seconds"] == pytest.approx(5 * 400 / (4 * nodes))


def test_the_driver_sets_the_pace_when_it_is_slower_than_all_workers() -> None:
    busy = node(driver_seconds_per_image={"listing": 0.0, "store": 0.005, "merge": 0.0, "coco": 0.0})
    found = row(busy, cluster(10), 100 * 400)
    assert found["seconds"] == pytest.approx(400 * 100 * 0.005, rel=0.1), "0.5 seconds a block, one after the other"
    assert found["busy"]["driver"] > 0.9 and found["bottleneck"] == "the driver, which writes shards"
    assert row(busy, cluster(1), 100 * 400)["bottleneck"] == "none"
    slow = row(node(driver_seconds_per_block=0.5), cluster(10), 100 * 400)
    assert slow["seconds"] == pytest.approx(400 * 0.5, rel=0.1) and "hands out" in slow["bottleneck"]


@pytest.mark.parametrize(("thing", "word"), [("store", "the store of the images"), ("network", "the network of the driver")])
def test_bytes_are_a_limit(thing: str, word: str) -> None:
    many = node(read_bytes_per_image=1e6, blocks=[{"images": 100, "seconds": 10.0, "bytes": 1e8}])
    found = row(many, cluster(100, **{"store": 1e12, "network": 1e12, thing: 1e9}), 100 * 4000)
    assert found["seconds"] >= 4000 * 0.1 and found["bottleneck"] == word


def test_what_is_done_by_one_process_is_counted_whole() -> None:
    slow = node(driver_seconds_per_image={"listing": 0.001, "store": 0.0, "merge": 0.002, "coco": 0.003}, start_seconds=7.0)
    found = row(slow, cluster(10), 100 * 400)
    assert found["seconds"] == pytest.approx(100 + 40 + 7 + 200) and found["seconds_of"]["merge"] == pytest.approx(200)
    assert found["bottleneck"] == "the driver's merge at the end" and found["efficiency"] == pytest.approx(100 / 347)


def test_one_block_too_many_is_waited_for() -> None:
    found = row(node(), cluster(10), 100 * 41)
    assert found["seconds"] == pytest.approx(20) and found["bottleneck"] == "waiting for the last blocks"


def test_blocks_are_drawn_until_all_images_are_in_one() -> None:
    trace = [{"images": 64, "seconds": 2.0, "bytes": 6400.0}, {"images": 10, "seconds": 1.0, "bytes": 100.0}]
    drawn = draw(trace, 1000)
    assert sum(images for images, _seconds, _bytes in drawn) == 1000 and draw(trace, 1000) == drawn
    assert simulate(node(), cluster(1), drawn)["seconds"] >= max(seconds for _images, seconds, _bytes in drawn)


def test_the_program_reads_evidence_and_writes_it(tmp_path: Path) -> None:
    (tmp_path / "ray-job.json").write_text(json.dumps({"node": node()}))
    words = [tmp_path / "ray-job.json", "--nodes", "1,100", "--images", 10_000, "--evidence", tmp_path / "scaling.json"]
    ran = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
    rows = json.loads((tmp_path / "scaling.json").read_text())["rows"]
    assert ran.exit_code == 0 and [one["nodes"] for one in rows] == [1, 100] and "100 nodes" in ran.output
    assert rows[0]["images_per_second"] == pytest.approx(10_000 / 70)  # 7 turns of 16 workers

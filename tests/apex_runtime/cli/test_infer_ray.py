"""``apex-rt infer --on ray``: what cannot be is refused before Ray starts; the rest, with real workers, equals one run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
from killed_runs import files_of, results_of
from pictures import discs, save
from processes import start
from worker_processes import kill_worker, workers_of

from apex_runtime.offline import cluster, rounds
from apex_runtime.offline.worker import BlockWorker


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(10):
        save(tmp_path / "images" / f"{index}.png", discs(128, 128, (16 + 8 * index, 16, 11), (100, 100, 15)))
    (tmp_path / "images" / "broken.png").write_bytes(b"")
    return tmp_path / "images"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--on", "dask"], "--on dask"),
        (["--on", "ray", "--budget", "8ms"], "a deadline is for one image"),
        (["--on", "ray", "--device", "cuda:1"], "--device cuda"),
        (["--on", "ray", "--batch", "many"], "--batch many"),
        (["--on", "ray", "--video"], "is a clip"),
        (["--on", "ray", "--classes", "roof"], "does not know it"),
        (["--on", "ray", "--look", "LOOK"], "is not among the images"),
        (["--on", "ray", "--workers", "0"], "--workers"),
        (["--workers", "2"], "only a job of Ray"),
        (["--block", "2"], "only a job of Ray"),
        (["--shards", "parquet"], "only a job of Ray"),
    ],
)
def test_refused_before_ray_starts(apex_rt, tiny_onnx: Path, folder: Path, tmp_path: Path, words: list, said: str) -> None:
    pytest.importorskip("ray")
    (tmp_path / "look.json").write_text('{"none.png": [[0, 0, 9, 9]]}')
    words = [str(tmp_path / "look.json") if word == "LOOK" else word for word in words]
    ran = apex_rt("infer", folder, "--engine", tiny_onnx, "-o", tmp_path / "out", *words)
    assert ran.code == 2 and said in ran.err, ran.err
    assert not (tmp_path / "out").exists()


def test_a_clip_among_the_images_is_named(apex_rt, tiny_onnx: Path, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    writer = cv2.VideoWriter(str(folder / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (64, 64))
    for _ in range(3):
        writer.write(discs(64, 64, (20, 20, 9)))
    writer.release()
    ran = apex_rt("infer", folder, "--engine", tiny_onnx, "-o", tmp_path / "out", "--on", "ray")
    assert ran.code == 2 and "clip.avi is a clip" in ran.err


def test_without_ray_the_extra_is_named(apex_rt, tiny_onnx: Path, folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    ran = apex_rt("infer", folder, "--engine", tiny_onnx, "-o", tmp_path / "out", "--on", "ray")
    assert ran.code == 1 and 'pip install ".[ray]"' in ran.err


# With real workers: about 15 seconds each.


@pytest.fixture
def joined() -> Iterator[None]:
    """Ray in this process, with two cores, for the commands of one test."""
    ray = pytest.importorskip("ray")
    with cluster.joined("ray", 2, 1):
        yield
    assert not ray.is_initialized()


def equal(apex_rt, folder: Path, tiny_bundle: Path, tmp_path: Path, *words: object) -> dict:
    """A job beside one run; the summary of the job."""
    common = ["--engine", tiny_bundle, "--budget", "0.5", "--save", "annotated,yolo,masks,csv"]
    plain = apex_rt("infer", folder, *common, "-o", tmp_path / "plain", "--threads", 1)
    ran = apex_rt(
        "infer", folder, *common, "-o", tmp_path / "out", "--on", "ray", "--workers", 2, "--threads", 1, "--json", *words
    )
    assert ran.code == plain.code == 1, ran.err
    assert results_of(tmp_path / "out") == results_of(tmp_path / "plain")
    assert [name for name in files_of(tmp_path / "out") if not name.startswith("shards/")] == files_of(tmp_path / "plain")
    assert (tmp_path / "out" / "failures.json").read_bytes() == (tmp_path / "plain" / "failures.json").read_bytes()
    return json.loads(ran.out)


@pytest.mark.slow
@pytest.mark.usefixtures("joined")
def test_a_job_equals_a_run(apex_rt, validate, tiny_bundle: Path, folder: Path, tmp_path: Path) -> None:
    summary = equal(apex_rt, folder, tiny_bundle, tmp_path, "--block", 2, "--shards", "parquet")
    validate("summary", summary)
    assert summary["ray"]["workers"] == 2 and summary["ray"]["blocks"] == 6
    again = apex_rt("infer", folder, "--engine", tiny_bundle, "--budget", "0.5", "-o", tmp_path / "out", "--on", "ray", "--json",
                    "--resume", "--save", "annotated,yolo,masks,csv", "--workers", 2, "--threads", 1)  # fmt: skip
    assert json.loads(again.out)["images"] == {"found": 11, "done": 10, "failed": 1, "resumed": 10}


@pytest.mark.slow
@pytest.mark.usefixtures("joined")
def test_an_image_that_kills_its_worker_is_named(apex_rt, tiny_bundle: Path, folder: Path, tmp_path: Path, monkeypatch) -> None:
    class Poisoned(BlockWorker):
        def _answer(self, block):
            if any(image.name == "4.png" for image in block.images):
                os.kill(os.getpid(), signal.SIGKILL)
            return super()._answer(block)

    monkeypatch.setattr(rounds, "_worker_class", lambda: Poisoned)
    out = tmp_path / "out"
    ran = apex_rt(
        "infer", folder, "--engine", tiny_bundle, "-o", out, "--on", "ray", "--save", "none", "--block", 3, "--threads", 1
    )
    assert ran.code == 1
    failed = {item["file_name"]: item["code"] for item in json.loads((out / "failures.json").read_text())}
    assert failed == {"4.png": "worker_lost", "broken.png": "image"}
    assert [image["file_name"] for image in results_of(out)["images"]] == [f"{index}.png" for index in range(10) if index != 4]


@pytest.mark.slow
@pytest.mark.usefixtures("joined")
def test_an_engine_that_a_worker_cannot_open_ends_the_job(
    apex_rt, tiny_bundle: Path, folder: Path, tmp_path: Path, monkeypatch
) -> None:
    class Older(BlockWorker):
        def __init__(self, work, parcel, digest, release):
            super().__init__(work, parcel, digest, "0.0.0")

    monkeypatch.setattr(rounds, "_worker_class", lambda: Older)
    ran = apex_rt(
        "infer", folder, "--engine", tiny_bundle, "-o", tmp_path / "out", "--on", "ray", "--save", "none", "--threads", 1
    )
    assert ran.code == 1 and "the job is of 0.0.0" in ran.err and "worker on" in ran.err


INTRUDER = """import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
print(ray.get(ray.remote(num_cpus=0)(lambda: "inside").remote()))"""


@pytest.mark.slow
def test_who_has_not_the_token_of_a_job_gets_no_work_done() -> None:
    ray = pytest.importorskip("ray")
    with cluster.joined("ray", 1, 1):
        address = ray.get_runtime_context().gcs_address
        secret = {name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH")}
        public = {name: value for name, value in os.environ.items() if name not in secret}
        said = [
            subprocess.run([sys.executable, "-c", INTRUDER, address], env=public | keys, capture_output=True, text=True).stdout
            for keys in (secret, {"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64})
        ]
    assert said == ["inside\n", "", ""]


@pytest.mark.slow
def test_killed_workers_and_a_killed_driver_change_nothing(apex_rt, tiny_bundle: Path, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    for index in range(300):
        save(folder / f"more-{index:03}.png", discs(128, 128, (16, 16 + index % 90, 11)))
    common = ["infer", folder, "--engine", tiny_bundle, "--budget", "0.5", "--save", "masks"]
    assert apex_rt(*common, "-o", tmp_path / "plain", "--threads", 1).code == 1
    job = [*common, "-o", tmp_path / "out", "--on", "ray", "--workers", 2, "--threads", 1, "--block", 1]
    process = start(job, tmp_path / "said.txt")
    shards = wait_for_shards(tmp_path / "out", 20)
    pids = workers_of(process.pid)
    assert kill_worker(process.pid) is not None
    wait_for_shards(tmp_path / "out", shards + 20)  # one of them is that of an image which cannot be read
    process.kill()
    process.wait()
    wait_until_gone(pids)
    ran = subprocess.run(
        [sys.executable, "-m", "apex_runtime.cli.main", *map(str, job), "--resume", "--json"], capture_output=True, text=True
    )
    summary = json.loads(ran.stdout)  # Ray says nothing there
    assert ran.returncode == 1 and 39 <= summary["images"]["resumed"] < 310 and summary["images"]["done"] == 310
    assert results_of(tmp_path / "out") == results_of(tmp_path / "plain")
    assert [name for name in files_of(tmp_path / "out") if not name.startswith("shards/")] == files_of(tmp_path / "plain")


def wait_for_shards(output: Path, count: int) -> int:
    for _ in range(1200):
        found = len(list((output / "shards").glob("*.json")))
        if found >= count:
            return found
        time.sleep(0.1)
    raise AssertionError("no shards")


def wait_until_gone(pids: list[int]) -> None:
    """Ray's processes end with the one that started them."""
    for _ in range(600):
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return
        time.sleep(0.1)
    raise AssertionError("workers outlive the job")

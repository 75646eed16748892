"""Two gloo processes are one: same losses, same AP, and neither waits for ever."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from apex_runtime.errors import UsageError
from apex_train.data.loader import BatchSampler

FIT = [
    "train.size=128",
    "train.crop=64",
    "train.batch=4",
    "train.workers=0",
    "train.warmup_steps=1",
    "train.norm_statistics=frozen",
    "train.evaluate_every=2",
    "train.learning_rate=0.0005",
]


def fit(data: Path, output: Path, processes: int, epochs: int = 4, *words: str) -> subprocess.CompletedProcess:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", "0"]
    start = [*torchrun, "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"] if processes > 1 else [sys.executable]
    options = [item for setting in FIT for item in ("--set", setting)]
    command = [*start, "-m", "apex_train.cli.main", "fit", "--data", str(data), "--output", str(output), "--epochs", str(epochs)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *options, *words], capture_output=True, text=True, env=environment, timeout=240)


def lines(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def sparse(nuclei_fixture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture with most images emptied, so that now and then one process has no object at all."""
    data = tmp_path_factory.mktemp("sparse") / "data"
    shutil.copytree(nuclei_fixture, data)
    file = data / "annotations" / "train.json"
    document = json.loads(file.read_text())
    kept = {image["id"] for image in document["images"][:2]}
    document["annotations"] = [entry for entry in document["annotations"] if entry["image_id"] in kept]
    file.write_text(json.dumps(document))
    return data


@pytest.mark.slow
def test_two_processes_are_one(sparse: Path, tmp_path: Path) -> None:
    for count in (1, 2):
        run = fit(sparse, tmp_path / str(count), count)
        assert run.returncode == 0, run.stderr[-3000:]
    one, two = (lines(tmp_path / str(count)) for count in (1, 2))
    assert len(one) == len(two) == 4
    for a, b in zip(one, two, strict=True):
        assert abs(a["total"] - b["total"]) <= 1e-4 * a["total"]
        assert ("mAP_segm" in a) == ("mAP_segm" in b)
    last = {key: value for key, value in one[-1].items() if key.startswith(("AP", "mAP"))}
    assert last and {key: two[-1][key] for key in last} == pytest.approx(last, abs=1e-6)
    assert two[-1]["memory"]["micro_batch"] == 2  # half of the batch each


def test_an_unreadable_image_ends_all_processes(sparse: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(sparse, data)
    document = json.loads((data / "annotations" / "train.json").read_text())
    next(data.rglob(document["images"][0]["file_name"])).write_bytes(b"not an image")
    run = fit(data, tmp_path / "run", 2, 2)
    assert run.returncode != 0 and document["images"][0]["file_name"] in run.stderr + run.stdout


def test_every_process_gets_its_share_of_every_batch() -> None:
    whole, parts = BatchSampler(11, 5, seed=3), [BatchSampler(11, 5, 3, rank, 2) for rank in range(2)]
    for epoch in range(3):
        for sampler in (whole, *parts):
            sampler.epoch = epoch
        for batch, *shares in zip(whole, *parts, strict=True):
            assert batch == shares[0] + shares[1] and {len(share) for share in shares} == {2, 3}
    assert [sampler.rows for sampler in parts] == [slice(0, 3), slice(3, 5)]
    whole.first = 1
    assert len(list(whole)) == len(whole) - 1 == 1
    with pytest.raises(UsageError, match="2 processes"):
        BatchSampler(1, 8, seed=0, rank=1, world=2)

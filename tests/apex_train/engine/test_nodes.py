"""Training over two hosts: the numbers of one host, what is killed goes on, a cut network ends both in bounded time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from two_hosts import Host, two_hosts

from apex_train.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow

EPOCHS = 4
TIMEOUT = 6  # seconds
STEPS = 2  # of an epoch: 5 images in batches of 2, the last one is left out
FIT = [
    f"train.epochs={EPOCHS}",
    "train.size=128",
    "train.crop=64",
    "train.batch=2",
    "train.workers=0",
    "train.warmup_steps=1",
    "train.norm_statistics=frozen",
    "train.evaluate_every=2",
    "train.learning_rate=0.0005",
    "train.save_every=1",
]
# A run that says every step, and whose processes kill themselves where KILL says so: "rank:step rank:step", each once.
PROGRAM = """
import os, pathlib, signal, sys
from apex_train.engine.trainer import Trainer
from apex_train.cli.main import main
step = Trainer.train_step
def told(self, batch):
    mine = f"{self.placement.rank}:{self.step}"
    mark = pathlib.Path(os.environ["MARKS"], mine.replace(":", "-"))
    if mine in os.environ.get("KILL", "").split() and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    terms = step(self, batch)
    print("STEP", self.step, flush=True)
    return terms
Trainer.train_step = told
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    with two_hosts() as made:
        yield made


def command(data: Path, output: Path, launch: list[str], settings: tuple[str, ...] = ()) -> list[str]:
    options = [word for setting in (*FIT, *settings) for word in ("--set", setting)]
    fit = ["fit", "--data", str(data), "--output", str(output), "--device", "ddp", "--no-report"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--rdzv-backend", "c10d", *launch, "--no-python"]
    return [*torchrun, sys.executable, "-c", PROGRAM, *fit, "--auto-resume", *options]


def environment(folder: Path, **more: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "MARKS": str(folder)} | more


def start(
    hosts: tuple[Host, Host], data: tuple[Path, Path], folder: Path, launch: list[str], *settings: str, kill: str = ""
) -> list[subprocess.Popen[bytes]]:
    """The run on both hosts, each with an output folder of its own and its log beside it."""
    return [start_one(*each, folder, launch, *settings, kill=kill) for each in zip(hosts, data, strict=True)]


def start_one(host: Host, data: Path, folder: Path, launch: list[str], *settings: str, kill: str = "") -> subprocess.Popen[bytes]:
    nodes = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-endpoint", "host-a:29400", *launch]
    words = command(data, folder / host.name, nodes, settings)
    # Else torchrun's store of before the loss would be handed on, and a new host would not find the processes.
    shared = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "0" if kill else "1"}
    return host.start(words, environment(folder, KILL=kill, **shared), folder / f"{host.name}.log")


def wait_for(words: str, processes: list[subprocess.Popen[bytes]], folder: Path) -> None:
    """Until both hosts have said it."""
    end = time.monotonic() + 120
    while not all(words in text for text in said(folder)):
        assert time.monotonic() < end and not any(process.poll() for process in processes), said(folder)
        time.sleep(0.1)


def said(folder: Path) -> list[str]:
    return [(folder / f"host-{letter}.log").read_text() for letter in "ab"]


def ended(processes: list[subprocess.Popen[bytes]], folder: Path, seconds: float = 240) -> list[int]:
    end = time.monotonic() + seconds
    try:
        return [process.wait(timeout=max(0.0, end - time.monotonic())) for process in processes]
    except subprocess.TimeoutExpired:
        pytest.fail("\n".join(("still running", *said(folder))))


def log(output: Path) -> list[dict]:
    """The log without what a clock or the system said."""
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "memory")} for line in lines]


def assert_same(one: Path, other: Path) -> None:
    """Same log, same weights, same averaged weights, same optimiser, to the bit."""
    assert log(one) == log(other)
    for name in ("last.pt", "best.pt"):
        a, b = read_checkpoint(one / name), read_checkpoint(other / name)
        for x, y in ((a["model"], b["model"]), (a["training"]["raw_model"], b["training"]["raw_model"])):
            assert x.keys() == y.keys() and all(torch.equal(x[key], y[key]) for key in x)
        x, y = (content["training"]["optimizer"]["state"] for content in (a, b))
        assert all(torch.equal(x[place][key], y[place][key]) for place in x for key in x[place])


@pytest.fixture(scope="module")
def whole(hosts: tuple[Host, Host], nuclei_fixture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run over both hosts that nothing disturbed; in it a folder of each host that wrote anything."""
    folder = tmp_path_factory.mktemp("whole")
    assert ended(start(hosts, (nuclei_fixture, nuclei_fixture), folder, []), folder) == [0, 0], said(folder)
    return folder


def test_two_hosts_are_one_with_two_processes(whole: Path, nuclei_fixture: Path, tmp_path: Path) -> None:
    launch = ["--nproc-per-node", "2", "--rdzv-endpoint", "localhost:0"]
    words = command(nuclei_fixture, tmp_path / "run", launch)
    run = subprocess.run(words, env=environment(tmp_path), capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stderr
    assert len(log(tmp_path / "run")) == EPOCHS
    assert_same(whole / "host-a", tmp_path / "run")


def test_only_the_host_of_rank_0_writes(whole: Path) -> None:
    assert (whole / "host-a" / "best.pt").exists() and not (whole / "host-b").exists()


def test_killed_processes_go_on(hosts: tuple[Host, Host], whole: Path, nuclei_fixture: Path, tmp_path: Path) -> None:
    """One on either host, each in the middle of an epoch; rank 0's loader outlives it for a while and holds the folder.

    With the store that torchrun shares by default, in which the addresses of the killed processes stay.
    """
    launch, kill = ["--max-restarts", "3"], "1:3 0:5"
    assert all(int(place.split(":")[1]) % STEPS for place in kill.split())
    processes = start(hosts, (nuclei_fixture, nuclei_fixture), tmp_path, launch, "train.workers=1", kill=kill)
    assert ended(processes, tmp_path) == [0, 0], said(tmp_path)
    assert {path.name for path in tmp_path.glob("?-?")} == {"1-3", "0-5"}
    first, other = said(tmp_path)
    assert [line for line in first.splitlines() if line.startswith("resumed")] == [
        "resumed at epoch 2, step 3",
        "resumed at epoch 3, step 5",
    ]
    assert "the other processes do not answer" in first + other
    assert [line["epoch"] for line in log(tmp_path / "host-a")] == list(range(1, EPOCHS + 1))
    assert_same(whole / "host-a", tmp_path / "host-a")
    assert not (tmp_path / "host-b").exists()


def test_a_lost_host_is_replaced(hosts: tuple[Host, Host], whole: Path, nuclei_fixture: Path, tmp_path: Path) -> None:
    """All processes of one host end at once, torchrun too; the same command is started there again."""
    launch = ["--max-restarts", "3"]
    processes = start(hosts, (nuclei_fixture, nuclei_fixture), tmp_path, launch)
    wait_for("STEP 3\n", processes, tmp_path)
    for pid in hosts[1].processes():
        os.kill(pid, signal.SIGKILL)
    assert processes[1].wait(timeout=30)
    processes[1] = start_one(hosts[1], nuclei_fixture, tmp_path, launch)
    assert ended(processes, tmp_path) == [0, 0], said(tmp_path)
    assert "resumed at epoch" in said(tmp_path)[0]
    assert_same(whole / "host-a", tmp_path / "host-a")


def test_a_cut_network_ends_both(hosts: tuple[Host, Host], nuclei_fixture: Path, tmp_path: Path) -> None:
    bounded = all([host.tcp_gives_up_after(retries=3) for host in hosts])
    settings = ("train.epochs=500", f"train.peer_timeout={TIMEOUT}", "train.evaluate_every=500")
    processes = start(hosts, (nuclei_fixture, nuclei_fixture), tmp_path, [], *settings)
    wait_for("STEP 3\n", processes, tmp_path)
    with hosts[0].cut():
        cut = time.monotonic()
        while not all("the other processes do not answer" in text and "remedy: " in text for text in said(tmp_path)):
            assert time.monotonic() < cut + 2 * TIMEOUT + 10, said(tmp_path)
            time.sleep(0.1)
        # The torchrun that does not hold the rendezvous waits for the other one's answer as long as its TCP does.
        assert all(ended(processes if bounded else processes[:1], tmp_path, 60)), "a run that was cut is not done"
    assert all(ended(processes, tmp_path, 60))
    last = read_checkpoint(tmp_path / "host-a" / "last.pt")["training"]["step"]
    assert f"STEP {last}\n" in said(tmp_path)[0]


def test_other_data_on_one_host_is_refused_on_both(hosts: tuple[Host, Host], nuclei_fixture: Path, tmp_path: Path) -> None:
    data = shutil.copytree(nuclei_fixture, tmp_path / "data")
    annotations = data / "annotations" / "train.json"
    document = json.loads(annotations.read_text())
    annotations.write_text(json.dumps(document | {"annotations": document["annotations"][1:]}))
    assert all(ended(start(hosts, (nuclei_fixture, data), tmp_path, []), tmp_path))
    for text in said(tmp_path):
        assert "process 1, on host-b, would train something else than process 0, on host-a: split train" in text
        assert "STEP 1\n" not in text and "Traceback" not in text.partition("error:")[0]
    assert not (tmp_path / "host-a").exists()

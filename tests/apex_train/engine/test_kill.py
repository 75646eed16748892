"""``kill -9`` at any moment: what is on the disk is whole, and at most one save interval is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from apex_train.checkpoint import load_model, read_checkpoint

INTERVAL = 2
FIT = [
    "train.size=64",
    "train.crop=64",
    "train.batch=1",
    "train.workers=0",
    "train.epochs=60",
    f"train.save_every={INTERVAL}",
    "train.evaluate_every=2",
    "train.warmup_steps=1",
]
# A run that says every step it makes, so that the test knows what a kill may cost.
PROGRAM = """
import sys
from apex_train.engine.trainer import Trainer
from apex_train.cli.main import main
step = Trainer.train_step
def told(self, batch):
    terms = step(self, batch)
    print("STEP", self.step, flush=True)
    return terms
Trainer.train_step = told
main(sys.argv[1:])
"""


def start(data: Path, output: Path, *settings: str) -> subprocess.Popen:
    """A run in a process group of its own."""
    options = [item for setting in (*FIT, *settings) for item in ("--set", setting)]
    resume = ["--resume"] if (output / "last.pt").exists() else []
    command = [sys.executable, "-c", PROGRAM, "fit", "--data", str(data), "--output", str(output), *options, *resume]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment, start_new_session=True, **streams)


def steps_until_killed(process: subprocess.Popen, count: int, delay: float) -> list[int]:
    """The steps that the process said, killed ``delay`` seconds after ``count`` of them."""
    said: list[int] = []
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("STEP"):
            said.append(int(line.split()[1]))
            if len(said) == count:
                time.sleep(delay)
                process.send_signal(signal.SIGKILL)
                break
    rest = process.stdout.read()
    process.wait(timeout=60)
    assert said, rest
    return said + [int(line.split()[1]) for line in rest.splitlines() if line.startswith("STEP")]


def survive(data: Path, output: Path, kills: int, seed: int) -> None:
    rng, reached = random.Random(seed), 0
    for _ in range(kills):
        said = steps_until_killed(start(data, output), rng.randint(1, 6), rng.uniform(0, 0.15))
        assert said[0] > reached - INTERVAL, "a resumed run began before the last save"
        reached = said[-1]
        if (output / "last.pt").exists():
            for file in output.glob("*.pt"):
                load_model(file)
                assert read_checkpoint(file)["training"]["step"] <= reached
            assert read_checkpoint(output / "last.pt")["training"]["step"] > reached - 1 - INTERVAL
        else:
            assert reached < INTERVAL + 1


@pytest.mark.slow
def test_three_kills(nuclei_fixture: Path, tmp_path: Path) -> None:
    survive(nuclei_fixture, tmp_path / "run", 3, seed=5)


@pytest.mark.slow
def test_twenty_kills(nuclei_fixture: Path, tmp_path: Path) -> None:
    survive(nuclei_fixture, tmp_path / "run", 20, seed=11)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_loses_nothing(nuclei_fixture: Path, tmp_path: Path, number: signal.Signals) -> None:
    """As a scheduler, a container or Ctrl-C sends it: to the run and to the processes that load its data."""
    output = tmp_path / "run"
    process = start(nuclei_fixture, output, "train.workers=2", "train.save_every=0")
    assert process.stdout is not None
    said = 0
    for line in process.stdout:
        if line.startswith("STEP"):
            said = int(line.split()[1])
            if said == 3:
                os.killpg(process.pid, number)
    assert process.wait(timeout=60) == 1  # not finished is not done
    assert read_checkpoint(output / "last.pt")["training"]["step"] == said >= 3


def test_a_lost_worker_is_named(nuclei_fixture: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    process = start(nuclei_fixture, output, "train.workers=2")
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line.startswith("STEP 6"):
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            for child in children:
                os.kill(int(child), signal.SIGKILL)
    assert process.wait(timeout=60) == 1
    assert "a process that loads data was lost" in text and "--resume" in text and "Traceback" not in text

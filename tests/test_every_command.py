"""Every command of both programs is run for real. A command without a line here fails, and so does an unknown one.

To add one, add its line to RUNS: as a person would type it, in a folder that holds ``nuclei`` (a data set with train
and test), ``study.yaml``, ``images``, ``tiny.onnx``, ``releasable`` (a checkout that may be released) and whatever the
lines above it wrote. The test adds ``--json``, and wants exit code 0.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from command_tree import PROGRAMS, command_of, every_command
from documents import ROOT, pieces
from release_checkout import releasable
from tiny_model import write_tiny_model

# What makes seconds of hours: added to the lines of the README that begin so.
SHORT = {
    "apex-train fit": "--epochs 1 --set train.size=128 --set train.crop=64 --set train.batch=5 --set train.workers=0",
    "apex-train export": "--size 128",
}

RUNS = [
    "apex-rt doctor",
    "apex-rt inspect bundle",
    "apex-rt bench tiny.onnx --budget 1 --repeat 1 --output one.json",
    "apex-rt bench compare one.json",
    "apex-rt bench record tiny.onnx --budget 1 --repeat 2 --output baseline.json",
    "apex-rt bench check baseline.json --baseline baseline.json",
    "apex-rt bench trend trend.jsonl --add baseline.json",
    "apex-rt bench frontier model.onnx --data nuclei --limit 2 --budget 0.5 --seeds 1 --slice off --rounds 2 --resamples 100",
    "apex-train eval runs/a/best.pt --data nuclei --split test --size 128 --budget 0.5",
    "apex-train report runs/a --data nuclei",
    "apex-train ablate study.yaml --output studies/tiles",
    "apex-train pseudo-label images --engine bundle --views flip-x -o pseudo.json",
    "apex-train mine runs/a/best.pt --data nuclei --size 128 --draw 1 -o hard",
    "apex-train label-quality runs/a/best.pt --data nuclei --size 128 -o judged.json",
    "apex-train self-train --data nuclei --unlabelled images --output runs/self --rounds 1 --epochs 1 --views none "
    "--min-score 0.01 --unsure-score 0.01 --min-stability 0 --min-agreement 0 --min-consistency 0 --set train.size=128 "
    "--set train.crop=64 --set train.batch=5 --set train.workers=0",
    "apex-rt export-server bundle --for mlserver -o server --name cells --budget 0.25",
    "apex-rt release-check --root releasable",
]


STUDY = """
name: who chooses the tiles
data: nuclei
set: {train.size: 128, train.crop: 64, train.batch: 5, train.workers: 0}
epochs: 1
split: test
evaluate: {budget: 0.5}
seeds: [0, 1]
test: student
factors:
  - {key: evaluate.choice, levels: [router, random]}
"""


def road() -> list[str]:
    """The commands that the README shows as the road from a data set to a deployed engine."""
    (shown,) = [piece.content for piece in pieces(ROOT / "README.md") if piece.kind == "indented" and "apex-rt" in piece.content]
    lines = [shlex.split(line, comments=True) for line in shown.splitlines()]
    added = [shlex.split(SHORT.get(" ".join(words[:2]), "")) for words in lines]
    return [
        shlex.join("nuclei" if word == "DIR" else word for word in words + more) for words, more in zip(lines, added, strict=True)
    ]


LINES = [*road(), *RUNS]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Result]]:
    """What every line did, one after the other in one folder; none is left out because one before it failed."""
    folder = tmp_path_factory.mktemp("commands")
    shutil.copytree(ROOT / "tests" / "fixtures" / "nuclei", folder / "nuclei")
    (folder / "nuclei" / "annotations" / "val.json").rename(folder / "nuclei" / "annotations" / "test.json")
    (folder / "images").mkdir()
    for path in sorted((ROOT / "engines" / "samples").glob("*.jpg"))[:2]:
        shutil.copy(path, folder / "images")
    write_tiny_model(folder / "tiny.onnx")
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    releasable(folder / "releasable")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("APEX_CACHE_DIR", str(folder / "cache"))
        yield {line: run(line) for line in LINES}


def run(line: str) -> Result:
    program, *words = shlex.split(line)
    return CliRunner().invoke(PROGRAMS[program], [*words, "--json"])


@pytest.mark.slow  # together more than a minute; a step of their own in .ci/run
@pytest.mark.parametrize("line", LINES, ids=lambda line: " ".join(command_of(line.split()) or ("unknown",)))
def test_a_command_does_what_it_is_asked(line: str, ran: dict[str, Result]) -> None:
    result = ran[line]
    assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception!r}"
    assert json.loads(result.stdout), line


def test_every_command_has_a_line() -> None:
    run_here = {command_of(line.split()) for line in LINES}
    missing = sorted(" ".join(words) for words in set(every_command()) - run_here)
    assert not missing, f"add a line to RUNS in {Path(__file__).name} for: {', '.join(missing)}"
    assert None not in run_here

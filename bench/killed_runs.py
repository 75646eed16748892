"""``apex-rt infer`` killed at random moments, resumed until it is done, and compared with a run that nobody disturbed."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
from processes import finish, start

MOST_TRIES = 5  # seeds for a kill: a run that was done before its moment came counts for nothing


class Trial:
    """Runs of one command, ``words`` without the output folder, below ``folder``."""

    def __init__(self, words: list[object], folder: Path) -> None:
        self.words = words
        self.folder = folder
        self._said = folder / "said.txt"

    def undisturbed(self) -> tuple[Path, float]:
        """The output folder of a run that was left alone, and its seconds. Raises RuntimeError when it fails."""
        output, started = self.folder / "undisturbed", time.perf_counter()
        self._until_done(output)
        return output, time.perf_counter() - started

    def killed(self, seconds: float, seed: int) -> tuple[Path, dict[str, Any]] | None:
        """A run killed at a moment within ``seconds`` of its start, then resumed; None when it was done before."""
        output, moment = self.folder / f"killed-{seed}", float(np.random.default_rng(seed).uniform(0, seconds))
        if not _kill(start([*self.words, "-o", output], self._said), moment):
            return None
        journal = output / "results.jsonl"
        facts = {"seed": seed, "seconds": round(moment, 3), "lines": _whole_lines(journal)}
        self._until_done(output, "--resume")
        summary = json.loads((output / "summary.json").read_text())
        return output, facts | {"resumed": summary["images"]["resumed"]}

    def resume_code(self, output: Path, *others: object) -> int:
        """The exit code of a resume of ``output`` with other words after those of the command."""
        return finish([*self.words, *others, "-o", output, "--resume"], self._said)

    def _until_done(self, output: Path, *more: str) -> None:
        code = finish([*self.words, "-o", output, *more], self._said)
        if code != 0:
            raise RuntimeError(f"exit code {code}: {self._said.read_text(errors='replace')[-2000:]}")


def kill_often(trial: Trial, seconds: float, kills: int) -> list[tuple[Path, dict[str, Any]]]:
    """So many killed and resumed runs. Raises RuntimeError when hardly any lives long enough to be killed."""
    runs: list[tuple[Path, dict[str, Any]]] = []
    for seed in range(MOST_TRIES * kills):
        ran = trial.killed(seconds, seed)
        if ran is not None:
            runs.append(ran)
        if len(runs) == kills:
            return runs
    raise RuntimeError(f"only {len(runs)} of {MOST_TRIES * kills} runs could be killed: give them more images")


def results_of(output: Path) -> dict[str, Any]:
    """results.json without the times."""
    document: dict[str, Any] = json.loads((output / "results.json").read_text())
    document["images"] = [{key: value for key, value in image.items() if key != "milliseconds"} for image in document["images"]]
    return document


def files_of(output: Path) -> list[str]:
    """Every file of an output folder: what a killed run had begun must not stay."""
    return sorted(path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file())


def _kill(process: subprocess.Popen[bytes], moment: float) -> bool:
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


def _whole_lines(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.is_file() else 0

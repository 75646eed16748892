"""The answer of a study as a document, and as an entry of a log."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from apex_runtime.errors import UsageError
from apex_runtime.files import write_atomically
from apex_train.ablation.analysis import Comparison
from apex_train.ablation.journal import Entry
from apex_train.ablation.study import Study

FORMAT_VERSION = 1
_PATHS = ("data", "base", "init")  # of a study; a report has their names alone


def document(
    study: Study,
    entries: Mapping[tuple[tuple[str, ...], int], Entry],
    comparisons: Sequence[Comparison],
    about: dict[str, Any],
) -> dict[str, Any]:
    """The report (``ablation.schema.json``). ``entries`` by levels and seed; ``about``: its keys ``code`` (of the report) and
    ``data_sha256``."""
    return {
        "format_version": FORMAT_VERSION,
        "study": study.model_dump(mode="json") | {name: _name(getattr(study, name)) for name in _PATHS},
        **about,
        "cells": [
            {"levels": list(levels), "seed": seed} | entry.model_dump(include={"value", "training_seconds", "commit"})
            for (levels, seed), entry in entries.items()
        ],
        "comparisons": [_comparison(each) for each in comparisons],
    }


def _name(path: Path | None) -> str | None:
    return None if path is None else path.name


def _comparison(each: Comparison) -> dict[str, Any]:
    found = dataclasses.asdict(each)
    for name in ("interval", "bootstrap"):
        found[name] = [value if math.isfinite(value) else None for value in found[name]]
    for name in ("scores", "reference_scores", "differences"):
        found[name] = list(found[name])
    return found


def points(share: float | None, signed: bool = True) -> str:
    """A share of AP in points; an end that is not known is a question mark."""
    if share is None:
        return "?"
    return f"{100 * share:{'+' if signed else ''}.2f}"


def log_entry(report: dict[str, Any], command: str, today: date) -> str:
    """The entry in Markdown: what was asked, the verdict of every level with its figures, the command."""
    study = report["study"]
    asked = (
        f"{study['data']}, {study['split']}, {study['metric']} in points; {study['epochs']} epochs, {len(study['seeds'])} seeds"
    )
    count = len(report["comparisons"])
    family = "of one comparison" if count == 1 else f"by Holm over {count} comparisons"
    judged = f"{study['test']} test, p {family}, alpha {study['alpha']:g}"
    lines = [
        f"## {today.isoformat()}: {study['name']} (ablation)",
        "",
        f"{asked} in pairs, {judged}. `{command}`",
        "",
    ]
    for each in report["comparisons"]:
        low, high = map(points, each["interval"])
        figures = f"{points(each['difference'])} ({low} to {high}), p {each['p_corrected']:.3g}"
        lines.append(f"* **{each['factor']} {each['level']}** against {each['reference']}: {each['verdict']}, {figures}.")
    return "\n".join(lines) + "\n"


def check_log(path: Path) -> None:
    """Raises UsageError for a log that is not there: a new one at a mistyped place would be overlooked."""
    if not path.is_file():
        raise UsageError(f"--log {path}: there is no such file.", "Give an existing log, for example bench/LOG.md.", path=path)


def add_to_log(path: Path, entry: str) -> None:
    """Put the entry before the newest one of the log, in one step; the same figures are not put there twice, on whatever day.

    Raises UsageError when there is no such file.
    """
    check_log(path)
    text = path.read_text(encoding="utf-8")
    if entry.partition("\n")[2] in text:
        return
    head, found, rest = text.partition("\n## ")
    before = head.rstrip("\n") + "\n\n"
    write_atomically(path, (before + entry + (f"\n## {rest}" if found else "")).encode())

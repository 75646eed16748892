"""The program that measures masks notices wrong ones, and what it measured is what was promised."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from masks import REACH_BYTES, REACH_MS, Case, _against_float64, _held

from apex_runtime.postprocess.letterbox import Letterbox


def case() -> Case:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 60, (5, 2))
    outputs = {
        "mask_coefficients": rng.normal(size=(5, 4)).astype(np.float32),
        "mask_prototypes": rng.normal(size=(4, 32, 32)).astype(np.float32),
        "boxes": np.concatenate([low, low + rng.uniform(10, 60, (5, 2))], axis=1).astype(np.float32),
    }
    return Case(outputs, Letterbox(200, 150, 128, 128))


def test_wrong_pixels_are_counted() -> None:
    subject = case()
    masks = list(subject.assemble())
    wrong, ties = _against_float64(subject, masks)
    assert wrong == 0 and ties < 20
    bits = masks[2].bits.copy()
    bits[3, :5] ^= 1
    masks[2] = replace(masks[2], bits=bits)
    assert 0 < _against_float64(subject, masks)[0] <= 5


def test_what_is_held_is_less_than_the_prototypes_and_grows_when_asked_for() -> None:
    held = _held(case())
    assert 0 < held["held_bytes"] < held["held_bytes_after"]


def test_the_promised_figures_hold(repo_root: Path) -> None:
    evidence = json.loads((repo_root / "bench" / "evidence" / "masks.json").read_text())
    assert evidence["contract"]["detections"] == 100 and evidence["contract"]["size"] == 1024
    assert len(evidence["rows"]) == 4
    for name, row in evidence["rows"].items():
        assert row["wrong_pixels"] == 0 and max(row["held_bytes"], row["held_bytes_after"]) < REACH_BYTES
        assert row["prototypes_bytes"] == 32 * 256 * 256 * 4
        assert row["assembled"]["min_ms"] == min(evidence["samples"][name]["assembled"])
        if name != "large boxes":  # not reached there: bench/LOG.md
            assert row["assembled"]["min_ms"] < REACH_MS

"""Polygraphy reads what is written for it, finds the same figures, and comes to the same verdict. Most sessions are stand-ins."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from apex_runtime.cli.main import main
from apex_runtime.parity import subjects
from apex_runtime.parity.cases import Case
from apex_runtime.parity.compare import compare_arrays
from apex_runtime.parity.polygraphy_bridge import (
    PER_TOLERANCE,
    Bridge,
    Exchange,
    comparing_command,
    exchange_of,
    write_exchange,
)
from apex_runtime.parity.run import look_at_all
from apex_runtime.parity.tolerance import Rules, Tolerance, load_profile
from apex_runtime.routing.budget import parse_budget

pytest.importorskip("polygraphy", reason="Polygraphy is not installed: pip install polygraphy")

QUALITY = Rules(load_profile("quality"), "fp32")
Fault = Callable[[dict], None]


def seen_of(fake, fault: Fault | None = None):
    info = fake().info
    pixels = np.random.default_rng(5).integers(0, 256, (info.input.height, info.input.width, 3), dtype=np.uint8)
    case = Case("one & only.png", pixels, np.ones(info.tiles.count, bool), False)
    (seen,) = look_at_all(fake(), fake(fault), [case], [parse_budget("2")], [1])
    return seen


def exchange(fake, fault: Fault | None = None, rules: Rules = QUALITY) -> Exchange:
    return exchange_of(seen_of(fake, fault), rules, fake().info, "2")


def nudge(name: str, by: float, every: int = 1) -> Fault:
    def fault(outputs: dict) -> None:
        outputs[name] = outputs[name].copy()
        outputs[name].reshape(-1)[::every] += outputs[name].dtype.type(by)

    return fault


def noise(scale: float) -> Fault:
    """Of every float output, some values far more than others."""

    def fault(outputs: dict) -> None:
        rng = np.random.default_rng(11)
        for name in ("boxes", "scores", "mask_coefficients", "mask_prototypes", "utilities"):
            values = outputs[name]
            spread = rng.exponential(scale, values.shape) * np.maximum(np.abs(values), 1e-3)
            outputs[name] = (values + spread * rng.choice([-1, 1], values.shape)).astype(np.float32)

    return fault


def drop_a_detection(outputs: dict) -> None:
    outputs["candidate_ids"] = outputs["candidate_ids"].copy()
    outputs["candidate_ids"][0, 0] = 1000


def swap_two(outputs: dict) -> None:
    """Two detections change places: no fault, for they are aligned by candidate."""
    for name in ("boxes", "scores", "labels", "mask_coefficients", "candidate_ids"):
        outputs[name] = outputs[name].copy()
        outputs[name][0, [3, 4]] = outputs[name][0, [4, 3]]


def with_nan(outputs: dict) -> None:
    outputs["mask_prototypes"][0, 0, 0, 0] = np.nan


FAULTS: dict[str, Fault | None] = {
    "none": None,
    "noise far below": noise(1e-7),
    "noise around the tolerance": noise(1e-4),
    "noise far above": noise(1e-1),
    "boxes just within": nudge("boxes", 0.049),
    "boxes just beyond": nudge("boxes", 0.051, 7),
    "scores just within": nudge("scores", 0.9e-4),
    "scores beyond": nudge("scores", 1.1e-4, 5),
    "a label": nudge("labels", 1, 100),
    "NaN": with_nan,
    "a detection lost": drop_a_detection,
    "two detections swapped": swap_two,
}


def compare(folder: Path, given: Exchange, monkeypatch) -> tuple[bool, dict]:
    """Polygraphy's verdict, and (max, mean, mismatches) of every output by its comparator, of the files that were written."""
    from polygraphy.comparator import IterationResult, RunResults, SimpleCompareFunc
    from polygraphy.comparator import compare as its

    sides = [RunResults.load(str(folder / f"{side}.json")) for side in ("candidate", "reference")]
    counts: list[int] = []  # of the mismatches it tells only whether there are any
    plain = its.util.array.any
    monkeypatch.setattr(its.util.array, "any", lambda array: counts.append(int(np.count_nonzero(array))) or plain(array))
    found, passed = {}, True
    for name, atol in given.atol.items():
        pair = [IterationResult({name: side[0][1][0][name]}, runner_name=side[0][0]) for side in sides]
        outcome = SimpleCompareFunc(rtol=0.0, atol=atol, check_error_stat="elemwise")(*pair)[name]
        passed &= bool(outcome)
        found[name] = (float(outcome.max_absdiff), float(outcome.mean_absdiff), counts[-1])
    return passed, found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FAULTS)
def test_the_same_figures_and_the_same_verdict(name: str, fake, tmp_path, monkeypatch) -> None:
    given = exchange(fake, FAULTS[name])
    write_exchange(tmp_path, given)
    passed, figures = compare(tmp_path, given, monkeypatch)
    assert given.notes == () and passed == given.passed
    assert given.passed == (
        name in ("none", "noise far below", "boxes just within", "scores just within", "two detections swapped")
    )
    compared = 0
    for output, pair in given.pairs.items():
        largest, mean, mismatches = figures[output]
        plain = output.removesuffix(PER_TOLERANCE)
        tolerance = Tolerance(atol=given.atol[output], rtol=0.0) if plain != output else QUALITY.tolerance(plain)
        ours = compare_arrays(*pair, tolerance)
        if not ours.non_finite:
            assert largest == pytest.approx(ours.max_abs, rel=1e-6) and mean == pytest.approx(ours.mean_abs, rel=1e-6)
        if plain + PER_TOLERANCE in given.pairs:  # what it counts in units of the tolerance we count as it is
            mismatches = figures[plain + PER_TOLERANCE][2]
        assert mismatches == ours.mismatches
        compared += 1
    assert compared >= 11


def test_the_noise_around_the_tolerance_tells_the_two_rules_apart(fake) -> None:
    """What the second copy is for: by Polygraphy's own rule more values mismatch than by ours."""
    given = exchange(fake, noise(1e-4))
    reference, candidate = given.pairs["mask_prototypes"]
    tolerance = QUALITY.tolerance("mask_prototypes")
    distance = np.abs(candidate - reference)
    theirs = (distance > tolerance.atol) & (distance > tolerance.rtol * np.abs(reference))
    assert 0 < compare_arrays(reference, candidate, tolerance).mismatches < np.count_nonzero(theirs)


def test_where_the_verdicts_may_differ_it_says_so(fake) -> None:
    assert exchange(fake).notes == ()
    assert "lets a share" in exchange(fake, None, Rules(load_profile("balanced"), "fp32")).notes[0]
    eight = exchange(fake, None, Rules(load_profile("quality"), "int8"))
    assert "signal to noise" in eight.notes[0] and eight.atol["boxes"] == 1e38


def test_what_polygraphy_would_not_see_is_not_written(fake) -> None:
    def missing(outputs: dict) -> None:
        del outputs["mask_prototypes"]

    def half(outputs: dict) -> None:
        outputs["boxes"] = outputs["boxes"].astype(np.float16)

    for fault, word in ((missing, "missing on the candidate"), (half, "dtype float16")):
        bridge = Bridge()
        bridge.open(None, fake().info, QUALITY)(type("Result", (), {"asked": "2"}), seen_of(fake, fault))
        assert bridge.exchange is None and word in bridge.refusal


def polygraphy(command: str, folder: Path) -> subprocess.CompletedProcess:
    program = shutil.which("polygraphy", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("the program polygraphy is not beside this Python")
    words = shlex.split(command)
    assert words[0] == "polygraphy"
    return subprocess.run([program, *words[1:]], cwd=folder, capture_output=True, text=True, timeout=300)


def test_the_printed_command_leaves_with_the_verdict(fake, tmp_path) -> None:
    folder = tmp_path / "a folder & more"
    for fault, code in ((None, 0), (noise(1e-4), 1)):
        given = exchange(fake, fault)
        write_exchange(folder, given)
        run = polygraphy(comparing_command(folder, given), tmp_path)
        assert run.returncode == code, run.stdout + run.stderr
        names = re.search(r"All outputs matched \| Outputs: (\[.*\])|Mismatched outputs: (\[.*\])", run.stdout)
        assert names is not None


def test_the_command_line_on_the_default_engine(repo_root: Path, tmp_path) -> None:
    """Real outputs, and the inputs are such that Polygraphy's own ONNX Runtime gives the same ones."""
    from polygraphy.json import load_json

    model, image = (repo_root / "engines" / name for name in ("nuclei-nano/model.onnx", "samples/797945873ca2a95f.jpg"))
    copy = tmp_path / "copy.onnx"
    shutil.copy(model, copy)
    arguments = ["--images", str(image), "--budget", "3", "-o", str(tmp_path / "r.json"), "--polygraphy", str(tmp_path / "pg")]
    result = CliRunner().invoke(main, ["parity", str(model), "--against", str(copy), *arguments, "--threads", "1"])
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("polygraphy run")]
    assert len(lines) == 3 and f"{copy} --onnxrt" in lines[2] and "tensor level: pass" in result.stderr
    (feeds,) = load_json(str(tmp_path / "pg" / "inputs.json"))
    assert feeds["images"].shape == (1, 512, 512, 3) and feeds["tiles"].tolist() == [3]
    assert sorted(set(feeds["tile_bonus"].reshape(-1).tolist())) == [-24.0, 24.0]
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["comparisons"][0]["budgets"][0]["verdict"] == "pass"
    for line in lines[1:]:
        run = polygraphy(line, tmp_path)
        assert run.returncode == 0, run.stdout + run.stderr


def test_wrong_usage(tmp_path, monkeypatch, fake) -> None:
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(subjects, "open_session", lambda *_, **__: fake())
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["parity", "a.onnx", "--against", "a.onnx,b.onnx", "--polygraphy", "pg"])
    assert result.exit_code == 2 and "--polygraphy" in result.output and not (tmp_path / "pg").exists()

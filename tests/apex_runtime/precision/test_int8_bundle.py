"""``build-engine`` with int8, fp8, profiles and pins: bundles, their records and caches, and what is refused beforehand."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import onnx
import pytest
from click.testing import CliRunner

from apex_runtime.backends import tensorrt_builder
from apex_runtime.backends.reasons import ReasonCode
from apex_runtime.backends.tensorrt_builder import DEFAULT_COMPUTE_CAPABILITIES, capabilities_for_fp8
from apex_runtime.bundle import build as build_module
from apex_runtime.bundle import precision_pass
from apex_runtime.bundle.manifest import read_manifest
from apex_runtime.cli.main import main
from apex_runtime.errors import UsageError
from apex_runtime.precision.request import PrecisionRequest


class Ran(Protocol):
    """What the fixture ``apex_rt`` gives back."""

    code: int
    out: str
    err: str


Build = Callable[..., Ran]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Not the cache folder of whoever runs this."""
    monkeypatch.setenv("APEX_CACHE_DIR", str(tmp_path / "user-cache"))
    return tmp_path / "user-cache"


@pytest.fixture
def build(apex_rt: Callable[..., Ran], shipped_path: Path, sample: Path, tmp_path: Path) -> Build:
    """Builds the shipped model into the folder b, on one image unless other ``data`` are given."""

    def run(*words: object, data: Path | None = sample) -> Ran:
        images = () if data is None else ("--data", data)
        report = () if {"--report", "--no-report"} & set(map(str, words)) else ("--no-report",)
        return apex_rt("build-engine", shipped_path, *words, *images, *report, "-o", tmp_path / "b")

    return run


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def bundle(shipped_path: Path, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APEX_CACHE_DIR", str(folder / "cache"))
        words = [
            "build-engine",
            shipped_path,
            "--precision",
            "int8",
            "--pin",
            r"foveal\.middle\.0",
            "--data",
            sample,
            "--no-report",
        ]
        run = CliRunner().invoke(main, [str(word) for word in [*words, "-o", folder / "b"]])
    assert run.exit_code == 0 and "int8" in run.stdout, run.output
    return folder / "b"


def test_manifest_and_record_say_what_was_done(bundle: Path, shipped_path: Path, validate: Callable[[str, object], None]) -> None:
    manifest = read_manifest(bundle)
    validate("manifest", json.loads(manifest.to_json()))
    assert (manifest.precision, manifest.profile) == ("int8", None)
    assert manifest.source.sha256 == digest(shipped_path)
    report = json.loads((bundle / "precision.json").read_text())
    validate("precision", report)
    nodes = report["graph_nodes"]
    assert {item["precision"] for item in nodes} == {"float32", "int8", "integer"}
    assert all(item["reason"].startswith("reads ") and " to " in item["reason"] for item in nodes if item["precision"] == "int8")
    assert [item for item in nodes if item["reason"] == "pinned by --pin"]
    assert report["calibration"] == {"method": "minmax", "images": 1}
    assert {"int8", "uint8"} <= {row["precision"] for row in report["nodes"]} | set(report["weights"])


def test_its_command_makes_the_same_model_again(
    bundle: Path, shipped_path: Path, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apex_rt: Callable[..., Ran]
) -> None:
    """Byte for byte, from a new calibration, in a folder where the names of the command are found."""
    shutil.copy(shipped_path, tmp_path / shipped_path.name)
    shutil.copy(sample, tmp_path / sample.name)
    monkeypatch.chdir(tmp_path)
    words = shlex.split(read_manifest(bundle).build.command)
    assert words[:2] == ["apex-rt", "build-engine"] and "--pin" in words
    ran = apex_rt(*words[1:])
    assert ran.code == 0 and "calibrating on 1 image" in ran.err
    assert digest(tmp_path / "b" / "model.onnx") == digest(bundle / "model.onnx") != digest(shipped_path)


def test_it_is_not_built_again_and_infer_takes_it(
    bundle: Path, sample: Path, tmp_path: Path, apex_rt: Callable[..., Ran]
) -> None:
    ran = apex_rt("build-engine", bundle / "model.onnx", "--precision", "int8", "-o", tmp_path / "c")
    assert ran.code == 1 and "rounded to eight bits already" in ran.err and not (tmp_path / "c").exists()
    ran = apex_rt("infer", sample, "--engine", bundle, "--output", tmp_path / "out", "--json")
    assert ran.code == 0 and json.loads((tmp_path / "out" / "results.json").read_text())["annotations"]


@pytest.mark.parametrize(("profile", "precision"), [("edge", "int8"), ("balanced", "fp8")])
def test_a_profile_is_in_manifest_and_record(build: Build, tmp_path: Path, profile: str, precision: str) -> None:
    assert build("--profile", profile).code == 0
    manifest = read_manifest(tmp_path / "b")
    assert (manifest.precision, manifest.profile) == (precision, profile)
    assert json.loads((tmp_path / "b" / "precision.json").read_text())["profile"] == profile
    assert f"--profile {profile}" in manifest.build.command and "--precision" not in manifest.build.command


def test_the_second_build_reuses_the_ranges_and_another_one_says_why_not(
    build: Build, tmp_path: Path, repo_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "ranges.json"
    words = ("--precision", "int8", "--calibration-cache", cache)
    first = build(*words)
    assert first.code == 0 and "calibrating on 1 image" in first.err
    model = digest(tmp_path / "b" / "model.onnx")
    calls: list[object] = []
    with monkeypatch.context() as patch:
        patch.setattr(precision_pass, "collect_ranges", lambda *args: calls.append(args))
        second = build(*words)
    assert second.code == 0 and f"calibration: that of {cache}" in second.err and "calibrating" not in second.err
    assert calls == [] and digest(tmp_path / "b" / "model.onnx") == model
    other = repo_root / "engines" / "samples" / "80632d6be60c8462.jpg"
    for more, data, change in (
        (("--method", "percentile"), None, "the method changed: minmax -> percentile"),
        (("--pin", "peripheral"), None, "the profile changed: int8: uint8 in foveal, peripheral"),
        ((), other, "the images changed"),
    ):
        ran = build(*words, *more, **({"data": data} if data else {}))
        assert ran.code == 0 and change in ran.err and str(cache) in ran.err and "calibrating on" in ran.err, ran.err


def test_ranges_are_kept_for_this_user_and_not_mixed_up(build: Build, own_cache: Path, tmp_path: Path) -> None:
    assert build("--precision", "int8").code == 0
    (kept,) = (own_cache / "calibration").iterdir()
    assert "calibration: that of " + str(kept) in build("--precision", "int8").err
    assert "calibrating on" in build("--profile", "edge").err, "another question has a file of its own"
    assert len(list((own_cache / "calibration").iterdir())) == 2


def test_ranges_that_lack_a_tensor_are_not_used(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after an update of a checkout whose version did not change: the passes ask for more than was kept."""
    words = ("--precision", "int8", "--calibration-cache", tmp_path / "ranges.json")
    monkeypatch.setattr(precision_pass, "_asked", lambda _plan, _request: "the same")
    assert build(*words, "--pin", "foveal").code == 0
    ran = build(*words)
    assert ran.code == 0 and "calibrating on" in ran.err


@pytest.mark.parametrize("given", [True, False])
def test_a_damaged_cache_is_refused_and_nothing_is_written(build: Build, tmp_path: Path, own_cache: Path, given: bool) -> None:
    assert build("--precision", "int8").code == 0
    (kept,) = (own_cache / "calibration").iterdir()
    shutil.rmtree(tmp_path / "b")
    text = kept.read_text()
    damaged = text.replace('"largest": ', '"largest": 1', 1)
    assert damaged != text
    kept.write_text(damaged)
    ran = build("--precision", "int8", *(("--calibration-cache", kept) if given else ()))
    assert ran.code == 1 and str(kept) in ran.err and "changed after it was written" in ran.err
    assert not (tmp_path / "b").exists() and kept.read_text() == damaged
    assert {item.name for item in tmp_path.iterdir()} == {"user-cache"}, "nothing is left"


def test_a_pin_that_matches_nothing_and_one_that_matches_all(build: Build, tmp_path: Path) -> None:
    ran = build("--precision", "int8", "--pin", "fovael")
    assert ran.code == 2 and "--pin fovael" in ran.err and "foveal" in ran.err
    for precision in ("int8", "fp16"):
        ran = build("--precision", precision, "--pin", "")
        assert ran.code == 2 and f"nothing is left to change for {precision}; all that could change is pinned" in ran.err
    assert not (tmp_path / "b").exists()


def test_fp8_below_sm89_is_refused_by_its_code(build: Build, tmp_path: Path) -> None:
    """Before a calibration, and whether TensorRT is installed or not."""
    for words in (("--precision", "fp8"), ("--profile", "balanced")):
        ran = build(*words, "--backend", "tensorrt-rtx", "--compute-capability", "75,89")
        assert ran.code == 2 and ReasonCode.COMPUTE_CAPABILITY_BELOW_SM89.value in ran.err and "sm_75 has no FP8" in ran.err
        assert "sm_89 has" not in ran.err and "calibrating" not in ran.err
    assert not (tmp_path / "b").exists()


def test_capabilities_without_fp8_are_left_out_of_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {75, 86, 89, 120} <= set(DEFAULT_COMPUTE_CAPABILITIES)
    assert capabilities_for_fp8("tensorrt-rtx", ()) == (89, 120)
    assert capabilities_for_fp8("tensorrt-rtx", (120, 89)) == (120, 89)
    for here, allowed in ((None, True), (90, True), (86, False)):
        monkeypatch.setattr(tensorrt_builder, "compute_capability", lambda here=here: here)
        assert capabilities_for_fp8("tensorrt-rtx", ()) == (89, 120), "this machine's GPU does not matter there"
        if allowed:
            assert capabilities_for_fp8("tensorrt", ()) == (), "a plan for this machine's GPU"
            continue
        with pytest.raises(UsageError, match="sm_86 has no FP8") as caught:
            capabilities_for_fp8("tensorrt", ())
        assert caught.value.code == "compute_capability_below_sm89"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--precision", "int8", "--profile", "edge"), "--profile edge and --precision int8"),
        (("--method", "entropy"), "--method has no meaning"),
        (("--precision", "fp16", "--max-drop", "0.5"), "--max-drop has no meaning"),
        (("--precision", "int8", "--max-drop", "-1"), "--max-drop"),
        (("--precision", "int8", "--pin", "(foveal"), "--pin (foveal: not a regular expression"),
        (("--precision", "int4"), "int4"),
        (("--profile", "fast"), "fast"),
        (("--pin", "foveal"), "--pin has no meaning"),
        (("--calibration-cache", "c.json"), "--calibration-cache has no meaning"),
        (("--report",), "--report has no meaning for fp32"),
        (("--calibration-images", "4"), "--calibration-images has no meaning for fp32"),
    ],
)
def test_flags_that_do_not_go_together(build: Build, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    ran = build(*words, data=None)
    assert ran.code == 2 and said in ran.err and not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("recipe", "words", "wanted"),
    [
        ("profile: edge", (), PrecisionRequest(profile="edge")),
        ("profile: edge", ("--precision", "fp16"), PrecisionRequest("fp16")),
        ("profile: edge", ("--profile", "quality"), PrecisionRequest(profile="quality")),
        ("precision: int8", ("--profile", "quality"), PrecisionRequest(profile="quality")),
        ("precision: int8\npin: [peripheral]", ("--pin", "a", "--pin", "b"), PrecisionRequest("int8", pins=("a", "b"))),
        ("precision: int8\npin: [peripheral]", (), PrecisionRequest("int8", pins=("peripheral",))),
        ("precision: int8\nmethod: entropy", ("--method", "minmax"), PrecisionRequest("int8")),
        ("precision: fp8\nmax_drop: 1", ("--max-drop", "0.5"), PrecisionRequest("fp8", max_drop=0.5)),
        ("profile: edge\nmethod: percentile\nmax_drop: 0", (), PrecisionRequest(profile="edge", method="percentile", max_drop=0)),
    ],
)
def test_a_flag_wins_over_the_recipe(
    build: Build,
    tmp_path: Path,
    sample: Path,
    monkeypatch: pytest.MonkeyPatch,
    recipe: str,
    words: tuple[str, ...],
    wanted: PrecisionRequest,
) -> None:
    """As far as the request that a build is given."""
    asked: list[PrecisionRequest] = []

    def stop(*_: object, precision: PrecisionRequest, **__: object) -> None:
        asked.append(precision)
        raise UsageError("stopped here", "")

    monkeypatch.setattr(build_module, "build_bundle", stop)
    (tmp_path / "recipe.yaml").write_text(recipe + "\n")
    ran = build("--recipe", tmp_path / "recipe.yaml", *words)
    assert ran.code == 2 and "stopped here" in ran.err
    assert asked == [replace(wanted, data=sample, report=False)]
    asked[0].check()


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("profile: edge\nprecision: int8\n", "a profile decides the precision"),
        ("profile: fast\n", "profile: Input should be"),
        ("method: middle\nprecision: int8\n", "method: Input should be"),
        ("max_drop: 0.5\n", "--max-drop has no meaning"),
        ("pin: foveal\nprecision: int8\n", "pin: Input should be a valid tuple"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(build: Build, tmp_path: Path, recipe: str, words: str) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe)
    ran = build("--recipe", tmp_path / "recipe.yaml", data=None)
    assert ran.code == 2 and words in ran.err and not (tmp_path / "b").exists()


def test_help_names_the_flags(apex_rt: Callable[..., Ran]) -> None:
    shown = apex_rt("build-engine", "--help").out
    for flag in ("--precision", "--profile", "--pin", "--method", "--max-drop", "--data", "--calibration-cache", "--report"):
        assert flag in shown
    assert "--profile balanced" in shown.split("Examples:")[1]


def test_the_model_of_the_bundle_keeps_the_passport(bundle: Path, shipped_path: Path) -> None:
    before, after = onnx.load(shipped_path), onnx.load(bundle / "model.onnx")
    assert before.metadata_props == after.metadata_props and len(after.functions) == len(before.functions) == 3

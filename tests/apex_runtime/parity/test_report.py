"""parity.json obeys its schema, the table says the same, and the command leaves with the right code. Sessions are stand-ins."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner

from apex_runtime.cli.main import main
from apex_runtime.errors import MissingPackageError, ModelError, UsageError
from apex_runtime.parity import check, subjects
from apex_runtime.parity.report import write_report


@pytest.fixture
def schema(repo_root: Path) -> dict:
    return json.loads((repo_root / "apex_runtime" / "schemas" / "parity.schema.json").read_text())


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Files that exist; what opens them is replaced below."""
    made = {name: tmp_path / name for name in ("a.onnx", "good.onnx", "bad.onnx", "broken.onnx", "best.pt")}
    for path in made.values():
        path.write_text(path.name)
    return made


@pytest.fixture
def images(tmp_path: Path) -> Path:
    import cv2

    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.default_rng(3).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / "one.png"), pixels)
    return folder


@pytest.fixture
def opened(fake: type, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """Every opening as (file name, size), with a fault planted into bad.onnx."""
    log: list[tuple[str, object]] = []

    def spoil(outputs: dict) -> None:
        outputs["scores"][0, 0] = np.nan

    def open_session(path: Path, threads: int | None = None, size: tuple[int, int] | None = None, decode: str = "topk"):
        log.append((Path(path).name, size))
        if Path(path).name == "broken.onnx":
            raise ModelError(f"{path}: damaged.", "Export it again.", code="model_load_failed")
        return fake(spoil if Path(path).name == "bad.onnx" else None)

    monkeypatch.setattr(subjects, "open_session", open_session)
    return log


def run(*arguments: object):
    return CliRunner().invoke(main, ["parity", *map(str, arguments)])


def test_a_passing_run(files, images, opened, schema, tmp_path) -> None:
    output = tmp_path / "new" / "report.json"
    result = run(files["a.onnx"], "--against", files["good.onnx"], "--images", images, "--output", output)
    assert result.exit_code == 0, result.output
    document = json.loads(output.read_text())
    jsonschema.validate(document, schema)
    assert document["verdict"] == "pass"
    assert document["reference"]["sha256"] == hashlib.sha256(b"a.onnx").hexdigest()
    (comparison,) = document["comparisons"]
    assert [budget["asked"] for budget in comparison["budgets"]] == ["0.25", "0.5", "1.0"]
    assert [image["synthetic"] for image in comparison["images"]] == [False, True, True, True, True]
    assert comparison["images"][0]["name"] == "one.png"
    assert comparison["budgets"][0]["tensor"]["boxes"]["tolerance"] == {"atol": 0.05, "rtol": 0.0}
    assert comparison["budgets"][0]["decision"]["mean_overlap"] == 1.0
    assert "mask_prototypes" in result.output and "passes under profile quality" in result.output


def test_every_candidate_is_compared_and_the_faulty_ones_are_named(files, images, opened, schema, tmp_path) -> None:
    output = tmp_path / "report.json"
    against = f"{files['bad.onnx']},{files['good.onnx']}"
    result = run(
        files["a.onnx"],
        "--against",
        against,
        "--against",
        files["broken.onnx"],
        "--images",
        images,
        "-o",
        output,
        "--budget",
        "2",
    )
    assert result.exit_code == 1
    document = json.loads(output.read_text())
    jsonschema.validate(document, schema)
    assert [item["verdict"] for item in document["comparisons"]] == ["fail", "pass", "fail"]
    assert document["comparisons"][0]["reasons"] == [
        "budget 2: scores: 5 NaN or Inf values",
        "budget 2: task: no detections of the candidate: graph output 'scores': 1 of 12 values are NaN or infinite. "
        "[non_finite_output]",
    ]
    assert document["comparisons"][2]["reasons"][0].startswith("model_load_failed: ")
    assert document["comparisons"][2]["budgets"] == []
    assert document["comparisons"][0]["budgets"][0]["tiles"] == [2] * 5


def test_json_on_standard_output_is_the_report(files, images, opened, tmp_path) -> None:
    output = tmp_path / "report.json"
    result = run(files["a.onnx"], "--against", files["good.onnx"], "--images", images, "-o", output, "--json", "--budget", "1")
    assert json.loads(result.stdout) == json.loads(output.read_text())


def test_a_checkpoint_takes_the_size_of_the_exported_side(files, images, opened, fake, tmp_path) -> None:
    height, width = fake().info.input.height, fake().info.input.width
    arguments = ("--images", images, "-o", tmp_path / "r.json", "--budget", "1")
    assert run(files["best.pt"], "--against", files["good.onnx"], *arguments).exit_code == 0
    assert sorted(opened, key=str) == [("best.pt", (height, width)), ("good.onnx", None)]
    opened.clear()
    assert run(files["good.onnx"], "--against", files["best.pt"], *arguments).exit_code == 0
    assert sorted(opened, key=str) == [("best.pt", (height, width)), ("good.onnx", None)]
    opened.clear()
    assert run(files["best.pt"], "--against", files["best.pt"], "--size", "64x128", *arguments).exit_code == 0
    assert opened == [("best.pt", (64, 128))] * 2


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["a.onnx", "--against", "absent.onnx"], "absent.onnx"),
        (["absent.pt", "--against", "a.onnx"], "absent.pt"),
        (["a.onnx", "--against", ","], "--against"),
        (["a.onnx", "--against", "good.onnx", "--budget", "abc"], "abc"),
        (["a.onnx", "--against", "good.onnx", "--profile", "lax"], "lax"),
        (["a.onnx", "--against", "good.onnx", "--size", "512"], "--size"),
        (["best.pt", "--against", "best.pt", "--size", "big"], "big"),
        (["a.onnx", "--against", "good.onnx", "--images", "nowhere"], "nowhere"),
        (["a.onnx"], "--against"),
    ],
)
def test_wrong_usage(files, opened, tmp_path, monkeypatch, arguments: list[str], word: str) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert word in result.output
    assert not (tmp_path / "parity.json").exists()


def test_an_undecodable_image_is_named(files, opened, tmp_path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "zero.png").write_bytes(b"")
    result = run(files["a.onnx"], "--against", files["good.onnx"], "--images", tmp_path / "images", "-o", tmp_path / "r.json")
    assert result.exit_code == 1
    assert "zero.png" in result.output.replace("\n", "") and "under profile" not in result.output
    assert not (tmp_path / "r.json").exists()


def test_a_reference_that_does_not_open_is_no_candidates_fault(files, images, opened, tmp_path) -> None:
    result = run(files["broken.onnx"], "--against", files["good.onnx"], "--images", images, "-o", tmp_path / "r.json")
    assert result.exit_code == 1 and "Export it again" in result.output and "under profile" not in result.output
    assert not (tmp_path / "r.json").exists()


def test_checkpoints_that_cannot_be_opened_here_are_no_verdict(files, images, opened, monkeypatch, tmp_path) -> None:
    plain = subjects.open_session

    def open_session(path: Path, *rest: object, **more: object):
        if Path(path).suffix == ".pt":
            raise MissingPackageError(f"{path}: checkpoints need PyTorch.", "Install it.")
        return plain(path, *rest, **more)

    monkeypatch.setattr(subjects, "open_session", open_session)
    for pair in (("best.pt", "good.onnx"), ("good.onnx", "best.pt")):
        result = run(files[pair[0]], "--against", files[pair[1]], "--images", images, "-o", tmp_path / "r.json")
        assert result.exit_code == 1 and "PyTorch" in result.output and "under profile" not in result.output


def test_the_reference_and_the_images_are_opened_once(files, images, opened, monkeypatch, tmp_path) -> None:
    loaded = []
    plain = check.load_cases
    monkeypatch.setattr(check, "load_cases", lambda *given: loaded.append(given) or plain(*given))
    against = ["--against", files["good.onnx"], "--against", files["bad.onnx"], "--images", images, "--budget", "1"]
    for reference in ("a.onnx", "best.pt"):
        run(files[reference], *against, "-o", tmp_path / "r.json")
        assert [name for name, _size in opened].count(reference) == 1 and len(loaded) == 1
        loaded.clear()


def test_a_candidate_of_a_size_the_checkpoint_cannot_have_hides_no_other(
    files, images, opened, fake, monkeypatch, tmp_path
) -> None:
    odd = fake().info.model_copy(update={"input": fake().info.input.model_copy(update={"height": 48})})

    def open_session(path: Path, threads=None, size=None, decode="topk"):
        if size == (48, odd.input.width):
            raise UsageError("--size 48: no.")
        return fake(info=odd) if Path(path).name == "bad.onnx" else fake()

    monkeypatch.setattr(subjects, "open_session", open_session)
    output = tmp_path / "r.json"
    run(files["best.pt"], "--against", f"{files['bad.onnx']},{files['good.onnx']}", "--images", images, "-o", output)
    assert [item["verdict"] for item in json.loads(output.read_text())["comparisons"]] == ["fail", "pass"]


def test_models_of_different_form_fail_without_running(files, images, fake, monkeypatch, tmp_path) -> None:
    other = fake().info.model_copy(update={"max_detections": 13})
    monkeypatch.setattr(subjects, "open_session", lambda path, *_, **__: fake(info=other) if path.name == "good.onnx" else fake())
    output = tmp_path / "r.json"
    assert run(files["a.onnx"], "--against", files["good.onnx"], "--images", images, "-o", output).exit_code == 1
    assert json.loads(output.read_text())["comparisons"][0]["reasons"][0].startswith("max_detections: ")


def test_nothing_compared_is_no_pass(files) -> None:
    subject = subjects.identify(files["a.onnx"])
    assert not check.ParityResult(subject, check.Profile.model_construct(), []).passed


def test_a_report_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--output"):
        write_report({}, tmp_path / "file" / "report.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="--output"):
        write_report({}, tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_broken_manifest_fails_its_candidate_and_no_other(tiny_onnx, apex_rt, images, schema, tmp_path) -> None:
    bundle, output, empty = tmp_path / "bundle", tmp_path / "r.json", tmp_path / "empty"
    bundle.mkdir()
    (bundle / "manifest.json").write_text("{")
    given = ("--images", images, "--budget", "2", "--threads", "1", "-o", output)
    assert apex_rt("parity", tiny_onnx, "--against", f"{bundle},{tiny_onnx}", *given).code == 1
    document = json.loads(output.read_text())
    jsonschema.validate(document, schema)
    assert [item["verdict"] for item in document["comparisons"]] == ["fail", "pass"]
    assert "manifest.json: not a manifest" in document["comparisons"][0]["reasons"][0]
    empty.mkdir()
    ran = apex_rt("parity", tiny_onnx, "--against", empty, *given)
    assert ran.code == 2 and "no such file or bundle" in ran.err


def test_what_looks_like_markup_in_a_name_is_printed(files, images, opened, tmp_path) -> None:
    odd = tmp_path / "of[red] [" / "b]good.onnx"
    odd.parent.mkdir()
    odd.write_text("")
    result = run(files["a.onnx"], "--against", odd, "--images", images, "--budget", "2", "-o", tmp_path / "r.json")
    title, verdict = result.output.split("┏")[0], result.output.split("┘")[-1]
    assert result.exit_code == 0 and "of[red] [/b]good.onnx" in verdict
    assert "of[red] [/b]good.onnx" in title.replace("\n", "").replace("  ", "")


def test_a_budget_and_a_batch_that_are_named_twice_are_compared_once(files, images, opened, tmp_path) -> None:
    output = tmp_path / "r.json"
    given = ("--budget", "2,4", "--budget", "2", "--batch", "1,1", "--images", images, "-o", output)
    assert run(files["a.onnx"], "--against", files["good.onnx"], *given).exit_code == 0
    (comparison,) = json.loads(output.read_text())["comparisons"]
    assert [(budget["asked"], budget["batch"]) for budget in comparison["budgets"]] == [("2", 1), ("4", 1)]

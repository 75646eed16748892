"""What users really give: every case ends with words that name the thing and the remedy, an exit code, and nothing lost."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import helper
from pictures import discs, save


def foreign_model(path: Path) -> Path:
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3]) for name in "xy")
    onnx.save(helper.make_model(helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "other", [x], [y])), path)
    return path


def said(ran) -> None:
    assert ran.err.count("error: ") == 1 and "remedy: " in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    "budget", ["0", "-1", "1e9", "abc", "", "nan", "inf", "1.5", "150%", "-5%", "8ms", "99999999999", "0.25 0.5"]
)
def test_budgets_that_mean_nothing(apex_rt, tiny_onnx: Path, tmp_path: Path, budget: str) -> None:
    save(tmp_path / "a.png", discs(64, 64, (16, 16, 9)))
    ran = apex_rt("infer", tmp_path / "a.png", "--engine", tiny_onnx, "-o", tmp_path / "out", "--budget", budget)
    assert ran.code == 2
    said(ran)
    assert not (tmp_path / "out").exists(), "nothing is written for a wrong command"


def test_a_budget_the_engine_cannot_meet(apex_rt, tiny_onnx: Path, tmp_path: Path) -> None:
    save(tmp_path / "a.png", discs(64, 64, (16, 16, 9)))
    ran = apex_rt("infer", tmp_path / "a.png", "--engine", tiny_onnx, "-o", tmp_path / "out", "--budget", "0.0001gflops")
    assert ran.code == 2
    said(ran)


def test_missing_and_empty_sources(apex_rt, tiny_onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "notes.txt").write_text("no image")
    for source in ("absent", "empty", "words", "*.png"):
        ran = apex_rt("infer", tmp_path / source, "--engine", tiny_onnx, "-o", tmp_path / "out")
        assert ran.code == 2
        said(ran)
        assert str(tmp_path / source) in ran.err


def bad_images(folder: Path) -> set[str]:
    folder.mkdir(parents=True)
    good = cv2.imencode(".png", discs(64, 64, (16, 16, 9)))[1].tobytes()
    jpeg = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))[1].tobytes()
    (folder / "zero.png").write_bytes(b"")
    (folder / "cut.png").write_bytes(good[: len(good) // 2])
    (folder / "cut.jpg").write_bytes(jpeg[:100])
    (folder / "text.png").write_text("<html>404 not found</html>")
    (folder / "gone.png").symlink_to(folder / "nowhere")
    return {"zero.png", "cut.png", "cut.jpg", "text.png", "gone.png"}


def test_bad_images_are_named_and_never_end_a_run(apex_rt, validate, tiny_onnx: Path, tmp_path: Path) -> None:
    bad = bad_images(tmp_path / "in")
    save(tmp_path / "in" / "good.png", discs(64, 64, (16, 16, 9)))
    ran = apex_rt("infer", tmp_path / "in", "--engine", tiny_onnx, "-o", tmp_path / "out", "--batch", 3)
    assert ran.code == 1
    assert "1 of 6 images, 5 failed" in ran.out
    failures = json.loads((tmp_path / "out" / "failures.json").read_text())
    validate("failures", failures)
    assert {item["file_name"] for item in failures} == bad
    for item in failures:
        assert item["file_name"] in item["reason"] and item["remedy"]
        assert "Error:" not in item["reason"], "a case we know is no unexpected exception"
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [image["file_name"] for image in results["images"]] == ["good.png"]


def test_only_bad_images(apex_rt, validate, tiny_onnx: Path, tmp_path: Path) -> None:
    bad_images(tmp_path / "in")
    ran = apex_rt("infer", tmp_path / "in", "--engine", tiny_onnx, "-o", tmp_path / "out", "--json")
    assert ran.code == 1
    assert json.loads(ran.out)["images"]["failed"] == 5
    validate("results", json.loads((tmp_path / "out" / "results.json").read_text()))


def test_odd_images_are_handled(apex_rt, tiny_onnx: Path, tmp_path: Path) -> None:
    """1 x 1, thin, grey, with alpha, 16 bits, palette, CMYK: detected in, not complained about."""
    disc = discs(96, 64, (30, 30, 12))
    folder = tmp_path / "in"
    save(folder / "one.png", np.full((1, 1, 3), 200, np.uint8))
    save(folder / "thin.png", np.full((1, 500, 3), 90, np.uint8))
    save(folder / "tall.png", np.full((700, 2, 3), 90, np.uint8))
    save(folder / "grey.png", disc[:, :, 0])
    save(folder / "rgba.png", np.dstack([disc, np.full((96, 64), 128, np.uint8)]))
    assert cv2.imwrite(str(folder / "deep.png"), disc.astype(np.uint16) * 16)
    assert cv2.imwrite(str(folder / "deep.tif"), disc[:, :, 0].astype(np.uint16) * 257)
    ran = apex_rt("infer", folder, "--engine", tiny_onnx, "-o", tmp_path / "out")
    assert ran.code == 0, (tmp_path / "out" / "failures.json").read_text()
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    sizes = {image["file_name"]: (image["height"], image["width"]) for image in results["images"]}
    assert sizes["one.png"] == (1, 1) and sizes["thin.png"] == (1, 500) and sizes["tall.png"] == (700, 2)
    best = {
        name: max(item["score"] for item in results["annotations"] if item["image_id"] == number)
        for number, name in enumerate(sorted(sizes), 1)
        if name in ("grey.png", "rgba.png", "deep.png", "deep.tif")
    }
    assert len(best) == 4 and min(best.values()) > 0.5, "the disc is found whatever the format"
    assert len(list((tmp_path / "out" / "annotated").iterdir())) == 7


def test_a_very_large_image(apex_rt, tiny_onnx: Path, tmp_path: Path) -> None:
    """12000 x 9000 with detections as large as the model makes them: bounded memory, right size in the results."""
    import resource

    image = np.zeros((9000, 12000), np.uint8)
    cv2.circle(image, (1500, 1500), 1100, 255, -1)
    cv2.imwrite(str(tmp_path / "large.png"), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    del image
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ran = apex_rt("infer", tmp_path / "large.png", "--engine", tiny_onnx, "-o", tmp_path / "out", "--window", "none")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert ran.code == 0, ran.err
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["images"][0]["height"], results["images"][0]["width"]) == (9000, 12000)
    assert results["annotations"][0]["segmentation"]["size"] == [9000, 12000]
    x, y, w, h = results["annotations"][0]["bbox"]
    assert abs(x + w / 2 - 1500) < 150 and abs(y + h / 2 - 1500) < 150 and 1700 < w < 2700
    assert grown < 2_500_000, "kilobytes"
    assert max(cv2.imread(str(tmp_path / "out" / "annotated" / "large.png.png")).shape) <= 4200


def test_engines_that_are_none(apex_rt, tiny_bundle: Path, tmp_path: Path) -> None:
    save(tmp_path / "a.png", discs(64, 64, (16, 16, 9)))
    (tmp_path / "nothing").mkdir()
    (tmp_path / "words.onnx").write_text("not a model")
    cases = {
        "absent": 2,
        "nothing": 1,
        "words.onnx": 1,
        foreign_model(tmp_path / "foreign.onnx").name: 1,
    }
    for engine, code in cases.items():
        ran = apex_rt("infer", tmp_path / "a.png", "--engine", tmp_path / engine, "-o", tmp_path / "out")
        assert ran.code == code, engine
        said(ran)
        assert engine in ran.err
    with (tiny_bundle / "model.onnx").open("ab") as stream:
        stream.write(b"\0")
    ran = apex_rt("infer", tmp_path / "a.png", "--engine", tiny_bundle, "-o", tmp_path / "out")
    assert ran.code == 1 and "changed after the bundle was built" in ran.err and "build-engine" in ran.err
    assert not (tmp_path / "out").exists()


def test_options_out_of_range(apex_rt, tiny_onnx: Path, tmp_path: Path) -> None:
    save(tmp_path / "a.png", discs(64, 64, (16, 16, 9)))
    for option, value in (
        ("--batch", 0),
        ("--threads", 0),
        ("--min-score", 2),
        ("--max-detections", 0),
        ("--device", "gpu"),
        ("--policy", "x"),
    ):
        assert apex_rt("infer", tmp_path / "a.png", "--engine", tiny_onnx, "-o", tmp_path / "out", option, value).code == 2, (
            option
        )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_folder_that_cannot_be_written(apex_rt, tiny_onnx: Path, tmp_path: Path) -> None:
    save(tmp_path / "a.png", discs(64, 64, (16, 16, 9)))
    (tmp_path / "locked").mkdir(mode=0o500)
    ran = apex_rt("infer", tmp_path / "a.png", "--engine", tiny_onnx, "-o", tmp_path / "locked" / "out")
    assert ran.code == 1
    said(ran)


def test_an_output_that_is_a_file(apex_rt, tiny_onnx: Path, tmp_path: Path) -> None:
    save(tmp_path / "a.png", discs(64, 64, (16, 16, 9)))
    (tmp_path / "file").write_text("mine")
    assert apex_rt("infer", tmp_path / "a.png", "--engine", tiny_onnx, "-o", tmp_path / "file").code == 2
    ran = apex_rt("infer", tmp_path / "a.png", "--engine", tiny_onnx, "-o", tmp_path / "file" / "below")
    assert ran.code == 1
    said(ran)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("option", ["--engine", "--output"])
def test_an_empty_path_is_a_shell_variable_that_was_not_set(apex_rt, tiny_onnx: Path, tmp_path: Path, option: str) -> None:
    save(tmp_path / "a.png", discs(64, 64, (16, 16, 9)))
    paths = {"--engine": tiny_onnx, "--output": tmp_path / "out"} | {option: ""}
    ran = apex_rt("infer", tmp_path / "a.png", *(word for pair in paths.items() for word in pair))
    assert ran.code == 2 and "empty" in ran.err


def test_build_engine_refuses(apex_rt, tiny_onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    foreign = foreign_model(tmp_path / "foreign.onnx")
    cases = [
        (2, tiny_onnx, "-o", tmp_path / "mine"),
        (1, foreign, "-o", tmp_path / "new"),
        (2, tmp_path / "absent.onnx", "-o", tmp_path / "new"),
        (2, tmp_path / "best.pt", "-o", tmp_path / "new"),
        (2, tmp_path / "mine", "-o", tmp_path / "new"),
        (2, tiny_onnx, "-o", ""),
        (2, tiny_onnx, "-o", tmp_path / "new", "--compute-capability", "89"),
        (2, tiny_onnx, "-o", tmp_path / "new", "--precision", "bf16"),
        (1, tiny_onnx, "-o", tmp_path / "new", "--precision", "fp16"),  # its nodes have no names
        (2, tiny_onnx, "-o", tmp_path / "new", "--compute-capability", "sm89", "--backend", "tensorrt-rtx"),
    ]
    for code, *arguments in cases:
        ran = apex_rt("build-engine", *arguments)
        assert ran.code == code, arguments
        assert "Traceback" not in ran.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign.onnx", "mine"]
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"

"""``apex-rt infer`` from the outside: the files it writes, what it prints, how it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from pictures import discs, save
from pycocotools import mask as coco_mask

from apex_runtime.data.image import decode_image
from apex_runtime.engine import load


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images, one of them in a folder below."""
    save(tmp_path / "images" / "b.png", discs(128, 128, (16, 16, 11), (112, 112, 11)))
    save(tmp_path / "images" / "a" / "z.jpg", discs(64, 128, (16, 16, 11)))
    save(tmp_path / "images" / "c.bmp", discs(180, 120, (24, 24, 15)))
    return tmp_path / "images"


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_all_files_fit_their_schemas_and_each_other(apex_rt, validate, tiny_bundle: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = apex_rt("infer", folder, "--engine", tiny_bundle, "--output", out, "--budget", "0.25", "--threads", 1)
    assert ran.code == 0, ran.err
    assert "3 of 3 images" in ran.out and "3/3" in ran.err
    results, summary = read(out / "results.json"), read(out / "summary.json")
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    validate("results", results)
    validate("summary", summary)
    validate("failures", read(out / "failures.json"))
    for line in lines:
        validate("journal", line)
    assert [image["file_name"] for image in results["images"]] == ["a/z.jpg", "b.png", "c.bmp"]
    assert [image["id"] for image in results["images"]] == [1, 2, 3]
    assert [{k: v for k, v in line.items() if k != "annotations"} for line in lines] == results["images"]
    assert [item for line in lines for item in line["annotations"]] == results["annotations"]
    assert summary["detections"] == len(results["annotations"]) > 0
    assert results["categories"] == [{"id": 10, "name": "blob"}]
    for image in results["images"]:
        total = sum(image["milliseconds"][part] for part in ("decode", "graph", "post"))
        assert image["milliseconds"]["total"] == pytest.approx(total, abs=0.01)
        picture = cv2.imread(str(out / "annotated" / f"{image['file_name']}.png"))
        assert picture is not None and max(picture.shape) >= 600


def test_the_detections_are_those_of_the_library(apex_rt, tiny_onnx: Path, folder: Path, tmp_path: Path) -> None:
    """Masks by pycocotools' own decoder, boxes and scores against the Python interface on the same file."""
    out = tmp_path / "out"
    assert apex_rt("infer", folder / "b.png", "--engine", tiny_onnx, "-o", out, "--budget", 4).code == 0
    results = read(out / "results.json")
    found = next(load(tiny_onnx, threads=1).predict(folder / "b.png", budget=4))
    assert len(results["annotations"]) == len(found)
    for item, box, score, mask in zip(results["annotations"], found.boxes, found.scores, found.masks, strict=True):
        x, y, w, h = item["bbox"]
        np.testing.assert_allclose([x, y, x + w, y + h], box, atol=0.01)
        assert item["score"] == pytest.approx(float(score), abs=1e-4)
        decoded = coco_mask.decode(item["segmentation"])
        np.testing.assert_array_equal(decoded, mask.full(128, 128))
        assert item["area"] == decoded.sum()
    assert [tile["id"] for tile in results["images"][0]["tiles"]] == found.tile_ids.tolist()


def test_tiles_and_budget_in_source_pixels(apex_rt, tiny_onnx: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    apex_rt("infer", folder / "c.bmp", "--engine", tiny_onnx, "-o", out, "--budget", "1.0")
    image = read(out / "results.json")["images"][0]  # 180 x 120 fits 128 x 85: 4 rows, 3 columns of tiles
    assert image["budget"] == {"asked": "1.0", "tiles": 12, "spent": 12}
    covered = np.zeros((180, 120), int)
    for tile in image["tiles"]:
        x, y, w, h = tile["bbox"]
        covered[round(y) : round(y + h), round(x) : round(x + w)] += 1
    assert (covered == 1).all(), "together the tiles are the image"


def test_more_tiles_than_there_are_is_clamped_and_said(apex_rt, tiny_onnx: Path, folder: Path, tmp_path: Path) -> None:
    apex_rt("infer", folder / "a", "--engine", tiny_onnx, "-o", tmp_path / "out", "--budget", "500")
    assert read(tmp_path / "out" / "results.json")["images"][0]["budget"] == {"asked": "500", "tiles": 8, "spent": 8}


def test_patterns_and_filters(apex_rt, tiny_onnx: Path, folder: Path, tmp_path: Path) -> None:
    ran = apex_rt(
        "infer", f"{folder}/**/*.jpg", "--engine", tiny_onnx, "-o", tmp_path / "o", "--min-score", 0.9, "--max-detections", 1
    )
    assert ran.code == 0
    results = read(tmp_path / "o" / "results.json")
    assert [image["file_name"] for image in results["images"]] == ["a/z.jpg"]
    assert len(results["annotations"]) == 1
    assert apex_rt("infer", folder, "--engine", tiny_onnx, "-o", tmp_path / "o", "--classes", "blob,tumour").code == 2


def test_json_is_alone_on_standard_output(apex_rt, validate, tiny_onnx: Path, folder: Path, tmp_path: Path) -> None:
    ran = apex_rt("infer", folder, "--engine", tiny_onnx, "-o", tmp_path / "out", "--json")
    summary = json.loads(ran.out)
    validate("summary", summary)
    assert summary == read(tmp_path / "out" / "summary.json")


def test_output_below_the_source_is_not_read_again(apex_rt, tiny_onnx: Path, folder: Path) -> None:
    for _run in range(2):
        assert apex_rt("infer", folder, "--engine", tiny_onnx, "-o", folder / "out").code == 0
        assert read(folder / "out" / "summary.json")["images"]["found"] == 3
    assert apex_rt("infer", folder / "out", "--engine", tiny_onnx, "-o", folder / "out").code == 2


def test_resume_with_another_budget_is_wrong_usage(apex_rt, tiny_onnx: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    apex_rt("infer", folder, "--engine", tiny_onnx, "-o", out, "--budget", "0.5")
    assert apex_rt("infer", folder, "--engine", tiny_onnx, "-o", out, "--budget", "0.5", "--resume").code == 0
    assert read(out / "summary.json")["images"]["resumed"] == 3
    ran = apex_rt("infer", folder, "--engine", tiny_onnx, "-o", out, "--budget", "0.25", "--resume")
    assert ran.code == 2 and "0.5" in ran.err and "remedy:" in ran.err


def test_the_same_command_again_starts_afresh(apex_rt, tiny_onnx: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    apex_rt("infer", folder, "--engine", tiny_onnx, "-o", out)
    (folder / "c.bmp").unlink()
    apex_rt("infer", folder, "--engine", tiny_onnx, "-o", out)
    assert len(read(out / "results.json")["images"]) == 2
    assert not (out / "annotated" / "c.bmp.png").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interruption_loses_nothing_and_resume_finishes(tiny_onnx: Path, tmp_path: Path, how: signal.Signals, apex_rt) -> None:
    """A real process, a real signal; SIGKILL stands for a power cut."""
    for index in range(60):
        save(tmp_path / "in" / f"{index:03}.png", discs(128, 128, (16 + index % 90, 40, 9)))
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "apex_runtime.cli.main",
        "infer",
        str(tmp_path / "in"),
        "--engine",
        str(tiny_onnx),
        "-o",
        str(out),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    journal = out / "results.jsonl"
    waited = time.monotonic() + 120
    while not (journal.exists() and journal.stat().st_size > 500) and time.monotonic() < waited:
        time.sleep(0.01)
    os.kill(process.pid, how)
    printed, errors = process.communicate(timeout=120)
    done = len(journal.read_text().splitlines())
    assert 0 < done < 60
    if how != signal.SIGKILL:
        assert process.returncode == 1
        assert "--resume" in printed and "finishing the batch" in errors and "Traceback" not in errors
        assert read(out / "summary.json")["status"] == "interrupted"
        assert len(read(out / "results.json")["images"]) == done
    assert apex_rt("infer", tmp_path / "in", "--engine", tiny_onnx, "-o", out, "--resume").code == 0
    summary = read(out / "summary.json")
    assert summary["status"] == "done" and summary["images"]["resumed"] >= done - 1
    assert len(read(out / "results.json")["images"]) == 60


def test_permissive_names_what_runs(apex_rt, validate, tiny_bundle: Path, folder: Path, tmp_path: Path) -> None:
    path = tiny_bundle / "manifest.json"
    path.write_text(path.read_text().replace('"backend": "ort-cpu"', '"backend": "tensorrt"'))
    strict = apex_rt("infer", folder, "--engine", tiny_bundle, "-o", tmp_path / "out")
    assert strict.code == 1 and "tensorrt" in strict.err and "--policy permissive" in strict.err
    assert not (tmp_path / "out").exists()
    loose = apex_rt("infer", folder, "--engine", tiny_bundle, "-o", tmp_path / "out", "--policy", "permissive")
    assert loose.code == 0 and "running on ort-cpu" in loose.err
    summary = read(tmp_path / "out" / "summary.json")
    validate("summary", summary)
    backend = summary["backend"]
    assert backend["refusals"][0]["backend"] == "tensorrt" and backend["refusals"][0]["code"] == backend["reason"]
    assert all(refusal["message"] for refusal in backend["refusals"]) and backend["selected"] == "ort-cpu"
    assert (backend["requested"], backend["executed"]) == ("tensorrt", "ort-cpu") and backend["reason"]


def test_python_interface(tiny_bundle: Path, folder: Path) -> None:
    import apex_runtime
    from apex_runtime.errors import ImageError, UsageError

    engine = apex_runtime.load(tiny_bundle, threads=1)
    assert engine.info.tiles.count == 16
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = list(engine.predict(paths, budget=0.25))
    assert len(listed) == 3
    array = next(engine.predict(decode_image(folder / "b.png"), budget=16))
    assert len(array.tile_ids) == 16
    with pytest.raises(UsageError):
        engine.predict(paths, budget=0)
    with pytest.raises(ImageError):
        list(engine.predict([folder / "absent.png"]))


def test_the_results_of_somebody_else_are_refused_and_kept(apex_rt, tiny_onnx: Path, folder: Path) -> None:
    (folder / "results.json").write_text("years of work")
    (folder / "results.jsonl").write_text('{"id": 1, "file_name": 5, "annotations": []}\n')
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    for more in ((), ("--resume",)):
        ran = apex_rt("infer", folder, "--engine", tiny_onnx, "-o", folder, *more)
        assert ran.code == 2 and "results.json" in ran.err and "--output" in ran.err and "Traceback" not in ran.err
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_many_images_go_in_lanes_and_one_does_not(apex_rt, tiny_onnx: Path, folder: Path, tmp_path: Path) -> None:
    for number, (source, words, lanes) in enumerate(
        [
            (folder, ["--threads", 2], 2),
            (folder, ["--threads", 1], 1),
            (folder / "b.png", ["--threads", 2], 1),
            (folder, ["--threads", 2, "--video"], 1),
        ]
    ):
        out = tmp_path / str(number)
        assert apex_rt("infer", source, "--engine", tiny_onnx, "--output", out, "--save", "none", *words).code == 0
        assert (read(out / "summary.json")["threads"], read(out / "summary.json")["lanes"]) == (words[1], lanes)
    first, second = ([json.loads(line) for line in (tmp_path / n / "results.jsonl").read_text().splitlines()] for n in "01")
    assert [line | {"milliseconds": 0} for line in first] == [line | {"milliseconds": 0} for line in second]

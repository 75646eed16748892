"""``apex-train preflight`` as a person types it: tables, JSON that fits its schema, exit codes, no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import planted_faults
import pytest
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator
from yolo_sets import write_set

from apex_runtime.data.findings import Fault
from apex_train.cli.main import main


def preflight(*words: object) -> Result:
    return CliRunner().invoke(main, ["preflight", *(str(word) for word in words)])


@pytest.fixture
def schema(repo_root: Path) -> dict:
    return json.loads((repo_root / "apex_runtime" / "schemas" / "preflight.schema.json").read_text())


def test_a_sound_set_on_a_terminal(nuclei_fixture: Path) -> None:
    result = preflight(nuclei_fixture)
    assert result.exit_code == 0, result.output
    assert "recognised as coco" in result.stderr and "recognised" not in result.stdout
    for words in ("nucleus", "touching_masks: 5", "16 to 32", "ready: 0 errors, 5 warnings; 8 images, 147 instances"):
        assert words in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 110


def test_faults_make_it_say_no(nuclei_fixture: Path, tmp_path: Path, schema: dict) -> None:
    data = planted_faults.copy_of(nuclei_fixture, tmp_path / "set")
    planted = [plant(data) for plant in planted_faults.COCO.values()]
    shown = preflight(data)
    assert shown.exit_code == 1 and "not ready: 10 errors" in shown.stdout
    for fault, path, line in planted:
        assert f"error {fault}: 1" in shown.stdout and f"  {path}:{line}  " in shown.stdout
    result = preflight(data, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    Draft202012Validator(schema).validate(report)
    found = [(each["fault"], each["path"], each["line"]) for each in report["findings"] if each["severity"] == "error"]
    assert sorted(found) == sorted(planted) and report["errors"] == 10 and not report["passed"]
    assert not any(f"{data}/" in each["message"] for each in report["findings"])


def test_counts_of_the_fixture(nuclei_fixture: Path, schema: dict) -> None:
    report = json.loads(preflight(nuclei_fixture, "--json").stdout)
    Draft202012Validator(schema).validate(report)
    assert report["passed"]
    (data,) = report["data"]
    for split in data["splits"]:
        document = json.loads((nuclei_fixture / "annotations" / f"{split['split']}.json").read_text())
        sides = sorted(entry["area"] ** 0.5 for entry in document["annotations"])
        assert split["images"] == len(document["images"]) and split["instances"] == len(document["annotations"])
        longest = {image["id"]: max(image["width"], image["height"]) for image in document["images"]}
        short = [(min(entry["bbox"][2:]), longest[entry["image_id"]]) for entry in document["annotations"]]
        measures = {
            "sqrt_area": sides,
            "short_side": [side for side, _ in short],
            "short_side_in_512": [side * 512 / image for side, image in short],
        }
        for name, values in measures.items():
            counted = split["sizes"][name]
            assert sum(counted.values()) == len(document["annotations"])
            assert counted["4 to 8"] == sum(4 <= value < 8 for value in values)
            assert counted["16 to 32"] == sum(16 <= value < 32 for value in values)
            assert counted["64 to 96"] == sum(64 <= value < 96 for value in values)
        assert split["classes"] == [{"name": "nucleus", "count": len(document["annotations"])}]


def test_the_schema_knows_every_fault(schema: dict) -> None:
    assert schema["$defs"]["finding"]["properties"]["fault"]["enum"] == [fault.value for fault in Fault]


def test_one_split_and_every_finding(nuclei_fixture: Path, tmp_path: Path) -> None:
    result = preflight(nuclei_fixture, "--split", "val")
    assert result.exit_code == 0 and "3 images, 61 instances" in result.stdout
    wrong = preflight(nuclei_fixture, "--split", "val,tset")
    assert wrong.exit_code == 2 and "tset" in wrong.output and "train, val" in wrong.output
    data = planted_faults.copy_of(nuclei_fixture, tmp_path / "set")
    for file in data.glob("annotations/*.json"):
        file.write_text(file.read_text().replace('"category_id": 1', '"category_id": 2'))
    short, full = preflight(data), preflight(data, "--all")
    assert "unknown_class: 147" in short.stdout and "and 142 more" in short.stdout
    assert full.stdout.count("unknown category 2") == 147 and "--all" not in full.stdout


def test_names_do_not_steer_the_terminal(nuclei_fixture: Path, tmp_path: Path) -> None:
    data = planted_faults.copy_of(nuclei_fixture, tmp_path / "set")
    for file in data.glob("annotations/*.json"):
        file.write_text(file.read_text().replace('"nucleus"', '"[red]\\u001b[31mnucleus"'))
    result = preflight(data)
    assert result.exit_code == 0 and "\x1b" not in result.stdout and "[red]?[31mnucleus" in result.stdout


def test_no_data(tmp_path: Path) -> None:
    for words in ((tmp_path / "nowhere",), (tmp_path,)):
        result = preflight(*words)
        assert result.exit_code == 2 and "remedy" in result.output
    assert preflight().exit_code == 2


def test_a_set_that_cannot_be_opened_is_reported_beside_the_others(nuclei_fixture: Path, tmp_path: Path, schema: dict) -> None:
    (tmp_path / "data.yaml").write_text("names: [a\ntrain: images\n")
    result = preflight(nuclei_fixture, tmp_path, "--json")
    report = json.loads(result.stdout)
    Draft202012Validator(schema).validate(report)
    assert result.exit_code == 1 and report["errors"] == 1 and len(report["data"][0]["splits"]) == 2
    (error,) = [each for each in report["findings"] if each["severity"] == "error"]
    assert (error["fault"], error["path"]) == ("malformed", "data.yaml") and "line 2" in error["message"]


def test_names_are_shown_as_they_are_written(tmp_path: Path) -> None:
    write_set(tmp_path / "a:car:b", {"a": "0 0.5 0.5 0.2 0.4\n0 0.5\n"}, "train: images/train\nnames: [':car:']\n")
    shown = preflight(tmp_path / "a:car:b" / "data.yaml").stdout.replace("\n", "")
    assert ":car:" in shown and "\N{AUTOMOBILE}" not in shown


def test_a_large_set_as_it_is(shared_data: Path) -> None:
    result = preflight(shared_data / "coco-mini", "--dataset-type", "coco")
    assert result.exit_code == 0, result.output
    assert "137 images, 1287 instances" in result.stdout and "empty_image: 3" in result.stdout


@pytest.mark.parametrize("name", ["preflight"])
def test_it_runs_without_torch(name: str, nuclei_fixture: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from apex_train.cli.main import main\n"
        f"main([{name!r}, {str(nuclei_fixture)!r}, '--json'], standalone_mode=False)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

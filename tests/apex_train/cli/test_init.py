"""``apex-train init`` as a person types it, and the training that starts with what it writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from apex_train.cli.main import main
from apex_train.config import load_config


def apex_train(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize("name", ["nuclei_fixture", "nuclei_yolo_fixture", "nuclei_satellite_fixture"])
def test_the_file_loads_and_says_why(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    data, target = request.getfixturevalue(name), tmp_path / "sub" / "fit.yaml"
    result = apex_train("init", data, "-o", target)
    assert result.exit_code == 0, result.output
    assert str(target) in result.stdout and "recognised as" in result.stderr
    config = load_config(target, {})
    kind = {"nuclei_fixture": "coco", "nuclei_yolo_fixture": "yolo"}.get(name, "satellite")
    assert config.train.dataset_type == kind
    assert config.augment.flip_vertical == (0.5 if kind == "satellite" else 0)
    lines = target.read_text().splitlines()
    keys = [number for number, line in enumerate(lines) if line.startswith("  ") and not line.startswith("  #")]
    assert len(keys) > 10 and all(lines[number - 1].startswith("  # ") for number in keys)
    assert "nucleus" in target.read_text()
    assert [path.name for path in target.parent.iterdir()] == ["fit.yaml"]


def test_the_three_layouts_of_one_set_get_the_same_sizes(
    nuclei_fixture: Path, nuclei_yolo_fixture: Path, nuclei_satellite_fixture: Path, tmp_path: Path
) -> None:
    found = []
    for place, data in enumerate((nuclei_fixture, nuclei_yolo_fixture, nuclei_satellite_fixture)):
        apex_train("init", data, "-o", tmp_path / f"{place}.yaml")
        config = load_config(tmp_path / f"{place}.yaml", {})
        found.append((config.train.size, config.train.crop, config.train.batch))
    assert found[0] == found[1]
    assert abs(found[2][0] - found[0][0]) <= 128  # touching nuclei are one region of a mask: its objects are a little larger


def test_fit_runs_with_it(nuclei_fixture: Path, tmp_path: Path) -> None:
    target = tmp_path / "fit.yaml"
    assert apex_train("init", nuclei_fixture, "-o", target).exit_code == 0
    small = [
        f"--set={item}" for item in ("train.epochs=1", "train.batch=2", "train.workers=0", "train.size=128", "train.crop=64")
    ]
    result = apex_train("fit", target, "--data", nuclei_fixture, "--output", tmp_path / "run", *small)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "run" / "best.pt").is_file()


def test_json_has_values_and_reasons(nuclei_fixture: Path, tmp_path: Path) -> None:
    result = apex_train("init", nuclei_fixture, "-o", tmp_path / "fit.yaml", "--json")
    report = json.loads(result.stdout)
    config = load_config(tmp_path / "fit.yaml", {}).model_dump()
    for section, values in report["config"].items():
        for key, value in values.items():
            assert config[section][key] == value
            assert report["reasons"][f"{section}.{key}"]
    assert (report["dataset_type"], report["faulty"], report["absent_classes"]) == ("coco", 0, [])


def test_a_file_that_exists_is_kept(nuclei_fixture: Path, tmp_path: Path) -> None:
    target = tmp_path / "fit.yaml"
    target.write_text("mine")
    refused = apex_train("init", nuclei_fixture, "-o", target)
    assert refused.exit_code == 2 and "--force" in refused.output and target.read_text() == "mine"
    assert apex_train("init", nuclei_fixture, "-o", target, "--force").exit_code == 0
    assert "train:" in target.read_text()


def test_faulty_data_is_measured_and_said(nuclei_fixture: Path, tmp_path: Path) -> None:
    import shutil

    data = tmp_path / "set"
    shutil.copytree(nuclei_fixture, data)
    file = data / "annotations" / "train.json"
    document = json.loads(file.read_text())
    document["annotations"][0]["category_id"] = 99
    file.write_text(json.dumps(document))
    result = apex_train("init", data, "-o", tmp_path / "fit.yaml", "--json")
    assert json.loads(result.stdout)["faulty"] == 1
    assert "run apex-train preflight first" in (tmp_path / "fit.yaml").read_text()


def test_data_that_is_not_there_leaves_no_file(tmp_path: Path) -> None:
    result = apex_train("init", tmp_path / "nothing", "-o", tmp_path / "fit.yaml")
    assert result.exit_code == 2 and "not found" in result.output
    assert not (tmp_path / "fit.yaml").exists()


@pytest.mark.parametrize("words", [["preflight", "DATA", "--json"], ["init", "DATA", "--json", "-o", "OUT"]])
def test_neither_needs_torch(words: list[str], nuclei_fixture: Path, tmp_path: Path) -> None:
    places = {"DATA": str(nuclei_fixture), "OUT": str(tmp_path / "fit.yaml")}
    arguments = [places.get(word, word) for word in words]
    code = (
        "import sys; from apex_train.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules"
    )
    ran = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr

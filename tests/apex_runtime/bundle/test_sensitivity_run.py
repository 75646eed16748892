"""A real choice on a few images: the figures are those of a comparison, and what was measured once is not measured again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from apex_runtime.backends.onnx_contract import OnnxFile, read_onnx
from apex_runtime.bundle import against_fp32, sensitivity_run
from apex_runtime.bundle.against_fp32 import compare_files
from apex_runtime.bundle.precision import precision_report
from apex_runtime.bundle.sensitivity_run import choose_regions
from apex_runtime.cache_folder import CACHE_VARIABLE
from apex_runtime.cli.sensitivity_table import table
from apex_runtime.errors import UsageError
from apex_runtime.precision.convert import convert
from apex_runtime.precision.data import PrecisionData, precision_data
from apex_runtime.precision.plan import plan_for
from apex_runtime.precision.ranges import calibration_feeds
from apex_runtime.precision.request import Step
from apex_runtime.precision.sensitivity import Sensitivity, candidates

PINS = ("context", "gate", "glance", "boxes", "coefficients", "peripheral")  # neck and foveal are left


def on(_title: str, _done: int, _total: int) -> bool:
    return True


@pytest.fixture(scope="module")
def shipped(repo_root: Path) -> OnnxFile:
    return read_onnx(repo_root / "engines" / "nuclei-nano" / "model.onnx")


@pytest.fixture(scope="module")
def data(nuclei_fixture: Path, tmp_path_factory: pytest.TempPathFactory) -> PrecisionData:
    """One image calibrates, one chooses."""
    folder = tmp_path_factory.mktemp("few") / "set"
    shutil.copytree(nuclei_fixture, folder)
    path = folder / "annotations" / "val.json"
    document = json.loads(path.read_text())
    document["images"] = document["images"][:1]
    document["annotations"] = [entry for entry in document["annotations"] if entry["image_id"] == document["images"][0]["id"]]
    path.write_text(json.dumps(document))
    return precision_data(folder, 1)


@pytest.fixture(autouse=True)
def quick(tmp_path: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(against_fp32, "BUDGETS", ("4",))
        patch.setattr(against_fp32, "ROUNDS", 1)
        patch.setattr(against_fp32, "TIMED_IMAGES", 1)
        patch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
        yield


def choice(file: OnnxFile, data: PrecisionData, step: Step, backend: str = "tensorrt", max_drop: float = 50.0) -> Sensitivity:
    return choose_regions(file, "int8", backend, None, PINS, "minmax", data, max_drop, step)


def test_figures_are_those_of_a_comparison_and_are_kept(
    shipped: OnnxFile, data: PrecisionData, tmp_path: Path, validate: Callable[[str, object], None]
) -> None:
    titles: dict[str, int] = {}

    def note(title: str, _done: int, total: int) -> bool:
        titles[title] = total
        return True

    found = choice(shipped, data, note)
    assert found.chosen == {"neck", "foveal"} and found.images == 1 and found.figure == "mask AP"
    assert list(titles) == ["calibrating on 1 image(s)"] + [
        f"measuring {name} on val" for name in ("foveal", "neck", "foveal + neck")
    ]
    assert list(titles.values()) == [1, 2, 1, 1], "fp32 is looked at once"
    check_the_joint_graph(shipped, data, found, tmp_path)
    record = precision_report(shipped.model, "fp32", {}) | {"sensitivity": found.model_dump(mode="json")}
    validate("precision", record)
    shown = list(table(found))
    assert shown[0] == "sensitivity: 1 image(s), the split val; simulated on ort-cpu; mask AP"
    assert len(shown) == 5 and shown[-1].startswith("chosen: ") and "taken: " in shown[2] and "points by itself" in shown[2]

    def never(title: str, _done: int, _total: int) -> bool:
        raise AssertionError(f"{title}, which was done before")

    assert choice(shipped, data, never) == found
    strict = choice(shipped, data, never, max_drop=min(row.drop_points for row in found.rows) - 0.01)
    assert not strict.chosen and all("by itself" in step.why for step in strict.steps), "another limit needs no measurement"
    assert list(table(strict))[-1].startswith("chosen: no region")


def check_the_joint_graph(shipped: OnnxFile, data: PrecisionData, found: Sensitivity, tmp_path: Path) -> None:
    """The graph that a build would make of the choice, calibrated by itself and compared by itself."""
    plan = plan_for("int8", "tensorrt", None, PINS, found.chosen)
    assert plan is not None
    built = convert(shipped.model, plan, calibration_feeds(data.calibration, shipped.info))
    (tmp_path / "model.onnx").write_bytes(built.model.SerializeToString())
    measured = compare_files(shipped.path, tmp_path / "model.onnx", data.select, False, lambda _done, _total: True)
    row = measured.budgets[0]
    assert row.mask_ap is not None and found.cost is not None
    assert found.cost.drop_points == row.mask_ap.drop_points != 0
    assert found.cost.tile_overlap == row.tile_overlap.mean


@pytest.mark.parametrize("last", [0, 2])
def test_a_run_that_was_ended_goes_on(shipped: OnnxFile, data: PrecisionData, last: int) -> None:
    """Ended at its first or third measurement: those before it, and the ranges, are there."""
    begun: list[str] = []

    def until(title: str, done: int, _total: int) -> bool:
        if title.startswith("measuring") and title not in begun:
            begun.append(title)
        return len(begun) <= last

    with pytest.raises(KeyboardInterrupt):
        choice(shipped, data, until)
    again: list[str] = []

    def note(title: str, _done: int, _total: int) -> bool:
        if title not in again:
            again.append(title)
        return True

    choice(shipped, data, note)
    assert again == [f"measuring {name} on val" for name in ("foveal", "neck", "foveal + neck")[last:]]


def test_times_are_measured_for_the_cpu_and_decide(shipped: OnnxFile, data: PrecisionData) -> None:
    found = choice(shipped, data, on, "ort-cpu")
    assert found.executed == "ort-cpu" and all(row.time_ratio is not None and row.time_ratio > 0.05 for row in found.rows)
    for row, step in zip(found.rows, found.steps, strict=True):
        assert row.time_ratio is not None
        if row.time_ratio >= 0.99:
            assert not step.taken and "no faster" in step.why
    assert choice(shipped, data, on, "ort-cpu") == found, "times are not measured again"


def test_ranges_that_a_border_needs_are_looked_at_later(shipped: OnnxFile, data: PrecisionData, tmp_path: Path) -> None:
    """As if neck and foveal rounded more than what was foreseen, neck alone: what is missing is looked at, and kept besides."""
    plan = plan_for("int8", "tensorrt", None, PINS)
    assert plan is not None
    alone = candidates(shipped.model, plan)
    asked: list[str] = []

    def note(title: str, _done: int, _total: int) -> bool:
        asked.append(title)
        return True

    foreseen = sensitivity_run._Calibrating(shipped, plan, {"neck": alone["neck"]}, data, "minmax", note)
    cache, both = tmp_path / "ranges.json", frozenset(alone)
    foreseen.converted(frozenset({"neck"}), cache)
    graph = foreseen.converted(both, cache)
    assert len(asked) == 2
    assert graph == foreseen.converted(both, cache) and len(asked) == 2
    whole = convert(shipped.model, replace(plan, regions=both), calibration_feeds(data.calibration, shipped.info))
    assert graph == whole.model.SerializeToString(deterministic=True)
    again = sensitivity_run._Calibrating(shipped, plan, {"neck": alone["neck"]}, data, "minmax", note)
    assert again.converted(both, cache) == graph and len(asked) == 2


def test_without_labels_or_eight_bits_there_is_nothing_to_choose(
    shipped: OnnxFile, data: PrecisionData, nuclei_fixture: Path
) -> None:
    with pytest.raises(UsageError, match="no labels to choose by"):
        choice(shipped, precision_data(nuclei_fixture / "images", 2), on)
    with pytest.raises(UsageError, match="fp16, which rounds nothing"):
        choose_regions(shipped, "fp16", "tensorrt", None, (), "minmax", data, 0.5, on)


def test_a_split_without_objects_is_noticed_before_anything_is_measured(
    shipped: OnnxFile, nuclei_fixture: Path, tmp_path: Path
) -> None:
    shutil.copytree(nuclei_fixture, tmp_path / "set")
    path = tmp_path / "set" / "annotations" / "val.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"annotations": []}))

    def never(title: str, _done: int, _total: int) -> bool:
        raise AssertionError(title)

    with pytest.raises(UsageError, match="the split val has no labelled objects"):
        choice(shipped, precision_data(tmp_path / "set", 1), never)


def test_nothing_to_round_is_an_empty_choice(shipped: OnnxFile, data: PrecisionData) -> None:
    pins = (*PINS, "neck", "foveal")
    found = choose_regions(shipped, "int8", "tensorrt", None, pins, "minmax", data, 0.5, on)
    assert found.chosen == frozenset() and found.rows == () and found.figure is None
    assert next(table(found)).endswith("nothing to round")

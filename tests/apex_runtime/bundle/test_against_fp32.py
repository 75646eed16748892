"""Two graphs side by side: what a fault costs shows, what costs nothing shows nothing, and time is that of the clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from discs_coco import write_discs
from onnx import numpy_helper

from apex_runtime.backends.ort import OrtSession
from apex_runtime.backends.session import Session
from apex_runtime.bundle import against_fp32
from apex_runtime.bundle.against_fp32 import Side, compare, compare_files
from apex_runtime.bundle.fp32_record import AgainstFp32, Measured
from apex_runtime.cli.against_fp32 import rows, table
from apex_runtime.data.open import open_dataset
from apex_runtime.errors import BackendError, UsageError
from apex_runtime.evaluation.sweep import SweepOptions, sweep
from apex_runtime.precision.data import Reported, precision_data
from apex_runtime.precision.ranges import GoOn
from apex_runtime.routing.budget import parse_budget

Outputs = dict[str, np.ndarray]


def on(_done: int, _total: int) -> bool:
    return True


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("discs"))


@pytest.fixture(scope="module")
def labelled(discs: Path) -> Reported:
    labels = open_dataset(discs, "test")
    images = precision_data(discs / "images").calibration
    assert [image.name for image in images] == [record.file_name for record in labels.records]
    return Reported("the split test", images, labels)


@pytest.fixture(scope="module")
def unlabelled(labelled: Reported) -> Reported:
    return replace(labelled, origin="the images of the calibration", labels=None)


class Edited:
    """A session whose outputs ``edit`` changes, and that lets time pass on a clock of its own."""

    name = "edited"

    def __init__(self, path: Path, edit: Callable[[Outputs], None] = lambda _outputs: None, seconds: float = 0.0) -> None:
        self._session, self._edit, self._seconds = OrtSession(path, 1), edit, seconds
        self.info = self._session.info
        self.shapes: list[tuple[int, ...]] = []
        self.now: list[float] = []

    def run(self, images: np.ndarray, tiles: int, tile_bonus: np.ndarray) -> Outputs:
        self.shapes.append(images.shape)
        outputs = self._session.run(images, tiles, tile_bonus)
        self._edit(outputs)
        if self.now:
            self.now[0] += self._seconds
        return outputs


def side(session: Session, size: int = 1000, name: str = "the model of the bundle") -> Side:
    return Side(name, session, size)


def compared(path: Path, built: Session, images: Reported, go_on: GoOn = on) -> Measured:
    return compare(Side("the exported model", OrtSession(path, 1), 2000), side(built), images, None, go_on)


def shifted(path: Path, name: str, amount: float, target: Path) -> Path:
    """A copy of the model with a number added to all values of a weight."""
    model = onnx.load(path)
    (weight,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) + np.float32(amount), name))
    onnx.save(model, target)
    return target


def test_the_same_graph_loses_nothing(tiny_onnx: Path, labelled: Reported, validate: Callable[[str, object], None]) -> None:
    found = compared(tiny_onnx, OrtSession(tiny_onnx, 1), labelled)
    assert [row.budget for row in found.budgets] == ["0.25", "1.0"] and found.images == 6
    for row in found.budgets:
        assert (row.tile_overlap.mean, row.tile_overlap.worst) == (1.0, 1.0)
        for each in (row.box_ap, row.mask_ap):
            assert each is not None and each.fp32 == each.built > 0.1 and each.drop_points == 0
    assert found.executed == "simulated on ort-cpu" and found.threads is None and found.remarks == ()
    assert (found.model_bytes.fp32, found.model_bytes.built) == (2000, 1000)


def test_average_precision_is_that_of_eval(tiny_onnx: Path, labelled: Reported, tmp_path: Path) -> None:
    """And a weight that is off by six pixels is a drop, in points, at every budget."""
    faulty = shifted(tiny_onnx, "ys", 6.0, tmp_path / "faulty.onnx")
    found = compared(tiny_onnx, OrtSession(faulty, 1), labelled)
    assert labelled.labels is not None
    budgets = [parse_budget(row.budget) for row in found.budgets]
    for path, name in ((tiny_onnx, "fp32"), (faulty, "built")):
        swept = sweep(OrtSession(path, 1), labelled.labels, budgets, SweepOptions())
        for row, of_eval in zip(found.budgets, swept, strict=True):
            assert getattr(row.box_ap, name) == of_eval["figures"]["mAP_bbox"]
            assert getattr(row.mask_ap, name) == of_eval["figures"]["mAP_segm"]
    for row in found.budgets:
        assert row.tile_overlap.worst == 1.0, "the router did not change"
        for each in (row.box_ap, row.mask_ap):
            assert each is not None and each.drop_points > 5
            assert each.drop_points == pytest.approx(100 * (each.fp32 - each.built), abs=1e-3)


def test_other_tiles_are_counted_by_id(tiny_onnx: Path, unlabelled: Reported) -> None:
    """At 0.25 four of 16 tiles are chosen; on every second image one of them is exchanged, on all their order is turned."""
    calls: list[int] = []

    def exchange(outputs: Outputs) -> None:
        calls.append(len(calls))
        ids = outputs["tile_ids"][0]
        if ids.size == 4 and len(calls) % 2:
            ids[0] = next(tile for tile in range(16) if tile not in ids)
        ids[:] = ids[::-1].copy()

    found = compared(tiny_onnx, Edited(tiny_onnx, exchange), unlabelled)
    few, everything = found.budgets
    assert few.tile_overlap.worst == 0.75 and few.tile_overlap.mean == pytest.approx(0.875)
    assert everything.tile_overlap.worst == 1.0
    assert all(row.box_ap is row.mask_ap is row.graph_milliseconds is None for row in found.budgets)


@pytest.mark.parametrize("name", ["utilities", "scores", "mask_prototypes"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_an_error_and_no_row(tiny_onnx: Path, unlabelled: Reported, name: str, value: float) -> None:
    def spoil(outputs: Outputs) -> None:
        outputs[name].reshape(-1)[1] = value

    with pytest.raises(BackendError, match=rf"model of the bundle on 1\.png: 1 of .*'{name}'") as caught:
        compared(tiny_onnx, Edited(tiny_onnx, spoil), unlabelled)
    assert caught.value.code == "non_finite_output" and "--no-report" in caught.value.remedy
    with pytest.raises(BackendError, match=rf"exported model on 1\.png: 1 of .*'{name}'") as caught:
        compare(side(Edited(tiny_onnx, spoil), name="the exported model"), side(OrtSession(tiny_onnx, 1)), unlabelled, None, on)
    assert caught.value.code == "non_finite_output" and "--precision" not in caught.value.remedy, "fp32 has it, too"


def timed(tiny_onnx: Path, images: Reported, first: float, second: float) -> Measured:
    """A comparison of two sessions that take so many seconds per call."""
    now = [0.0]
    sessions = [Edited(tiny_onnx, seconds=seconds) for seconds in (first, second)]
    for session in sessions:
        session.now = now
    return compare(*map(side, sessions), images, 3, on, clock=lambda: now[0])


def test_a_slower_graph_is_called_slower(tiny_onnx: Path, unlabelled: Reported) -> None:
    found = timed(tiny_onnx, unlabelled, 0.100, 0.112)
    assert found.remarks == ("slower than fp32 here: 1.12x at budget 0.25, 1.12x at budget 1.0",)
    for row in found.budgets:
        times = row.graph_milliseconds
        assert times is not None and (times.fp32, times.built, times.ratio) == pytest.approx((100, 112, 1.12))
    assert (found.executed, found.threads) == ("ort-cpu", 3) and found.rounds is not None and found.rounds >= 10
    assert any("slower than fp32 here" in line for line in table(AgainstFp32(identical_graph=False, measured=found)))


@pytest.mark.parametrize("second", [0.05, 0.1, 0.101])
def test_one_that_is_not_is_not(tiny_onnx: Path, unlabelled: Reported, second: float) -> None:
    found = timed(tiny_onnx, unlabelled, 0.1, second)
    assert found.remarks == () and found.budgets[0].graph_milliseconds is not None
    assert found.budgets[0].graph_milliseconds.ratio == pytest.approx(second * 10)


def test_images_pass_one_at_a_time_and_every_step_is_asked_for(tiny_onnx: Path, labelled: Reported) -> None:
    asked: list[tuple[int, int]] = []

    def note(done: int, total: int) -> bool:
        asked.append((done, total))
        return True

    session = Edited(tiny_onnx)
    compare(side(OrtSession(tiny_onnx, 1)), side(session), labelled, 1, note)
    total = asked[0][1]
    assert asked == [(number, total) for number in range(total)] and total > 24
    assert set(session.shapes) == {(1, 128, 128, 3)}


@pytest.mark.parametrize("last", [0, 7, 13, 30])
def test_a_no_ends_it(tiny_onnx: Path, unlabelled: Reported, last: int) -> None:
    def until(done: int, total: int) -> bool:
        assert total > last
        return done < last

    with pytest.raises(KeyboardInterrupt):
        compare(side(OrtSession(tiny_onnx, 1)), side(OrtSession(tiny_onnx, 1)), unlabelled, 1, until)


def test_without_images_there_is_nothing_to_compare(tiny_onnx: Path, unlabelled: Reported) -> None:
    with pytest.raises(UsageError, match="no images"):
        compared(tiny_onnx, OrtSession(tiny_onnx, 1), replace(unlabelled, items=()))


def test_files_become_a_record_that_reads_back(
    tiny_onnx: Path, labelled: Reported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(against_fp32, "ROUNDS", 1)
    faulty = shifted(tiny_onnx, "ys", 6.0, tmp_path / "faulty.onnx")
    found = AgainstFp32(identical_graph=False, measured=compare_files(tiny_onnx, faulty, labelled, True, on))
    again = AgainstFp32.model_validate(json.loads(json.dumps(found.to_record(), allow_nan=False)))
    assert again == found and found.measured is not None
    assert found.measured.model_bytes.fp32 == tiny_onnx.stat().st_size
    drop = found.measured.budgets[1].mask_ap
    assert drop is not None
    shown = "\n".join(rows(found))
    assert shown.count("\n") == 2 and f"(drop {drop.drop_points:.2f})" in shown and "6 image(s), the split test" in shown


def test_without_labels_the_table_says_who_judges(tiny_onnx: Path, labelled: Reported, unlabelled: Reported) -> None:
    """Equal tiles and a good time are no sign that boxes and masks are right."""
    for images in (labelled, unlabelled):
        found = compared(tiny_onnx, OrtSession(tiny_onnx, 1), images)
        last = list(table(AgainstFp32(identical_graph=False, measured=found)))[-1]
        assert ("apex-rt parity" in last) == (images is unlabelled)


def test_a_gain_too_small_to_see_is_no_minus(tiny_onnx: Path, labelled: Reported) -> None:
    found = compared(tiny_onnx, OrtSession(tiny_onnx, 1), labelled).model_dump()
    for row in found["budgets"]:
        row["mask_ap"]["drop_points"] = -0.0004
    shown = "\n".join(table(AgainstFp32(identical_graph=False, measured=Measured.model_validate(found))))
    assert " 0.00" in shown and "-0.00" not in shown

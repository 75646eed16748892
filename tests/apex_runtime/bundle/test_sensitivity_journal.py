"""What was measured is found again to the last digit, what was cut short is measured again, what is damaged is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apex_runtime.bundle.fp32_record import BudgetRow, Measured, Milliseconds, Overlap, Precisions, Sizes
from apex_runtime.bundle.sensitivity_journal import Journal, JournalKey
from apex_runtime.errors import ModelError, UsageError
from apex_runtime.precision.calibration_key import CacheKey

KEY = JournalKey(
    calibration=CacheKey(
        model_sha256="0" * 64,
        profile="uint8 in any of foveal, neck; float32 elsewhere",
        data_sha256="a" * 64,
        op_versions={"ai.onnx": 20, "apex.TilePack": "1"},
        method="minmax",
        input_shape=(1, 512, 512, 3),
        libraries={"onnxruntime": "1.32.0", "apex-x": "0.1.0"},
    ),
    val_sha256="b" * 64,
    processor="a processor",
    threads=2,
)


def measured(built: float) -> Measured:
    row = BudgetRow(
        budget="0.25",
        tile_overlap=Overlap(mean=0.9868421052631579, worst=0.75),
        box_ap=None,
        mask_ap=Precisions(fp32=0.48153, built=built, drop_points=round(48.153 - 100 * built, 4)),
        graph_milliseconds=Milliseconds(fp32=54.071, built=41.25, ratio=0.7631),
    )
    return Measured(
        images=68,
        origin="the split val",
        executed="ort-cpu",
        model_bytes=Sizes(fp32=4740000, built=3900000),
        threads=2,
        rounds=10,
        budgets=(row, row.model_copy(update={"budget": "1.0"})),
        remarks=(),
    )


SETS = {
    frozenset({"foveal"}): measured(0.48),
    frozenset({"neck"}): measured(0.1 + 0.2),
    frozenset({"neck", "foveal"}): measured(0.479),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sensitivity" / "kept.jsonl"
    journal = Journal(path, KEY)
    assert journal.found == {} and not path.exists()
    for regions, found in SETS.items():
        journal.add(regions, found)
    assert journal.found == SETS
    return path


def test_what_was_added_is_found_and_more_can_follow(file: Path) -> None:
    again = Journal(file, KEY)
    assert again.found == SETS and len(file.read_bytes().splitlines()) == 4
    again.add(frozenset({"boxes"}), measured(0.4))
    assert Journal(file, KEY).found == {**SETS, frozenset({"boxes"}): measured(0.4)}


def test_whatever_is_cut_off_is_measured_again(file: Path) -> None:
    """Cut at any byte: whole lines count, and the next measurement starts a line of its own."""
    whole = file.read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    for cut in {*range(0, len(whole), 37), *ends, *(end - 1 for end in ends)}:
        file.write_bytes(whole[:cut])
        complete = max(sum(end <= cut for end in ends) - 1, 0)
        journal = Journal(file, KEY)
        assert journal.found == dict(list(SETS.items())[:complete])
        for regions, found in SETS.items():
            if regions not in journal.found:
                journal.add(regions, found)
        assert file.read_bytes() == whole


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.data())
def test_a_flipped_bit_is_refused_or_changes_nothing(file: Path, data: st.DataObject) -> None:
    whole = file.read_bytes()
    damaged = bytearray(whole)
    place = data.draw(st.integers(0, len(whole) - 2))  # without the last line's end, which then counts as cut short
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(damaged)
    try:
        assert Journal(file, KEY).found == SETS
    except ModelError as error:
        assert error.code == "sensitivity_journal_damaged" and str(file) in str(error) and "Delete" in error.remedy
    finally:
        file.write_bytes(whole)


def test_a_changed_figure_is_named_with_its_line(file: Path) -> None:
    file.write_text(file.read_text().replace('"built":0.479', '"built":0.499'))
    with pytest.raises(ModelError, match=r"kept\.jsonl, line 4: .*changed"):
        Journal(file, KEY)
    assert len(file.read_bytes().splitlines()) == 4, "a refused file is left alone"


@pytest.mark.parametrize("change", [{"val_sha256": "c" * 64}, {"threads": 1}, {"processor": None}])
def test_a_journal_of_something_else_is_refused(file: Path, change: dict[str, object]) -> None:
    other = KEY.model_copy(update=change)
    assert other.path != KEY.path
    with pytest.raises(ModelError, match=r"line 1: .*another model"):
        Journal(file, other)


def test_a_line_from_another_journal_is_refused(file: Path, tmp_path: Path) -> None:
    key = KEY.model_copy(update={"val_sha256": "c" * 64})
    other = Journal(tmp_path / "other.jsonl", key)
    other.add(frozenset({"boxes"}), measured(0.4))
    with file.open("ab") as stream:
        stream.write((tmp_path / "other.jsonl").read_bytes().splitlines(keepends=True)[1])
    with pytest.raises(ModelError, match=r"line 5: .*another journal"):
        Journal(file, KEY)


def test_no_text_at_all_is_refused(file: Path) -> None:
    file.write_bytes(b"\x00\xff\n")
    with pytest.raises(ModelError, match="line 1"):
        Journal(file, KEY)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((UsageError, ModelError), match=r"file/kept\.jsonl"):
        Journal(tmp_path / "file" / "kept.jsonl", KEY).add(frozenset({"neck"}), measured(0.4))

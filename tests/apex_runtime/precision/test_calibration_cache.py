"""The same key gives the same ranges, another one says what changed, and a damaged file gives an error and never other ranges."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apex_runtime.errors import ModelError
from apex_runtime.precision.calibration_cache import MAX_CACHE_BYTES, Found, _File, default_cache_file, read_cache, write_cache
from apex_runtime.precision.calibration_key import CacheKey, digest_of
from apex_runtime.precision.ranges import Calibration, Range

KEY = CacheKey(
    model_sha256="0" * 64,
    profile="edge",
    data_sha256="a" * 64,
    op_versions={"ai.onnx": 20, "apex.TilePack": "1"},
    method="percentile",
    input_shape=(1, 512, 512, 3),
    libraries={"onnxruntime": "1.32.0", "apex-x": "0.1.0"},
)
RANGES = {"relu": Range(0.0, 12.912), "add_77": Range(-21.02, 18.22), "größe": Range(-0.1, 1e-7), "relu_1": Range(1.5, 2.0)}
CALIBRATION = Calibration(RANGES, 64, {"relu": Range(0.0, 10.9), "relu_1": Range(0.0, 2.0)}, "percentile")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "calibration" / "kept.json"
    write_cache(path, KEY, CALIBRATION)
    return path


def test_the_same_key_gives_the_same_ranges(file: Path) -> None:
    assert read_cache(file, KEY) == Found(CALIBRATION)
    assert list(file.parent.iterdir()) == [file]


def test_the_file_fits_its_schema_and_people_can_read_it(file: Path, validate: Callable[[str, object], None]) -> None:
    value = json.loads(file.read_text())
    validate("calibration", value)
    assert value["ranges"]["relu"] == {"least": 0.0, "largest": 12.912} and value["key"]["method"] == "percentile"
    assert len(file.read_text().splitlines()) > 20
    assert value["key_sha256"] == KEY.sha256


def test_the_stored_schema_is_the_schema_of_the_code(repo_root: Path) -> None:
    stored = json.loads((repo_root / "apex_runtime" / "schemas" / "calibration.schema.json").read_text())
    made = _File.model_json_schema()
    assert {**stored, "title": "", "$schema": ""} == {**made, "title": "", "$schema": ""}


def test_another_key_says_what_changed_and_the_file_is_written_anew(file: Path) -> None:
    now = KEY.model_copy(update={"data_sha256": "b" * 64, "method": "entropy"})
    assert read_cache(file, now) == Found(None, ("the images changed", "the method changed: percentile -> entropy"))
    write_cache(file, now, CALIBRATION)
    found = read_cache(file, now)
    assert found.calibration is not None and found.calibration.method == "entropy"
    assert read_cache(file, KEY).calibration is None


def test_ranges_that_are_asked_for_must_be_there(file: Path) -> None:
    assert read_cache(file, KEY, ["add_77", "relu"], ["relu"]) == Found(CALIBRATION)
    for asked in ((["relu", "relu_9"], []), (["relu"], ["add_77"])):
        assert read_cache(file, KEY, *asked) == Found(None, ("other tensors need a range",))


def test_no_file_is_nothing(tmp_path: Path) -> None:
    assert read_cache(tmp_path / "not there" / "at.json", KEY) == Found(None)


@settings(max_examples=60, deadline=None)
@given(
    ranges=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 2).map(lambda ends: Range(min(ends), max(ends))),
        max_size=5,
    )
)
def test_every_range_comes_back_to_the_last_bit(tmp_path_factory: pytest.TempPathFactory, ranges: dict[str, Range]) -> None:
    path = tmp_path_factory.getbasetemp() / "bits.json"
    calibration = Calibration(ranges, 3, {name: item.with_zero() for name, item in ranges.items()}, "percentile")
    write_cache(path, KEY, calibration)
    assert repr(read_cache(path, KEY).calibration) == repr(calibration)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_kept(file: Path, value: float) -> None:
    write_cache(file, KEY, Calibration({"relu": Range(0.0, value)}, 64))
    assert read_cache(file, KEY) == Found(CALIBRATION)


def refuse_or_equal(path: Path) -> None:
    """The file is refused with its name and a remedy, or it says what it said."""
    try:
        assert read_cache(path, KEY) == Found(CALIBRATION)
    except ModelError as error:
        assert error.code == "calibration_cache_damaged" and str(path) in error.message and "Delete" in error.remedy


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_bytes_never_give_other_ranges(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    write_cache(path, KEY, CALIBRATION)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    refuse_or_equal(path)


def test_one_bit_anywhere_never_gives_other_ranges(file: Path) -> None:
    """The lowest bit makes another digit of a digit: 12.912 becomes 12.913."""
    whole = file.read_bytes()
    for place in range(len(whole)):
        content = bytearray(whole)
        content[place] ^= 1
        file.write_bytes(content)
        refuse_or_equal(file)


def test_a_file_cut_anywhere_is_refused(file: Path) -> None:
    content = file.read_bytes()
    for length in range(len(content) - 1):
        file.write_bytes(content[:length])
        with pytest.raises(ModelError, match=r"not a calibration that can be used"):
            read_cache(file, KEY)
    file.write_bytes(content[:-1])  # all but the end of the last line
    assert read_cache(file, KEY) == Found(CALIBRATION)


def nested(value: dict[str, Any], *path: str) -> dict[str, Any]:
    for name in path:
        value = value[name]
    return value


EDITS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another version": (lambda value: value.update(format_version=2), "format_version"),
    "another kind": (lambda value: value.update(kind="apex-x-engine"), "kind"),
    "no images": (lambda value: value.update(images=0), "images"),
    "images in words": (lambda value: value.update(images="64"), "images"),
    "a field more": (lambda value: value.update(note=""), "note"),
    "a field less": (lambda value: value.pop("quantised"), "quantised"),
    "a key without a part": (lambda value: value["key"].pop("profile"), "key.profile"),
    "a key with another part": (lambda value: value["key"].update(seed=0), "key.seed"),
    "a method that is none": (lambda value: value["key"].update(method="mse"), "key.method"),
    "a digest too short": (lambda value: value["key"].update(data_sha256="a"), "key.data_sha256"),
    "another key": (lambda value: value["key"].update(profile="quality"), "not the digest of its key"),
    "ranges as a list": (lambda value: value.update(ranges=[]), "ranges"),
    "a range without an end": (lambda value: nested(value, "ranges", "relu").pop("least"), "ranges.relu.least"),
    "a range in words": (lambda value: nested(value, "ranges", "relu").update(least="0"), "ranges.relu.least"),
    "NaN": (lambda value: nested(value, "ranges", "relu").update(largest=float("nan")), "ranges.relu.largest"),
    "infinity": (lambda value: nested(value, "ranges", "relu").update(largest=float("inf")), "ranges.relu.largest"),
    "ends swapped": (lambda value: nested(value, "ranges", "relu").update(least=99.0), "ranges.relu.*larger than the largest"),
    "quantised without 0": (lambda value: nested(value, "quantised", "relu").update(least=1.0), "relu does not contain 0"),
}


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("sealed", [False, True], ids=["as it was sealed", "sealed anew"])
def test_what_does_not_fit_is_named_whatever_the_seal_says(file: Path, name: str, sealed: bool) -> None:
    edit, words = EDITS[name]
    value = json.loads(file.read_text())
    edit(value)
    if sealed and name not in ("NaN", "infinity"):
        value["sha256"] = digest_of({part: item for part, item in value.items() if part != "sha256"})
    file.write_text(json.dumps(value))
    with pytest.raises(ModelError, match=words) as caught:
        read_cache(file, KEY)
    assert caught.value.code == "calibration_cache_damaged" and caught.value.path == str(file)


def test_other_numbers_under_the_old_seal_are_refused(file: Path) -> None:
    file.write_text(file.read_text().replace("12.912", "12.913"))
    with pytest.raises(ModelError, match="changed after it was written"):
        read_cache(file, KEY)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff\xfe", b"[]", b"null", b"[" * 100_000, b'{"ranges": ' * 50_000])
def test_what_is_no_such_file_at_all_is_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ModelError, match="not a calibration"):
        read_cache(file, KEY)


def test_a_file_too_large_is_not_read_whole(file: Path) -> None:
    with file.open("ab") as stream:
        stream.truncate(1 << 36)  # sparse: 64 GiB that take no room on the disk
    with pytest.raises(ModelError, match=f"larger than {MAX_CACHE_BYTES >> 20} MiB"):
        read_cache(file, KEY)


def test_a_place_where_nothing_can_be_has_nothing(tmp_path: Path) -> None:
    """As for a cache that cannot be written: a build goes on without one."""
    (tmp_path / "file").write_text("")
    assert read_cache(tmp_path / "file" / "ranges.json", KEY) == Found(None)


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="directory") as caught:
        read_cache(tmp_path, KEY)
    assert caught.value.code == "calibration_cache_damaged"


WRITER = """
import sys
from pathlib import Path
from apex_runtime.precision.calibration_cache import write_cache
from apex_runtime.precision.calibration_key import CacheKey
from apex_runtime.precision.ranges import Calibration, Range
key = CacheKey.model_validate_json(sys.argv[2])
for turn in range(60):
    ranges = {f"t{index}": Range(-float(index), float(sys.argv[3])) for index in range(400)}
    write_cache(Path(sys.argv[1]), key, Calibration(ranges, turn + 1))
"""


def test_two_processes_at_once_leave_a_whole_file(file: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(file), KEY.model_dump_json()]
    writers = [subprocess.Popen([*command, who]) for who in ("1", "2")]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        found = read_cache(file, KEY).calibration
        assert found is not None
        ends = {item.largest for item in found.ranges.values()} if found != CALIBRATION else {0.0}
        assert len(ends) == 1 and len(found.ranges) in (400, len(RANGES))
        seen |= ends
    assert [writer.wait() for writer in writers] == [0, 0]
    assert seen & {1.0, 2.0} and list(file.parent.iterdir()) == [file]


def test_model_profile_and_method_have_a_file_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APEX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    path = default_cache_file("model.onnx", "edge", "minmax")
    assert path.parent == tmp_path / "cache" / "calibration" and path.suffix == ".json"
    assert path == default_cache_file(tmp_path / "x" / ".." / "model.onnx", "edge", "minmax")
    others = [("other.onnx", "edge", "minmax"), ("model.onnx", "quality", "minmax"), ("model.onnx", "edge", "entropy")]
    assert len({path, *(default_cache_file(*other) for other in others)}) == 4

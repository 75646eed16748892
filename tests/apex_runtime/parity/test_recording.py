"""A recording answers like the session it was made of, and nothing else; a damaged one is refused."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from tiny_model import write_tiny_model

from apex_runtime.backends.ort import OrtSession
from apex_runtime.errors import ModelError, UsageError
from apex_runtime.model_info import OUTPUT_NAMES
from apex_runtime.parity import recording as module
from apex_runtime.parity.check import Settings, check_parity
from apex_runtime.parity.record import record
from apex_runtime.parity.recording import RecordingSession, read_recording
from apex_runtime.parity.report import to_dict
from apex_runtime.parity.tolerance import load_profile
from apex_runtime.routing.budget import parse_budget


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("recorded") / "tiny.onnx")


@pytest.fixture
def settings(repo_root: Path) -> Settings:
    budgets = (parse_budget("0.25"), parse_budget("1.0"))
    samples = repo_root / "engines" / "samples" / "797945873ca2a95f.jpg"
    return Settings(budgets, load_profile("quality"), images=samples, threads=1, batches=(1, 2))


@pytest.fixture
def made(model: Path, settings: Settings, tmp_path: Path) -> Path:
    path = tmp_path / "here.json"
    record(model, settings, path, check_progress)
    return path


def check_progress(_total: int):
    from contextlib import nullcontext

    return nullcontext(lambda done, failed: None)


def without_times(document: dict) -> dict:
    return {key: value for key, value in document.items() if key != "created_utc"}


def test_it_gives_the_verdict_and_the_numbers_of_the_live_session(model: Path, made: Path, settings: Settings) -> None:
    live = to_dict(check_parity(model, [model], settings))
    for reference, candidate in ((model, made), (made, model), (made, made)):
        replayed = to_dict(check_parity(reference, [candidate], settings))
        assert replayed["verdict"] == live["verdict"] == "pass"
        assert replayed["comparisons"][0]["budgets"] == live["comparisons"][0]["budgets"]
    again = [without_times(to_dict(check_parity(model, [made], settings))) for _ in range(2)]
    assert json.dumps(again[0]) == json.dumps(again[1])


def test_a_fault_on_the_other_machine_is_seen_here(model: Path, settings: Settings, tmp_path: Path, monkeypatch) -> None:
    plain = OrtSession.run

    def spoilt(self: OrtSession, *feeds: object) -> dict[str, np.ndarray]:
        outputs = plain(self, *feeds)
        return outputs | {"scores": outputs["scores"] + np.float32(0.01)}

    monkeypatch.setattr(OrtSession, "run", spoilt)
    record(model, settings, tmp_path / "gpu.json", check_progress)
    monkeypatch.setattr(OrtSession, "run", plain)
    result = check_parity(model, [tmp_path / "gpu.json"], settings)
    assert not result.passed
    assert any("scores" in reason for reason in result.comparisons[0].reasons)


def test_it_obeys_its_schema(made: Path, repo_root: Path) -> None:
    schema = json.loads((repo_root / "apex_runtime" / "schemas" / "recording.schema.json").read_text())
    document = json.loads(made.read_text())
    jsonschema.validate(document, schema)
    # 5 images; alone each at two budgets, left alone and forced; in pairs 3 runs of at most 2 images, the same twice
    assert len(document["runs"]) == len(set(document["runs"])) and document["subject"]["backend"] == "ort-cpu"


@pytest.mark.parametrize(("change", "what"), [({"budgets": (parse_budget("0.5"),)}, "0.5"), ({"batches": (3,)}, "batch")])
def test_what_was_not_asked_then_is_not_answered_now(
    model: Path, made: Path, settings: Settings, change: dict, what: str
) -> None:
    from dataclasses import replace

    (comparison,) = check_parity(model, [made], replace(settings, **change)).comparisons
    assert any("not_recorded" in reason for reason in comparison.reasons), what


def test_outputs_that_were_changed_are_refused(made: Path) -> None:
    outputs = made.with_suffix(".npz")
    data = bytearray(outputs.read_bytes())
    data[len(data) // 2] ^= 1
    outputs.write_bytes(data)
    with pytest.raises(ModelError, match="not the file that was recorded"):
        RecordingSession.open(made)
    outputs.unlink()
    with pytest.raises(ModelError, match="not the outputs of this recording"):
        RecordingSession.open(made)


def test_too_much_is_not_unpacked(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(made.with_suffix(".npz")) as archive:
        size = sum(item.file_size for item in archive.infolist())
    monkeypatch.setattr(module, "MAX_OUTPUT_BYTES", size - 1)
    with pytest.raises(ModelError, match="are the limit"):
        RecordingSession.open(made)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "apex-x-recording"}', "\x00", "[" * 100_000])
def test_other_json_is_no_recording(tmp_path: Path, text: str) -> None:
    path = tmp_path / "parity.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="not a recording"):
        read_recording(path)


def forge(made: Path, data: bytes) -> None:
    """Other outputs, and the digest that fits them."""
    outputs = made.with_suffix(".npz")
    outputs.write_bytes(data)
    made.write_text(json.dumps(json.loads(made.read_text()) | {"outputs_sha256": module.sha256_of(outputs)}))


def changed(made: Path, edit: Callable[[str, np.ndarray], np.ndarray]) -> bytes:
    stream = io.BytesIO()
    with np.load(made.with_suffix(".npz")) as arrays:
        np.savez_compressed(stream, **{name: edit(name.split("/")[1], arrays[name]) for name in arrays.files})
    return stream.getvalue()


def test_objects_are_not_unpickled(made: Path) -> None:
    forge(made, changed(made, lambda _, array: np.array([{"a": 1}] * len(array), dtype=object)))
    with pytest.raises(ModelError, match="not the outputs"):
        RecordingSession.open(made)


def damaged(made: Path) -> bytes:
    data = bytearray(made.with_suffix(".npz").read_bytes())
    with zipfile.ZipFile(made.with_suffix(".npz")) as archive:
        first = archive.infolist()[0]
    start = first.header_offset + 30 + len(first.filename.encode())
    data[start : start + 40] = b"\xff" * 40
    return bytes(data)


def encrypted(made: Path) -> bytes:
    data = bytearray(made.with_suffix(".npz").read_bytes())
    data[data.find(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def endless(made: Path) -> bytes:
    """A header that promises 4 TB, and nothing behind it."""
    header, stream = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    with np.load(made.with_suffix(".npz")) as arrays, zipfile.ZipFile(stream, "w") as archive:
        for name in arrays.files:
            archive.writestr(f"{name}.npy", header.getvalue())
    return stream.getvalue()


@pytest.mark.parametrize("make", [damaged, encrypted, endless])
def test_an_archive_that_cannot_be_read_is_refused(made: Path, make: Callable[[Path], bytes]) -> None:
    forge(made, make(made))
    with pytest.raises(ModelError, match="not the outputs of this recording"):
        RecordingSession.open(made)


@pytest.mark.parametrize("name", OUTPUT_NAMES)
@pytest.mark.parametrize("edit", [lambda array: array[:0], lambda array: array[0], lambda array: array.astype(str)])
def test_outputs_of_another_form_than_the_passport_names(
    model: Path, made: Path, settings: Settings, name: str, edit: Callable[[np.ndarray], np.ndarray]
) -> None:
    forge(made, changed(made, lambda own, array: edit(array) if own == name else array))
    for reference, candidate in ((model, made), (made, model)):
        (comparison,) = check_parity(reference, [candidate], settings).comparisons
        assert any(f"the recorded {name} is" in reason for reason in comparison.reasons)


def test_the_name_ends_in_json(model: Path, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.json"):
        record(model, settings, tmp_path / "gpu.npz", check_progress)
    assert not list(tmp_path.iterdir())

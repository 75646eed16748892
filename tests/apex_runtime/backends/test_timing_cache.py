"""Timings are kept from one build to the next; whatever is wrong with their file costs a note and no build."""

from __future__ import annotations

from pathlib import Path

import pytest

from apex_runtime.backends.sealed_file import NotUsable, read_sealed, write_sealed
from apex_runtime.backends.timing_cache import TimingCache
from apex_runtime.cache_folder import cache_folder


class FakeConfig:
    """A builder's configuration whose "timings" are the bytes it was given and one more per build."""

    def __init__(self, refuses: bool = False) -> None:
        self.refuses = refuses
        self.given: list[bytes] = []
        self.cache: bytes | None = None

    def create_timing_cache(self, data: bytes) -> bytes:
        self.given.append(data)
        return data

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if self.refuses and cache:
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> object:
        from types import SimpleNamespace

        return None if self.cache is None else SimpleNamespace(serialize=lambda: self.cache + b"t")


@pytest.fixture
def notes() -> list[str]:
    return []


def built(path: Path | None, notes: list[str], version: str = "11.0", capability: int = 90, refuses: bool = False) -> FakeConfig:
    config = FakeConfig(refuses)
    cache = TimingCache("tensorrt", version, capability, path, notes.append)
    cache.attach(config)
    cache.keep(config)
    return config


def test_a_build_starts_from_what_the_last_one_left(tmp_path: Path, notes: list[str]) -> None:
    path = tmp_path / "deep" / "timings"
    assert [built(path, notes).given for _ in range(3)] == [[b""], [b"t"], [b"tt"]]
    assert not notes and [item.name for item in path.parent.iterdir()] == ["timings"], "written in one step"


def test_without_a_file_it_is_the_users_one_per_version_and_gpu(
    tmp_path: Path, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "apex-x"
    for version, capability in (("11.0", 90), ("11.0", 89), ("12.0", 90)):
        assert built(None, notes, version, capability).given == [b""]
    assert {path.name for path in (tmp_path / "apex-x" / "timing").iterdir()} == {
        "tensorrt-11.0-sm90.cache",
        "tensorrt-11.0-sm89.cache",
        "tensorrt-12.0-sm90.cache",
    }
    assert built(None, notes).given == [b"t"] and not notes


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data[:-1], "damaged"),
        (lambda data: data[:40] + b"\0" + data[41:], "damaged"),
        (lambda _data: b"", "no cache"),
        (lambda _data: b"timings of somebody else\n" * 9, "no cache"),
        (lambda data: data.replace(b"sm90", b"sm89"), "for tensorrt-11.0-sm89, not for tensorrt-11.0-sm90"),
    ],
)
def test_a_file_that_cannot_be_used_is_ignored_with_a_note_and_written_anew(
    tmp_path: Path, notes: list[str], spoil: object, words: str
) -> None:
    path = tmp_path / "timings"
    built(path, notes)
    path.write_bytes(spoil(path.read_bytes()))  # type: ignore[operator]
    assert built(path, notes).given == [b""]
    assert len(notes) == 1 and words in notes[0] and str(path) in notes[0]
    assert built(path, notes).given == [b"t"] and len(notes) == 1


def test_timings_that_tensorrt_refuses_are_replaced(tmp_path: Path, notes: list[str]) -> None:
    path = tmp_path / "timings"
    built(path, notes)
    assert built(path, notes, refuses=True).given == [b"t", b""]
    assert len(notes) == 1 and "refused by TensorRT" in notes[0]


def test_a_place_that_cannot_be_read_or_written_is_a_note(tmp_path: Path, notes: list[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    built(tmp_path / "file" / "timings", notes)
    assert any("cannot be written" in note for note in notes)
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(NotUsable, match="cannot be read"):
        read_sealed(folder, "anything")


def test_payloads_of_any_bytes_come_back(tmp_path: Path) -> None:
    payload = bytes(range(256)) + b"\n\n" * 3
    write_sealed(tmp_path / "a", "purpose", payload)
    assert read_sealed(tmp_path / "a", "purpose") == payload
    assert read_sealed(tmp_path / "absent", "purpose") == b""

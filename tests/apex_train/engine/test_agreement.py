"""What the processes of a run must have in common, told by processes that are made up: one real one, the others' words given."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from apex_runtime.data.open import open_dataset
from apex_runtime.errors import DataError, UsageError
from apex_train.config import FitConfig, load_config
from apex_train.engine.agreement import check_agreement, check_newest, facts_of
from apex_train.engine.device import Placement
from apex_train.engine.distributed import PeerError, Peers


class WithAnother(Peers):
    """Process 0 of two; the other one says ``answer`` of what this one says."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        super().__init__(Placement(torch.device("cpu"), 0, 2))
        self.answer = answer

    def gather(self, item: Any) -> list[Any]:
        return [item, self.answer(item)]


def config(**settings: object) -> FitConfig:
    return load_config(None, {key.replace("__", "."): value for key, value in settings.items()})


def splits(data: Path) -> dict[str, dict[str, Any]]:
    sets = {name: open_dataset(data, name) for name in ("train", "val")}
    return {name: {"images": len(item), "fingerprint": item.fingerprint()} for name, item in sets.items()}


@pytest.fixture
def here(nuclei_fixture: Path) -> dict[str, dict[str, Any]]:
    return splits(nuclei_fixture)


Asked = tuple[FitConfig, dict[str, dict[str, Any]], Path | None]


def disagreement(first: Asked, other: Asked, **more: str) -> str:
    """What process 0 says when process 1 has ``other``, and ``more`` facts; empty when it says nothing."""
    facts = facts_of(*other) | more
    try:
        check_agreement(WithAnother(lambda item: item and ("host-b", facts)), first[0], lambda: first[1], first[2])
    except UsageError as error:
        return str(error)
    return ""


def test_two_of_a_kind_agree_wherever_their_files_lie(nuclei_fixture: Path, here: dict, tmp_path: Path) -> None:
    there = splits(shutil.copytree(nuclei_fixture, tmp_path / "elsewhere"))
    a, b = (tmp_path / name for name in ("a.pt", "b.pt"))
    for file in (a, b):
        file.write_bytes(b"the same")
    one, other = (
        config(train__workers=n, train__device=device, train__sample_weights=str(file))
        for n, device, file in ((1, "ddp", a), (3, "auto", b))
    )
    assert disagreement((one, here, a), (other, there, b)) == ""


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"train__learning_rate": 0.01}, "train.learning_rate 0.01 (there 0.002)"),
        ({"train__evaluate_every": 2}, "train.evaluate_every 2 (there 5)"),  # free to change, but not in one of them
        ({"loss__box": 1, "loss__cls": 1, "augment__hue": 3, "train__seed": 4}, "and 1 more"),
    ],
)
def test_another_setting_is_named(here: dict, settings: dict[str, object], words: str) -> None:
    said = disagreement((config(), here, None), (config(**settings), here, None))
    assert words in said and "process 1, on host-b" in said


def test_other_annotations_images_and_weights_are_named(nuclei_fixture: Path, here: dict, tmp_path: Path) -> None:
    folder = shutil.copytree(nuclei_fixture, tmp_path / "there")
    image = open_dataset(folder, "val").records[0].path
    image.write_bytes(image.read_bytes() + b"\0")
    said = disagreement((config(), here, None), (config(), splits(folder), None))
    assert "split val of 3 images" in said and "split train" not in said
    alone = {"train": here["train"]}
    assert "split val absent (there of 3 images" in disagreement((config(), here, None), (config(), alone, None))
    first, other = tmp_path / "a.pt", tmp_path / "b.pt"
    first.write_bytes(b"1")
    other.write_bytes(b"2")
    for theirs in (other, None):
        assert "--init" in disagreement((config(), here, first), (config(), here, theirs))


def test_another_version_is_named(here: dict) -> None:
    said = disagreement((config(), here, None), (config(), here, None), torch="2.12.0")
    assert "torch 2.12.0 (there " in said


def test_an_older_folder_is_not_gone_on_with(tmp_path: Path) -> None:
    last = tmp_path / "last.pt"
    torch.save({"format_version": 1, "training": {"step": 20}}, last)
    for step in (-1, 19, 20):
        check_newest(WithAnother(lambda item, step=step: item and ("host-b", step)), last)
    with pytest.raises(UsageError, match=r"on host-b, has one of step 21; .* has only step 20"):
        check_newest(WithAnother(lambda item: item and ("host-b", 21)), last)
    last.unlink()
    with pytest.raises(UsageError, match="has none"):
        check_newest(WithAnother(lambda item: item and ("host-b", 0)), last)


def test_what_fails_in_one_process_ends_the_others() -> None:
    quiet = WithAnother(lambda _: None)
    assert quiet.together(lambda: 3) == 3
    with pytest.raises(DataError, match=r"^no data. Get some.$"):
        quiet.together(lambda: _fail(DataError("no data.", "Get some.")))
    failing = WithAnother(lambda _: ("process 1 of 2 on host-b: no data.", "Get some.", 2))
    with pytest.raises(PeerError, match=r"process 1 of 2 on host-b: no data\. Get some\.") as found:
        failing.together(lambda: 3)
    assert found.value.exit_code == 2
    told: list[Any] = []
    with pytest.raises(FileNotFoundError):
        WithAnother(lambda item: told.append(item)).together(lambda: Path("/nowhere/at/all").read_bytes())
    assert "/nowhere/at/all" in told[0][0] and told[0][2] == 1


def _fail(error: Exception) -> None:
    raise error


def test_nothing_is_asked_of_a_process_alone(tmp_path: Path) -> None:
    alone = Peers(Placement(torch.device("cpu")))
    check_newest(alone, tmp_path / "none.pt")
    assert alone.together(lambda: FitConfig()) == FitConfig()

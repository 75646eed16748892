"""Long runs, broken files and kills, very small; and judges that notice what went wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from broken_files import WAYS, break_file
from click.testing import CliRunner, Result
from endurance import endurance, growth, judge_broken, link_images
from killed_runs import files_of, results_of
from tiny_model import write_tiny_model

from apex_runtime.data.image import decode_image
from apex_runtime.errors import ImageError


def ran(command: str, images: Path, folder: Path, *more: object) -> tuple[Result, dict[str, Any]]:
    engine = write_tiny_model(folder / "model.onnx", height=192, width=192)
    words = [command, "--data", images, "--engine", engine, "--output", folder / "evidence.json", *more]
    done = CliRunner().invoke(endurance, [str(word) for word in words], catch_exceptions=False)
    return done, json.loads((folder / "evidence.json").read_text())


@pytest.fixture
def images(nuclei_fixture: Path) -> Path:
    return nuclei_fixture / "images"


@pytest.mark.parametrize("way", WAYS)
def test_what_was_broken_cannot_be_decoded(way: str, images: Path, tmp_path: Path) -> None:
    healthy = next(images.iterdir())
    decode_image(healthy)
    with pytest.raises(ImageError):
        decode_image(break_file(way, healthy, tmp_path / "bad"))


def test_memory_is_watched_to_the_end(images: Path, tmp_path: Path) -> None:
    _done, found = ran("memory", images, tmp_path, "--images", 40, "--settled", 4, "--distinct", 3)
    assert found["exit_code"] == 0 and found["first_bytes"] > 20e6 and found["peak_bytes"] >= found["last_bytes"]
    assert found["samples"][-1][0] > 20 and not Path(found["circumstances"]["command"].split()[1]).is_absolute()


def test_links_are_to_so_many_images_in_turn(images: Path, tmp_path: Path) -> None:
    links = link_images(images, tmp_path / "images", 7, 3)
    assert [link.resolve() for link in links[3:]] == [link.resolve() for link in links[:4]]
    assert len({link.resolve() for link in links}) == 3 and len(set(links)) == 7


def test_growth_is_from_one_end_to_the_other_and_deaf_to_a_spike() -> None:
    steady = [(number, 100) for number in range(50)]
    assert growth(steady)["growth_percent"] == 0
    steady[48] = (48, 500)
    assert growth(steady)["growth_percent"] == 0
    assert growth([(number, 100 + number) for number in range(101)])["growth_percent"] == pytest.approx(
        100 * (195.5 / 104.5 - 1), 1
    )


def test_every_broken_file_is_named_and_every_good_one_done(images: Path, tmp_path: Path) -> None:
    done, found = ran("broken", images, tmp_path, "--images", 24)
    assert done.exit_code == 0 and found["exit_code"] == 1 and set(found["said"]) == set(WAYS)
    assert found["broken"] == 10 and found["good"] == 14 and len(set(found["said"].values())) > 6


def test_names_that_are_missing_or_in_the_wrong_file_are_seen(images: Path, tmp_path: Path) -> None:
    good, bad = link_images(images, tmp_path / "images", 3), {Path("x-bad.png"): "text", Path("y-bad.png"): "empty"}
    (tmp_path / "results.jsonl").write_text("".join(json.dumps({"file_name": path.name}) + "\n" for path in good[:2]))
    (tmp_path / "failures.json").write_text(
        json.dumps([{"file_name": name, "reason": "no"} for name in ("x-bad.png", good[1].name)])
    )
    found = judge_broken(tmp_path, good, bad)
    assert found["good_lost"] == [good[2].name] and found["good_named"] == [good[1].name]
    assert found["bad_unnamed"] == ["y-bad.png"] and found["said"] == {"text": "no"}


def test_killed_runs_end_as_if_nothing_had_happened(images: Path, tmp_path: Path) -> None:
    done, found = ran("kills", images, tmp_path, "--images", 12, "--kills", 1, "--save", "annotated", "--min-score", "0.001")
    assert done.exit_code == 0 and [row["equal"] for row in found["rows"]] == [True], done.output
    assert found["refused"] == {"engine": True, "budget": True, "min_score": True}


def test_other_results_and_files_left_behind_are_seen(tmp_path: Path) -> None:
    for name, score, milliseconds in (("a", 0.5, 1), ("b", 0.5, 2), ("c", 0.6, 1)):
        (tmp_path / name).mkdir()
        document = {"images": [{"id": 1, "milliseconds": {"graph": milliseconds}}], "annotations": [{"score": score}]}
        (tmp_path / name / "results.json").write_text(json.dumps(document))
    a, b, c = (results_of(tmp_path / name) for name in "abc")
    assert a == b != c
    (tmp_path / "b" / ".results.tmp").write_text("")
    assert files_of(tmp_path / "a") == ["results.json"] != files_of(tmp_path / "b")

"""A job gives what one run gives, whatever dies meanwhile; every image has one answer."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from killed_runs import files_of, results_of
from offline_workers import answers_here, images_in

from apex_runtime.bundle.load import Opened
from apex_runtime.errors import BackendError, DataError, UsageError
from apex_runtime.offline import block_run
from apex_runtime.offline.block_run import Work
from apex_runtime.offline.blocks import Block
from apex_runtime.offline.cluster import Pool
from apex_runtime.offline.job import Job, Plan
from apex_runtime.offline.outcome import Outcome
from apex_runtime.offline.parcel import Passport
from apex_runtime.offline.rounds import LOST, Answers
from apex_runtime.offline.worker import BlockWorker

pytest.importorskip("pyarrow", reason="the extra ray is not installed")

SETTINGS: dict[str, Any] = {"budget": "0.5"}
POOL = Pool(2, 1, False)


class Bench:
    """Jobs over one folder of images, with workers that may be replaced."""

    def __init__(self, folder: Path, output: Path, work: Work, opened: Opened, passport: Passport) -> None:
        self.folder, self.output, self.work, self.opened, self.passport = folder, output, work, opened, passport

    def answers(self, dies: Callable[[Block], bool] = lambda block: False) -> Answers:
        return answers_here(self.opened, self.work, self.output.parent, dies)

    def run(self, answers: Answers | None = None, block: int = 3, resume: bool = False, **more: Any) -> dict[str, Any]:
        plan = Plan(images_in(self.folder), self.work, self.output, SETTINGS, block, more.pop("shards", "jsonl"))
        return Job(plan, self.passport, **more).execute(answers or self.answers(), POOL, resume)


@pytest.fixture
def jobs(folder: Path, tmp_path: Path, work: Work, opened: Opened, passport: Passport) -> Bench:
    return Bench(folder, tmp_path / "out", work, opened, passport)


def failures(output: Path) -> list[dict[str, str]]:
    return json.loads((output / "failures.json").read_text())


def same(plain: Path, output: Path) -> None:
    """All files but those with times in them are the same; these without the times."""
    assert results_of(output) == results_of(plain)
    assert [name for name in files_of(output) if not name.startswith("shards/")] == files_of(plain)
    for name in files_of(plain):
        if name not in ("results.json", "results.jsonl", "summary.json", "summary.csv"):
            assert (output / name).read_bytes() == (plain / name).read_bytes(), name
    names = [[json.loads(line)["file_name"] for line in (each / "results.jsonl").open()] for each in (plain, output)]
    assert names[0] == names[1]


@pytest.mark.parametrize("block", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(50, marks=pytest.mark.slow)])
def test_results_are_those_of_one_run(jobs: Bench, plain: Path, block: int) -> None:
    seen: list[tuple[int, int]] = []
    summary = jobs.run(block=block, progress=lambda done, failed: seen.append((done, failed)))
    same(plain, jobs.output)
    assert seen[0] == (0, 0) and seen[-1] == (9, 2) and len(seen) == 1 + -(-11 // block)
    one = json.loads((plain / "summary.json").read_text())
    for name in ("status", "images", "detections", "tiles_spent"):
        assert summary[name] == one[name], name
    assert summary["backend"]["executed"] == "ort-cpu" and summary["ray"]["blocks"] == -(-11 // block)
    assert (jobs.output / "labels" / "7.png.txt").is_file(), "7.jpg is in another block, and has the same stem"


def test_an_image_that_kills_workers_is_named_and_nothing_else_is_lost(jobs: Bench, plain: Path) -> None:
    summary = jobs.run(jobs.answers(lambda block: any(image.name == "4.png" for image in block.images)))
    assert summary["status"] == "done" and summary["images"] == {"found": 11, "done": 8, "failed": 3, "resumed": 0}
    (lost,) = [item for item in failures(jobs.output) if item["code"] == LOST]
    assert lost["file_name"] == "4.png" and "3 times" in lost["reason"]
    expected = [image["file_name"] for image in results_of(plain)["images"] if image["file_name"] != "4.png"]
    assert [image["file_name"] for image in results_of(jobs.output)["images"]] == expected
    assert jobs.run(resume=True)["images"] == {"found": 11, "done": 9, "failed": 2, "resumed": 8}
    same(plain, jobs.output)


def test_workers_that_die_now_and_then_change_nothing(jobs: Bench, plain: Path) -> None:
    seen: set[str] = set()

    def the_first_time(block: Block) -> bool:
        new = block.key not in seen and len(block.images) > 1
        seen.add(block.key)
        return new

    assert jobs.run(jobs.answers(the_first_time))["status"] == "done"
    same(plain, jobs.output)


class Killed(BaseException):
    """As if the process ended here."""


def dying(answers: Answers, after: int) -> Answers:
    def some(blocks: Sequence[Block], in_flight: int) -> Generator[Outcome, None, None]:
        for count, outcome in enumerate(answers(blocks, in_flight)):
            if count == after:
                raise Killed
            yield outcome

    return some


@pytest.mark.parametrize(("after", "then"), [(2, 2), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in ((0, 3), (1, 3)))])
def test_a_job_goes_on_from_its_shards(jobs: Bench, plain: Path, after: int, then: int) -> None:
    with pytest.raises(Killed):
        jobs.run(dying(jobs.answers(), after))
    with pytest.raises(UsageError, match="not finished"):
        jobs.run()
    did: list[str] = []
    summary = jobs.run(jobs.answers(lambda block: bool(did.extend(image.name for image in block.images))), then, resume=True)
    bad = {"2.png", "text.png"}
    assert len(set(did) - bad) + summary["images"]["resumed"] == 9 and bad <= set(did), "what failed is tried again"
    assert len(did) == len(set(did))
    same(plain, jobs.output)
    again = jobs.run(jobs.answers(lambda block: True), resume=True)
    assert again["images"]["resumed"] == 9 and again["images"]["failed"] == 2


def test_a_shard_that_was_cut_short_is_done_again(jobs: Bench, plain: Path) -> None:
    with pytest.raises(Killed):
        jobs.run(dying(jobs.answers(), 3))
    first, second, third = sorted((jobs.output / "shards").glob("*.jsonl"))
    first.write_bytes(first.read_bytes()[:-40])
    second.with_name(f"_{second.stem}.json").unlink()
    third.with_name(f"_{third.stem}.json").write_text('{"names": 3}')
    assert jobs.run(resume=True)["images"]["resumed"] == 0
    same(plain, jobs.output)


def test_a_shard_that_changes_before_the_merge_ends_the_job_loudly(jobs: Bench) -> None:
    def change(_done: int, _failed: int) -> None:
        for path in (jobs.output / "shards").glob("*.jsonl"):
            path.write_bytes(path.read_bytes().replace(b'"score":', b'"score": ', 1))

    with pytest.raises(DataError, match="changed"):
        jobs.run(progress=change)


def test_ctrl_c_keeps_what_is_there_and_the_rest_comes_later(jobs: Bench, plain: Path) -> None:
    stop = threading.Event()
    summary = jobs.run(stop=stop, progress=lambda done, _failed: stop.set() if done else None)
    assert summary["status"] == "interrupted" and 0 < summary["images"]["done"] < 9
    assert len(results_of(jobs.output)["images"]) == summary["images"]["done"]
    assert jobs.run(resume=True)["images"]["done"] == 9
    same(plain, jobs.output)


def test_an_engine_that_cannot_run_ends_the_job_with_its_words(jobs: Bench) -> None:
    def broken(blocks: Sequence[Block], _in_flight: int) -> Generator[Outcome, None, None]:
        yield Outcome(blocks[0].key, error="worker on a: no such backend.", remedy="Install it.")

    with pytest.raises(BackendError, match="worker on a: no such backend"):
        jobs.run(broken)
    assert jobs.run(resume=True)["images"]["done"] == 9


def test_a_worker_that_forgets_an_image_or_invents_one_is_not_believed(jobs: Bench) -> None:
    def wrong(blocks: Sequence[Block], in_flight: int) -> Generator[Outcome, None, None]:
        for outcome in jobs.answers()(blocks, in_flight):
            yield replace(outcome, lines=b"".join(outcome.lines.splitlines(keepends=True)[1:]))

    with pytest.raises(DataError, match="not one for each image"):
        jobs.run(wrong)


def test_a_worker_cannot_write_elsewhere(jobs: Bench, tmp_path: Path) -> None:
    def outside(blocks: Sequence[Block], in_flight: int) -> Generator[Outcome, None, None]:
        for outcome in jobs.answers()(blocks, in_flight):
            yield replace(outcome, files={"../evil.txt": b"x"})

    with pytest.raises(DataError, match="does not stay"):
        jobs.run(outside)
    assert not (tmp_path / "evil.txt").exists()


def test_other_settings_and_other_people_s_folders_are_refused(jobs: Bench) -> None:
    (jobs.output / "shards").mkdir(parents=True)
    (jobs.output / "shards" / "mine.txt").write_text("dear to me")
    with pytest.raises(UsageError, match="cannot be told"):
        jobs.run()
    (jobs.output / "shards" / "mine.txt").rename(jobs.output / "mine.txt")
    (jobs.output / "shards").rmdir()
    jobs.run()
    SETTINGS["budget"] = "1.0"
    try:
        with pytest.raises(UsageError, match="the run to resume had budget"):
            jobs.run(resume=True)
        before = set((jobs.output / "shards").iterdir())
        jobs.run(block=5)
        assert before.isdisjoint((jobs.output / "shards").iterdir()), "a finished job is replaced, its shards too"
    finally:
        SETTINGS["budget"] = "0.5"


@pytest.mark.slow
def test_images_that_came_later_move_the_ids_of_what_is_done(jobs: Bench, opened: Opened, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        jobs.run(dying(jobs.answers(), 2))
    (jobs.folder / "0.png").rename(jobs.folder / "text.png")
    (jobs.folder / "7.png").rename(jobs.folder / "0-new.png")
    jobs.run(resume=True)
    fresh = Bench(jobs.folder, tmp_path / "fresh", jobs.work, opened, jobs.passport)
    fresh.run()
    old, new = results_of(jobs.output), results_of(fresh.output)
    assert [image["id"] for image in old["images"]] == [image["id"] for image in new["images"]]
    assert old["annotations"] == new["annotations"] or {"text.png"} == {
        one["file_name"] for one, other in zip(old["images"], new["images"], strict=True) if one != other
    }


def test_parquet_shards_say_the_same(jobs: Bench) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    with pytest.raises(Killed):
        jobs.run(dying(jobs.answers(), 2))
    assert jobs.run(shards="parquet", resume=True)["images"]["resumed"] == 0, "there are no tables of what was done"
    rows = parquet.read_table(jobs.output / "shards").to_pylist()
    results = results_of(jobs.output)
    assert [(row["id"], row["file_name"]) for row in rows] == [(one["id"], one["file_name"]) for one in results["images"]]
    found = [item for row in rows for item in row["annotations"]]
    for mine, theirs in zip(found, results["annotations"], strict=True):
        for key in ("id", "category_id", "bbox", "score", "area", "segmentation"):
            assert mine[key] == theirs[key], key
    (large,) = [row for row in rows if row["file_name"] == "deep/large.png"]
    assert {tile["window"] for tile in large["tiles"]} - {None}


def test_a_full_disk_of_a_worker_ends_the_job(jobs: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(url: str, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(block_run, "fetch", full)
    urls = [replace(image, location=f"file://{image.location}") for image in images_in(jobs.folder)]
    with pytest.raises(OSError, match="No space left"):
        Job(Plan(urls, jobs.work, jobs.output, SETTINGS, 4), jobs.passport).execute(jobs.answers(), POOL)


@pytest.mark.parametrize(("code", "remedy"), [(errno.ENOSPC, "Make room on that"), (errno.EACCES, "Mend that on the")])
def test_only_a_full_disk_is_answered_with_room(code: int, remedy: str, jobs: Bench, work: Work, passport: Passport) -> None:
    worker = BlockWorker(work, [], passport.digest, "0")
    worker._error = OSError(code, os.strerror(code))
    outcome = worker._answer(Block(tuple(images_in(jobs.folder))[:1]))
    assert os.strerror(code) in outcome.error and outcome.remedy == f"{remedy} machine, then go on with --resume."


@pytest.mark.slow
def test_a_failure_beside_a_table_may_be_mended_without_tables(jobs: Bench, plain: Path) -> None:
    good = (jobs.folder / "0.png").read_bytes()
    (jobs.folder / "0.png").write_bytes(b"")
    assert jobs.run(block=1, shards="parquet")["images"]["failed"] == 3
    (jobs.folder / "0.png").write_bytes(good)
    assert jobs.run(block=1, resume=True)["images"] == {"found": 11, "done": 9, "failed": 2, "resumed": 8}
    same(plain, jobs.output)


@pytest.mark.slow
def test_other_files_among_the_shards_cost_nothing(jobs: Bench) -> None:
    with pytest.raises(Killed):
        jobs.run(dying(jobs.answers(), 2))
    for name in ("_", "0", "00.txt", ".0.part", "json"):  # parts of the names of shards
        (jobs.output / "shards" / name).write_text("of somebody")
    did: list[str] = []
    summary = jobs.run(jobs.answers(lambda block: bool(did.extend(image.name for image in block.images))), resume=True)
    assert summary["images"]["resumed"] >= 4 and len(did) == 11 - summary["images"]["resumed"]
    assert (jobs.output / "shards" / "00.txt").read_text() == "of somebody"


def test_shards_without_a_journal_are_still_of_their_settings(jobs: Bench) -> None:
    jobs.run()
    (jobs.output / "results.jsonl").unlink()
    plan = Plan(images_in(jobs.folder), jobs.work, jobs.output, SETTINGS | {"budget": "0.25"})
    with pytest.raises(UsageError, match=r"had budget '0\.5'"):
        Job(plan, jobs.passport).execute(jobs.answers(), POOL, resume=True)


def test_images_of_a_store_give_what_files_give(jobs: Bench, plain: Path) -> None:
    pytest.importorskip("fsspec")
    urls = [
        replace(image, location=f"file://{image.location}", shown=f"file://{image.location}") for image in images_in(jobs.folder)
    ]
    urls.append(replace(urls[0], name="zz.png", number=12, location="file:///none/zz.png", shown="file:///none/zz.png"))
    plan = Plan(urls, jobs.work, jobs.output, SETTINGS, 4)
    summary = Job(plan, jobs.passport).execute(jobs.answers(), POOL)
    assert results_of(jobs.output) == results_of(plain)
    assert summary["images"] == {"found": 12, "done": 9, "failed": 3, "resumed": 0}
    for item, image in zip(failures(jobs.output), ("2.png", "text.png", "zz.png"), strict=True):
        assert item["file_name"] == image and item["reason"].startswith("file:///") and "worker" not in item["reason"]
    assert not (jobs.output.parent / "block").exists(), "what was fetched is gone"

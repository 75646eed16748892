"""What a study lacks, and that it is not judged before it has everything."""

import io
import os
import queue
import threading
from pathlib import Path

import pytest

from apex_runtime.errors import DataError
from apex_train.ablation.journal import Entry, Journal
from apex_train.ablation.plan import plan
from apex_train.ablation.run import Setting, _lent, entries_of, missing, run_all
from apex_train.ablation.study import Study

STUDY = Study.model_validate(
    {
        "name": "tiles",
        "data": "nuclei",
        "epochs": 1,
        "evaluate": {"budget": 0.5},
        "seeds": [0, 1],
        "test": "student",
        "factors": [{"key": "evaluate.choice", "levels": ["router", "random"]}],
    }
)


def test_only_cells_that_are_missing_are_left(tmp_path: Path) -> None:
    trainings, journal = plan(STUDY, "data"), Journal(tmp_path)
    first, second = trainings
    assert missing(trainings, journal) == [first, second]
    values = iter((0.1, 0.2, 0.3, 0.4))
    for cell in (*first.cells, second.cells[0]):
        journal.add(Entry(key=cell.key, metric="mAP_segm", value=next(values), training_seconds=1, commit=None))
    assert [(each.key, each.cells) for each in missing(trainings, journal)] == [(second.key, second.cells[1:])]
    with pytest.raises(DataError, match="1 cells have no score"):
        entries_of(trainings, journal)
    journal.add(Entry(key=second.cells[1].key, metric="mAP_segm", value=next(values), training_seconds=1, commit=None))
    assert missing(trainings, journal) == []
    expected = {(("router",), 0): 0.1, (("random",), 0): 0.2, (("router",), 1): 0.3, (("random",), 1): 0.4}
    assert {place: entry.value for place, entry in entries_of(trainings, journal).items()} == expected


def test_a_study_that_was_stopped_begins_no_training(tmp_path: Path) -> None:
    stop, told = threading.Event(), []
    stop.set()
    setting = Setting(tmp_path / "out", "coco", jobs=2, threads=1, commit=None)
    assert run_all(STUDY, plan(STUDY, "data"), setting, stop, lambda done, failed: told.append((done, failed))) == []
    assert told == [(0, 0), (0, 0)]
    assert not (tmp_path / "out").exists()


def test_a_gpu_is_lent_to_one_training_at_a_time() -> None:
    """Two GPUs, four trainings at once: each GPU serves two; what is given back is lent again, also after an error."""
    free: queue.SimpleQueue[str] = queue.SimpleQueue()
    for gpu in ("3", "5"):
        free.put(gpu)
    with _lent(free) as first, _lent(free) as second:
        assert first is not None and second is not None
        assert [each["CUDA_VISIBLE_DEVICES"] for each in (first, second)] == ["3", "5"]
        assert free.empty() and first["PATH"] == os.environ["PATH"]
    with pytest.raises(OSError, match="no process"), _lent(free):
        raise OSError("no process")
    assert sorted(free.get() for _ in range(2)) == ["3", "5"]
    with _lent(None) as same:
        assert same is None


def test_every_training_sees_the_gpu_that_it_was_lent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Process:
        def __init__(self, *words: object, env: dict[str, str], **options: object) -> None:
            self.stdin = io.BytesIO()
            seen.append(env["CUDA_VISIBLE_DEVICES"])

        def poll(self) -> int:
            return 0

        def wait(self) -> int:
            return 0

    monkeypatch.setattr("apex_train.ablation.run.subprocess.Popen", Process)
    setting = Setting(tmp_path, "coco", jobs=1, threads=1, commit=None, gpus=("7",))
    assert run_all(STUDY, plan(STUDY, "data"), setting, threading.Event(), lambda done, failed: None) == []
    assert seen == ["7", "7"]

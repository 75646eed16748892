"""Memory runs out at random steps: the run ends, every recovery is counted, and the weights are those of an undisturbed run."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from apex_runtime.data.open import open_dataset
from apex_train.checkpoint import read_checkpoint
from apex_train.config import load_config
from apex_train.engine.device import Placement
from apex_train.engine.memory import MemoryGovernor, OutOfMemoryError, Plan, is_out_of_memory, telemetry
from apex_train.engine.probe import most_objects, probe_memory, worst_batch
from apex_train.engine.trainer import Trainer
from apex_train.model.detector import ApexDetector

EXACT = {
    "train.size": 128,
    "train.crop": 128,
    "train.batch": 4,
    "train.workers": 0,
    "train.epochs": 5,
    "train.warmup_steps": 1,
    "train.norm_statistics": "frozen",
}
TEXTS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: 12 bytes"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


@pytest.fixture
def make(nuclei_fixture: Path, tmp_path: Path):
    def build(name: str, **changes) -> Trainer:
        config = load_config(None, EXACT | {key.replace("__", "."): value for key, value in changes.items()})
        return Trainer(config, open_dataset(nuclei_fixture, "train"), None, tmp_path / name, Console(file=io.StringIO()))

    return build


def fail_at(run: Trainer, calls: set[int], error: BaseException = TEXTS[0], backward: bool = False) -> None:
    """Memory runs out in these forward passes (counted from 1), or in the backward pass behind them."""
    count, inner = 0, run.model.forward

    def forward(*arguments, **options):
        nonlocal count
        count += 1
        outputs = inner(*arguments, **options)
        if count in calls:
            if not backward:
                raise error
            outputs.utilities.register_hook(_raiser(error))
        return outputs

    run.model.forward = forward  # type: ignore[method-assign]


def _raiser(error: BaseException):
    def hook(_: torch.Tensor) -> None:
        raise error

    return hook


def difference(a: Trainer, b: Trainer) -> float:
    pairs = zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    return max(float((x - y).abs().max() / x.abs().max().clamp(min=1e-12)) for x, y in pairs if x.is_floating_point())


def drift(a: Trainer, b: Trainer) -> float:
    """Of all weights together. Adam's step has the size of its rate however small a gradient is, so the rounding of sums in
    another order can turn single weights; that says nothing of the run, and differs between processors."""
    states = (run.model.state_dict().values() for run in (a, b))
    x, y = (torch.cat([value.flatten() for value in state if value.is_floating_point()]) for state in states)
    return float((x - y).norm() / x.norm())


@pytest.mark.parametrize(("backward", "error"), [(False, TEXTS[0]), (True, TEXTS[1])], ids=["forward", "backward"])
def test_out_of_memory_at_random_steps_changes_nothing(make, backward: bool, error: BaseException) -> None:
    start, calm, disturbed = make("start"), make("calm"), make("disturbed")
    calm.fit()
    calls = set(np.random.default_rng(4).choice(np.arange(1, 8), 3, replace=False).tolist())
    fail_at(disturbed, calls, error, backward)
    disturbed.fit()
    assert disturbed.governor.recoveries == 3 and disturbed.governor.plan == Plan(1, recompute=True)
    assert disturbed.step == calm.step == 5 and disturbed.skipped_steps == 0
    assert drift(calm, disturbed) <= 1e-5 and drift(calm, start) > 1e-3
    lines = [[json.loads(line) for line in (run.output / "log.jsonl").open()] for run in (calm, disturbed)]
    assert [line["learning_rate"] for line in lines[0]] == [line["learning_rate"] for line in lines[1]]
    assert lines[1][-1]["memory"] | {"recoveries": 3, "micro_batch": 1, "accumulation": 4} == lines[1][-1]["memory"]
    assert "out_of_memory" in disturbed.console.file.getvalue()


def test_a_redone_step_is_to_the_bit_that_of_a_run_with_that_plan(make) -> None:
    """Running statistics included: nothing of the failed attempt is left."""
    calm, disturbed = (make(name, train__norm_statistics="batch") for name in ("calm", "disturbed"))
    fail_at(disturbed, {2, 5})  # the first pass of the second step, and of the third
    for run in (calm, disturbed):
        for epoch in range(3):
            run.sampler.epoch = epoch
            if run is calm and epoch:
                run.governor.plan = Plan(4 >> epoch)
            run.train_step(next(iter(run.loader)))
    assert disturbed.governor.plan == Plan(1) and difference(calm, disturbed) == 0


def test_the_learned_plan_survives_a_resume(make) -> None:
    run = make("run")
    fail_at(run, {1})
    run.fit(stop_after_epoch=1)
    again = make("run")
    again.resume(run.output / "last.pt")
    assert again.governor.plan == Plan(2) and again.governor.recoveries == 1


def test_skipping_gives_up_the_step_and_goes_on_smaller(make) -> None:
    run = make("run", train__on_oom="skip")
    fail_at(run, {2})
    run.fit()
    assert (run.step, run.skipped_steps, run.governor.plan.micro_batch) == (5, 1, 2)
    assert run.history[-1]["skipped_steps"] == 1 and np.isfinite(run.history[-1]["total"])


def test_the_last_rung_names_everything_that_was_tried(make) -> None:
    run = make("run")
    fail_at(run, set(range(1, 100)))
    with pytest.raises(OutOfMemoryError) as caught:
        run.fit()
    for plan in ("micro-batch 4", "micro-batch 2", "micro-batch 1", "micro-batch 1 with recomputation"):
        assert plan in caught.value.message
    assert caught.value.code == "out_of_memory" and caught.value.remedy


def test_other_errors_pass_through_untouched(make) -> None:
    run = make("run")
    fail_at(run, {1}, RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        run.fit()
    assert run.governor.recoveries == 0


@pytest.mark.parametrize("error", TEXTS, ids=lambda error: type(error).__name__)
def test_the_ways_memory_runs_out(error: BaseException) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("size mismatch"), KeyError("out of memory"), ValueError("memory")])
def test_what_is_no_want_of_memory(error: BaseException) -> None:
    assert not is_out_of_memory(error)


def test_a_step_runs_once_when_it_fits_and_never_again_after_it_did() -> None:
    governor, calls = MemoryGovernor(Plan(8)), []

    def attempt(plan: Plan) -> int:
        calls.append(plan)
        if plan.micro_batch > 2:
            raise MemoryError
        return plan.micro_batch

    undone: list[int] = []
    assert governor.run(attempt, lambda: undone.append(1)) == 2
    assert calls == [Plan(8), Plan(4), Plan(2)] and len(undone) == 2 and governor.recoveries == 2
    assert governor.run(attempt, lambda: undone.append(1)) == 2
    assert calls[3:] == [Plan(2)] and len(undone) == 2


def test_one_process_out_of_memory_makes_all_go_smaller() -> None:
    """``agree`` tells of another process: what was computed here is thrown away too."""
    answers = iter([[True], [False]])
    governor = MemoryGovernor(Plan(4), agree=lambda flags: next(answers))
    seen: list[int] = []
    assert governor.run(lambda plan: seen.append(plan.micro_batch) or plan.micro_batch, lambda: None) == 2
    assert seen == [4, 2]


def test_micro_batches_and_recomputation_give_the_gradients_of_the_whole(make) -> None:
    """Also of the running statistics: recomputing must not count a batch twice."""
    whole, cut = make("whole", train__norm_statistics="batch"), make("cut", train__norm_statistics="batch")
    batch = next(iter(whole.loader))
    cut.governor.plan = Plan(4, recompute=True)
    whole.train_step(batch)
    cut.train_step(batch)
    assert difference(whole, cut) <= 1e-6
    whole, cut = make("a"), make("b")
    cut.governor.plan = Plan(3)
    terms = [run.train_step(batch) for run in (whole, cut)]
    assert terms[0] == pytest.approx(terms[1], rel=1e-5)
    for one, other in zip(whole.model.parameters(), cut.model.parameters(), strict=True):  # what Adam makes of rounding is Adam's
        if one.grad is not None or other.grad is not None:
            assert (one.grad - other.grad).abs().max() <= 1e-5 * one.grad.abs().max().clamp(min=1e-6)


def test_the_probe_steps_down_and_leaves_no_trace(make) -> None:
    run = make("run")
    run.train_step(next(iter(run.loader)))
    before = {key: value.clone() for key, value in run.model.state_dict().items()}
    moments = {key: value["exp_avg"].clone() for key, value in run.optimizer.state_dict()["state"].items()}
    fail_at(run, {1})
    run.governor.plan = probe_memory(run)
    assert run.governor.plan == Plan(2) and run.governor.recoveries == 0
    assert all(torch.equal(value, before[key]) for key, value in run.model.state_dict().items())
    after = run.optimizer.state_dict()["state"]
    assert after.keys() == moments.keys() and all(torch.equal(after[key]["exp_avg"], value) for key, value in moments.items())


def test_the_worst_batch_holds_what_mosaic_and_pasting_may_add(nuclei_fixture: Path) -> None:
    dataset = open_dataset(nuclei_fixture, "train")
    fullest = max(len(dataset.instances(index)) for index in range(len(dataset)))
    assert most_objects(dataset, load_config(None, {})) == fullest
    more = load_config(None, {"augment.mosaic": 0.1, "augment.copy_paste": 0.1, "augment.copy_paste_objects": 5})
    assert most_objects(dataset, more) == 4 * fullest + 5
    batch = worst_batch(2, 7, 64)
    assert batch.objects == 14 and batch.has_mask.all() and (batch.boxes[..., 2:] > batch.boxes[..., :2]).all()
    assert batch.boxes.min() >= 0 and batch.boxes.max() <= 64


def test_telemetry_on_a_cpu_is_the_resident_set() -> None:
    seen = telemetry(torch.device("cpu"))
    assert seen["reserved"] is None and 0 < seen["allocated"] <= seen["peak"] * 1.05


def test_an_export_never_recomputes(make) -> None:
    run = make("run")
    run.governor.plan = Plan(1, recompute=True)
    run.fit(stop_after_epoch=1)
    assert isinstance(run.average.model, ApexDetector) and not run.average.model.recompute
    assert "recompute" not in read_checkpoint(run.output / "last.pt")["model"]
    assert run.placement == Placement(torch.device("cpu"))

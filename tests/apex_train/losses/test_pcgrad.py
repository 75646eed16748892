"""The projection against the paper's loop, and its place in a training step: once, on the whole batch, on the trunk alone."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from apex_runtime.data.open import open_dataset
from apex_train.config import load_config
from apex_train.engine.conflicts import GROUPS, TRUNK, TaskGradients
from apex_train.engine.memory import Plan
from apex_train.engine.step import draw_step
from apex_train.engine.trainer import Trainer
from apex_train.losses.compute import KEYS
from apex_train.losses.pcgrad import draw_orders, project_conflicts

SHAPES = ((3, 2), (4,), ())


def reference(flat: np.ndarray, orders: list[list[int]]) -> np.ndarray:
    """Algorithm 1 of Yu et al. 2020, float64."""
    total = np.zeros(flat.shape[1])
    for task, order in enumerate(orders):
        mine = flat[task].copy()
        for other in order:
            along = mine @ flat[other]
            if along < 0:
                mine -= along / (flat[other] @ flat[other]) * flat[other]
        total += mine
    return total


def as_lists(flat: np.ndarray) -> list[list[torch.Tensor]]:
    sizes = [int(np.prod(shape)) for shape in SHAPES]
    return [[part.view(shape) for part, shape in zip(torch.tensor(row).split(sizes), SHAPES, strict=True)] for row in flat]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_equal_to_the_loop_of_the_paper(seed: int, tasks: int) -> None:
    rng = np.random.default_rng(seed)
    flat = rng.standard_normal((tasks, 11))
    flat[0] *= seed % 3  # one task without a gradient now and then
    orders, lists = draw_orders(tasks, rng), as_lists(flat)
    found = project_conflicts(lists, orders)
    ours = torch.cat([tensor.flatten() for tensor in found.gradients]).numpy()
    np.testing.assert_allclose(ours, reference(flat, orders), atol=1e-10)
    pairs = [(i, j) for i in range(tasks) for j in range(i) if flat[i].any() and flat[j].any()]
    assert (found.conflicts, found.pairs) == (sum(flat[i] @ flat[j] < 0 for i, j in pairs), len(pairs))
    assert all((a == b).all() for one, other in zip(lists, as_lists(flat), strict=True) for a, b in zip(one, other, strict=True))


def test_without_conflict_it_is_the_sum_and_what_is_not_finite_stays() -> None:
    flat = np.abs(np.random.default_rng(0).standard_normal((3, 11)))
    found = project_conflicts(as_lists(flat), draw_orders(3, np.random.default_rng(1)))
    assert found.rate == 0
    np.testing.assert_allclose(torch.cat([t.flatten() for t in found.gradients]).numpy(), flat.sum(0))
    flat[1, 2] = np.nan
    found = project_conflicts(as_lists(flat), draw_orders(3, np.random.default_rng(1)))
    assert torch.isnan(found.gradients[0].flatten()[2])


def test_two_opposed_tasks_lose_what_opposes() -> None:
    found = project_conflicts([[torch.tensor([1.0, 1.0])], [torch.tensor([-1.0, 0.5])]], [[1], [0]])
    assert found.gradients[0].tolist() == pytest.approx([1 - 0.4 - 1 + 0.25, 1 + 0.2 + 0.5 + 0.25]) and found.rate == 1


def test_every_term_belongs_to_one_group() -> None:
    members = [key for keys in GROUPS.values() for key in keys]
    assert sorted(members) == sorted(set(KEYS) - {"total"})


def trainer(data: Path, output: Path, **changes) -> Trainer:
    small = {"train.size": 128, "train.crop": 64, "train.batch": 2, "train.workers": 0, "train.norm_statistics": "frozen"}
    config = load_config(None, small | {"loss.pcgrad": True} | changes)
    run = Trainer(config, open_dataset(data, "train"), None, output, Console(file=io.StringIO()))
    run._to_training_mode()
    return run


def gradients(run: Trainer, batch, plan: Plan) -> dict[str, torch.Tensor]:
    draw = draw_step(run.config, 0, run.total_steps, run.tile_count, len(batch), slice(None))
    run.stepper.shared(run.stepper.gradients(batch, draw, plan, len(batch), batch.objects))
    return {name: parameter.grad.clone() for name, parameter in run.model.named_parameters()}


@pytest.mark.parametrize("plan", [Plan(2), Plan(1), Plan(1, recompute=True)], ids=str)
def test_the_step_projects_the_whole_batch_on_the_trunk(nuclei_fixture: Path, tmp_path: Path, plan: Plan) -> None:
    """However the batch is cut, the trunk gets the projection of the sums of each group, all else the plain gradient."""
    plain, run = trainer(nuclei_fixture, tmp_path, **{"loss.pcgrad": False}), trainer(nuclei_fixture, tmp_path)
    batch = next(iter(run.loader))
    wanted, found = gradients(plain, batch, Plan(2)), gradients(run, batch, plan)
    changed = 0.0
    sums = [item for item in run.stepper.tasks.sums if item is not None]
    flat = np.stack([torch.cat([part.flatten() for part in item]).double().numpy() for item in sums])
    rng = np.random.default_rng([0, 0, 0x9C6])
    expected = reference(flat, draw_orders(len(flat), rng))
    trunk = torch.cat([found[name].flatten() for name in found if name.startswith(TRUNK)]).double().numpy()
    np.testing.assert_allclose(trunk, expected, atol=1e-5 * np.abs(expected).max())
    for name, value in wanted.items():
        difference = float((value - found[name]).abs().max() / value.abs().max().clamp(min=1e-9))
        changed = max(changed, difference if name.startswith(TRUNK) else 0.0)
        assert name.startswith(TRUNK) or difference < 1e-3, name
        if name.startswith(TRUNK):
            assert found[name].stride() == dict(run.model.named_parameters())[name].stride()
    total = torch.cat([wanted[name].flatten() for name in wanted if name.startswith(TRUNK)]).double().numpy()
    np.testing.assert_allclose(flat.sum(0), total, atol=1e-4 * np.abs(total).max())
    assert (run.stepper.diagnostics()["pcgrad_conflicts"] > 0) == (changed > 1e-3)


class OtherHalf:
    """A process beside another that holds ``other``: totals are added up, as ``Peers`` would."""

    alone = False

    def __init__(self, other: TaskGradients) -> None:
        self.other = other

    def add_gradients(self, parameters) -> None:
        for parameter, theirs in zip(parameters, self.other.others, strict=True):
            parameter.grad = parameter.grad + theirs.grad

    def total(self, values: torch.Tensor) -> torch.Tensor:
        found = [float(item is not None) for item in self.other.sums]
        zeros = [torch.zeros_like(parameter) for parameter in self.other.trunk]
        return values + torch.cat([torch.tensor(found), *(part.flatten() for item in self.other.sums for part in item or zeros)])


def test_processes_project_what_they_have_together() -> None:
    """Two halves, one of them without one of the groups, give what one process with both gives."""
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"neck": torch.nn.Linear(5, 3), "heads": torch.nn.Linear(3, 4)})
    scaler = torch.amp.GradScaler("cpu", enabled=False)

    def terms(x: torch.Tensor, groups: int) -> dict[str, torch.Tensor]:
        y, keys = model["heads"](model["neck"](x)), ("cls", "box", "mask_bce", "oracle")
        values = {key: torch.zeros(()) for key in KEYS}
        return values | {key: (y[:, i] * (i + 1)).sin().sum() for i, key in enumerate(keys[:groups])}

    x = torch.randn(2, 6, 5)
    whole, first, second = (TaskGradients(model) for _ in range(3))
    for tasks, parts in ((whole, ((x[0], 4), (x[1], 3))), (first, ((x[0], 4),)), (second, ((x[1], 3),))):
        model.zero_grad()
        tasks.clear()
        for values, groups in parts:
            tasks.add(terms(values, groups), scaler)
        tasks.settle((3, 7))
        tasks.kept = [parameter.grad.clone() for parameter in model.parameters()]
    for half, other in ((first, second), (second, first)):
        for parameter, gradient in zip(model.parameters(), half.kept, strict=True):
            parameter.grad = gradient.clone()
        stub = TaskGradients(model)
        stub.sums, stub.others = other.sums, [torch.nn.Parameter(p.detach().clone()) for p in other.others]
        for mine, gradient in zip(stub.others, other.kept[2:], strict=True):
            mine.grad = gradient
        kept, half.sums = half.sums, list(half.sums)
        half.share(OtherHalf(stub))
        half.sums = kept
        for parameter, wanted in zip(model.parameters(), whole.kept, strict=True):
            torch.testing.assert_close(parameter.grad, wanted)

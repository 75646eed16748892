"""The largest micro-batch that fits, found by real steps on the worst batch that the data can give, before the first real one."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch

from apex_runtime.data.dataset import InstanceDataset
from apex_train.config import FitConfig
from apex_train.data.loader import Batch
from apex_train.engine.memory import MemoryGovernor, Plan, release
from apex_train.engine.step import Draw, Question
from apex_train.model.config import MASK_STRIDE

if TYPE_CHECKING:
    from apex_train.engine.trainer import Trainer

_LOOKED_AT = 2000  # images whose objects are counted, evenly spread over the set


def most_objects(dataset: InstanceDataset, config: FitConfig) -> int:
    """The most objects that a sample can hold: those of the fullest image, with what mosaic and pasting may add."""
    looked_at = np.linspace(0, len(dataset) - 1, min(len(dataset), _LOOKED_AT)).astype(int)
    fullest = max(int((~dataset.instances(int(index)).crowd).sum()) for index in looked_at)
    pasted = config.augment.copy_paste_objects if config.augment.copy_paste > 0 else 0
    return max(1, fullest * (4 if config.augment.mosaic > 0 else 1) + pasted)


def worst_batch(images: int, objects: int, crop: int) -> Batch:
    """A batch of noise, every image with ``objects`` masked objects of all sizes."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, crop * 0.8, (images, objects, 2))
    size = np.minimum(rng.uniform(4, crop, (images, objects, 2)), crop - corner)
    cells = crop // MASK_STRIDE
    return Batch(
        images=torch.from_numpy(rng.integers(0, 256, (images, crop, crop, 3), np.uint8)),
        boxes=torch.from_numpy(np.concatenate([corner, corner + size], -1).astype(np.float32)),
        labels=torch.zeros(images, objects, dtype=torch.int64),
        masks=torch.full((images, objects, cells, cells), 128, dtype=torch.uint8),
        has_mask=torch.ones(images, objects, dtype=torch.bool),
        ignore=torch.zeros(images, cells, cells, dtype=torch.uint8),
        image_ids=[0] * images,
    )


def probe_memory(run: Trainer) -> Plan:
    """Try the run's plan on one worst micro-batch, all tiles and the optimiser's step included, stepping down until it fits.

    Weights and optimiser are as before afterwards. Raises OutOfMemoryError.
    """
    objects = most_objects(run.train_set, run.config)
    counts = run.model_config.counts(run.config.train.crop, run.config.train.crop)
    model, optimizer = copy.deepcopy(run.model.state_dict()), copy.deepcopy(run.optimizer.state_dict())

    def attempt(plan: Plan) -> None:
        batch = worst_batch(plan.micro_batch, objects, run.config.train.crop)
        zeros = np.zeros((plan.micro_batch, sum(counts)), np.float32)
        first = max(1, counts[0] // 2)
        half = tuple(first << level for level in range(len(counts)))  # of the children of the chosen ones, too
        question = Question(np.ones(plan.micro_batch, bool), plan.micro_batch, half, zeros)
        draw = Draw(counts, zeros, with_peripheral=True, question=question)
        run.stepper.gradients(batch, draw, plan, plan.micro_batch, objects * plan.micro_batch)
        run.optimizer.step()

    def undo() -> None:
        run.optimizer.zero_grad(set_to_none=True)

    governor = MemoryGovernor(run.governor.plan, agree=run.peers.any)
    run.model.train()
    governor.run(attempt, undo)
    undo()
    run.model.load_state_dict(model)
    run.optimizer.state.clear()
    run.optimizer.load_state_dict(optimizer)
    release()
    return governor.plan

"""Clean labels first: which objects count in a step, by the weights of their annotations (curriculum learning, Bengio et al.
2009; the other way round, from all to the cleanest, it keeps a network from learning the noise late: Han et al. 2018).

Legend: B images, G padded objects per image, n objects of the split.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.errors import DataError
from apex_train.config import LabelsSection
from apex_train.data.loader import Batch


class Curriculum:
    """What the objects of a batch count in a step of ``total``. It depends on nothing else, so that a resumed run has the same.

    Raises DataError when a share is asked for and no annotation has a weight to choose by.
    """

    def __init__(self, dataset: InstanceDataset, config: LabelsSection, total: int) -> None:
        self._config, self._total = config, total
        self._chooses = min(config.first, config.last) < 1
        self._weights_n = _highest_first(dataset) if self._chooses else np.zeros(0, np.float32)

    def share(self, step: int) -> float:
        """Of the objects, those that are admitted in this step."""
        config = self._config
        ramp = config.ramp * self._total
        done = min(1.0, step / ramp) if ramp else 1.0
        return config.first + (config.last - config.first) * done

    def at(self, step: int, batch: Batch) -> Batch:
        """The batch with what its objects count in this step; itself when every label is believed as it is."""
        weights_BG = batch.weights
        admitted_BG = weights_BG >= self._least(step)
        if self._config.count == "even":
            weights_BG = torch.ones_like(weights_BG)
        elif not self._chooses:
            return batch
        return replace(batch, weights=weights_BG * admitted_BG)

    def _least(self, step: int) -> float:
        """The smallest weight that is admitted; of equal ones all are."""
        if not self._chooses:
            return 0.0
        wanted = math.ceil(self.share(step) * len(self._weights_n))
        return float(self._weights_n[wanted - 1])


def _highest_first(dataset: InstanceDataset) -> np.ndarray:
    """float32 [n]: the weights of all objects of the split, crowds left out."""
    parts = []
    for index in range(len(dataset)):
        found = dataset.instances(index)
        weights = np.ones(len(found), np.float32) if found.weights is None else found.weights
        parts.append(weights[~found.crowd])
    weights_n = np.sort(np.concatenate(parts))[::-1]
    if not len(weights_n) or weights_n[0] == weights_n[-1]:
        raise DataError(
            f"{dataset.source}: labels.first or labels.last is below 1, but all annotations have the same weight.",
            "Train on the file that apex-train label-quality writes, or leave both at 1.",
            path=dataset.source,
        )
    return weights_n

"""Which weights of a network a run teaches."""

from __future__ import annotations

from torch import nn

from apex_train.config import TrainSection
from apex_train.model.detector import ApexDetector

ROUTERS = ("router.", "finer_routers.")  # how the names of their weights begin


def choose_learned(model: ApexDetector, train: TrainSection) -> None:
    """Freeze what ``train.only`` and ``train.scan`` leave as it is. Call it again when weights were loaded.

    Without the scan its modulation is the identity, which is how it begins: the network keeps its shape, and its graph the
    contract.
    """
    if train.only == "router":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(ROUTERS))
    if not train.scan:
        nn.init.zeros_(model.context.film.weight)
        nn.init.zeros_(model.context.film.bias)
        for parameter in model.context.parameters():
            parameter.requires_grad_(False)

"""Modules as they are in inference, while the rest of a network trains."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def as_deployed(*modules: nn.Module) -> Iterator[None]:
    """With the norms' running statistics, which are not changed; afterwards every module is in the mode in which it was."""
    training = [part for module in modules for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True

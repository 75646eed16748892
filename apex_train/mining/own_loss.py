"""The loss that a network was trained by, out of its checkpoint."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from apex_train.checkpoint import read_checkpoint
from apex_train.config import LossConfig, as_recorded


def own_loss(checkpoint: Path) -> LossConfig | None:
    """The section ``loss`` of the run that wrote the checkpoint; None when the file holds weights only, or the section is of
    another version. Raises ModelError."""
    training = read_checkpoint(checkpoint).get("training")
    config = training.get("config") if isinstance(training, dict) else None
    if not isinstance(config, dict):
        return None
    try:
        return LossConfig.model_validate(as_recorded(config).get("loss"))
    except ValidationError:
        return None

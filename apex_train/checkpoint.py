"""Checkpoints: written atomically, read without pickle (``weights_only``), with a report of every key that does not fit.

A file holds ``format_version``, ``model_config``, ``model`` (the averaged weights that are evaluated and exported), ``data``
(fingerprints of what it was trained and chosen on) and, in ``last.pt``, ``training``: everything a resumed run needs. Raw state
dicts and the usual wrappers of other code bases load too.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from apex_runtime.errors import ModelError
from apex_runtime.files import write_atomically
from apex_train.model.config import ModelConfig
from apex_train.model.detector import ApexDetector

FORMAT_VERSION = 1
WRAPPERS = ("model", "model_state_dict", "state_dict", "ema")
MAX_BYTES = 4 << 30


@dataclass(frozen=True)
class KeyReport:
    """Which weights of a file did not find their place."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """True when every weight of the model came from the file and the file held nothing else."""
        return not (self.missing or self.unexpected or self.reshaped)

    def __str__(self) -> str:
        parts = [
            f"{len(keys)} {name} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
            for name, keys in (("missing", self.missing), ("unexpected", self.unexpected), ("reshaped", self.reshaped))
            if keys
        ]
        return "; ".join(parts) or "all weights fit"


def save_checkpoint(
    path: Path,
    model: nn.Module,
    config: ModelConfig,
    training: dict[str, Any] | None = None,
    data: dict[str, dict[str, Any]] | None = None,
) -> None:
    """Write the file in one step: a crash leaves the old one or the new one, never half of one."""
    content: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "model_config": config.model_dump(mode="json"),
        "model": {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()},
    }
    if data is not None:
        content["data"] = data
    if training is not None:
        content["training"] = training
    # Through memory, not into the file: torch's zip writer hides a full disk or a Ctrl-C behind an error of its own.
    memory = io.BytesIO()
    torch.save(content, memory)
    write_atomically(path, memory.getbuffer(), durable=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint file. Raises ModelError when it is absent, damaged, or holds more than tensors and plain
    values."""
    return parse_checkpoint(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """A checkpoint file as it lies on the disk, for ``parse_checkpoint``. Raises ModelError when it is absent or too large."""
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path}: checkpoint not found.", "Give the path of a .pt file, for example runs/a/best.pt.", path=path)
    if path.stat().st_size > MAX_BYTES:
        raise ModelError(f"{path}: larger than {MAX_BYTES >> 30} GiB.", "This is not a checkpoint of apex-train.", path=path)
    return path.read_bytes()


def parse_checkpoint(data: bytes, path: Path) -> dict[str, Any]:
    """The content of a checkpoint that was read from ``path``, here or on another host. Raises ModelError."""
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises a dozen types, down to KeyError, for files that are not its own
        # Its text is not shown: it advises to load the file as a pickle, which would run whatever is in it.
        raise ModelError(
            f"{path}: cannot be read as a checkpoint ({type(error).__name__}).",
            "Give a .pt file of tensors, such as apex-train fit writes; where it is the last.pt of a run, copy the newest "
            "epoch_*.pt beside it over it, and the run goes on from there.",
            path=path,
        ) from error
    if not isinstance(content, dict):
        raise ModelError(
            f"{path}: holds a {type(content).__name__}, not a checkpoint.", "Give a file of apex-train fit.", path=path
        )
    return content


def state_dict_of(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The weights inside a checkpoint or one of the usual wrappers. Raises ModelError when there are none."""
    for candidate in (*(content.get(name) for name in WRAPPERS), content):
        if isinstance(candidate, dict) and candidate and all(isinstance(value, Tensor) for value in candidate.values()):
            return {key.removeprefix("module."): value for key, value in candidate.items()}
    raise ModelError(
        f"{path}: no weights found under {', '.join(WRAPPERS)}.", "Give a file of apex-train fit or a state dict.", path=path
    )


def load_weights(model: nn.Module, state: dict[str, Tensor]) -> KeyReport:
    """Copy every weight that fits and report the others."""
    own = model.state_dict()
    reshaped = tuple(key for key in state if key in own and own[key].shape != state[key].shape)
    fitting = {key: value for key, value in state.items() if key in own and key not in reshaped}
    model.load_state_dict(fitting, strict=False)
    missing = tuple(key for key in own if key not in state)
    unexpected = tuple(key for key in state if key not in own)
    return KeyReport(missing, unexpected, reshaped)


def load_model(path: Path) -> ApexDetector:
    """The network of a checkpoint, in evaluation mode. Raises ModelError when it was not written by this program or does not
    fit."""
    content = read_checkpoint(path)
    version = content.get("format_version")
    if version != FORMAT_VERSION or "model_config" not in content:
        raise ModelError(
            f"{path}: checkpoint format {version!r}, this apex-train reads format {FORMAT_VERSION}.",
            "Raw weights can be given to 'apex-train fit --init'.",
            path=path,
        )
    try:
        config = ModelConfig.model_validate(content["model_config"])
    except ValidationError as error:
        raise ModelError(f"{path}: its model configuration does not fit ({error.errors()[0]['msg']}).", "", path=path) from error
    model = ApexDetector(config)
    report = load_weights(model, state_dict_of(content, path))
    if not report.fits:
        raise ModelError(
            f"{path}: weights do not fit the model: {report}.",
            "The file is damaged or of another version; apex-train fit --init takes what fits, and learns the rest anew.",
            path=path,
        )
    return model.eval()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

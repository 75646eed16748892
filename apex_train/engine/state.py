"""The whole state of a run as plain values and tensors, for its checkpoints, and back."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from apex_runtime.errors import UsageError
from apex_train.checkpoint import FORMAT_VERSION, parse_checkpoint, read_bytes, save_checkpoint
from apex_train.config import FREE_TO_CHANGE, as_recorded

if TYPE_CHECKING:
    from apex_train.engine.trainer import Trainer

_COUNTERS = ("epoch", "batch_in_epoch", "step", "bad_steps", "bad_in_a_row", "skipped_steps", "seconds")
_FREE = {f"train.{name}" for name in FREE_TO_CHANGE}
EPOCH_FILE = "epoch_{:04d}.pt"


def training_state(run: Trainer) -> dict[str, Any]:
    """Everything beside the averaged weights that the rest of the run depends on."""
    return {name: getattr(run, name) for name in _COUNTERS} | {
        "raw_model": run.model.state_dict(),
        "average_steps": run.average.steps,
        "optimizer": run.optimizer.state_dict(),
        "scheduler": {"total_steps": run.total_steps, "warmup_steps": run.warmup},
        "scaler": run.scaler.state_dict(),
        "selection": run.selection.state(),
        "memory": run.governor.state(),
        "sums": run.sums.state(),
        "history": run.history,
        "rng": _random_state(run),
        "dual": run.stepper.dual.state(),
        "limit": run.stepper.limit.state() if run.stepper.limit else None,
        "config": run.config.model_dump(mode="json"),
    }


def _random_state(run: Trainer) -> dict[str, Any]:
    states: dict[str, Any] = {"torch": torch.get_rng_state()}
    if run.placement.on_cuda:
        states["cuda"] = torch.cuda.get_rng_state(run.placement.device)
    return states


def save_state(run: Trainer) -> None:
    """Write the run into ``last.pt``, in one step; only its first process does."""
    if run.placement.leads:
        save_checkpoint(run.output / "last.pt", run.average.model, run.model_config, training_state(run), run.data)


def keep_as(output: Path, name: str) -> None:
    """``last.pt`` under a second name: a link where the file system has them, for a save never changes a file, it replaces it."""
    target, temporary = output / name, output / f".{os.getpid()}.link"
    temporary.unlink(missing_ok=True)
    try:
        os.link(output / "last.pt", temporary)
    except OSError:
        temporary.write_bytes((output / "last.pt").read_bytes())
    os.replace(temporary, target)
    temporary.unlink(missing_ok=True)  # POSIX: renaming onto another link to the same file does nothing


def prune_epochs(output: Path, kept: int) -> None:
    """Remove all but the newest ``kept`` epoch files."""
    files = sorted(output.glob("epoch_[0-9]*.pt"), key=lambda file: (len(file.name), file.name))  # 9999 before 10000
    for file in files[: max(0, len(files) - kept)]:
        file.unlink(missing_ok=True)


def remove_leftovers(output: Path) -> None:
    """Halves of files that a killed process left."""
    for file in (*output.glob(".*.part"), *output.glob(".*.link")):
        file.unlink(missing_ok=True)


def _difference(run: Trainer, content: dict[str, Any], state: dict[str, Any]) -> str:
    """What of a checkpoint is not that of this run, in words: values as the checkpoint has them, then as they are now."""
    now, then = run.config.model_dump(mode="json"), as_recorded(state.get("config") or {})
    usual = type(run.config)().model_dump(mode="json")
    keys = [(section, key) for section, values in now.items() for key in values if f"{section}.{key}" not in _FREE]
    # A key that is younger than the checkpoint had its default.
    old = {(section, key): then.get(section, {}).get(key, usual[section][key]) for section, key in keys}
    values = [(f"{section}.{key}", old[section, key], now[section][key]) for section, key in keys]
    found = [f"{name} {json.dumps(was)} (now {json.dumps(new)})" for name, was, new in values if was != new]
    was = content.get("data") or {}
    found += [f"another split {name}" for name in sorted(run.data | was) if run.data.get(name) != was.get(name)]
    return ", ".join(found)


def restore_state(run: Trainer, checkpoint: Path) -> None:
    """Go on where a checkpoint of this run stopped. Raises UsageError when it is of another run, or holds weights only.

    All processes go on from the file that the first one reads: on other hosts there need not be one.
    """
    content = parse_checkpoint(run.peers.in_leader(lambda: read_bytes(checkpoint)), checkpoint)
    state = content.get("training")
    if not isinstance(state, dict):
        raise UsageError(f"{checkpoint}: has no training state to resume.", "Use --init to start from its weights.")
    version = content.get("format_version")
    difference = _difference(run, content, state) if version == FORMAT_VERSION else f"another format of checkpoints ({version})"
    if difference:
        raise UsageError(
            f"{checkpoint}: belongs to a run with {difference}.",
            "Give the same --data, configuration and --set values, or start a new run with --init.",
        )
    ours = {name: value.shape for name, value in run.model.state_dict().items()}
    if ours != {name: value.shape for name, value in state["raw_model"].items()}:
        raise UsageError(
            f"{checkpoint}: its network is of another version.", "Start a new run with --init; the rest is learned anew."
        )
    run.model.load_state_dict(state["raw_model"])
    run.average.model.load_state_dict(content["model"])
    run.average.steps = state["average_steps"]
    run.optimizer.load_state_dict(state["optimizer"])
    if state["scaler"]:  # empty when the run had no loss scaling
        run.scaler.load_state_dict(state["scaler"])
    run.selection.restore(state["selection"])
    run.governor.restore(state["memory"])
    run.sums.restore(state["sums"])
    if "dual" in state:
        run.stepper.dual.restore(state["dual"])
    if run.stepper.limit and state.get("limit"):
        run.stepper.limit.restore(state["limit"])
    for name in _COUNTERS:
        setattr(run, name, state.get(name, 0))
    run.history = state["history"]
    torch.set_rng_state(state["rng"]["torch"])
    if run.placement.on_cuda and "cuda" in state["rng"]:
        torch.cuda.set_rng_state(state["rng"]["cuda"], run.placement.device)

"""What the processes of a run must have in common before the first step: configuration, data, versions, and where to go on.

On several hosts each reads files of its own. A difference would not stop the training, it would make it wrong, or leave one
process waiting for another; so it is found at the start and named in every process.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from apex_runtime.errors import UsageError
from apex_train.checkpoint import file_sha256, read_checkpoint
from apex_train.config import FitConfig
from apex_train.engine.distributed import Peers

PACKAGES = ("apex-x", "torch", "numpy", "opencv-python-headless")  # what samples and gradients come from
SHOWN = 3
# Who loads and where may differ; of a file the content is compared, not the path.
_OF_A_HOST = (("train", "workers"), ("train", "device"), ("train", "sample_weights"))


def check_agreement(peers: Peers, config: FitConfig, data: Callable[[], dict[str, dict[str, Any]]], init: Path | None) -> None:
    """Raise UsageError, in every process, when one of them would train something else than the first.

    ``data`` gives per split what a checkpoint says of it (``images``, ``fingerprint``); ``init`` is the file of ``--init``.
    """
    if peers.alone:
        return
    told = peers.gather((socket.gethostname(), peers.together(lambda: facts_of(config, data(), init))))
    (first_host, first), *others = told
    for rank, (host, facts) in enumerate(others, start=1):
        names = [name for name in first | facts if first.get(name) != facts.get(name)]
        unequal = [f"{name} {facts.get(name, 'absent')} (there {first.get(name, 'absent')})" for name in names]
        if unequal:
            more = f", and {len(unequal) - SHOWN} more" if len(unequal) > SHOWN else ""
            raise UsageError(
                f"process {rank}, on {host}, would train something else than process 0, on {first_host}: "
                f"{', '.join(unequal[:SHOWN])}{more}.",
                "Give every host the same data, configuration and options, and install the same versions.",
            )


def facts_of(config: FitConfig, data: dict[str, dict[str, Any]], init: Path | None) -> dict[str, str]:
    """Everything that must be equal, by the name under which a person knows it. Raises OSError."""
    values = config.model_dump(mode="json")
    facts = {
        f"{section}.{key}": json.dumps(value)
        for section, keys in values.items()
        for key, value in keys.items()
        if (section, key) not in _OF_A_HOST
    }
    facts |= {f"split {name}": f"of {split['images']} images, {split['fingerprint'][:12]}" for name, split in data.items()}
    files = {"--init": init, "train.sample_weights": config.train.sample_weights}
    facts |= {name: file_sha256(Path(file))[:12] for name, file in files.items() if file is not None}
    return facts | {name: version(name) for name in PACKAGES}


def check_newest(peers: Peers, checkpoint: Path) -> None:
    """Raise UsageError, in every process, when another host has a later state of the run than rank 0, or is alone to have one.

    That is so where the hosts share no folder and rank 0 is on another host than before: its folder would go on with old weights.
    """
    if peers.alone:
        return
    told = peers.gather((socket.gethostname(), peers.together(lambda: _step_of(checkpoint))))
    (first_host, first), *others = told
    for rank, (host, step) in enumerate(others, start=1):
        if step > first:
            has = f"only step {first}" if first >= 0 else "none"
            raise UsageError(
                f"{checkpoint}: process {rank}, on {host}, has one of step {step}; "
                f"process 0, on {first_host}, which writes, has {has}.",
                "Rank 0 is on another host than before, or the file is of another run: copy its folder to the host of rank 0, "
                "share it, or remove it.",
                path=checkpoint,
            )


def _step_of(checkpoint: Path) -> int:
    """The step of a checkpoint that a run can go on from, -1 without one."""
    if not checkpoint.is_file():
        return -1
    training = read_checkpoint(checkpoint).get("training")
    return int(training["step"]) if isinstance(training, dict) else -1

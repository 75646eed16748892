"""Ray: found, started or joined, asked what it has, and left as it was."""

from __future__ import annotations

import logging
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

from apex_runtime.errors import BackendError, MissingPackageError, UsageError
from apex_runtime.machine import usable_cpus

LOCAL, JOIN = "ray", "ray://auto"
_HEAD = re.compile(r"ray://([^/\s:]+:\d{1,5})")
_CLIENT_PORT = ":10001"
_CORES = 4  # of a worker, where there are so many: it decodes images beside its engine, and each engine takes memory


@dataclass(frozen=True)
class Pool:
    """So many workers, each with an engine of ``threads`` cores, or with a GPU to itself."""

    workers: int
    threads: int
    gpu: bool


@dataclass(frozen=True)
class Capacity:
    """What the nodes that are alive have: CPUs and GPUs of each."""

    cpus: tuple[float, ...]
    gpus: tuple[float, ...]

    def pool(self, workers: int | None, threads: int | None, gpu: bool) -> Pool:
        """As many workers as fit, unless the user says; they share the cores then. Raises UsageError when not even one fits."""
        most = int(max(self.cpus, default=0))
        threads = threads or max(1, min(_CORES, most, int(sum(self.cpus)) // (workers or 1)))
        if threads > most:
            raise UsageError(f"--threads {threads}: no node of this cluster has more than {most} CPUs.", "Give fewer.")
        fitting = sum(int(min(cpus // threads, gpus if gpu else cpus)) for cpus, gpus in zip(self.cpus, self.gpus, strict=True))
        if gpu and not any(self.gpus):
            raise UsageError("--device cuda: no node of this cluster has a GPU that Ray knows of.", "Leave --device out.")
        return Pool(workers or max(1, fitting), threads, gpu)


def check_address(text: str) -> str:
    """``ray``, ``ray://auto`` or ``ray://HOST:PORT``. Raises UsageError."""
    if text.endswith(_CLIENT_PORT):  # Ray Data 2.60 fails there with an AttributeError
        raise UsageError(
            f"--on {text}: this is the port of Ray's client, through which Ray Data cannot run.",
            "Make this machine a node (ray start --address HOST:6379 --num-cpus 0), then --on ray://auto.",
        )
    if text in (LOCAL, JOIN) or _HEAD.fullmatch(text):
        return text
    raise UsageError(
        f"--on {text}: neither ray, ray://auto nor ray://HOST:PORT.",
        "ray starts one on this machine; ray://auto takes the cluster of this node; ray://HOST:6379 that of this head.",
    )


def ray_modules() -> ModuleType:
    """Ray with Ray Data, without its reports to its makers. Raises MissingPackageError that names the extra."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingPackageError(f"--on ray needs Ray ({error}).", 'Install the extra ray: pip install ".[ray]".') from error
    return ray


@contextmanager
def joined(address: str, workers: int | None, threads: int | None) -> Iterator[Capacity]:
    """Ray at this address for the time of the block. Of this machine: its own, which ends with it and takes work from this
    process alone: only its children know the token.

    Raises MissingPackageError, BackendError.
    """
    if address == LOCAL:
        # Ray listens on every interface and runs what it is sent with this token; it would leave one in the home folder.
        if "RAY_AUTH_TOKEN_PATH" not in os.environ:
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 would let every other process of the machine go first
    ray = ray_modules()
    if ray.is_initialized():
        yield _capacity(ray)
        return
    try:
        _start(ray, address, workers, threads)
    except Exception as error:  # Ray has no error of its own for this
        cause = str(error).strip().partition("\n")[0] or type(error).__name__
        raise BackendError(f"--on {address}: Ray cannot be reached ({cause}).", "Check that it runs: ray status.") from error
    try:
        yield _capacity(ray)
    finally:
        ray.shutdown()


def _start(ray: ModuleType, address: str, workers: int | None, threads: int | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address != LOCAL:
        ray.init(address=address.removeprefix("ray://"), **quiet)
        return
    cpus = max(usable_cpus(), (workers or 1) * (threads or 1))
    ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)


def _capacity(ray: ModuleType) -> Capacity:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return Capacity(tuple(node.get("CPU", 0.0) for node in nodes), tuple(node.get("GPU", 0.0) for node in nodes))

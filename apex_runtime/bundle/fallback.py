"""Which backend runs a model here: the one that was asked for, or under ``permissive`` the first of a chain that can.

Every step of the chain executes the same graph; what was refused on the way, and why, is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from apex_runtime.backends.capabilities import probe
from apex_runtime.backends.reasons import backend_error
from apex_runtime.backends.session import Session
from apex_runtime.errors import BackendError

_CHAIN = ("ort-cuda", "ort-cpu")

PlanChoice = Callable[[], Path]


@dataclass(frozen=True)
class Refusal:
    """A backend that did not run, the reason code, and what it said."""

    backend: str
    code: str
    message: str


@dataclass(frozen=True)
class Chosen:
    """What runs. ``selected`` is what the probe of this machine let hope for; opening it may still have failed."""

    session: Session
    executed: str
    selected: str
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True)
class Candidate:
    """A model to be opened by some backend: ``index`` is N of ``cuda:N``, ``choose_plan`` finds the plan where there are any.

    ``many``: for many images, several calls at a time where that is faster.
    """

    model: Path
    threads: int | None
    index: int
    choose_plan: PlanChoice | None = None
    many: bool = False

    def lanes(self, backend: str) -> int:
        """How many calls at a time a session of that backend is for."""
        if not self.many or backend != "ort-cpu":
            return 1
        from apex_runtime.backends.ort import lanes_of

        return lanes_of(self.threads)

    def open(self, backend: str) -> Session:
        """A session of one backend. Raises BackendError when it cannot run here, and what its session raises."""
        answer = probe(backend, self.index).run
        if answer.reason is not None:
            raise backend_error(answer.reason, f"{self.model}: {backend} cannot run here: {answer.detail}.")
        if backend == "ort-cpu":
            from apex_runtime.backends.ort import OrtSession

            return OrtSession(self.model, self.threads, self.lanes(backend))
        if backend == "ort-cuda":
            from apex_runtime.backends.ort_cuda import OrtCudaSession

            return OrtCudaSession(self.model, self.index, self.threads)
        assert self.choose_plan is not None, "only bundles have plans"
        return _open_plan(self.model, self.choose_plan(), backend, self.index)


def open_first(candidate: Candidate, requested: str, policy: str) -> Chosen:
    """Open by ``requested``; under ``permissive`` by the first that can of it, ort-cuda, ort-cpu.

    Raises BackendError: under ``strict`` what ``requested`` said, with the other ways in its remedy.
    """
    chain = [requested, *_CHAIN[_CHAIN.index(requested) + 1 if requested in _CHAIN else 0 :]]
    selected = next((name for name in chain if probe(name, candidate.index).run.available), chain[-1])
    refusals: list[Refusal] = []
    for backend in chain:
        try:
            return Chosen(candidate.open(backend), backend, selected, tuple(refusals))
        except BackendError as error:
            if policy == "strict" or backend == chain[-1]:
                raise _with_other_ways(error, candidate.model, requested) from error
            refusals.append(Refusal(backend, error.code, error.message))
    raise AssertionError("a chain has a last backend")


def _open_plan(model: Path, plan: Path, flavour: str, index: int) -> Session:
    from apex_runtime.backends.device import open_device
    from apex_runtime.backends.tensorrt_session import TensorRTSession

    return TensorRTSession(model, plan, flavour, open_device(index))


def _with_other_ways(error: BackendError, model: Path, requested: str) -> BackendError:
    if requested == "ort-cpu":
        return error
    ways = f"The model also runs on the CPU: --engine {model} --device cpu, or --policy permissive (default: strict)."
    return BackendError(error.message, f"{error.remedy} {ways}", path=model, code=error.code)

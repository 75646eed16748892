"""Tolerance profiles: how far two forms of one model may lie apart. The numbers are data (``profiles/*.yaml``), read here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from apex_runtime.errors import UsageError

Precision = Literal["fp32", "fp16", "bf16"]
PROFILE_NAMES = ("quality", "balanced", "edge")


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tolerance(_Record):
    """A value mismatches iff |candidate - reference| > atol + rtol * |reference|."""

    atol: float = Field(ge=0, allow_inf_nan=False)
    rtol: float = Field(ge=0, allow_inf_nan=False)


class DecisionRule(_Record):
    """``min_overlap``: mean share of the reference's tiles that the candidate must choose as well."""

    min_overlap: float = Field(ge=0, le=1)


class Profile(_Record):
    """One versioned set of tolerances. ``outputs`` overrides ``tolerances`` for single outputs and precisions."""

    version: Literal[1]
    name: str
    mismatch_limit: float = Field(ge=0, lt=1)
    tolerances: dict[Precision, Tolerance]
    outputs: dict[str, dict[Precision, Tolerance]]
    decision: DecisionRule


@dataclass(frozen=True)
class Rules:
    """A profile as it applies to a candidate that computes in ``precision``."""

    profile: Profile
    precision: Precision

    def tolerance(self, output: str) -> Tolerance:
        """The tolerance of one output; that of ``utilities`` holds for every level of tiles."""
        output = "utilities" if output.startswith("utilities_") else output
        special = self.profile.outputs.get(output, {}).get(self.precision)
        return special or self.profile.tolerances[self.precision]

    @property
    def mismatch_limit(self) -> float:
        """The share of values of an output that may mismatch."""
        return self.profile.mismatch_limit

    @property
    def min_overlap(self) -> float:
        """The least mean overlap of the chosen tiles."""
        return self.profile.decision.min_overlap


def load_profile(name: str) -> Profile:
    """The shipped profile ``name``. Raises UsageError for a name that is none of ``PROFILE_NAMES``."""
    import yaml

    if name not in PROFILE_NAMES:
        raise UsageError(f"--profile {name}: unknown.", f"Choose one of {', '.join(PROFILE_NAMES)}.")
    text = (resources.files("apex_runtime.parity") / "profiles" / f"{name}.yaml").read_text(encoding="utf-8")
    return Profile.model_validate(yaml.safe_load(text))

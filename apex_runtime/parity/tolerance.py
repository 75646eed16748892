"""Tolerance profiles: how far two forms of one model may lie apart. The numbers are data (``profiles/*.yaml``), read here.

Rounded to eight bits, no single value can be promised, only how much noise there is in all of them: a ratio of signal to noise
(SQNR) for every output takes the place of the tolerances.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from apex_runtime.errors import UsageError

Floating = Literal["fp32", "fp16", "bf16"]
EightBit = Literal["int8", "fp8"]
Precision = Literal[Floating, EightBit]
PROFILE_NAMES = ("quality", "balanced", "edge")


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tolerance(_Record):
    """A value mismatches iff |candidate - reference| > atol + rtol * |reference|."""

    atol: float = Field(ge=0, allow_inf_nan=False)
    rtol: float = Field(ge=0, allow_inf_nan=False)


class LeastSqnr(_Record):
    """The least ratio of signal to noise of every output of floats, in dB."""

    boxes: float = Field(allow_inf_nan=False)
    scores: float = Field(allow_inf_nan=False)
    mask_coefficients: float = Field(allow_inf_nan=False)
    mask_prototypes: float = Field(allow_inf_nan=False)
    utilities: float = Field(allow_inf_nan=False)


class AlignmentSlack(_Record):
    """What decides which differences between two lists, or two choices of tiles, rounding explains; it passes no value.

    ``scores``: of a candidate at the end of a list, over the lowest one that the other side kept. ``utilities``: of tiles that
    changed places. ``boxes``, input pixels: of those that NMS compares.
    """

    scores: Tolerance
    boxes: Tolerance
    utilities: Tolerance


class EightBitRule(_Record):
    """What a candidate rounded to eight bits must reach on the real images. ``label_limit``: the share of the detections on both
    sides that may bear another class."""

    min_sqnr_db: LeastSqnr
    alignment_slack: AlignmentSlack
    label_limit: float = Field(ge=0, lt=1)


class DecisionRule(_Record):
    """``min_overlap``: mean share of the reference's tiles that the candidate must choose as well."""

    min_overlap: float = Field(ge=0, le=1)


class TaskLimits(_Record):
    """What the detections of a candidate must reach: ``min_match_rate``, and means over the pairs. ``max_ap_drop``: the points of
    AP, of boxes and of masks, that it may lose on labelled images."""

    min_match_rate: float = Field(ge=0, le=1)
    min_mean_box_iou: float = Field(ge=0, le=1)
    min_mean_mask_iou: float = Field(ge=0, le=1)
    max_mean_score_difference: float = Field(ge=0, allow_inf_nan=False)
    max_ap_drop: float = Field(ge=0, allow_inf_nan=False)


class TaskRule(_Record):
    """Detections count from ``min_score`` on, and are the same from ``min_box_iou`` on."""

    min_score: float = Field(gt=0, lt=1)
    min_box_iou: float = Field(gt=0, le=1)
    limits: dict[Precision, TaskLimits]


class Profile(_Record):
    """One versioned set of tolerances. ``outputs`` overrides ``tolerances`` for single outputs and precisions."""

    version: Literal[2]
    name: str
    mismatch_limit: float = Field(ge=0, lt=1)
    tolerances: dict[Floating, Tolerance]
    outputs: dict[str, dict[Floating, Tolerance]]
    eight_bits: dict[EightBit, EightBitRule]
    decision: DecisionRule
    task: TaskRule


class Gate(NamedTuple):
    """What an output must hold: ``mismatch_limit``, the share of its values that may mismatch, and ``min_sqnr_db``, None where
    tolerances judge."""

    mismatch_limit: float
    min_sqnr_db: float | None


@dataclass(frozen=True)
class Rules:
    """A profile as it applies to a candidate that computes in ``precision``."""

    profile: Profile
    precision: Precision

    def gate(self, output: str) -> Gate:
        """What decides on one output."""
        if self._eight_bits is None:
            return Gate(self.profile.mismatch_limit, None)
        if output == "labels":
            return Gate(self._eight_bits.label_limit, None)
        return Gate(self.profile.mismatch_limit, getattr(self._eight_bits.min_sqnr_db, _base_name(output), None))

    def tolerance(self, output: str) -> Tolerance | None:
        """The tolerance of one output; that of ``utilities`` holds for every level of tiles. None in eight bits: no single value
        is judged."""
        if self.precision == "int8" or self.precision == "fp8":
            return None
        special = self.profile.outputs.get(_base_name(output), {}).get(self.precision)
        return special or self.profile.tolerances[self.precision]

    def slack(self, output: Literal["scores", "boxes", "utilities"]) -> Tolerance:
        """How far a value may move before it explains no longer that a list or a choice differs."""
        if self._eight_bits is not None:
            return getattr(self._eight_bits.alignment_slack, output)
        tolerance = self.tolerance(output)
        assert tolerance is not None  # only in eight bits
        return tolerance

    @property
    def judges_synthetic(self) -> bool:
        """Whether the numbers on synthetic images count. Not in eight bits: no calibration ever saw anything like them."""
        return self._eight_bits is None

    @property
    def sets_aside_swaps(self) -> bool:
        """Whether the task level leaves out an image of which rounding explains that other tiles were chosen. Not in eight bits:
        there the other tiles belong to what is measured."""
        return self._eight_bits is None

    @property
    def task(self) -> TaskRule:
        """Which detections count."""
        return self.profile.task

    @property
    def task_limits(self) -> TaskLimits:
        """What they must reach."""
        return self.profile.task.limits[self.precision]

    @property
    def min_overlap(self) -> float:
        """The least mean overlap of the chosen tiles."""
        return self.profile.decision.min_overlap

    @property
    def _eight_bits(self) -> EightBitRule | None:
        return self.profile.eight_bits[self.precision] if self.precision == "int8" or self.precision == "fp8" else None


def load_profile(name: str) -> Profile:
    """The shipped profile ``name``. Raises UsageError for a name that is none of ``PROFILE_NAMES``."""
    import yaml

    if name not in PROFILE_NAMES:
        raise UsageError(f"--profile {name}: unknown.", f"Choose one of {', '.join(PROFILE_NAMES)}.")
    text = (resources.files("apex_runtime.parity") / "profiles" / f"{name}.yaml").read_text(encoding="utf-8")
    return Profile.model_validate(yaml.safe_load(text))


def _base_name(output: str) -> str:
    return "utilities" if output.startswith("utilities_") else output

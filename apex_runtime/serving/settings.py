"""What a served engine does with every request, and how much it takes on; part of what ``apex-rt export-server`` writes."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from apex_runtime.errors import ApexError, ConfigError
from apex_runtime.routing.budget import parse_budget

MEBIBYTE = 1 << 20


class ServingSettings(BaseModel):
    """``budget``: of a request that names none. ``min_score``, ``max_detections`` and ``classes`` as of ``Engine.predict``.

    ``max_image_bytes`` and ``max_pixels`` bound an image before it is decoded. ``queue``: requests that may wait, ``timeout_ms``:
    milliseconds from the arrival of a request to its answer, where the request does not say. ``workers``: images looked at at a
    time (None: one per usable core), each with ``threads`` threads of the engine; ``device`` as of ``apex_runtime.load``.
    ``overload_waiting``: requests that wait when one is begun, from which on it gets at most ``overload_budget`` (None: never).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    budget: str = "1.0"
    min_score: float = Field(default=0.001, ge=0, le=1)
    max_detections: int | None = Field(default=None, ge=1)
    classes: tuple[str, ...] = ()
    max_image_bytes: int = Field(default=20 * MEBIBYTE, ge=1)
    max_pixels: int = Field(default=50_000_000, ge=1)
    queue: int = Field(default=16, ge=0)
    timeout_ms: float = Field(default=10_000, gt=0, allow_inf_nan=False)
    workers: int | None = Field(default=None, ge=1, le=1024)
    threads: int = Field(default=1, ge=1, le=1024)
    device: str = "cpu"
    overload_budget: str | None = None
    overload_waiting: int = Field(default=2, ge=1)

    @field_validator("budget", "overload_budget")
    @classmethod
    def _means_something(cls, value: str | None) -> str | None:
        try:
            return None if value is None else parse_budget(value).asked
        except ApexError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        if self.overload_budget is not None and self.overload_waiting > self.queue:
            raise ValueError(f"overload_waiting {self.overload_waiting} is above queue {self.queue}: so many never wait")
        return self


def parse_settings(raw: dict[str, Any], where: str) -> ServingSettings:
    """The settings in a file or of a command line, ``where`` in messages. Raises ConfigError that names the field."""
    try:
        return ServingSettings.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "settings"
        cause = first.get("ctx", {}).get("error", first["msg"])  # our own words, without those of pydantic before them
        raise ConfigError(f"{where}: {field}: {cause}.", "apex-rt export-server --help says what they may be.") from error

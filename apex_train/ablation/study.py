"""The file of a study: what is varied, on which data, with which seeds, and how the answer is judged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from apex_runtime.data.dataset import DatasetType
from apex_runtime.errors import ConfigError, UsageError
from apex_runtime.precision.plan import Precision
from apex_runtime.routing.budget import parse_budget
from apex_train.ablation.statistics import least_permutation_p

EVALUATE = "evaluate."
Metric = Literal["mAP_segm", "AP50_segm", "AP75_segm", "mAP_bbox", "AP50_bbox", "AP75_bbox"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class EvaluateSection(_Strict):
    """How a trained network is measured. Keys of factors that begin with ``evaluate.`` go here: their levels share a training.

    ``choice``: who picks the tiles: the router, chance, or the true boxes (an oracle); the last two as many as the router would.
    ``precision``: fp32 is the checkpoint itself; the others are engines built of it, calibrated with images of the data set.
    """

    budget: str = Field(default="1.0", description="as apex-rt eval --budget reads it")
    choice: Literal["router", "random", "coverage"] = "router"
    precision: Precision = "fp32"

    @field_validator("budget", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value

    @field_validator("budget")
    @classmethod
    def _is_one(cls, value: str) -> str:
        try:
            kind = parse_budget(value).kind
        except UsageError as error:
            raise ValueError(error.message.removesuffix(".")) from error
        if kind == "ms":
            raise ValueError(f"{value}: a deadline is for an engine that was timed. Give tiles, a share or gflops")
        return value

    @property
    def all_tiles(self) -> bool:
        """Whether nobody has to choose."""
        budget = parse_budget(self.budget)
        return (budget.kind, budget.value) == ("share", 1.0)


class Level(_Strict):
    """One value of a factor: keys of the training configuration (``loss.box_kind``) or of ``evaluate``, set together."""

    name: str = Field(min_length=1)
    set: dict[str, Any] = Field(default_factory=dict)


class Factor(_Strict):
    """What is varied. The first level is the reference, which the others are compared with.

    With ``key`` the levels are plain values of that one key; without it each names itself and what it sets.
    """

    name: str = Field(min_length=1)
    levels: tuple[Level, ...] = Field(min_length=2)

    @model_validator(mode="before")
    @classmethod
    def _plain_values(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or "key" not in raw:
            return raw
        rest = {name: value for name, value in raw.items() if name != "key"}
        key, values = str(raw["key"]), raw.get("levels")
        if not isinstance(values, list) or any(isinstance(value, dict) for value in values):
            raise ValueError("with key, levels is a list of plain values")
        return {"name": key} | rest | {"levels": [{"name": _text(value), "set": {key: value}} for value in values]}

    @model_validator(mode="after")
    def _names_differ(self) -> Factor:
        _no_twice([level.name for level in self.levels], f"levels of {self.name}")
        return self


class Study(_Strict):
    """A whole study. Relative paths are taken from the folder of its file.

    ``base`` is a configuration or the name of a shipped recipe, ``set`` overrides it for every arm, ``epochs`` is the budget that
    every arm gets, ``init`` a checkpoint whose weights every arm starts from. All arms train with the same seeds, hence the same
    order of data; the last weights are measured on ``split``.
    """

    name: str = Field(min_length=1)
    data: Path
    dataset_type: DatasetType | None = None
    base: Path | None = None
    init: Path | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    epochs: int = Field(ge=1)
    split: str = "val"
    metric: Metric = "mAP_segm"
    evaluate: EvaluateSection = EvaluateSection()
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=2)
    design: Literal["one-factor", "full"] = "one-factor"
    factors: tuple[Factor, ...] = Field(min_length=1)
    test: Literal["permutation", "student"] = "permutation"
    alpha: float = Field(default=0.05, gt=0, lt=1, description="chance that any of the verdicts is wrong when nothing differs")

    @property
    def comparisons(self) -> int:
        """Levels that are compared with their factor's reference: the size of the family that p is corrected for."""
        return sum(len(factor.levels) - 1 for factor in self.factors)

    @model_validator(mode="after")
    def _nothing_twice(self) -> Study:
        _no_twice([factor.name for factor in self.factors], "factors")
        _no_twice(self.seeds, "seeds")
        keys = [key for factor in self.factors for key in {key for level in factor.levels for key in level.set}]
        _no_twice(keys, "keys of different factors")
        taken = {"train.seed", "train.epochs"} & {*keys, *self.set}
        if taken:
            raise ValueError(f"{min(taken)} belongs to the study itself: use its {min(taken).removeprefix('train.')}")
        return self

    @model_validator(mode="after")
    def _can_show_something(self) -> Study:
        """Hours of training that no result of which could be significant are not begun."""
        if self.test == "permutation" and least_permutation_p(len(self.seeds)) * self.comparisons > self.alpha:
            needed = next(
                (n for n in range(2, 64) if least_permutation_p(n) * self.comparisons <= self.alpha), "more than can be tested"
            )
            raise ValueError(
                f"{len(self.seeds)} seeds can give no p below {least_permutation_p(len(self.seeds)):g}, times {self.comparisons} "
                f"comparisons: nothing could be shown. Give {needed} seeds, or test: student (differences are assumed normal)"
            )
        return self


def read_study(path: Path) -> Study:
    """The study of a YAML file, its paths made whole. Raises ConfigError."""
    try:
        study = Study.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: study file not found.", "Give the path of a YAML file.", path=path) from error
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a readable YAML file ({error}).", "Correct the file.", path=path) from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error)}.", "See docs/ablation.md for every key.", path=path) from error
    paths = {"data": path.parent / study.data, "base": _base(study.base, path.parent), "init": _init(study.init, path)}
    return study.model_copy(update=paths)


def _init(init: Path | None, study: Path) -> Path | None:
    if init is None:
        return None
    found = study.parent / init
    if not found.is_file():
        raise ConfigError(f"{study}: init: {found} is not there.", "Give a checkpoint, or leave it out.", path=study)
    return found


def _base(base: Path | None, folder: Path) -> Path | None:
    from apex_train.recipes import recipe_path

    return None if base is None else recipe_path(str(base)) or folder / base


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    return f"{field}: {first['msg']}" if field else first["msg"]


def _text(value: Any) -> str:
    """As YAML writes it."""
    return {True: "true", False: "false", None: "null"}[value] if value is None or isinstance(value, bool) else str(value)


def _no_twice(found: Any, what: str) -> None:
    seen = list(found)
    twice = next((item for item in seen if seen.count(item) > 1), None)
    if twice is not None:
        raise ValueError(f"{what}: {twice} stands there twice")

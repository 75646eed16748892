"""A build recipe: what ``build-engine`` is asked for, as a small YAML file. Flags on the command line win over the file.

Some are shipped, one for each kind of machine, and found by name.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from apex_runtime.bundle.manifest import Backend
from apex_runtime.errors import ConfigError
from apex_runtime.precision.data import IMAGES
from apex_runtime.precision.plan import Precision, Profile
from apex_runtime.precision.ranges import Method
from apex_runtime.precision.request import PrecisionRequest

MAX_BYTES = 1 << 20


class BuildRecipe(BaseModel):
    """Backend; number format, by itself or by a profile, what is left alone in it, how and on how many images it is calibrated,
    how much it may cost, and whether it is compared with fp32; for the TensorRT flavours compute capabilities, the largest batch
    of a plan, and whether ops may be built by plugins.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: Backend = "ort-cpu"
    precision: Precision = "fp32"
    profile: Profile | None = None
    pin: tuple[str, ...] = ()
    method: Method = "minmax"
    max_drop: float | None = None
    compute_capability: tuple[int, ...] = ()
    max_batch: int = Field(default=8, ge=1, le=256)
    plugins: bool = True
    calibration_images: int = Field(default=IMAGES, ge=1)
    report: bool = True

    def precision_request(self, data: Path | None, calibration_cache: Path | None) -> PrecisionRequest:
        """What the recipe asks for in matters of precision, with the images and the cache of the command line."""
        return PrecisionRequest(
            precision=self.precision,
            profile=self.profile,
            pins=self.pin,
            method=self.method,
            data=data,
            calibration_images=self.calibration_images,
            calibration_cache=calibration_cache,
            max_drop=self.max_drop,
            report=self.report,
        )

    def to_yaml(self) -> str:
        """The file that reads back as this recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def recipe_names() -> list[str]:
    """The names of the shipped recipes, in alphabetical order."""
    return sorted(path.stem for path in _shipped().glob("*.yaml"))


def find_recipe(name: str | Path) -> Path:
    """The file of a shipped recipe where ``name`` is one of those, else ``name`` itself. Raises ConfigError when neither is."""
    path = Path(name)
    if str(name) in recipe_names():
        return _shipped() / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(
            f"--recipe {name}: no such file, and no recipe of that name.",
            f"Give the path of a YAML file, or one of {', '.join(recipe_names())}.",
            path=path,
        )
    return path


def _shipped() -> Path:
    return Path(str(files("apex_engines")))


def load_recipe(path: Path | None, flags: dict[str, Any]) -> BuildRecipe:
    """The recipe of a file or a shipped name (or the defaults), every flag that was given in place of its value.

    Raises ConfigError.
    """
    raw: Any = {}
    if path is not None:
        path = find_recipe(path)
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"--recipe {path}: larger than 1 MB.", "This is not a recipe.", path=path)
        try:
            raw = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"--recipe {path}: not a YAML file ({error}).", "Correct the file.", path=path) from error
    keys = ", ".join(BuildRecipe.model_fields)
    if not isinstance(raw, dict):
        raise ConfigError(f"--recipe {path}: expected keys among {keys}.", "Correct the file.", path=path)
    try:
        return BuildRecipe.model_validate(raw | flags)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"--recipe {path}: {field}: {first['msg']}.", f"Known keys: {keys}.", path=path) from error

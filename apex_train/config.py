"""Every number of a training run, typed; unknown keys are refused. ``apex-train fit`` needs no file: these are the defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from apex_runtime.data.dataset import DatasetType
from apex_runtime.errors import ConfigError, UsageError
from apex_runtime.image_size import parse_size
from apex_runtime.model_info import Category
from apex_train.model.config import STRIDES, ModelConfig

MIN_CROP = 64
# What runs did before a key was there, where that is not its default.
_BEFORE: dict[str, dict[str, Any]] = {"loss": {"mask_region": "wide"}}
MaskRegion = Literal["box", "wide"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _a_switch_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[str(info.field_name)].annotation
        if value is False and "off" in get_args(annotation):  # YAML reads the word off as false
            return "off"
        switch = annotation is bool
        if isinstance(value, bool) and not switch:  # pydantic would read ``true`` as 1
            raise ValueError("expected a value, not true or false")
        if switch and not isinstance(value, bool):
            raise ValueError("expected true or false")
        return value


class ModelSection(_Section):
    """Which network; the classes come from the data set."""

    size: Literal["nano", "small", "base"] = "nano"
    tile: int = 64
    halo: int = 8
    max_detections: int = 500
    prototypes: int = 32
    mask_quality: bool = False
    depth: int = 1
    ratio: tuple[float, ...] = ()


class AugmentConfig(_Section):
    """Random geometry and light of a training sample. Scales are factors on the letterbox scale of ``TrainSection.size``.

    What is off by default has not been shown to help on the data that the defaults were chosen with, and a recipe written before
    the key existed trains as it did.
    """

    scale_min: float = Field(default=0.6, gt=0, description="smallest scale; log-uniform up to scale_max")
    scale_max: float = Field(default=1.5, gt=0, description="largest scale")
    flip_horizontal: float = Field(default=0.5, ge=0, le=1, description="probability of a left-right flip")
    flip_vertical: float = Field(default=0.5, ge=0, le=1, description="probability of an up-down flip")
    transpose: float = Field(default=0.5, ge=0, le=1, description="probability of exchanging the axes; with flips: all turns")
    affine: float = Field(default=0.0, ge=0, le=1, description="probability of rotation, shear, shift and stretch")
    rotate: float = Field(default=15.0, ge=0, le=180, description="largest rotation, degrees; boxes without masks become loose")
    shear: float = Field(default=5.0, ge=0, le=45, description="largest shear, degrees")
    translate: float = Field(default=0.1, ge=0, le=0.5, description="largest shift, share of the crop")
    stretch: float = Field(default=1.2, ge=1, le=4, description="largest ratio by which one side grows against the other")
    mosaic: float = Field(default=0.0, ge=0, le=1, description="probability that the crop is put together from four pictures")
    copy_paste: float = Field(default=0.0, ge=0, le=1, description="probability that objects of another picture are pasted in")
    copy_paste_objects: int = Field(default=8, ge=1, description="most objects pasted into a crop; only those with masks are")
    brightness: float = Field(default=0.2, ge=0, lt=1, description="largest shift of brightness, share of white")
    contrast: float = Field(default=0.2, ge=0, lt=1, description="largest relative change of contrast")
    saturation: float = Field(default=0.0, ge=0, le=1, description="largest relative change of saturation")
    hue: float = Field(default=0.0, ge=0, le=180, description="largest turn of the hue, degrees")
    gamma: float = Field(default=0.0, ge=0, le=2, description="largest logarithm of the gamma exponent")
    keep_visible: float = Field(
        default=0.15, ge=0, le=1, description="objects are dropped when less than this share is left, cut off or pasted over"
    )

    @model_validator(mode="after")
    def _scales_in_order(self) -> AugmentConfig:
        if self.scale_min > self.scale_max:
            raise ValueError(f"scale_min {self.scale_min} is above scale_max {self.scale_max}")
        return self


class LossConfig(_Section):
    """Weights and shapes of the losses. A weight of 0 leaves the term in the report, as zero, and costs nothing."""

    cls: float = Field(default=0.5, ge=0)
    cls_one: float = Field(default=1.0, ge=0)
    box: float = Field(default=5.0, ge=0)
    box_kind: Literal["iou", "giou", "diou", "ciou", "mpdiou"] = "ciou"
    mask_bce: float = Field(default=2.0, ge=0)
    mask_dice: float = Field(default=2.0, ge=0)
    mask_lovasz: float = Field(default=0.0, ge=0, description="Jaccard loss, convex in the logits")
    mask_boundary: float = Field(default=0.0, ge=0, description="distance of wrong cells from the true contour")
    mask_multiscale: float = Field(default=0.0, ge=0, description="BCE and Dice in cells twice and four times as large")
    mask_quality: float = Field(default=0.0, ge=0, description="of the head model.mask_quality, which must be on")
    mask_region: MaskRegion = Field(
        default="box", description="cells that mask terms look at: those of the box, or wide: a margin around it too"
    )
    oracle: float = Field(default=0.2, ge=0)
    budget: float = Field(default=0.0, ge=0, description="of the price for meaning to look at more than routing.share")
    peripheral: float = Field(default=1.0, ge=0)
    top_many: int = Field(default=10, ge=1)
    masks_per_object: int = Field(default=2, ge=1)
    pcgrad: bool = Field(default=False, description="take out of each task's trunk gradient what goes against another's")


class RoutingConfig(_Section):
    """How many tiles a step looks at.

    All of them in the first ``all_tiles`` share of the steps, so that the foveal stream is learned before the heads can do
    without it; then all with probability ``keep_all``, else a uniform draw from ``min_share`` to all. A share ``explore`` of the
    chosen ones are random, for tiles that are not chosen get no gradient from the task. What looking at a tile is worth is
    measured for ``oracle_tiles`` tiles of a share ``oracle_images`` of the images of every step, and taught with the weight
    loss.oracle.
    """

    all_tiles: float = Field(default=0.4, ge=0, le=1)
    keep_all: float = Field(default=0.3, ge=0, le=1)
    min_share: float = Field(default=0.125, gt=0, le=1)
    explore: float = Field(default=0.1, ge=0, le=1)
    oracle_images: float = Field(default=0.25, gt=0, le=1, description="share of a batch whose tiles are measured")
    oracle_tiles: int = Field(
        default=8, ge=4, description="tiles measured per image, one pass of the heads each; at least 4 on every level"
    )
    share: float = Field(default=0.25, gt=0, le=1, description="of the tiles that the router should think worth their cost")


class LabelsSection(_Section):
    """How far the labels are believed, where some are wrong. By default all are, as far as their annotations' ``weight`` says.

    Objects are admitted by their weights, of ``apex-train label-quality``, the highest first: a share ``first`` of those of the
    split in the first step, ``last`` from the step on at which ``ramp`` of the run is done, in between in proportion. One that is
    not admitted counts 0, and is no background either.
    """

    first: float = Field(default=1.0, gt=0, le=1, description="share of the objects that count at the start, the cleanest")
    last: float = Field(default=1.0, gt=0, le=1, description="share of the objects that count in the end")
    ramp: float = Field(default=0.5, ge=0, le=1, description="share of the steps over which the first becomes the last")
    count: Literal["weight", "even"] = Field(default="weight", description="even: what is admitted counts fully")
    clip: float = Field(
        default=0.0, ge=0, description="an object costs at most this many times the running median of one; 0: no limit"
    )

    @field_validator("clip")
    @classmethod
    def _above_the_median(cls, value: float) -> float:
        if 0 < value < 1:
            raise ValueError(f"{value:g} times the median would damp more than half of the objects: give 1 or more, or 0")
        return value


class TrainSection(_Section):
    """The run: ``size`` is the letterbox that images are scaled to, one side or height x width ("384x1280"), ``crop`` the side of
    the piece a step sees, ``batch`` the images of an optimiser step, over all processes and micro-batches.

    ``dataset_type`` says how the data folder is read; null: it is recognised, and the run says as what.
    """

    dataset_type: DatasetType | None = None
    epochs: int = Field(default=100, ge=1)
    batch: int = Field(default=16, ge=1)
    micro_batch: int | None = Field(default=None, ge=1, description="images at a time in a process; null: as many as fit")
    on_oom: Literal["redo", "skip"] = Field(default="redo", description="what becomes of a step that ran out of memory")
    size: int | str = 512
    crop: int = 256
    learning_rate: float = Field(default=2e-3, gt=0)
    final_rate: float = Field(default=0.02, gt=0, le=1)
    weight_decay: float = Field(default=0.02, ge=0)
    warmup_steps: int = Field(default=200, ge=0)
    clip_norm: float = Field(default=10.0, gt=0)
    ema_decay: float = Field(default=0.999, gt=0, lt=1)
    norm_statistics: Literal["batch", "frozen"] = Field(default="batch", description="frozen: batch norm as in inference")
    evaluate_every: int = Field(default=5, ge=1, description="epochs between measurements on val")
    metric: Literal["auto", "mAP_segm", "mAP_bbox", "val_loss"] = Field(default="auto", description="what the best epoch is")
    patience: int = Field(default=0, ge=0, description="measurements without a better one that end the run; 0: none do")
    min_delta: float = Field(default=0.0, ge=0, description="a smaller gain does not renew the patience")
    save_every: int = Field(default=200, ge=0, description="steps between saves within an epoch; 0: only at its end")
    keep_epochs: int = Field(default=2, ge=0, description="newest epoch_*.pt files that are kept")
    workers: int = Field(default=1, ge=0, description="processes that load data, per training process")
    sample_weights: str | None = Field(
        default=None, description="file of apex-train mine: how often each image comes; null: every one once an epoch"
    )
    seed: int = Field(default=0, ge=0)
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, or ddp under torchrun")
    amp: Literal["auto", "off", "bf16", "fp16"] = Field(default="auto", description="auto: off on a CPU, bf16 or fp16 on a GPU")
    kernels: Literal["auto", "off"] = Field(
        default="auto", description="auto: CUDA kernels of the ops where they can run; off: the formulas everywhere"
    )
    deterministic: bool = Field(default=False, description="the same run gives the same numbers, at some cost")
    bad_steps: int = Field(default=20, ge=1, description="steps in a row that are not finite and end the run")
    peer_timeout: float = Field(
        default=1800.0, gt=0, description="seconds after which a process that does not answer is lost; rank 0's writing included"
    )
    only: Literal["all", "router"] = Field(default="all", description="router: every other weight stays what --init gave it")
    scan: bool = Field(default=True, description="false: tiles tell each other nothing; the scan's modulation is the identity")

    @field_validator("size")
    @classmethod
    def _a_size(cls, value: int | str) -> int | str:
        try:
            height, width = parse_size(str(value))
        except UsageError:
            raise ValueError(f"{value!r} is not a size: one side (512) or height x width (384x1280)") from None
        return height if height == width else f"{height}x{width}"  # one way to write a size: configurations are compared

    @property
    def letterbox(self) -> tuple[int, int]:
        """Height and width, in pixels, of the whole picture."""
        return parse_size(str(self.size))


# What may differ between a run and its resumption: where and how often, not what is learned.
FREE_TO_CHANGE = (
    *("workers", "evaluate_every", "bad_steps", "dataset_type", "device", "micro_batch", "on_oom", "save_every", "keep_epochs"),
    *("patience", "min_delta", "deterministic", "kernels", "peer_timeout"),
)


class FitConfig(_Section):
    """A whole run. Sections of the YAML file have these names."""

    model: ModelSection = ModelSection()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    routing: RoutingConfig = RoutingConfig()
    labels: LabelsSection = LabelsSection()
    train: TrainSection = TrainSection()

    @model_validator(mode="after")
    def _sides_fit_the_tiles(self) -> FitConfig:
        try:
            self.network((Category(id=1, name="any"),))  # the network's own rules, asked before anything is built
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"model.{'.'.join(str(part) for part in first['loc']) or 'section'}: {first['msg']}") from error
        if self.train.crop < MIN_CROP:
            raise ValueError(f"train.crop {self.train.crop} is below {MIN_CROP}: batch norm needs several cells at stride 32")
        tile = self.model.tile << (self.model.depth - 1)  # what one of level 0 covers
        said = f"model.tile {tile}" if self.model.depth == 1 else f"{tile}, model.tile at depth {self.model.depth}"
        for name, value, sides in (
            ("train.size", self.train.size, self.train.letterbox),
            ("train.crop", self.train.crop, (self.train.crop,)),
        ):
            if any(side <= 0 or side % tile or side % STRIDES[-1] for side in sides):
                raise ValueError(f"{name} {value} is not a multiple of {said}")
        return self

    @model_validator(mode="after")
    def _conflicts_need_several_tasks(self) -> FitConfig:
        if self.loss.pcgrad and self.train.only == "router":
            raise ValueError("loss.pcgrad is about weights that train.only: router leaves as they are: switch one of them off")
        return self

    @model_validator(mode="after")
    def _a_weight_has_its_head(self) -> FitConfig:
        if self.loss.mask_quality > 0 and not self.model.mask_quality:
            raise ValueError("loss.mask_quality has a weight, but the network has no such head: set model.mask_quality to true")
        return self

    def learned(self) -> dict[str, Any]:
        """As plain values, without what changes nothing that is learned (workers, device, how often it is saved)."""
        found = self.model_dump(mode="json")
        found["train"] = {key: value for key, value in found["train"].items() if key not in FREE_TO_CHANGE}
        return found

    def network(self, categories: tuple[Any, ...]) -> ModelConfig:
        """The architecture for the classes of a data set."""
        return ModelConfig(classes=categories, **self.model.model_dump())


def load_config(path: Path | None, overrides: dict[str, Any]) -> FitConfig:
    """The configuration of a YAML file (or the defaults) with ``section.key`` overrides. Raises ConfigError."""
    raw: Any = {}
    if path is not None:
        if not path.is_file():
            raise ConfigError(
                f"{path}: configuration file not found.", "Give the path of a YAML file, or leave it out.", path=path
            )
        try:
            raw = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not a YAML file ({error}).", "Correct the file.", path=path) from error
        if not isinstance(raw, dict):
            raise ConfigError(f"{path}: expected sections {sorted(FitConfig.model_fields)}.", "Correct the file.", path=path)
    for dotted, value in overrides.items():
        _set(raw, dotted, value)
    try:
        return FitConfig.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(_explain(error, path), "See docs/training.md for every key.", path=path) from error


def parse_assignment(text: str) -> tuple[str, Any]:
    """``section.key=value`` of the command line, the value read as YAML."""
    key, found, value = text.partition("=")
    if not found or not key.strip():
        raise ConfigError(f"--set {text!r}: expected key=value.", "For example --set train.batch=8")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {text!r}: the value is not YAML ({error}).", "For example --set train.batch=8") from error


def _set(raw: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, key = dotted.split(".")
    for section in sections:
        if raw.get(section) is None:  # absent, or an empty section of the file
            raw[section] = {}
        raw = raw[section]
        if not isinstance(raw, dict):
            raise ConfigError(f"{dotted}: {section} is not a section.", "Use section.key=value.")
    raw[key] = value


def _explain(error: ValidationError, path: Path | None) -> str:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or "configuration"
    known = ""
    if first["type"] == "extra_forbidden":
        parent: Any = FitConfig
        for part in first["loc"][:-1]:
            parent = parent.model_fields[str(part)].annotation
        known = f" Known keys: {', '.join(parent.model_fields)}."
    return f"{path or 'configuration'}: {field}: {first['msg']}.{known}"


def as_recorded(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration in a checkpoint, with what its run did where a key is younger than the checkpoint."""
    known = {section: values for section, values in _BEFORE.items() if isinstance(config.get(section), dict)}
    return config | {section: values | config[section] for section, values in known.items()}

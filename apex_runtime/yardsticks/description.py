"""The description of a yardstick: what an ONNX detector of another project takes and gives, as a small YAML file.

Unknown keys are refused, and so is a key that nothing would read. docs/yardsticks.md describes all of them.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from apex_runtime.data.read_yaml import read_yaml
from apex_runtime.errors import ConfigError
from apex_runtime.yardsticks.slicing import Slicing

SUFFIXES = (".yaml", ".yml")
REMEDY = "The keys of a yardstick are described in docs/yardsticks.md."
_MAX_SIDE = 16384  # pixels

BoxForm = Literal["cxcywh", "xyxy"]
Unit = Literal["pixels", "normalised"]
ScoreForm = Literal["probability", "sigmoid", "softmax"]
Pick = Literal["best", "every"]
Side = Annotated[int, Field(ge=1, le=_MAX_SIDE)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Input(_Section):
    """What becomes of an image: resized, padded, then (pixel * scale - mean) / std per channel, in the order of ``channels``."""

    size: tuple[Side, Side] | None = None  # height, width; None: that of the graph
    sizes: str | None = None  # a second input, [1, 2], that wants width and height to scale boxes by; it gets those of the first
    layout: Literal["nchw", "nhwc"] = "nchw"
    channels: Literal["rgb", "bgr"] = "rgb"
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    resize: Literal["letterbox", "stretch"] = "letterbox"
    interpolation: Literal["linear", "area"] = "linear"  # area: where the image is reduced
    rounded: bool = True  # to whole numbers after resizing; false where the other project resizes floats
    align: Literal["centre", "top_left"] = "centre"  # of the image within the padding
    pad: int = Field(default=114, ge=0, le=255)

    @field_validator("scale", mode="before")
    @classmethod
    def _may_be_a_quotient(cls, value: Any) -> Any:
        """``1/255``, as everybody writes it."""
        if isinstance(value, str) and value.count("/") == 1:
            above, below = map(float, value.split("/"))
            if below == 0:
                raise ValueError("division by zero")
            return above / below
        return value

    @field_validator("std")
    @classmethod
    def _can_be_divided_by(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if 0 in value:
            raise ValueError("division by zero")
        return value

    @model_validator(mode="after")
    def _padding_is_of_a_letterbox(self) -> Input:
        unread = sorted({"align", "pad"} & self.model_fields_set)
        if self.resize == "stretch" and unread:
            raise ValueError(f"{', '.join(unread)}: not read, for a stretched image has no padding")
        return self


class _Outputs(_Section):
    box: BoxForm
    unit: Unit  # normalised: 0..1 over the input, padding included
    cut_masks: bool = True  # to their boxes


class Joined(_Outputs):
    """One tensor of 4 box numbers, a score per class and perhaps mask coefficients, without suppression (YOLOv8, YOLO11)."""

    form: Literal["joined"]
    tensor: str
    places: Literal["last", "first"] = "last"  # last: [1, numbers, places], first: [1, places, numbers]
    score: ScoreForm = "probability"
    pick: Pick = "best"
    prototypes: str | None = None  # [1, M, h, w], for the M coefficients behind the scores


class EndToEnd(_Outputs):
    """One tensor of rows: 4 box numbers, score, class, perhaps mask coefficients (YOLOv10, YOLO26, exports with NMS inside)."""

    form: Literal["end_to_end"]
    tensor: str  # [1, places, 6 + M]
    prototypes: str | None = None


class Separate(_Outputs):
    """Boxes [1, places, 4] and scores [1, places, classes] in tensors of their own (the DETR family), or with ``labels``.

    With ``labels`` [1, places] the scores are [1, places]. Masks are ``masks`` [1, places, h, w] over the whole input, or
    ``coefficients`` [1, places, M] with ``prototypes`` [1, M, h, w].
    """

    form: Literal["separate"]
    boxes: str
    scores: str
    labels: str | None = None
    score: ScoreForm
    pick: Pick = "every"
    masks: str | None = None
    mask_threshold: float = 0.0  # a pixel of ``masks`` is inside where the value is above
    coefficients: str | None = None
    prototypes: str | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Separate:
        if (self.coefficients is None) != (self.prototypes is None):
            raise ValueError("coefficients and prototypes belong together")
        if self.masks is not None and self.prototypes is not None:
            raise ValueError("give either masks or coefficients with prototypes")
        if self.labels is not None and "pick" in self.model_fields_set:
            raise ValueError("pick: not read, for `labels` has the class of every place")
        if self.labels is not None and self.score == "softmax":
            raise ValueError("score: a softmax needs the scores of all classes, and with `labels` there is one per place")
        if self.masks is None and "mask_threshold" in self.model_fields_set:
            raise ValueError("mask_threshold: belongs to `masks`")
        return self


Outputs = Joined | EndToEnd | Separate
_FORMS = ("joined", "end_to_end", "separate")


class Suppression(_Section):
    """NMS: the better of two boxes that share more than ``iou`` stays; ``per_class``: only boxes of one class compete."""

    iou: float = Field(gt=0, le=1)
    per_class: bool = True


class Sliced(_Section):
    """Overlapping windows of ``side`` pixels of the image, as SAHI has them; its defaults."""

    side: Side
    overlap: float = Field(default=0.2, ge=0, lt=1)
    match: Literal["ios", "iou"] = "ios"
    threshold: float = Field(default=0.5, gt=0, le=1)
    whole: bool = True  # the whole image as one window more
    within: bool = True  # also what one window found by itself competes

    def slicing(self) -> Slicing:
        """The same, for ``SlicedPredictor``."""
        return Slicing(**self.model_dump())


class Description(_Section):
    """What the file may say. ``classes``: the name of every column of scores, or {column: name} of those that are a class."""

    title: str = Field(min_length=1, max_length=100)
    model: str  # the ONNX file, in the folder of this one or below
    classes: tuple[str, ...] | dict[int, str]
    input: Input = Input()
    outputs: Annotated[Outputs, Field(discriminator="form")]
    suppression: Suppression | None = None  # in the file: none, or its keys
    max_candidates: int = Field(default=30000, ge=1)  # the best that enter suppression
    slicing: Sliced | None = None

    @field_validator("suppression", mode="before")
    @classmethod
    def _none_is_a_word(cls, value: Any) -> Any:
        return None if value == "none" else value

    @field_validator("model")
    @classmethod
    def _stays_inside(cls, value: str) -> str:
        path = PurePosixPath(value)
        if not value or path.is_absolute() or ".." in path.parts or "\\" in value or value[1:2] == ":":
            raise ValueError(f"{value!r} is no path below the folder of this file")
        return value

    @field_validator("classes")
    @classmethod
    def _can_be_told_apart(cls, value: Any) -> Any:
        names = list(value.values() if isinstance(value, dict) else value)
        if not names or "" in names or len(set(names)) < len(names):
            raise ValueError("every class needs a name of its own")
        if isinstance(value, dict) and min(value) < 0:
            raise ValueError("columns are counted from 0")
        return value

    @property
    def names(self) -> tuple[str, ...]:
        """The classes in the order of their columns."""
        if isinstance(self.classes, dict):
            return tuple(self.classes[column] for column in sorted(self.classes))
        return self.classes

    @property
    def columns(self) -> tuple[int, ...]:
        """The column of scores, or the number of a label, that each of ``names`` has."""
        return tuple(sorted(self.classes)) if isinstance(self.classes, dict) else tuple(range(len(self.classes)))


def is_yardstick(path: str | Path) -> bool:
    """Whether a path is a file that ``read_description`` is for, going by its name."""
    return Path(path).suffix.lower() in SUFFIXES and Path(path).is_file()


def read_description(path: Path) -> Description:
    """Read and check the description of a yardstick. Raises ConfigError, which names the file, the key and the cause."""
    content = read_yaml(path, ConfigError)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: not a description of a yardstick: no keys.", REMEDY, path=path)
    try:
        return Description.model_validate(content)
    except ValidationError as error:
        reasons = "; ".join(f"{_place(e['loc'])}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()[:3])
        raise ConfigError(f"{path}: {reasons}.", REMEDY, path=path) from error


def _place(loc: tuple[int | str, ...]) -> str:
    """The key, without what pydantic puts between keys: the form of the outputs, and types like ``dict[int,str]``."""
    keys = [str(part) for part in loc if isinstance(part, int) or (part.isidentifier() and part not in _FORMS)]
    return ".".join(keys) or "file"

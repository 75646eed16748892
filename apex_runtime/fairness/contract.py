"""The fairness contract: everything that has to be equal before two figures may stand in one table.

It says how something was measured, never what came out or which model it was. Its SHA-256 is that of its canonical JSON, so two
reports of different machines can be told apart without reading either.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from apex_plugins.decode_nms.settings import IOU
from apex_runtime.machine import gpus, processor, usable_cpus, versions
from apex_runtime.model_info import Decode
from apex_runtime.postprocess.letterbox import PAD_VALUE

if TYPE_CHECKING:
    from apex_runtime.bundle.load import Opened

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Text = Annotated[str, Field(min_length=1)]

# Of an engine of this package; a yardstick says its own.
OWN_IMAGE_POLICY = f"letterbox, top left, pad {PAD_VALUE}"
_SUPPRESSION: dict[Decode, str] = {"topk": "no suppression", "nms": f"NMS in the graph (IoU {IOU:g}, within a class)"}
NOT_OF_A_MEASUREMENT = ("apex-x",)  # what is measured, not what it is measured with


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Hardware(_Record):
    """What calculates. ``gpus``: name and driver of each that is there."""

    processor: str
    usable_cpus: int = Field(ge=1)
    gpus: tuple[str, ...]

    @classmethod
    def here(cls) -> Hardware:
        """Of this machine and process."""
        cards = tuple(f"{gpu['name']}, driver {gpu['driver']}" for gpu in gpus())
        return cls(processor=processor(), usable_cpus=usable_cpus(), gpus=cards)


class Contract(_Record):
    """How figures were measured. None: does not apply, so a table of times and one of accuracy are never one.

    ``data`` is the fingerprint of the data set, or the hash of the images; ``input`` (height, width) of the graph; ``timed`` what
    the clock stood around; ``batch`` images per call.
    """

    format_version: Literal[1] = 1
    data: Sha256
    split: str | None
    images: int = Field(ge=1)
    input: tuple[int, int] | None
    image_policy: Text | None
    min_score: float | None = Field(ge=0, le=1)
    max_detections: int | None = Field(ge=1)
    postprocessing: Text | None
    evaluator: Text | None
    precision: Text | None
    batch: int | None = Field(ge=1)
    threads: int | None = Field(ge=1)
    device: Text | None
    timed: Text | None
    hardware: Hardware | None
    versions: dict[str, str]

    def sha256(self) -> str:
        """Of the JSON with sorted keys and no blanks."""
        return hashlib.sha256(
            json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()
        ).hexdigest()

    def without(self, fields: Collection[str]) -> dict[str, Any]:
        """The flat fields, ``versions.numpy`` and the like, but not ``fields`` and what is below them."""
        return {
            name: value
            for name, value in _flat(self.model_dump(mode="json")).items()
            if name not in fields and name.partition(".")[0] not in fields
        }


def differences(first: Contract, second: Contract, across: Collection[str] = ()) -> dict[str, tuple[Any, Any]]:
    """Field by field what differs, each with both values; ``across``: fields that may."""
    one, two = first.without(across), second.without(across)
    return {name: (one.get(name), two.get(name)) for name in sorted(one | two) if one.get(name) != two.get(name)}


def known_fields() -> set[str]:
    """Names that ``across`` may have; those below ``hardware`` and ``versions`` too, which are not listed here."""
    return {name for name in Contract.model_fields if name != "format_version"}


def library_versions() -> dict[str, str]:
    """Of what enters a time or a figure."""
    return {name: number for name, number in versions().items() if number and name not in NOT_OF_A_MEASUREMENT}


def images_sha256(paths: Sequence[Path]) -> str:
    """SHA-256 over the contents of files, in their order. Raises OSError."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def of_engine(opened: Opened, **measured: Any) -> Contract:
    """The contract of an engine on this machine; ``measured``: the fields that the measurement sets."""
    info = opened.session.info
    return Contract(
        input=(info.input.height, info.input.width),
        image_policy=OWN_IMAGE_POLICY,
        postprocessing=f"{_SUPPRESSION[info.decode]}; masks from prototypes at the size of the image",
        device=opened.device,
        hardware=Hardware.here(),
        versions=library_versions(),
        **measured,
    )


def _flat(value: dict[str, Any], head: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, item in value.items():
        found |= _flat(item, f"{head}{name}.") if isinstance(item, dict) else {head + name: item}
    return found

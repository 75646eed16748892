"""What a calibration was made from: two with the same key have the same ranges, and two keys say where they differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from apex_runtime.backends.capabilities import probe
from apex_runtime.backends.op_calls import op_calls
from apex_runtime.precision.ranges import Method

if TYPE_CHECKING:
    from apex_runtime.backends.onnx_contract import OnnxFile

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class CacheKey(BaseModel):
    """The parts of a key. ``profile`` says what was asked of the pass, pins included: it decides which tensors have a range.

    ``data_sha256``: ``digest`` of the images. ``op_versions``: operator sets and ops of ours. ``libraries``: by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model_sha256: Sha256
    profile: str
    data_sha256: Sha256
    op_versions: dict[str, int | str]
    method: Method
    input_shape: tuple[int, ...]
    libraries: dict[str, str]

    @classmethod
    def of(cls, file: OnnxFile, profile: str, method: Method, data_sha256: str) -> CacheKey:
        """The key of a model and the images to calibrate on, with the libraries that are installed."""
        sets = {item.domain or "ai.onnx": item.version for item in file.model.opset_import}
        ops = {f"{call.namespace}.{call.name}": call.version for call in op_calls(file.model)}
        return cls(
            model_sha256=hashlib.sha256(file.data).hexdigest(),
            profile=profile,
            data_sha256=data_sha256,
            op_versions=sets | ops,
            method=method,
            input_shape=(1, file.info.input.height, file.info.input.width, 3),
            libraries={"onnxruntime": probe("ort-cpu").version, "apex-x": version("apex-x")},
        )

    @property
    def sha256(self) -> str:
        """One digest of all parts, in hexadecimal."""
        return digest_of(self.model_dump(mode="json"))

    def changes(self, now: CacheKey) -> tuple[str, ...]:
        """What is different ``now``, in words, a line for each part; empty for the same key."""
        return tuple(self._changes(now))

    def _changes(self, now: CacheKey) -> Iterator[str]:
        if self.model_sha256 != now.model_sha256:
            yield "the model changed"
        yield from _change("the profile", self.profile, now.profile)
        if self.data_sha256 != now.data_sha256:
            yield "the images changed"
        yield from _changes_by_name("the version of the operators", self.op_versions, now.op_versions)
        yield from _change("the method", self.method, now.method)
        yield from _change("the input shape", *("x".join(map(str, key.input_shape)) for key in (self, now)))
        yield from _changes_by_name("the version of", self.libraries, now.libraries)


def digest_of(value: object) -> str:
    """SHA-256 of a JSON value in its canonical form: keys sorted, no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _change(what: str, before: object, now: object) -> Iterator[str]:
    if before != now:
        yield f"{what} changed: {before} -> {now}"


def _changes_by_name(what: str, before: Mapping[str, object], now: Mapping[str, object]) -> Iterator[str]:
    for name in dict.fromkeys((*before, *now)):
        yield from _change(f"{what} {name}", before.get(name, "none"), now.get(name, "none"))

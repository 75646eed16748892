"""``manifest.json``: what an engine bundle is, made of which files with which hashes, by what, from what."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from apex_runtime.backends.plugin_use import Implementation
from apex_runtime.errors import BundleError
from apex_runtime.model_info import Category, Preprocessing, TileInfo
from apex_runtime.precision.plan import Precision, Profile

MANIFEST_NAME = "manifest.json"
MODEL_NAME = "model.onnx"
PRECISION_NAME = "precision.json"
BUNDLE_FORMAT_VERSION = 1
MAX_MANIFEST_BYTES = 4 << 20
REBUILD = "Build it again: apex-rt build-engine model.onnx --backend ort-cpu -o BUNDLE"


def _inside(path: str) -> str:
    """A relative path with forward slashes that stays below the bundle's folder."""
    pure = PurePosixPath(path)
    absolute = pure.is_absolute() or "\\" in path or ":" in path or "\x00" in path
    if absolute or not pure.parts or any(part in ("..", ".") for part in path.split("/")):
        raise ValueError(f"{path!r} does not stay inside the bundle")
    return path


RelativePath = Annotated[str, AfterValidator(_inside)]
Backend = Literal["ort-cpu", "ort-cuda", "tensorrt", "tensorrt-rtx"]
Role = Literal["model", "plan", "precision"]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Artefact(_Record):
    """One file of the bundle. ``compute_capability`` is set for plans only (89 for sm_89)."""

    path: RelativePath
    role: Role
    sha256: Sha256
    bytes: int = Field(ge=0)
    compute_capability: int | None = None


class Source(_Record):
    """The exported model the bundle was built from; ``checkpoint_sha256`` is what the model's own metadata says."""

    file_name: str
    sha256: Sha256
    checkpoint_sha256: str


class Tensor(_Record):
    """An input or output; run-time dimensions are names (``batch``, ``tiles``)."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class ProfileRange(_Record):
    """What one input of an optimisation profile may be; ``values`` means numbers held by a shape tensor, not its shape."""

    input: str
    kind: Literal["shape", "values"]
    minimum: tuple[int, ...]
    optimum: tuple[int, ...]
    maximum: tuple[int, ...]


class Plugin(_Record):
    """A custom op of the graph; ``body`` says that the file carries its meaning in standard ops.

    ``attributes``: name -> int or float, as its nodes have them. ``implementation`` is what computes it: the body, a kernel that
    the plan carries, or a plugin of TensorRT's registry; ``reason`` is the code of why it is the body where a plugin was wanted.
    """

    name: str
    namespace: str
    version: str
    body: bool
    attributes: dict[str, str] = {}
    implementation: Implementation = "body"
    reason: str = ""


class Build(_Record):
    """The command (file names without folders), when, and how long it took."""

    command: str
    created_utc: str
    seconds: float = Field(ge=0)


class Manifest(_Record):
    """The bundle's table of contents."""

    format_version: Literal[1] = 1
    kind: Literal["apex-x-engine"] = "apex-x-engine"
    backend: Backend
    backend_version: str
    precision: Precision
    profile: Profile | None = None
    source: Source
    artefacts: tuple[Artefact, ...]
    compute_capabilities: tuple[int, ...]
    optimisation_profiles: tuple[tuple[ProfileRange, ...], ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    classes: tuple[Category, ...]
    preprocessing: Preprocessing
    tiles: TileInfo
    plugins: tuple[Plugin, ...]
    tools: dict[str, str]
    build: Build

    def find(self, role: str) -> tuple[Artefact, ...]:
        """The files of one role."""
        return tuple(item for item in self.artefacts if item.role == role)

    def to_json(self) -> str:
        """Indented, for people and for version control."""
        return json.dumps(self.model_dump(mode="json"), indent=2) + "\n"


def is_bundle(folder: Path) -> bool:
    """Whether a folder claims to be a bundle (its manifest may still be wrong)."""
    return (folder / MANIFEST_NAME).is_file()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle. Raises BundleError naming the field that does not fit, a foreign version, or its absence."""
    path = folder / MANIFEST_NAME
    raw = _read_json(path)
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if version != BUNDLE_FORMAT_VERSION:
        raise BundleError(
            f"{path}: bundle format {version!r}, this apex-rt reads format {BUNDLE_FORMAT_VERSION}.", REBUILD, path=path
        )
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "record"
        raise BundleError(f"{path}: {field}: {first['msg']}.", REBUILD, path=path) from error


def _read_json(path: Path) -> object:
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise BundleError(f"{path}: larger than a manifest can be.", REBUILD, path=path)
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: not a manifest ({error}).", REBUILD, path=path) from error

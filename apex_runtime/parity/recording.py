"""What a subject answered, kept: recorded on the machine that has the GPU, compared on one that has not.

Two files: ``NAME.json`` says what was run on which images, by what and where; ``NAME.npz`` beside it holds the outputs. Runs are
found by the digest of their inputs, so a recording answers only what it was asked. Schema: ``schemas/recording.schema.json``.
"""

from __future__ import annotations

import hashlib
import json
import platform
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from apex_runtime.backends.onnx_contract import expected_outputs
from apex_runtime.backends.reasons import REMEDIES, ReasonCode
from apex_runtime.backends.session import Session, Tiles, in_all, per_level
from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.errors import ModelError, UsageError
from apex_runtime.files import replacing, write_atomically
from apex_runtime.machine import processor
from apex_runtime.model_info import ModelInfo, output_names
from apex_runtime.parity.tolerance import Precision

SUFFIX = ".json"
MAX_JSON_BYTES = 16 << 20
MAX_OUTPUT_BYTES = 8 << 30
_ANOTHER = REMEDIES[ReasonCode.NOT_RECORDED]

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RecordedSubject(_Record):
    """Who answered: the file that was hashed, its digest, its precision, and what executed it."""

    file_name: str
    sha256: Sha256
    precision: Precision
    backend: str


class Recording(_Record):
    """``NAME.json``. ``runs``: digests of the inputs that were run, in their order; ``images``: digests of the images by name."""

    format_version: Literal[1] = 1
    kind: Literal["apex-x-recording"] = "apex-x-recording"
    subject: RecordedSubject
    model: ModelInfo
    images: dict[str, Sha256]
    runs: tuple[Sha256, ...]
    outputs_sha256: Sha256
    tools: dict[str, str]
    machine: dict[str, str]
    created_utc: str


def is_recording(path: Path) -> bool:
    """Whether a file claims to be one by its name."""
    return path.is_file() and path.suffix.lower() == SUFFIX


def request_digest(images: np.ndarray, tiles: Tiles, tile_bonus: np.ndarray) -> str:
    """SHA-256 of what a session is asked."""
    whole = hashlib.sha256(json.dumps([images.shape, per_level(tiles)]).encode())
    for array in (images, tile_bonus):
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()


class Recorder:
    """A session that notes every answer of another. Implements ``Session``."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.answers: dict[str, dict[str, np.ndarray]] = {}

    @property
    def info(self) -> ModelInfo:
        """The model's passport."""
        return self._session.info

    @property
    def name(self) -> str:
        """What executes."""
        return self._session.name

    def run(self, images: np.ndarray, tiles: Tiles, tile_bonus: np.ndarray) -> dict[str, np.ndarray]:
        """The answer of the session, noted; the same question is not asked twice."""
        digest = request_digest(images, tiles, tile_bonus)
        if digest not in self.answers:
            self.answers[digest] = self._session.run(images, tiles, tile_bonus)
        return self.answers[digest]


def write_recording(
    path: Path, subject: RecordedSubject, images: dict[str, str], tools: dict[str, str], made: Recorder
) -> Recording:
    """Write both files, the outputs first. ``images``: digests by name. Raises UsageError when they cannot be written."""
    outputs = _outputs_of(path)
    arrays = {f"{run}/{name}": array for run, found in made.answers.items() for name, array in found.items()}
    try:
        with replacing(outputs) as stream:
            np.savez_compressed(stream, allow_pickle=False, **arrays)
        recording = Recording(
            subject=subject,
            model=made.info,
            images=images,
            runs=tuple(made.answers),
            outputs_sha256=sha256_of(outputs),
            tools=tools,
            machine={"processor": processor(), "system": platform.system()},
            created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        write_atomically(path, (recording.model_dump_json(indent=2) + "\n").encode())
    except OSError as error:
        raise UsageError(f"--record {path}: cannot be written ({error.strerror}).", "Name another file.", path=path) from error
    return recording


def read_recording(path: Path) -> Recording:
    """``NAME.json``. Raises UsageError when it is no recording."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_JSON_BYTES + 1)
        if len(data) > MAX_JSON_BYTES:
            raise ValueError("larger than a recording can be")
        return Recording.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "record"
        raise UsageError(f"{path}: not a recording ({field}: {first['msg']}).", _ANOTHER, path=path) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: not a recording ({error}).", _ANOTHER, path=path) from error


@dataclass(frozen=True, eq=False)
class RecordingSession:
    """A recording that answers like the session that it was made of. Implements ``Session``."""

    path: Path
    recording: Recording
    answers: dict[str, dict[str, np.ndarray]]

    @classmethod
    def open(cls, path: Path) -> RecordingSession:
        """Raises UsageError for a file that is none, ModelError when the outputs are missing, damaged or of another recording."""
        recording = read_recording(path)
        return cls(path, recording, _read_outputs(_outputs_of(path), recording))

    @property
    def info(self) -> ModelInfo:
        """The passport of the model that was recorded."""
        return self.recording.model

    @property
    def name(self) -> str:
        """What executed, then."""
        return f"{self.recording.subject.backend}, recorded"

    def run(self, images: np.ndarray, tiles: Tiles, tile_bonus: np.ndarray) -> dict[str, np.ndarray]:
        """The recorded answer. Raises ModelError when this was not asked, or not answered in the form that the passport names."""
        found = self.answers.get(request_digest(images, tiles, tile_bonus))
        if found is None:
            raise ModelError(
                f"{self.path}: nothing was recorded for {len(images)} image(s) with these tiles.",
                _ANOTHER,
                path=self.path,
                code=ReasonCode.NOT_RECORDED.value,
            )
        for spec in expected_outputs(self.info):
            array, shape = found[spec.name], spec.sized(len(images), in_all(tiles))
            if (str(array.dtype), array.shape) != (spec.dtype, shape):
                words = f"{array.dtype} {list(array.shape)}, its passport says {spec.dtype} {list(shape)}"
                raise ModelError(f"{self.path}: the recorded {spec.name} is {words}.", _ANOTHER, path=self.path)
        return found


def _outputs_of(path: Path) -> Path:
    return path.with_suffix(".npz")


def _read_outputs(path: Path, recording: Recording) -> dict[str, dict[str, np.ndarray]]:
    """The arrays by run and output. Untrusted: no pickle, no more than the limit, exactly what the recording names."""
    try:
        if sha256_of(path) != recording.outputs_sha256:
            raise ValueError("it is not the file that was recorded")
        with zipfile.ZipFile(path) as archive:
            size = sum(item.file_size for item in archive.infolist())
        if size > MAX_OUTPUT_BYTES:
            raise ValueError(f"{size} bytes unpacked, {MAX_OUTPUT_BYTES} are the limit")
        names = output_names(recording.model.tiles.depth)
        with np.load(path, allow_pickle=False) as arrays:
            return {run: {name: arrays[f"{run}/{name}"] for name in names} for run in recording.runs}
    except Exception as error:  # of a file from elsewhere zipfile, zlib and NumPy raise whatever they like, no memory among it
        cause = getattr(error, "strerror", None) or str(error)
        raise ModelError(f"{path}: not the outputs of this recording ({cause}).", _ANOTHER, path=path) from error

"""What tests of the runtime share: the tiny model, a bundle of it, schemas, and the command line in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner
from tiny_model import write_tiny_model

from apex_runtime.bundle.build import build_bundle
from apex_runtime.cli.main import main


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 128 x 128 pixels, 4 x 4 tiles, at most 12 detections, one class."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model.onnx")


@pytest.fixture
def tiny_bundle(tiny_onnx: Path, tmp_path: Path) -> Path:
    """A fresh ort-cpu bundle of the tiny model: tests may damage it."""
    folder = tmp_path / "bundle"
    build_bundle(tiny_onnx, "ort-cpu", folder)
    return folder


@pytest.fixture(scope="session")
def validate(repo_root: Path) -> Callable[[str, object], None]:
    """``validate("results", value)`` checks a value against one of our schemas."""

    def check(name: str, value: object) -> None:
        schema = json.loads((repo_root / "apex_runtime" / "schemas" / f"{name}.schema.json").read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.Draft202012Validator(schema).validate(value)

    return check


@dataclass(frozen=True)
class Ran:
    """A finished command."""

    code: int
    out: str
    err: str


@pytest.fixture
def apex_rt() -> Callable[..., Ran]:
    """``apex_rt("infer", path, ...)`` runs the command line in this process, with ``stdin`` if given; an unexpected exception
    fails the test."""

    def run(*arguments: object, stdin: bytes | str | None = None) -> Ran:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.stdout, result.stderr)

    return run

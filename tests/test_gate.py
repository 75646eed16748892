"""The gate, ``pytest -m gate``, at most a minute: imports, losses, one train step, export, one inference, parity."""

from __future__ import annotations

import importlib
import importlib.util
import json
import pkgutil
from pathlib import Path

import jsonschema
import pytest
import torch
from click.testing import CliRunner
from rich.console import Console

from apex_runtime.cli.main import main as apex_rt
from apex_runtime.data.open import open_dataset
from apex_train.checkpoint import save_checkpoint
from apex_train.cli.main import main as apex_train
from apex_train.config import FitConfig, load_config
from apex_train.data.loader import training_loader
from apex_train.engine.trainer import Trainer
from apex_train.losses.compute import KEYS, compute_training_losses

pytestmark = pytest.mark.gate

# Modules that live in somebody else's program, by a part of their name, and the package that is there then.
GUESTS = {
    "trt_plugin": "tensorrt",
    "tensorrt_launch": "tensorrt",
    "serving.mlserver_limits": "mlserver",
    "serving.mlserver_model": "mlserver",
    "serving.triton_preprocess": "triton_python_backend_utils",
    "serving.triton_postprocess": "triton_python_backend_utils",
}

SIDE = 128
SMALL = {"train.size": SIDE, "train.crop": SIDE, "train.batch": 2, "train.epochs": 1, "train.workers": 0, "train.warmup_steps": 0}


@pytest.fixture(scope="module")
def config() -> FitConfig:
    return load_config(None, SMALL)


@pytest.fixture(scope="module")
def trained(
    config: FitConfig, nuclei_fixture: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Trainer, dict, dict, Path]:
    """A network after one step on real images: the trainer, the weights before, the step's terms, its checkpoint."""
    folder = tmp_path_factory.mktemp("gate")
    trainer = Trainer(config, open_dataset(nuclei_fixture, "train"), None, folder, Console(quiet=True))
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    terms = trainer.train_step(next(iter(trainer.loader)))
    save_checkpoint(folder / "step.pt", trainer.model, trainer.model_config)
    return trainer, before, terms, folder / "step.pt"


@pytest.fixture(scope="module")
def exported(trained: tuple[Trainer, dict, dict, Path]) -> Path:
    checkpoint = trained[3]
    model = checkpoint.with_name("model.onnx")
    result = CliRunner().invoke(apex_train, ["export", str(checkpoint), "-o", str(model), "--size", str(SIDE)])
    assert result.exit_code == 0, result.output
    return model


@pytest.mark.parametrize("room", ["apex_runtime", "apex_train", "apex_plugins", "apex_engines"])
def test_every_module_imports(room: str) -> None:
    package = importlib.import_module(room)
    names = [found.name for found in pkgutil.walk_packages(package.__path__, f"{room}.")]
    for name in names:
        needs = next((package for part, package in GUESTS.items() if part in name), None)
        if needs is None or importlib.util.find_spec(needs):
            importlib.import_module(name)
    assert names or room == "apex_engines"


def test_losses_are_finite_and_complete_and_reach_the_network_without_objects(config: FitConfig, trained, nuclei_fixture) -> None:
    trainer = trained[0]
    loader, _ = training_loader(open_dataset(nuclei_fixture, "train"), config)
    batch = next(iter(loader))
    tiles = trainer.model_config.grid(SIDE, SIDE)
    bonus = torch.zeros(len(batch.images), tiles[0] * tiles[1])
    for objects in (True, False):
        if not objects:
            batch.labels.fill_(-1)
            batch.has_mask.fill_(False)
        trainer.model.zero_grad()
        outputs = trainer.model(batch.images, 2, bonus, with_peripheral=True)
        total, terms = compute_training_losses(outputs, batch, config.loss)
        assert set(terms) == set(KEYS)
        assert all(torch.isfinite(value) and value.ndim == 0 for value in terms.values())
        total.backward()
        norms = [parameter.grad.norm() for parameter in trainer.model.parameters() if parameter.grad is not None]
        assert torch.stack(norms).isfinite().all() and torch.stack(norms).max() > 0


def test_one_step_is_finite_and_moves_the_weights_of_every_part(trained) -> None:
    trainer, before, terms, _ = trained
    assert set(KEYS) <= set(terms)
    assert trainer.bad_steps == 0 and terms["total"] > 0
    moved = {name for name, value in trainer.model.named_parameters() if not torch.equal(value, before[name])}
    for part in ("peripheral", "foveal", "router", "gate", "heads", "masks"):
        assert any(name.startswith(part) for name in moved), f"{part} did not learn"


def test_the_exported_file_infers(exported: Path, nuclei_fixture: Path, repo_root: Path, tmp_path: Path) -> None:
    image = sorted((nuclei_fixture / "images").iterdir())[0]
    arguments = ["infer", str(image), "--engine", str(exported), "--budget", "0.5", "--window", "none", "--min-score", "0"]
    arguments += ["--output", str(tmp_path)]
    result = CliRunner().invoke(apex_rt, arguments)
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "results.json").read_text())
    jsonschema.validate(document, json.loads((repo_root / "apex_runtime" / "schemas" / "results.schema.json").read_text()))
    (entry,) = document["images"]
    assert entry["file_name"] == image.name
    assert entry["budget"]["spent"] == len(entry["tiles"])
    assert len(document["annotations"]) > 0
    assert (tmp_path / "annotated" / f"{image.name}.png").is_file()


def test_the_exported_file_is_still_the_model(trained, exported: Path, nuclei_fixture: Path, tmp_path: Path) -> None:
    images = sorted((nuclei_fixture / "images").iterdir())[0]
    report = tmp_path / "parity.json"
    arguments = [
        "parity",
        str(trained[3]),
        "--against",
        str(exported),
        "--budget",
        "0.5",
        "--images",
        str(images),
        "-o",
        str(report),
    ]
    result = CliRunner().invoke(apex_rt, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(report.read_text())["verdict"] == "pass"

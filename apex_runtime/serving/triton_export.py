"""A Triton model repository from a bundle: four models, checked before they take their places."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from apex_runtime.backends.onnx_contract import OnnxFile
from apex_runtime.backends.ort import graph_feeds
from apex_runtime.bundle.manifest import Artefact, Manifest
from apex_runtime.errors import BundleError, UsageError
from apex_runtime.model_info import ModelInfo
from apex_runtime.pipeline.predictor import prepare_image
from apex_runtime.routing.budget import parse_budget
from apex_runtime.serving.exported import check_name, checked_bundle
from apex_runtime.serving.settings import ServingSettings
from apex_runtime.serving.triton_arguments import INFO_FILE
from apex_runtime.serving.triton_check import check_repository
from apex_runtime.serving.triton_config import MODEL_FILE, Config, TritonOptions, as_text, configs, model_names, warm_up
from apex_runtime.serving.triton_graph import slots_of, with_tile_slots

VERSION = "1"
_PYTHON = ("triton_preprocess.py", "triton_postprocess.py")  # real modules of this package, copied as they are


def export_triton(bundle: Path, folder: Path, name: str, settings: ServingSettings, options: TritonOptions) -> list[Path]:
    """Write the models ``name``, ``name_preprocess``, ``name_graph`` and ``name_postprocess`` below ``folder``; their folders.

    Older ones of these names are replaced, other models stay. Raises UsageError, BundleError, ModelError, MissingPackageError.
    """
    check_name(name)
    manifest, file = checked_bundle(bundle, settings)
    options = with_backend(options, bundle, manifest)
    models = (*model_names(name), name)
    _check_targets([folder / model for model in models])
    staging = folder / f".{uuid.uuid4().hex[:8]}.part"
    try:
        _write(staging, name, file, bundle, settings, options)
        check_repository(staging, name)
        return [_into_place(staging / model, folder / model) for model in models]
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def with_backend(options: TritonOptions, bundle: Path, manifest: Manifest) -> TritonOptions:
    """The options with what the backend of a bundle asks for. Raises BundleError for one that Triton cannot run."""
    if manifest.backend == "tensorrt-rtx":
        cause = f"{bundle}: Triton has no backend for plans of TensorRT for RTX."
        raise BundleError(
            cause, "Build one for ort-cuda or tensorrt: apex-rt build-engine model.onnx --backend ort-cuda -o BUNDLE"
        )
    foreign = [plugin.name for plugin in manifest.plugins if plugin.implementation == "registry"]
    if foreign:
        cause = f"{bundle}: its plan needs plugins that Triton cannot load ({', '.join(foreign)})."
        raise BundleError(cause, "Build it without: apex-rt build-engine model.onnx --backend tensorrt --no-plugins -o BUNDLE")
    plans = tuple((_capability(plan), plan.path) for plan in manifest.find("plan"))
    gpu = manifest.backend != "ort-cpu"
    return TritonOptions(options.max_batch, options.delay_us, options.instances, options.helpers, gpu, plans)


def _capability(plan: Artefact) -> str:
    """89 as Triton writes it: 8.9; empty for a plan of whichever GPU its builder had."""
    return "" if plan.compute_capability is None else "{}.{}".format(*divmod(plan.compute_capability, 10))


def _write(staging: Path, name: str, file: OnnxFile, bundle: Path, settings: ServingSettings, options: TritonOptions) -> None:
    found = configs(name, file.info, settings, options)
    first, graph, last = model_names(name)
    inputs = _first_request(file.info, settings, options)
    found[graph] = warm_up(found[graph], inputs)
    for model, config in found.items():
        _folder(staging / model, config)
    for model, module in zip((first, last), _PYTHON, strict=True):
        shutil.copyfile(Path(__file__).with_name(module), staging / model / VERSION / "model.py")
        (staging / model / VERSION / INFO_FILE).write_text(file.info.to_json(), encoding="utf-8")
    # Triton wants this folder of the ensemble, and neither git nor a store of objects keeps an empty one.
    (staging / name / VERSION / "ensemble.txt").write_text(f"The steps are {first}, {graph}, {last}.\n", encoding="utf-8")
    _write_graph(staging / graph, file, bundle, options)
    _write_warm_up(staging / graph / "warmup", inputs)


def _folder(folder: Path, config: Config) -> None:
    (folder / VERSION).mkdir(parents=True)
    (folder / "config.pbtxt").write_text(as_text(config), encoding="utf-8")


def _write_graph(folder: Path, file: OnnxFile, bundle: Path, options: TritonOptions) -> None:
    for _capability_of_it, plan in options.plans:
        shutil.copyfile(bundle / plan, folder / VERSION / plan)
    if not options.plans:
        model = with_tile_slots(file.model, file.info)
        (folder / VERSION / MODEL_FILE).write_bytes(model.SerializeToString())


def _first_request(info: ModelInfo, settings: ServingSettings, options: TritonOptions) -> dict[str, np.ndarray]:
    """The inputs of the graph for a black image under the budget of the export. Raises UsageError for one it cannot mean."""
    blank = np.zeros((info.input.height, info.input.width, 3), np.uint8)
    prepared = prepare_image(blank, parse_budget(settings.budget), info)
    feeds = graph_feeds(info, prepared.image_HW3[None], prepared.tiles, prepared.bonus_N[None])
    if options.plans:
        return feeds
    kept = {name: array for name, array in feeds.items() if not name.startswith("tiles")}
    return kept | slots_of(info, prepared.tiles)


def _write_warm_up(folder: Path, inputs: dict[str, np.ndarray]) -> None:
    for name, array in inputs.items():
        if array.any():
            folder.mkdir(exist_ok=True)
            (folder / name).write_bytes(np.ascontiguousarray(array).tobytes())


def _check_targets(targets: Sequence[Path]) -> None:
    for target in targets:
        if target.exists() and not (target / "config.pbtxt").is_file():
            raise UsageError(f"{target}: exists and is no model of Triton.", "Give another --output or --name.", path=target)


def _into_place(new: Path, target: Path) -> Path:
    """Move a finished model to where Triton looks; an older one of its name goes."""
    retired = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.old")
    if target.exists():
        os.replace(target, retired)
    os.replace(new, target)
    shutil.rmtree(retired, ignore_errors=True)
    return target

"""Faults of what is handed over: bundles, model files and recordings that are not what they say, planted one by one.

A planter gets the right model, another model with the same passport, and an empty folder, and returns the candidate.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from apex_runtime.bundle.build import build_bundle
from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.parity.check import Settings
from apex_runtime.parity.record import record
from apex_runtime.parity.tolerance import load_profile
from apex_runtime.routing.budget import parse_budget

MODEL, MANIFEST = "model.onnx", "manifest.json"


class FileFault(NamedTuple):
    """``plant`` makes the candidate, ``words`` must stand in what is said, ``code`` is the exit code: 2 where nothing of that
    kind was named, which is wrong usage."""

    plant: Callable[[Path, Path, Path], Path]
    words: str
    code: int = 1


def _bundle(spoil: Callable[[Path, Path], object], words: str) -> FileFault:
    """A bundle of the right model; ``spoil`` gets it and the other model."""

    def plant(model: Path, other: Path, folder: Path) -> Path:
        build_bundle(model, "ort-cpu", folder / "bundle")
        spoil(folder / "bundle", other)
        return folder / "bundle"

    return FileFault(plant, words)


def _manifest(edit: Callable[[dict[str, Any]], object]) -> Callable[[Path, Path], object]:
    def spoil(bundle: Path, _other: Path) -> None:
        document = json.loads((bundle / MANIFEST).read_text())
        edit(document)
        (bundle / MANIFEST).write_text(json.dumps(document))

    return spoil


def _one_bit(bundle: Path, _other: Path) -> None:
    data = bytearray((bundle / MODEL).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / MODEL).write_bytes(data)


def _hashed_again(**claims: str) -> Callable[[Path, Path], object]:
    """Another model, and a manifest that agrees with it but for what it claims besides."""

    def spoil(bundle: Path, other: Path) -> None:
        shutil.copy(other, bundle / MODEL)

        def edit(document: dict[str, Any]) -> None:
            (entry,) = [item for item in document["artefacts"] if item["path"] == MODEL]
            entry |= {"sha256": sha256_of(other), "bytes": other.stat().st_size}
            document |= claims

        _manifest(edit)(bundle, other)

    return spoil


def _file(edit: Callable[[onnx.ModelProto], object], words: str) -> FileFault:
    """A model file."""

    def plant(model: Path, _other: Path, folder: Path) -> Path:
        proto = onnx.load(model)
        edit(proto)
        onnx.save(proto, folder / MODEL)
        return folder / MODEL

    return FileFault(plant, words)


def _passport(edit: Callable[[dict[str, Any]], object]) -> Callable[[onnx.ModelProto], None]:
    """Another passport of the same graph."""

    def change(model: onnx.ModelProto) -> None:
        (entry,) = [item for item in model.metadata_props if item.key == "apex_x"]
        document = json.loads(entry.value)
        edit(document)
        entry.value = json.dumps(document)

    return change


def _without_output(model: onnx.ModelProto) -> None:
    model.graph.output.remove(_value(model, "mask_coefficients"))


def _of_doubles(model: onnx.ModelProto) -> None:
    _behind(model, "scores", helper.make_node("Cast", ["scores_right"], ["scores"], to=TensorProto.DOUBLE))
    _value(model, "scores").type.tensor_type.elem_type = TensorProto.DOUBLE


def _shorter(model: onnx.ModelProto) -> None:
    """The last place of a list is cut off."""
    for name, number in (("from", 0), ("to", -1), ("axis", 1)):
        model.graph.initializer.append(numpy_helper.from_array(np.array([number]), f"cut_{name}"))
    _behind(model, "boxes", helper.make_node("Slice", ["boxes_right", "cut_from", "cut_to", "cut_axis"], ["boxes"]))
    _value(model, "boxes").type.tensor_type.shape.dim[1].ClearField("dim_value")


def _value(model: onnx.ModelProto, name: str) -> onnx.ValueInfoProto:
    return next(value for value in model.graph.output if value.name == name)


def _behind(model: onnx.ModelProto, output: str, node: onnx.NodeProto) -> None:
    """Put a node behind what makes an output."""
    for other in model.graph.node:
        for names in (other.input, other.output):
            names[:] = [f"{output}_right" if name == output else name for name in names]
    model.graph.node.append(node)


def _cut_off(model: Path, _other: Path, folder: Path) -> Path:
    (folder / MODEL).write_bytes(model.read_bytes()[:-1000])
    return folder / MODEL


def _recorded(model: Path, folder: Path, budget: str = "0.5") -> Path:
    """Recordings are made on the images that lie beside the model."""
    settings = Settings((parse_budget(budget),), load_profile("quality"), images=model.parent / "images")
    record(model, settings, folder / "there.json", lambda total: nullcontext(lambda done, failed: None))
    return folder / "there.json"


def _outputs_of_another(model: Path, other: Path, folder: Path) -> Path:
    """Of two recordings the outputs were mixed up."""
    (folder / "other").mkdir()
    shutil.copytree(model.parent / "images", other.parent / "images", dirs_exist_ok=True)
    wrong = _recorded(other, folder / "other")
    path = _recorded(model, folder)
    shutil.copy(wrong.with_suffix(".npz"), path.with_suffix(".npz"))
    return path


def _of_another_model(model: Path, other: Path, folder: Path) -> Path:
    shutil.copytree(model.parent / "images", other.parent / "images", dirs_exist_ok=True)
    return _recorded(other, folder)


def _of_other_images(model: Path, _other: Path, folder: Path) -> Path:
    copy = folder / "copy"
    (copy / "images").mkdir(parents=True)
    shutil.copy(model, copy / MODEL)
    for path in (model.parent / "images").iterdir():
        cv2.imwrite(str(copy / "images" / f"{path.stem}.png"), cv2.imread(str(path))[:, ::-1])
    return _recorded(copy / MODEL, folder)


def _of_another_budget(model: Path, _other: Path, folder: Path) -> Path:
    return _recorded(model, folder, "0.25")


def _no_recording(_model: Path, _other: Path, folder: Path) -> Path:
    (folder / "there.json").write_text('{"kind": "a report"}')
    return folder / "there.json"


STALE = "was changed after the bundle was built"

FILES = {
    "a stale manifest": _bundle(lambda bundle, other: shutil.copy(other, bundle / MODEL), STALE),
    "one bit of the model": _bundle(_one_bit, STALE),
    "a bundle without its model": _bundle(lambda bundle, _: (bundle / MODEL).unlink(), "it is missing"),
    "a manifest of other classes": _bundle(_manifest(lambda it: it["classes"][0].update(id=77)), "are not the model's"),
    "a manifest that is none": _bundle(lambda bundle, _: (bundle / MANIFEST).write_text("{}"), MANIFEST),
    "another model under a manifest that fits": _bundle(_hashed_again(), "values beyond the tolerance"),
    "another model that claims to be of eight bits": _bundle(_hashed_again(precision="int8"), "values beyond the tolerance"),
    "an engine of other classes": _file(_passport(lambda it: it["classes"][0].update(id=77)), "classes: the candidate has"),
    "an engine of another normalisation": _file(
        _passport(lambda it: it["preprocessing"].update(mean=[103.53, 116.28, 123.675])), "preprocessing: the candidate has"
    ),
    "a missing output in the file": _file(_without_output, "mask_coefficients"),
    "an output of another type in the file": _file(_of_doubles, "scores"),
    "one place less in the file": _file(_shorter, "boxes"),
    "a file cut off": FileFault(_cut_off, MODEL),
    "a recording of another model": FileFault(_of_another_model, "values beyond the tolerance"),
    "a recording with the outputs of another": FileFault(_outputs_of_another, "it is not the file that was recorded"),
    "a recording of other images": FileFault(_of_other_images, "not_recorded"),
    "a recording of another budget": FileFault(_of_another_budget, "not_recorded"),
    "a report in place of a recording": FileFault(_no_recording, "not a recording", code=2),
    "a candidate that is not there": FileFault(lambda _model, _other, folder: folder / MODEL, "no such file", code=2),
}

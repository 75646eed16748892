"""The default engine in int8 against itself in fp32: as built it passes; with a fault planted into its graph it does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper, numpy_helper

from apex_runtime.backends.ort import OrtSession
from apex_runtime.cli.main import main
from apex_runtime.parity.cases import Case, real_case
from apex_runtime.parity.run import compare_sessions
from apex_runtime.parity.tolerance import Rules, load_profile
from apex_runtime.routing.budget import parse_budget

IMAGES = ("24a20f2a529cede5.jpg", "4e07a653352b30bb.jpg", "80632d6be60c8462.jpg")
RULES = Rules(load_profile("quality"), "int8")
Fault = Callable[[onnx.ModelProto], None]


@pytest.fixture(scope="module")
def exported(repo_root: Path) -> Path:
    return repo_root / "engines" / "nuclei-nano" / "model.onnx"


@pytest.fixture(scope="module")
def samples(repo_root: Path) -> Path:
    return repo_root / "engines" / "samples"


@pytest.fixture(scope="module")
def bundle(exported: Path, samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("int8")
    words = ["build-engine", exported, "--precision", "int8", "--data", samples, "--no-report", "-o", folder / "bundle"]
    run = CliRunner().invoke(main, [*map(str, words), "--calibration-cache", str(folder / "cache")])
    assert run.exit_code == 0, run.output
    return folder / "bundle"


def test_the_command_passes_it_and_says_by_how_much(
    bundle: Path, exported: Path, samples: Path, tmp_path: Path, apex_rt: Callable, validate: Callable[[str, object], None]
) -> None:
    ran = apex_rt(
        "parity", exported, "--against", bundle, "--budget", "0.25", "--images", samples, "-o", tmp_path / "report.json"
    )
    assert ran.code == 0, ran.out
    document = json.loads((tmp_path / "report.json").read_text())
    validate("parity", document)
    (comparison,) = document["comparisons"]
    assert comparison["candidate"]["precision"] == "int8"
    tensor = comparison["budgets"][0]["tensor"]
    for name, output in tensor.items():
        least = RULES.gate(name).min_sqnr_db
        assert (output["min_sqnr_db"], output["tolerance"]) == (least, None)
        assert least is None or least <= output["sqnr_db"] < 70, "rounding leaves a trace, or nothing was rounded"
    assert f"{tensor['scores']['sqnr_db']:.1f} " in ran.out


@pytest.fixture(scope="module")
def reference(exported: Path) -> OrtSession:
    return OrtSession(exported)


@pytest.fixture(scope="module")
def cases(reference: OrtSession, samples: Path) -> list[Case]:
    return [real_case(samples / name, name, reference.info) for name in IMAGES]


def test_as_built_the_real_images_pass(bundle: Path, reference: OrtSession, cases: list[Case]) -> None:
    (result,) = compare_sessions(reference, OrtSession(bundle / "model.onnx"), cases, [parse_budget("1.0")], RULES)
    assert result.reasons(RULES) == []


def change(model: onnx.ModelProto, name: str, edit: Callable[[np.ndarray], np.ndarray]) -> None:
    tensor = next(item for item in model.graph.initializer if item.name == name)
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(edit(array), array.dtype), name))


def scaled_weight(module: str, factor: float) -> Fault:
    """A weight, or the scales of a rounded one."""

    def plant(model: onnx.ModelProto) -> None:
        makes = {name: node for node in model.graph.node for name in node.output}
        (conv,) = [node for node in model.graph.node if node.op_type == "Conv" and f"{module}.weight" in node.input[1]]
        source = makes.get(conv.input[1])
        change(model, source.input[1] if source is not None else conv.input[1], lambda array: array * factor)

    return plant


def lost_bias(module: str) -> Fault:
    return lambda model: change(model, f"{module}.bias", np.zeros_like)


def swapped_colours(model: onnx.ModelProto) -> None:
    at, cast = next(
        (at, node) for at, node in enumerate(model.graph.node) if node.op_type == "Cast" and node.input[0] == "images"
    )
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), "bgr"))
    cast.input[0] = "images.bgr"
    model.graph.node.insert(at, helper.make_node("Gather", ["images", "bgr"], ["images.bgr"], axis=3))


def halo_off_by_one(model: onnx.ModelProto) -> None:
    """What is cut off the features of a tile begins and ends one cell too early."""
    (project,) = [node for node in model.graph.node if "detector.foveal.project.weight" in node.input]
    makes = {name: node for node in model.graph.node for name in node.output}
    columns = makes[project.input[0]]
    for node in (columns, makes[columns.input[0]]):
        assert node.op_type == "Slice"
        for index in (1, 2):
            value = next(numpy_helper.to_array(item) for item in model.graph.initializer if item.name == node.input[index])
            moved = f"{node.output[0]}.{index}"
            model.graph.initializer.append(numpy_helper.from_array(value - 1, moved))
            node.input[index] = moved


@pytest.mark.parametrize(
    ("fault", "outputs"),
    [
        (scaled_weight("detector.peripheral.stages.0.1.first.0", 1.5), ("utilities",)),
        (scaled_weight("detector.foveal.late.1.second.0", 1.5), ("scores",)),
        (scaled_weight("detector.heads.0.coefficients", 1.5), ("mask_coefficients",)),
        (scaled_weight("detector.masks.mix.pointwise.0", 1.5), ("mask_prototypes",)),
        (lost_bias("detector.foveal.middle.1.second.0"), ("scores",)),
        (swapped_colours, ("utilities",)),
        (halo_off_by_one, ("boxes", "scores", "mask_coefficients", "mask_prototypes", "candidate_ids")),
    ],
)
def test_a_planted_fault_fails(
    bundle: Path, reference: OrtSession, cases: list[Case], tmp_path: Path, fault: Fault, outputs: tuple[str, ...]
) -> None:
    model = onnx.load(bundle / "model.onnx")
    fault(model)
    onnx.save(model, tmp_path / "faulty.onnx")
    (result,) = compare_sessions(reference, OrtSession(tmp_path / "faulty.onnx"), cases, [parse_budget("1.0")], RULES)
    named = {reason.split(":")[0] for reason in result.reasons(RULES)}
    assert set(outputs) <= named

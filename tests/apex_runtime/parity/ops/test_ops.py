"""Every face through the comparator: right faces pass, planted ones fail at the case that shows them, absent ones say why."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner

from apex_plugins.catalogue import FOLDERS
from apex_plugins.kernels import host
from apex_plugins.kernels.reasons import KernelError, KernelReason
from apex_runtime.cli.main import main
from apex_runtime.errors import UsageError
from apex_runtime.parity.ops import check, faces
from apex_runtime.parity.ops.check import OpRow, check_ops, load_op_tolerances, ops_passed
from apex_runtime.parity.ops.inputs import KINDS, op_cases

ALLOWED = load_op_tolerances()
Spoil = Callable[[tuple[np.ndarray, ...]], tuple[np.ndarray, ...]]


def only(monkeypatch, *wanted: str) -> None:
    """Compare these faces alone."""
    kept = tuple(face for face in faces.faces() if f"{face.name} {face.precision}" in wanted)
    assert len(kept) == len(wanted)
    monkeypatch.setattr(check, "faces", lambda: kept)


def plant(monkeypatch, spoil: Spoil, precision: str = "fp32") -> None:
    """A face that is the reference computed in its precision, and then spoiled."""

    def open_it(folder: str) -> faces.Call:
        truth = faces.reference(folder)
        return lambda inputs, attributes: spoil(truth(inputs, attributes))

    monkeypatch.setattr(check, "faces", lambda: (faces.Face("torch", precision, open_it),))


def test_the_function_bodies_and_the_formula_pass(monkeypatch) -> None:
    only(monkeypatch, "body-ort fp32", "body-reference fp32", "torch fp32")
    done: list[tuple[int, int]] = []
    rows = check_ops(("tile_pack", "tile_unpack_fusion", "decode_nms"), ALLOWED, lambda *step: done.append(step))
    assert [row.verdict for row in rows] == ["pass"] * 9, [row.reasons for row in rows]
    assert all(row.cases == sum(KINDS.values()) and row.stats.count > 500 for row in rows)
    assert done[-1] == (9, 0) and ops_passed(rows)


def test_the_kernels_pass_on_this_processor_in_both_types(monkeypatch) -> None:
    only(monkeypatch, "kernel-host fp32", "kernel-host fp16")
    rows = check_ops((), ALLOWED)
    if any(row.code == "cxx_not_found" for row in rows):
        pytest.skip("cxx_not_found: no C++ compiler for the host faces")
    assert [row.verdict for row in rows] == ["pass"] * 8, [row.reasons for row in rows]
    scan = {row.precision: row.stats.max_abs for row in rows if row.op == "tile_ssm_scan"}
    assert 0 < scan["fp32"] < 1e-5 < scan["fp16"], "the types are really those"


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_cases_are_the_same_every_time_and_of_every_kind(folder: str) -> None:
    first, again = list(op_cases(folder)), list(op_cases(folder))
    assert {case.name.split("-")[0] for case in first} == set(KINDS)
    for one, two in zip(first, again, strict=True):
        assert one.attributes == two.attributes
        assert all(np.array_equal(one.inputs[name], two.inputs[name]) for name in one.inputs)
    sums = [sum(float(np.abs(array).sum()) for array in case.inputs.values()) for case in first]
    assert len(set(sums)) > len(sums) // 2, "not one case many times"


@pytest.mark.parametrize("folder", FOLDERS)
def test_one_wrong_value_is_found(folder: str, monkeypatch) -> None:
    def spoil(outputs):
        outputs[0].flat[-1] += 0.01 * max(1.0, np.abs(outputs[0]).max())
        return outputs

    plant(monkeypatch, spoil)
    (row,) = check_ops((folder,), ALLOWED)
    assert row.verdict == "fail" and row.cases == 14
    assert row.reasons[0].startswith("random-0, output 0: 1 of ")


def with_nan(outputs):
    outputs[0].flat[0] = np.nan
    return outputs


def test_a_real_face_that_went_wrong_is_found_beside_right_ones(monkeypatch) -> None:
    """The torch formula with its tiles mirrored: the other faces still pass."""
    written = importlib.import_module("apex_plugins.tile_pack.torch_op")
    plain = written.tile_pack
    monkeypatch.setattr(written, "tile_pack", lambda *given: plain(*given).flip(-1).contiguous())
    only(monkeypatch, "body-ort fp32", "torch fp32")
    rows = check_ops(("tile_pack",), ALLOWED)
    assert [row.verdict for row in rows] == ["pass", "fail"] and not ops_passed(rows)
    assert rows[1].stats.mismatches > 1000


SPOILS: dict[str, tuple[Spoil, str]] = {
    "NaN": (with_nan, "NaN or Inf"),
    "another shape": (lambda outputs: (outputs[0][..., :-1], *outputs[1:]), "shape"),
    "another type": (lambda outputs: (outputs[0].astype(np.float64), *outputs[1:]), "dtype"),
    "an output too few": (lambda outputs: outputs[1:], "outputs, the reference has"),
    "transposed tiles": (lambda outputs: (np.ascontiguousarray(outputs[0].swapaxes(-1, -2)), *outputs[1:]), "values beyond"),
    "an exception": (lambda outputs: 1 / 0, "ZeroDivisionError"),
}


@pytest.mark.parametrize("name", SPOILS)
def test_what_must_never_pass(name: str, monkeypatch) -> None:
    spoil, word = SPOILS[name]
    plant(monkeypatch, spoil)
    (row,) = check_ops(("tile_pack",), ALLOWED)
    assert row.verdict == "fail" and any(word in reason for reason in row.reasons)
    assert not ops_passed([row])


def test_another_choice_of_nms_fails_though_its_numbers_are_close(monkeypatch) -> None:
    def spoil(outputs):
        boxes, scores, labels, ids = outputs
        ids[ids >= 0] += 1
        return boxes, scores, labels, ids

    plant(monkeypatch, spoil)
    (row,) = check_ops(("decode_nms",), ALLOWED)
    assert row.verdict == "fail" and "output 3" in row.reasons[0]


def test_an_error_of_half_the_tolerance_passes_and_of_twice_fails(monkeypatch) -> None:
    limit = ALLOWED.tolerances["tile_unpack_fusion"]["fp16"]
    for share, verdict in ((0.5, "pass"), (2.0, "fail")):

        def spoil(outputs, share=share):
            wide = outputs[0].astype(np.float64)
            wide.flat[0] += share * limit * np.abs(wide).max() * (-1 if wide.flat[0] > 0 else 1)
            return (wide.astype(np.float16),)

        plant(monkeypatch, spoil, "fp16")
        (row,) = check_ops(("tile_unpack_fusion",), ALLOWED)
        assert row.verdict == verdict, row.reasons


def test_absent_faces_bear_stable_codes(monkeypatch) -> None:
    only(monkeypatch, "body-ort fp32", "torch fp32", "kernel-host fp32", "kernel-cuda fp32")
    for name in ("torch", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None)
    for module in [name for name in sys.modules if name.endswith((".torch_op", ".torch_cuda", ".torch_face", ".onnx_function"))]:
        monkeypatch.delitem(sys.modules, module)
    faces._body.cache_clear()

    def no_compiler(op: str) -> None:
        raise KernelError(KernelReason.CXX_NOT_FOUND, "none")

    monkeypatch.setattr(faces, "host_library", no_compiler)
    rows = check_ops(("tile_pack",), ALLOWED)
    faces._body.cache_clear()
    codes = ["onnxscript_not_installed", "torch_not_installed", "cxx_not_found", "torch_not_installed"]
    assert [(row.verdict, row.code) for row in rows] == [("absent", code) for code in codes]
    assert not ops_passed(rows), "nothing was compared, which is no pass"


def test_the_kernel_of_a_machine_without_a_gpu_is_absent(monkeypatch) -> None:
    torch = importlib.import_module("torch")
    if torch.cuda.is_available():
        pytest.skip("torch_without_cuda does not apply: there is a GPU")
    only(monkeypatch, "kernel-cuda fp32", "kernel-cuda fp16")
    assert {row.code for row in check_ops((), ALLOWED)} == {"torch_without_cuda"}


def test_a_kernel_that_does_not_compile_is_no_absence(monkeypatch) -> None:
    only(monkeypatch, "kernel-host fp32")

    def broken(op: str) -> None:
        raise KernelError(KernelReason.KERNEL_COMPILE_FAILED, "expected ';'")

    monkeypatch.setattr(faces, "host_library", broken)
    (row,) = check_ops(("tile_pack",), ALLOWED)
    assert row.verdict == "fail" and row.reasons == ["kernel_compile_failed: expected ';'"]
    assert host.host_library is not broken


def test_the_verdict_over_all(monkeypatch) -> None:
    good, bad, gone = (OpRow("a", "torch", "fp32", 0.0, cases=cases) for cases in (1, 1, 0))
    bad.reasons, gone.code = ["no"], "torch_not_installed"
    assert ops_passed([good, gone]) and not ops_passed([good, bad]) and not ops_passed([gone]) and not ops_passed([])
    other = OpRow("b", "torch", "fp32", 0.0, code="torch_not_installed")
    assert not ops_passed([good, other]), "of b nothing was compared"
    assert OpRow("a", "torch", "fp32", 0.0).verdict == "fail"


def test_an_unknown_op_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="tile_glue"):
        check_ops(("tile_glue",), ALLOWED)


def test_the_command(monkeypatch, tmp_path: Path, repo_root: Path) -> None:
    schema = json.loads((repo_root / "apex_runtime" / "schemas" / "parity-ops.schema.json").read_text())
    report = tmp_path / "new" / "ops.json"
    only(monkeypatch, "body-ort fp32", "torch fp32", "kernel-cuda fp32")
    command = ["parity", "--ops", "--op", "tile_pack", "-o", str(report)]
    result = CliRunner().invoke(main, command)
    document = json.loads(report.read_text())
    jsonschema.validate(document, schema)
    assert result.exit_code == 0 and document["verdict"] == "pass", result.output
    assert "tile_pack" in result.output and "body-ort" in result.output
    plant(monkeypatch, with_nan)
    result = CliRunner().invoke(main, [*command, "--json"])
    document = json.loads(report.read_text())
    jsonschema.validate(document, schema)
    assert result.exit_code == 1 and document["rows"][0]["verdict"] == "fail" and json.loads(result.stdout) == document


@pytest.mark.parametrize(
    "arguments", [["--op", "tile_pack"], ["--ops", "m.onnx"], ["--ops", "--against", "m.onnx"], ["--ops", "--op", "x"], []]
)
def test_wrong_usage(arguments, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, ["parity", *arguments]).exit_code == 2
    assert not list(tmp_path.iterdir())

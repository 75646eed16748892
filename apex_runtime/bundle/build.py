"""Building an engine bundle: everything is made in a folder beside the target and moved into place at the end."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from apex_runtime.backends.capabilities import probe
from apex_runtime.backends.onnx_contract import OnnxFile, TensorSpec, expected_inputs, expected_outputs, read_onnx
from apex_runtime.backends.op_calls import op_calls
from apex_runtime.backends.ort import OrtSession
from apex_runtime.backends.plugin_use import PluginUse
from apex_runtime.backends.tensorrt_api import Log
from apex_runtime.backends.tensorrt_builder import (
    Plan,
    Progress,
    ShapeRange,
    build_plans,
    capabilities_for_fp8,
    optimisation_profile,
)
from apex_runtime.backends.timing_cache import Note
from apex_runtime.bundle.against_fp32 import compare_files
from apex_runtime.bundle.fp32_record import IDENTICAL, NOT_ASKED_FOR, AgainstFp32
from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.bundle.manifest import (
    MANIFEST_NAME,
    MODEL_NAME,
    PRECISION_NAME,
    Artefact,
    Backend,
    Build,
    Manifest,
    Plugin,
    ProfileRange,
    Role,
    Source,
    Tensor,
    is_bundle,
)
from apex_runtime.bundle.precision import precision_report
from apex_runtime.bundle.precision_pass import Rewriting, Rewritten
from apex_runtime.cache_folder import cache_folder
from apex_runtime.errors import UsageError
from apex_runtime.precision.convert import Converted
from apex_runtime.precision.data import Reported
from apex_runtime.precision.request import PrecisionRequest, Step

_TOOLS = ("apex-x", "onnx", "onnxruntime", "numpy")
_PLAN_BACKENDS = ("tensorrt", "tensorrt-rtx")
AS_EXPORTED = PrecisionRequest()


def build_bundle(
    model: str | Path,
    backend: Backend,
    out_dir: str | Path,
    *,
    compute_capabilities: Sequence[int] = (),
    max_batch: int = 8,
    progress: Progress | None = None,
    log: Log | None = None,
    timing_cache: Path | None = None,
    note: Note = lambda _text: None,
    plugins: bool = True,
    precision: PrecisionRequest = AS_EXPORTED,
    step: Step = lambda _title, _done, _total: True,
) -> Manifest:
    """Build a bundle for ``backend`` (ort-cpu, ort-cuda, tensorrt, tensorrt-rtx) from an exported model into ``out_dir``.

    ``max_batch`` bounds the batch of a plan; ONNX Runtime has no bound. ``timing_cache``: where TensorRT keeps how long kernels
    took, None for a file of this user's cache folder; ``note`` hears what was wrong with that file. Without ``plugins`` TensorRT
    builds every op from its function body. ``precision``: what the graph computes in, and whether it is then compared with the
    exported one; ``step`` is asked before each image and each step of that.
    An existing bundle is replaced, foreign files in its folder are kept; any other folder with content is refused. Raises
    UsageError, ModelError, BackendError, DataError, KeyboardInterrupt.
    """
    started = time.perf_counter()
    out_dir = Path(out_dir).resolve()
    _check_target(out_dir)
    _check_options(backend, compute_capabilities, timing_cache, plugins)
    rewriting = Rewriting.of(read_onnx(model), precision, backend, note)
    if precision.wanted == "fp8" and backend in _PLAN_BACKENDS:
        compute_capabilities = capabilities_for_fp8(backend, compute_capabilities)
    reported = rewriting.reported()  # opened now: what is wrong with it is said before the calibration
    rewritten = rewriting.run(step, note)
    file = rewritten.file
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    staging = _sibling(out_dir, "building")
    staging.mkdir()
    try:
        (staging / MODEL_NAME).write_bytes(file.data)
        against = _compared(rewriting.exported, staging, reported, rewritten.converted, backend, step)
        plans: list[Plan] = []
        if backend in _PLAN_BACKENDS:
            plans = build_plans(file, backend, compute_capabilities, max_batch, progress, log, timing_cache, note, plugins)
        _write_artefacts(rewritten, plans, staging, precision.name, against)
        ranges = optimisation_profile(file.info, max_batch) if plans else ()
        command = _command(file, backend, out_dir, compute_capabilities, max_batch, plugins, precision)
        uses = plans[0].plugins if plans else ()
        manifest = _describe(file, rewriting.exported, backend, precision, staging, ranges, command, started, uses)
        (staging / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
        _move_into_place(staging, out_dir)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return manifest


def _compared(
    exported: OnnxFile, staging: Path, reported: Reported | None, converted: Converted | None, backend: str, step: Step
) -> AgainstFp32:
    """What ``precision.json`` says of the new graph beside the exported one."""
    if converted is None:
        return IDENTICAL
    if reported is None:
        return NOT_ASKED_FOR
    comparing = partial(step, "comparing with fp32")
    measured = compare_files(exported.path, staging / MODEL_NAME, reported, backend == "ort-cpu", comparing)
    return AgainstFp32(identical_graph=False, measured=measured)


def _check_target(out_dir: Path) -> None:
    if out_dir.exists() and not out_dir.is_dir():
        raise UsageError(f"{out_dir}: a file of this name exists.", "Name a folder with -o.", path=out_dir)
    if out_dir.is_dir() and any(out_dir.iterdir()) and not is_bundle(out_dir):
        raise UsageError(
            f"{out_dir}: the folder has files and is no engine bundle; it is left alone.",
            "Name a new folder with -o.",
            path=out_dir,
        )


def _check_options(backend: str, capabilities: Sequence[int], timing_cache: Path | None, plugins: bool) -> None:
    if not plugins and backend != "tensorrt":
        raise UsageError(
            f"plugins: false, or --no-plugins, has no meaning for {backend}, which has none.",
            "Leave it out or give --plugins, or use --backend tensorrt.",
        )
    if backend not in _PLAN_BACKENDS and capabilities:
        raise UsageError(f"--compute-capability has no meaning for {backend}.", "Leave it out, or use --backend tensorrt-rtx.")
    if timing_cache is not None and backend == "tensorrt-rtx":
        raise UsageError(
            "--timing-cache: tensorrt-rtx times nothing while building; it compiles kernels at the first run on the GPU.",
            f"Leave it out; what was compiled is kept for the next run in {cache_folder() / 'runtime'}.",
        )
    if timing_cache is not None and backend != "tensorrt":
        raise UsageError(f"--timing-cache has no meaning for {backend}.", "Leave it out, or use --backend tensorrt.")


def _write_artefacts(
    rewritten: Rewritten,
    plans: Sequence[Plan],
    staging: Path,
    profile: str,
    against: AgainstFp32,
) -> None:
    """Write the precision record and any plans beside the model."""
    if not plans:
        OrtSession(staging / MODEL_NAME, threads=1)  # a model that does not load must not become a bundle
    for plan in plans:
        (staging / plan.file_name).write_bytes(plan.data)
    notes = {plan.file_name: plan.note for plan in plans if plan.note}
    report = precision_report(rewritten.file.model, profile, notes, rewritten.converted, against, rewritten.sensitivity)
    (staging / PRECISION_NAME).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _describe(
    file: OnnxFile,
    exported: OnnxFile,
    backend: Backend,
    precision: PrecisionRequest,
    staging: Path,
    ranges: tuple[ShapeRange, ...],
    command: str,
    started: float,
    uses: Sequence[PluginUse],
) -> Manifest:
    artefacts = tuple(_artefact(path) for path in sorted(staging.iterdir()))
    capabilities = tuple(item.compute_capability for item in artefacts if item.compute_capability)
    return Manifest(
        backend=backend,
        backend_version=probe(backend).version,
        precision=precision.wanted,
        profile=precision.profile,
        source=Source(
            file_name=exported.path.name,
            sha256=hashlib.sha256(exported.data).hexdigest(),
            checkpoint_sha256=exported.info.checkpoint_sha256,
        ),
        artefacts=artefacts,
        compute_capabilities=tuple(sorted(capabilities)),
        optimisation_profiles=(tuple(_range_record(item) for item in ranges),) if ranges else (),
        inputs=tuple(_tensor_record(spec) for spec in expected_inputs(file.info)),
        outputs=tuple(_tensor_record(spec) for spec in expected_outputs(file.info)),
        classes=file.info.classes,
        preprocessing=file.info.preprocessing,
        tiles=file.info.tiles,
        plugins=tuple(_plugin_record(use) for use in uses or map(PluginUse, op_calls(file.model))),
        tools=_tool_versions(backend),
        build=Build(
            command=command,
            created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(time.perf_counter() - started, 3),
        ),
    )


def _artefact(path: Path) -> Artefact:
    suffix = path.name.removeprefix("plan.sm")
    capability = int(suffix) if path.name.startswith("plan.sm") else None
    role: Role = "model" if path.name == MODEL_NAME else "precision" if path.name == PRECISION_NAME else "plan"
    return Artefact(path=path.name, role=role, sha256=sha256_of(path), bytes=path.stat().st_size, compute_capability=capability)


def _range_record(item: ShapeRange) -> ProfileRange:
    return ProfileRange(
        input=item.input,
        kind="values" if item.is_value else "shape",
        minimum=item.minimum,
        optimum=item.optimum,
        maximum=item.maximum,
    )


def _tensor_record(spec: TensorSpec) -> Tensor:
    """Run-time dimensions get the name they have in the contract: the batch first, then the number of tiles."""
    names = ("batch", "tiles")
    return Tensor(
        name=spec.name,
        dtype=spec.dtype,
        shape=tuple(names[axis] if size is None else size for axis, size in enumerate(spec.shape)),
    )


def _plugin_record(use: PluginUse) -> Plugin:
    call = use.call
    return Plugin(
        name=call.name,
        namespace=call.namespace,
        version=call.version,
        body=call.body,
        attributes=dict(call.attributes),
        implementation=use.implementation,
        reason=use.reason,
    )


def _tool_versions(backend: str) -> dict[str, str]:
    tools = {}
    for name in _TOOLS:
        try:
            tools[name] = version(name)
        except PackageNotFoundError:
            continue  # onnxruntime under another distribution name; the backend's own version is recorded beside this
    return tools if backend not in _PLAN_BACKENDS else tools | {backend: probe(backend).version}


def _command(
    file: OnnxFile,
    backend: str,
    out_dir: Path,
    capabilities: Sequence[int],
    max_batch: int,
    plugins: bool,
    precision: PrecisionRequest,
) -> str:
    """The command that makes this bundle again, with names instead of this machine's folders."""
    words = ["apex-rt build-engine", file.path.name, "--backend", backend]
    if capabilities:
        words += ["--compute-capability", ",".join(map(str, capabilities))]
    if backend in _PLAN_BACKENDS:
        words += ["--max-batch", str(max_batch)]
    if not plugins:
        words.append("--no-plugins")
    words += precision.words()
    return " ".join([*words, "-o", out_dir.name])


def _move_into_place(staging: Path, out_dir: Path) -> None:
    """Swap the new folder in; what was in the old bundle's folder beside its own files moves along."""
    if not out_dir.exists() or not any(out_dir.iterdir()):
        os.replace(staging, out_dir)
        return
    for entry in out_dir.iterdir():
        if not _is_ours(entry.name):
            copy = shutil.copytree if entry.is_dir() else shutil.copy2
            copy(entry, staging / entry.name)
    retired = _sibling(out_dir, "old")
    os.replace(out_dir, retired)
    try:
        os.replace(staging, out_dir)
    except OSError:
        os.replace(retired, out_dir)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def _is_ours(name: str) -> bool:
    return name in (MANIFEST_NAME, MODEL_NAME, PRECISION_NAME) or name.startswith("plan.")


def _sibling(folder: Path, purpose: str) -> Path:
    """A name beside ``folder``, on the same disk, that nothing has yet."""
    return folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.{purpose}"

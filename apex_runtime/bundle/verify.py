"""Does a bundle fit: its files, this machine, its model? Asked before a backend sees a file; each no has a remedy."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from apex_runtime.backends.capabilities import compute_capability, import_tensorrt
from apex_runtime.backends.op_calls import OpCall
from apex_runtime.backends.plugin_use import check_before_load
from apex_runtime.backends.reasons import ReasonCode, backend_error
from apex_runtime.backends.session import Session
from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.bundle.manifest import MANIFEST_NAME, REBUILD, Artefact, Manifest
from apex_runtime.errors import BackendError, BundleError


def verify_artefacts(folder: Path, manifest: Manifest) -> None:
    """Every file is there, inside the folder, with the size and hash that the manifest says. Raises BundleError."""
    for artefact in manifest.artefacts:
        problem = _problem(folder, artefact)
        if problem:
            path = folder / artefact.path
            raise BundleError(f"{path}: {problem}.", rebuild(manifest), path=path)


def model_of(folder: Path, manifest: Manifest) -> Path:
    """The model file. Raises BundleError unless there is exactly one."""
    models = manifest.find("model")
    if len(models) != 1:
        raise BundleError(f"{folder}: the manifest lists {len(models)} models, expected one.", REBUILD, path=folder)
    return folder / models[0].path


def choose_plan(folder: Path, manifest: Manifest, index: int) -> Path:
    """The plan for GPU ``index``. Raises BackendError: built by another version, none for this GPU, a plugin that is not here."""
    module, answer = import_tensorrt(manifest.backend)
    if module is None:
        assert answer.reason is not None
        raise backend_error(answer.reason, f"{manifest.backend} is not available: {answer.detail}.")
    installed = str(module.__version__)
    if installed != manifest.backend_version:
        raise backend_error(
            ReasonCode.PLAN_FOR_OTHER_VERSION,
            f"{folder}: its plans are of {manifest.backend} {manifest.backend_version}, installed here is {installed}.",
            remedy=rebuild(manifest),
        )
    _check_plugins(module, folder, manifest)
    return folder / _plan_for(folder, manifest, compute_capability(index)).path


def check_bodies(folder: Path, manifest: Manifest) -> None:
    """Every op of ours carries its body: what runs the bundle has no plugins. Raises BackendError."""
    for plugin in manifest.plugins:
        if not plugin.body:
            raise backend_error(
                ReasonCode.PLUGIN_NOT_AVAILABLE,
                f"{folder}: op {plugin.namespace}.{plugin.name} version {plugin.version} has no body, and no plugin is here.",
            )


def check_agreement(folder: Path, manifest: Manifest, session: Session) -> None:
    """The manifest is not hashed, so what it says about the model must be what the model says. Raises BundleError."""
    info = session.info
    pairs = {
        "classes": (manifest.classes, info.classes),
        "preprocessing": (manifest.preprocessing, info.preprocessing),
        "tiles": (manifest.tiles, info.tiles),
    }
    for name, (said, true) in pairs.items():
        if said != true:
            raise BundleError(f"{folder / MANIFEST_NAME}: its {name} are not the model's.", rebuild(manifest), path=folder)


def rebuild(manifest: Manifest) -> str:
    """How to make the bundle again."""
    return f"Build the bundle again: {manifest.build.command}"


def _problem(folder: Path, artefact: Artefact) -> str:
    path = folder / artefact.path
    if not path.is_file():
        return "the manifest lists this file, and it is missing"
    if not path.resolve().is_relative_to(folder.resolve()):
        return "it links to a file outside the bundle"
    if path.stat().st_size != artefact.bytes or sha256_of(path) != artefact.sha256:
        return "it was changed after the bundle was built (its SHA-256 is not the manifest's)"
    return ""


def _plan_for(folder: Path, manifest: Manifest, capability: int | None) -> Artefact:
    """The plan of this compute capability, or the one of whichever GPU the builder had."""
    plans = manifest.find("plan")
    for wanted in (capability, None):
        for plan in plans:
            if plan.compute_capability == wanted:
                return plan
    there = ", ".join(f"sm_{plan.compute_capability}" for plan in plans) or "none"
    raise _for_other_gpu(folder, manifest, capability, there)


def _for_other_gpu(folder: Path, manifest: Manifest, capability: int | None, there: str) -> BackendError:
    add = f" with --compute-capability {capability}" if manifest.backend == "tensorrt-rtx" else " on this machine"
    return backend_error(
        ReasonCode.PLAN_FOR_OTHER_GPU,
        f"{folder}: no plan for this GPU, which is sm_{capability}; it has {there}.",
        remedy=f"Build the bundle again{add}: {manifest.build.command}",
    )


def _check_plugins(trt: ModuleType, folder: Path, manifest: Manifest) -> None:
    """Each op of the plan by what computes it. Raises BackendError."""
    if manifest.backend != "tensorrt":
        return check_bodies(folder, manifest)
    for plugin in manifest.plugins:
        call = OpCall(plugin.name, plugin.namespace, plugin.version, tuple(sorted(plugin.attributes.items())), plugin.body)
        try:
            check_before_load(trt, call, plugin.implementation if plugin.body or plugin.implementation == "plan" else "registry")
        except BackendError as error:
            raise BackendError(f"{folder}: {error.message}", f"{error.remedy} {rebuild(manifest)}", code=error.code) from error

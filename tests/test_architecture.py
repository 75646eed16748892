"""The import arrows of the house, read from the syntax trees: they point down only.

apex_train -> apex_runtime -> apex_plugins; the plugins import nothing of ours; torch lives in apex_train and in the torch faces
of the plugins; the runtime runs where torch cannot be imported at all.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {"apex_runtime": "apex_runtime", "apex_train": "apex_train", "apex_plugins": "plugins", "apex_engines": "engines"}
OURS = set(ROOMS)
IMPORT_NAME = {"faster-coco-eval": "faster_coco_eval", "opencv-python-headless": "cv2", "pyyaml": "yaml"}
COPYLEFT = {"ultralytics", "albumentationsx", "yolov5", "yolov8"}

# What one face of a plugin may import beyond the standard library and its own room.
PLUGIN_FACES = {
    "reference.py": {"numpy"},
    "onnx_function.py": {"numpy", "onnx", "onnxscript"},
    "torch_op.py": {"numpy", "torch"},
    "torch_cuda.py": {"torch"},
    "torch_face.py": {"torch"},
    "trt_plugin.py": {"numpy", "tensorrt"},
    "tensorrt_launch.py": {"tensorrt"},
}


def modules(room: str) -> list[Path]:
    """The Python files of a room."""
    return sorted((ROOT / ROOMS[room]).rglob("*.py"))


@cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names that a file imports anywhere, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; the house uses absolute ones"
            found.add(node.module or "")
    return frozenset(found)


def tops(path: Path) -> set[str]:
    """Top-level packages a file imports, without the standard library."""
    return {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names - {"__future__"}


def cases(*rooms: str) -> list:
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for room in rooms for path in modules(room)]


@pytest.mark.parametrize("path", cases("apex_runtime"))
def test_the_runtime_looks_down_only(path: Path) -> None:
    assert tops(path) & OURS <= {"apex_runtime", "apex_plugins", "apex_engines"}
    assert tops(path).isdisjoint({"torch", "onnxscript"})


@pytest.mark.parametrize("path", cases("apex_plugins"))
def test_the_plugins_import_nothing_of_ours(path: Path) -> None:
    assert tops(path) & OURS <= {"apex_plugins"}
    allowed = PLUGIN_FACES.get(path.name, {"numpy"})
    assert tops(path) - OURS <= allowed, f"{path.name} may import {sorted(allowed)}"


@pytest.mark.parametrize("path", [p for p in modules("apex_plugins") if p.name == "reference.py"], ids=lambda p: p.parent.name)
def test_a_reference_leans_on_references_only(path: Path) -> None:
    """The meaning of an op must not depend on one of its implementations."""
    ours = {name for name in imports(path) if name.split(".")[0] in OURS}
    assert all(name.endswith(".reference") or name == "apex_plugins.spec" for name in ours), ours


def test_the_engines_are_data() -> None:
    for path in modules("apex_engines"):
        assert tops(path) == set(), path


@pytest.mark.parametrize("path", cases("apex_train"))
def test_training_does_not_import_the_programs_above_it(path: Path) -> None:
    assert tops(path).isdisjoint({"bench", "tests", "apex_engines"})


@pytest.mark.parametrize("room", sorted(OURS))
def test_nothing_copyleft_is_imported(room: str) -> None:
    for path in modules(room):
        assert tops(path).isdisjoint(COPYLEFT), path


def test_every_runtime_dependency_is_used() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    used = set().union(*(tops(path) for path in modules("apex_runtime")))
    for line in project["dependencies"]:
        name = Requirement(line).name
        assert IMPORT_NAME.get(name, name) in used, f"{name} is a dependency that no runtime module imports"


def test_every_dependency_of_training_is_used() -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["train"]
    # faster-coco-eval makes the runtime's evaluation faster where it is installed
    used = set().union(*(tops(path) for room in ("apex_train", "apex_plugins", "apex_runtime") for path in modules(room)))
    assert {IMPORT_NAME.get(Requirement(line).name, Requirement(line).name) for line in extra} <= used


def test_every_import_of_the_runtime_is_a_dependency() -> None:
    """What only tests or training bring along must not be needed by the first README command."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {IMPORT_NAME.get(Requirement(line).name, Requirement(line).name) for line in project["dependencies"]}
    # imported late: three behind a reason code, one only where it is there, the others behind an error that says what to install
    optional = {"tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "faster_coco_eval", "rasterio", "supervision", "matplotlib"}
    optional |= {"ray", "pyarrow", "fsspec"}  # the extra ray
    for path in modules("apex_runtime"):
        served = SERVED if path.parent.name == "serving" else set()
        assert tops(path) - OURS <= declared | optional | served, path


def test_what_servers_bring_is_needed_by_what_they_host_and_late_elsewhere() -> None:
    for path in (ROOT / "apex_runtime" / "serving").glob("*.py"):  # elsewhere they are not imported at all, see above
        tree = ast.parse(path.read_text(encoding="utf-8"))
        first = {name for node in tree.body for name in _names(node)} & SERVED
        assert first == HOSTED.get(path.stem, set()), path


def _names(node: ast.stmt) -> set[str]:
    found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    found += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    return {name.split(".")[0] for name in found}


# Packages of the extra serve, and what Triton puts on the path of a model. Modules that only a server imports begin with them.
SERVED = {"fastapi", "google", "grpc", "mlserver", "prometheus_client", "triton_python_backend_utils", "tritonclient"}
HOSTED = {
    "mlserver_model": {"mlserver"},
    "mlserver_limits": {"fastapi", "grpc", "mlserver"},
    "triton_preprocess": {"triton_python_backend_utils"},
    "triton_postprocess": {"triton_python_backend_utils"},
}

WITHOUT_TORCH = """
import importlib, pkgutil, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "apex_train", "onnxscript"):
            raise ImportError(f"{name} was imported by the runtime")

sys.meta_path.insert(0, Refuse())
import apex_runtime
names = [found.name for found in pkgutil.walk_packages(apex_runtime.__path__, "apex_runtime.")]
names = [name for name in names if name.rpartition(".")[2] not in sys.argv[1:]]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def test_every_runtime_module_imports_where_torch_cannot() -> None:
    run = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *HOSTED], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) >= len([p for p in modules("apex_runtime") if p.name != "__init__.py"]) - len(HOSTED)

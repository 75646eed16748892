"""What pyproject.toml says about the packages is what the folders are, and a wheel of it carries the data files."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOMS = {"apex_runtime": "apex_runtime", "apex_train": "apex_train", "apex_plugins": "plugins", "apex_engines": "engines"}


@pytest.fixture(scope="module")
def project(repo_root: Path) -> dict:
    return tomllib.loads((repo_root / "pyproject.toml").read_text())


def packages_on_disk(root: Path) -> set[str]:
    """Dotted names of every folder of the rooms that holds an ``__init__.py``."""
    found = set()
    for name, folder in ROOMS.items():
        for init in (root / folder).rglob("__init__.py"):
            found.add(".".join((name, *init.parent.relative_to(root / folder).parts)))
    return found


def test_the_package_list_equals_the_folders(project: dict, repo_root: Path) -> None:
    listed = project["tool"]["setuptools"]["packages"]
    assert len(listed) == len(set(listed))
    assert set(listed) == packages_on_disk(repo_root)


def test_every_folder_with_python_files_is_a_package(repo_root: Path) -> None:
    for folder in ROOMS.values():
        for module in (repo_root / folder).rglob("*.py"):
            assert (module.parent / "__init__.py").exists(), f"{module.parent} holds modules but no __init__.py"


def test_every_data_file_of_a_package_is_shipped(project: dict, repo_root: Path) -> None:
    """A schema, profile or engine that stays behind when the wheel is built breaks the first command of a newcomer."""
    patterns = project["tool"]["setuptools"]["package-data"]
    for name, folder in ROOMS.items():
        base = repo_root / folder
        for path in base.rglob("*"):
            if path.is_dir() or path.suffix in (".py", ".pyc"):
                continue
            relative = path.relative_to(base).as_posix()
            shipped = any(fnmatch(relative, pattern.removeprefix("**/")) for pattern in patterns[name])
            assert shipped, f"{folder}/{relative} matches no package-data pattern of {name}"


def test_metadata(project: dict, repo_root: Path) -> None:
    meta = project["project"]
    assert (meta["name"], meta["requires-python"], meta["license"]) == ("apex-x", ">=3.11", "Apache-2.0")
    assert meta["scripts"] == {"apex-rt": "apex_runtime.cli.main:main", "apex-train": "apex_train.cli.main:main"}
    assert {"train", "gpu", "rtx", "test"} <= set(meta["optional-dependencies"])
    assert "Apache License" in (repo_root / "LICENSE").read_text()[:200]


def test_the_runtime_needs_no_torch(project: dict) -> None:
    names = {Requirement(line).name for line in project["project"]["dependencies"]}
    assert names.isdisjoint({"torch", "torchvision", "onnxscript"})

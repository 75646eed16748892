"""Recipe file and flags meet in one typed record; what neither may say is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from apex_runtime.backends.capabilities import BACKENDS
from apex_runtime.bundle import recipe as recipe_module
from apex_runtime.bundle.recipe import BuildRecipe, find_recipe, load_recipe, recipe_names
from apex_runtime.errors import ConfigError


def test_flags_win_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("backend: tensorrt-rtx\ncompute_capability: [89, 120]\nmax_batch: 2\n")
    recipe = load_recipe(file, {"max_batch": 4})
    assert (recipe.backend, recipe.compute_capability, recipe.max_batch, recipe.precision) == (
        "tensorrt-rtx",
        (89, 120),
        4,
        "fp32",
    )
    assert load_recipe(None, {}) == BuildRecipe()


def test_a_recipe_reads_back(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    recipe = BuildRecipe(backend="tensorrt-rtx", compute_capability=(75,), max_batch=3, report=False, calibration_images=9)
    file.write_text(recipe.to_yaml())
    assert load_recipe(file, {}) == recipe


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("backen: x\n", "backen"),
        ("max_batch: 0\n", "max_batch"),
        ("calibration_images: 0\n", "calibration_images"),
        ("- 1\n", "expected keys"),
        ("a: [\n", "not a YAML file"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_recipe(file, {})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load_recipe(tmp_path / "none.yaml", {})


def test_every_shipped_recipe_is_valid(repo_root: Path) -> None:
    files = [*(repo_root / "engines").glob("*.yaml"), *(repo_root / "engines").glob("*/recipe.yaml")]
    assert len(files) >= 5
    assert {load_recipe(file, {}).backend for file in files} == set(BACKENDS), "one for each backend at least"


@pytest.fixture
def shipped(repo_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipes of this checkout, wherever the package is installed from."""
    monkeypatch.setattr(recipe_module, "files", lambda _package: repo_root / "engines")


def test_a_bare_name_finds_the_shipped_recipe_from_any_folder(
    shipped: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert recipe_names() == ["cpu", "cpu-int8", "gpu-onnxruntime", "rtx-balanced", "rtx-desktop", "tensorrt-server"]
    recipe = load_recipe(Path("rtx-desktop"), {})
    assert (recipe.backend, len(recipe.compute_capability)) == ("tensorrt-rtx", 5)
    assert load_recipe(Path("rtx-desktop"), {"compute_capability": (89,)}).compute_capability == (89,)


def test_a_file_of_the_same_name_needs_a_path(shipped: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cpu").write_text("max_batch: 3\n")
    Path("cpu.yaml").write_text("max_batch: 4\n")
    found = [load_recipe(Path(name), {}).max_batch for name in ("cpu", "cpu.yaml", str(tmp_path / "cpu"))]
    assert found == [BuildRecipe().max_batch, 4, 3]


@pytest.mark.parametrize("name", ["rtx-destop", "../engines/cpu", "nuclei-nano"])
def test_an_unknown_name_lists_the_known_ones(shipped: None, name: str) -> None:
    with pytest.raises(ConfigError, match="no recipe of that name") as caught:
        find_recipe(name)
    assert "cpu, cpu-int8, gpu-onnxruntime, rtx-balanced, rtx-desktop, tensorrt-server" in caught.value.remedy

"""Recipe file and flags meet in one typed record; what neither may say is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from apex_runtime.bundle.recipe import BuildRecipe, load_recipe
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
    recipe = BuildRecipe(backend="tensorrt-rtx", compute_capability=(75,), max_batch=3)
    file.write_text(recipe.to_yaml())
    assert load_recipe(file, {}) == recipe


@pytest.mark.parametrize(
    ("text", "words"),
    [("backen: x\n", "backen"), ("max_batch: 0\n", "max_batch"), ("- 1\n", "expected keys"), ("a: [\n", "not a YAML file")],
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
    files = sorted((repo_root / "engines").glob("*/recipe.yaml"))
    assert files, "no recipe is shipped"
    for file in files:
        assert load_recipe(file, {}).backend

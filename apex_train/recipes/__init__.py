"""The recipes that are shipped: a commented configuration for each of a few public data sets, found by name."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent


def recipe_names() -> list[str]:
    """The names of the recipes, in alphabetical order."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def recipe_path(name: str) -> Path | None:
    """The YAML file of a recipe, None when there is none of that name (a path is no name)."""
    return _FOLDER / f"{name}.yaml" if name in recipe_names() else None

"""The row "changelog": the newest section is that of the version in pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from apex_runtime.errors import DataError
from apex_runtime.release.checkout import Checkout
from apex_runtime.release.row import Row

CHANGELOG, PROJECT = "CHANGELOG.md", "pyproject.toml"
_SECTION = re.compile(r"^## +\[?([^\s\]]+)\]?.*$", re.MULTILINE)


def changelog_row(checkout: Checkout) -> Row:
    """Compare both files. Raises DataError and OSError of either."""
    version = version_of(checkout.root)
    _, *parts = _SECTION.split((checkout.root / CHANGELOG).read_text(encoding="utf-8"))
    sections = dict(zip(parts[::2], (body.strip() for body in parts[1::2]), strict=True))
    if not sections:
        return Row("changelog", "fail", "it has no section", CHANGELOG)
    newest = next((name for name, body in sections.items() if name.lower() != "unreleased" or body), "unreleased")
    if newest != version:
        return Row("changelog", "fail", f"the version is {version}, the newest section with content is {newest}", CHANGELOG)
    if not sections[version]:
        return Row("changelog", "fail", f"the section of {version} is empty", CHANGELOG)
    return Row("changelog", "pass", f"the newest section is that of the version {version}", CHANGELOG)


def version_of(root: Path) -> str:
    """The version in pyproject.toml. Raises DataError, OSError."""
    try:
        return str(tomllib.loads((root / PROJECT).read_text(encoding="utf-8"))["project"]["version"])
    except (KeyError, TypeError, ValueError) as error:  # ValueError: TOML or UTF-8 that is none
        raise DataError(f"{PROJECT} has no version: {error}.", path=root / PROJECT) from error

"""What takes the row "changelog" away: sections of another version."""

from __future__ import annotations

import pytest
from release_checkout import Made

CHANGELOGS = {
    "unreleased work": ("## Unreleased\n\n* New.\n\n## 1.2.0\n\n* More.\n", "newest section with content is Unreleased"),
    "another version": ("## 1.1.0\n\n* Less.\n", "is 1.1.0"),
    "an empty section": ("## 1.2.0\n\n## 1.1.0\n\n* Less.\n", "empty"),
    "no section": ("Nothing.\n", "no section"),
    "a part of the version": ("## 1.2\n\n* More.\n", "is 1.2"),
}


@pytest.mark.parametrize(("text", "says"), CHANGELOGS.values(), ids=list(CHANGELOGS))
def test_a_changelog_of_something_else(text: str, says: str, made: Made) -> None:
    made.write("CHANGELOG.md", text)
    row = made.rows()["changelog"]
    assert row.status == "fail" and says in row.reason


@pytest.mark.parametrize("heading", ["## 1.2.0", "## [1.2.0] - 2026-11-28", "## 1.2.0 (28 November)"])
def test_a_changelog_of_the_version(heading: str, made: Made) -> None:
    made.write("CHANGELOG.md", f"# Changelog\n\n## Unreleased\n\n{heading}\n\n* More.\n")
    assert made.rows()["changelog"].status == "pass"

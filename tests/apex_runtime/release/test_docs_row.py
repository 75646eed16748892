"""What takes the row "docs" away: links that lead nowhere, and pages whose commands did not run."""

from __future__ import annotations

from pathlib import Path

import pytest
from release_checkout import Made, case, docs_case

from apex_runtime.release.docs_row import COMMANDS, OTHERS, TESTS, broken_links

LINKS = {
    "no file": "[a](nowhere.md)",
    "no heading": "[a](#nowhere)",
    "no heading elsewhere": "[a](../README.md#nowhere)",
    "out of the checkout": "[a](../..)",
    "a picture": "![a](picture.png)",
    "a heading of what has none": "[a](../pyproject.toml#a)",
    "a third heading": "[a](#a-heading-with-code-twice-2)",
}


@pytest.mark.parametrize("link", LINKS.values(), ids=list(LINKS))
def test_a_link_that_leads_nowhere(link: str, made: Made) -> None:
    made.write("docs/page.md", (made.root / "docs" / "page.md").read_text() + link)
    row = made.rows()["docs"]
    assert row.status == "fail" and len(row.details) == 1 and row.details[0].startswith("page.md: ")


def test_a_page_whose_commands_failed_did_not_run_or_are_new(made: Made) -> None:
    made.results("".join(map(case, range(20))) + docs_case("page", "failure"), exit_status="1")
    row = made.rows()["docs"]
    assert (row.status, row.details) == ("fail", ("test_the_commands_of_a_document_run[page]",))
    for cases in (docs_case("page", "skipped"), docs_case("other"), case("the_commands_of_a_document_run[page]")):
        made.results("".join(map(case, range(20))) + cases)
        row = made.rows()["docs"]
        assert (row.status, row.details) == ("not run", ("page.md",))


def test_the_name_of_the_test_of_the_pages(repo_root: Path) -> None:
    path = repo_root / Path(*TESTS.split(".")).with_suffix(".py")
    assert f"def {COMMANDS}(document: Path" in path.read_text() and "id=path.stem" in path.read_text()


def test_the_links_of_this_project(repo_root: Path) -> None:
    pages = [*sorted((repo_root / "docs").glob("*.md")), *(repo_root / name for name in OTHERS)]
    assert [fault for page in pages for fault in broken_links(repo_root, page)] == []

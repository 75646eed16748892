"""The row "docs": links lead somewhere, and the commands of every page ran."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from apex_runtime.release.checkout import Checkout
from apex_runtime.release.junit import TestResults
from apex_runtime.release.row import Row
from apex_runtime.release.tests_row import why_not_these_tests

PAGES = "docs"
OTHERS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
TESTS, COMMANDS = "tests.test_docs", "test_the_commands_of_a_document_run"
_FENCED = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)[^)]*\)")
_HEADING = re.compile(r"^#+ +(.+?)\s*$", re.MULTILINE)
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def docs_row(checkout: Checkout, results: TestResults | None, file: str) -> Row:
    """The links of all pages, and what ``results``, read from ``file``, say about their commands (None: nothing)."""
    pages = sorted((checkout.root / PAGES).glob("*.md"))
    broken = [
        fault for page in [*pages, *(checkout.root / name for name in OTHERS)] for fault in broken_links(checkout.root, page)
    ]
    failed = [] if results is None else [case.name for case in results.cases if (case.module, case.outcome) == (TESTS, "failed")]
    if broken or failed or not pages:
        reason = f"{len(pages)} pages, {len(broken)} broken links, {len(failed)} failed tests"
        return Row("docs", "fail", reason, PAGES, (*broken, *failed))
    why_not = f"{file} says nothing" if results is None else why_not_these_tests(checkout, results)
    if results is None or why_not:
        return Row("docs", "not run", f"no link is broken; the commands: {why_not}", PAGES)
    ran = {case.name for case in results.cases if (case.module, case.outcome) == (TESTS, "passed")}
    left = tuple(page.name for page in pages if f"{COMMANDS}[{page.stem}]" not in ran)
    if left:
        return Row(
            "docs", "not run", f"no link is broken; the commands of {len(left)} of {len(pages)} pages did not run", PAGES, left
        )
    return Row("docs", "pass", f"{len(pages)} pages, no link is broken, their commands ran", PAGES)


def broken_links(root: Path, page: Path) -> list[str]:
    """Links of a page to files or headings that are not there. Addresses of the network are not followed."""
    if not page.is_file():
        return [f"{page.name} is missing"]
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    return [f"{page.name}: {target}" for target in _LINK.findall(text) if not _leads_somewhere(root, page, target)]


def _leads_somewhere(root: Path, page: Path, target: str) -> bool:
    if _ELSEWHERE.match(target):
        return True
    name, _, heading = unquote(target).partition("#")
    file = (page.parent / name if name else page).resolve()
    if not file.exists() or not file.is_relative_to(root.resolve()):
        return False
    return not heading or (file.suffix == ".md" and heading in anchors(file.read_text(encoding="utf-8")))


def anchors(text: str) -> set[str]:
    """What a host calls the headings of a page: small letters, no punctuation, hyphens for blanks, a number for a second one."""
    found: dict[str, int] = {}
    names = set()
    for heading in _HEADING.findall(re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = found[name] = found.get(name, -1) + 1
        names.add(f"{name}-{count}" if count else name)
    return names

"""A small checkout that may be released: every row of the checklist passes, until a test takes something away."""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from apex_runtime.release.checklist import checklist
from apex_runtime.release.checkout import Checkout
from apex_runtime.release.row import Row

MODEL = b"an engine"
FIGURES = """import pathlib, sys
right = "figures: 1" in pathlib.Path("README.md").read_text()
print("the figures are those of the files" if right else "the figures are not those of the files")
sys.exit(not right)
"""
PAGE = """# A page

[back](../README.md), [there](#a-heading-with-code-twice), [again](#a-heading-with-code-twice-1), [out](https://example.org/x)

## A heading, with `code` (twice)

```bash
true # [no link](nowhere.md)
```

## A heading, with `code` (twice)
"""


@dataclass
class Made:
    """The checkout and the files beside it."""

    root: Path

    def git(self, *words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        run = subprocess.run(["git", "-C", str(self.root), *identity, *words], capture_output=True, text=True, timeout=30)
        assert run.returncode == 0, run.stderr
        return run.stdout.strip()

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("commit", "-qm", "change", "--allow-empty")
        return self.git("rev-parse", "HEAD")

    def json(self, name: str, value: Any) -> Path:
        return self.write(name, json.dumps(value))

    def results(self, cases: str = "", **properties: str | None) -> Path:
        """``release/tests.xml`` of this commit; a property that is None is left out."""
        recorded = {"commit": self.git("rev-parse", "HEAD"), "changed_files": "0", "whole_suite": "yes", "exit_status": "0"}
        lines = [
            f"<property name={quoteattr(name)} value={quoteattr(value)} />"
            for name, value in (recorded | properties).items()
            if value is not None
        ]
        cases = cases or "".join(map(case, range(20))) + docs_case("page")
        suite = f'<testsuite name="pytest" tests="0"><properties>{"".join(lines)}</properties>{cases}</testsuite>'
        return self.write("release/tests.xml", f'<?xml version="1.0" encoding="utf-8"?><testsuites>{suite}</testsuites>')

    def regression(self, **fields: Any) -> Path:
        """``release/regression.json`` of this commit."""
        digest = hashlib.sha256(MODEL).hexdigest()
        answer = {"format_version": 1, "verdict": "pass", "reasons": [], "engine": {"model_sha256": digest, "more": 1}}
        code = {"version": "1.2.0", "commit": self.git("rev-parse", "HEAD"), "dirty": False}
        return self.json("release/regression.json", answer | {"code": code} | fields)

    def rows(self) -> dict[str, Row]:
        rows = checklist(Checkout(self.root), self.root / "release" / "tests.xml", self.root / "release" / "regression.json")
        assert [row.name for row in rows] == ["tests", "parity", "regression", "evidence", "docs", "changelog"]
        return {row.name: row for row in rows}


def case(name: object, child: str = "", module: str = "tests.test_more") -> str:
    """One test as pytest writes it; ``child`` says how it ended when it did not pass."""
    inside = f'<{child} message="m">text</{child}>' if child else ""
    return f"<testcase classname={quoteattr(module)} name={quoteattr(f'test_{name}')} time='0.1'>{inside}</testcase>"


def docs_case(page: str, child: str = "") -> str:
    """The test that runs the commands of a page."""
    return case(f"the_commands_of_a_document_run[{page}]", child, "tests.test_docs")


def sweep(commit: str | None, **fields: Any) -> dict[str, Any]:
    """The evidence of a parity sweep."""
    verdicts = {"fp32-ort-cpu": "pass", "int8-ort-cpu": "pass"}
    comparisons = [{"candidate": {"path": path}, "verdict": verdict} for path, verdict in verdicts.items()]
    parity = {"schema": "apex-x/parity", "schema_version": 2, "verdict": "pass", "comparisons": comparisons}
    parity["reference"] = {"sha256": hashlib.sha256(MODEL).hexdigest()}
    return {"circumstances": {"commit": commit, "dirty": False}, "parity": parity | fields}


def releasable(folder: Path) -> Made:
    """Everything in one history, and results of its last commit."""
    checkout = Made(folder)
    checkout.root.mkdir()
    checkout.git("init", "-q", "-b", "main")
    checkout.write("pyproject.toml", '[project]\nname = "a"\nversion = "1.2.0"\n')
    checkout.write("CHANGELOG.md", "# Changelog\n\n## Unreleased\n\n## 1.2.0\n\n* More.\n\n## 1.1.0\n\n* Less.\n")
    checkout.write("README.md", "# A\n\nfigures: 1, [a page](docs/page.md), [its heading](docs/page.md#a-page)\n")
    checkout.write("CONTRIBUTING.md", "Be kind.\n")
    checkout.write("docs/page.md", PAGE)
    checkout.write("engines/nuclei-nano/model.onnx", MODEL)
    checkout.write("bench/readme_figures.py", FIGURES)
    checkout.write(".gitignore", "/release/\n__pycache__/\n")
    first = checkout.commit()
    checkout.json("bench/evidence/parity-sweep.json", sweep(first))
    checkout.json("bench/evidence/more/speed.json", {"circumstances": {"commit": first, "dirty": False}, "rows": [1]})
    checkout.commit()
    checkout.results()
    checkout.regression()
    return checkout

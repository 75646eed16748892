"""The report as one JSON object: counts per set and split, and every finding. Its schema is preflight.schema.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apex_runtime.data.findings import Fault, Finding
from apex_train.preflight.walk import SetReport

FORMAT_VERSION = 1
_ORDER = {fault: place for place, fault in enumerate(Fault)}


def document(reports: Sequence[SetReport]) -> dict[str, Any]:
    """Everything that was found, for machines; paths lie relative to the set where they are inside of it."""
    findings = [_finding(report, finding) for report in reports for finding in sorted_findings(report)]
    errors = sum(finding["severity"] == "error" for finding in findings)
    return {
        "format_version": FORMAT_VERSION,
        "passed": errors == 0,
        "errors": errors,
        "warnings": len(findings) - errors,
        "data": [
            {
                "path": str(report.data),
                "dataset_type": report.kind,
                "splits": [split.as_json() for split in report.splits],
            }
            for report in reports
        ],
        "findings": findings,
    }


def sorted_findings(report: SetReport) -> list[Finding]:
    """By kind, errors first, then by file and line."""
    return sorted(
        report.findings,
        key=lambda finding: (
            not finding.fault.is_error,
            _ORDER[finding.fault],
            str(finding.where.path),
            finding.where.line or 0,
        ),
    )


def place(report: SetReport, finding: Finding) -> str:
    """``path:line`` as it is shown."""
    path = relative(report, finding.where.path)
    return path if finding.where.line is None else f"{path}:{finding.where.line}"


def message(report: SetReport, finding: Finding) -> str:
    """The message, the paths in it relative to the set."""
    return finding.message.replace(f"{base(report.data)}/", "")


def relative(report: SetReport, path: Path) -> str:
    """A path relative to the set where it is inside."""
    root = base(report.data)
    return path.relative_to(root).as_posix() if path != root and path.is_relative_to(root) else str(path)


def base(data: Path) -> Path:
    """The folder of a set that was given as a folder or as the file that describes it."""
    return data.parent if data.is_file() else data


def _finding(report: SetReport, finding: Finding) -> dict[str, Any]:
    return {
        "data": str(report.data),
        "fault": finding.fault.value,
        "severity": "error" if finding.fault.is_error else "warning",
        "path": relative(report, finding.where.path),
        "line": finding.where.line,
        "message": message(report, finding),
    }

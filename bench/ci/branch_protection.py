"""Are the switches set that docs/ci.md asks of a maintainer? Read through the hosting API; nothing is changed.

    GITHUB_TOKEN=... python bench/ci/branch_protection.py --repository OWNER/NAME

The token needs to read the administration of the repository. Exit codes: 0 all are set; 1 at least one is not, and which;
2 wrong usage, no token, or an answer that does not let us know.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ci.hosting_api import Api, UnknownError

REQUIRED_CHECKS = ("tests (Python 3.11)", "tests (Python 3.13)", "gpu")
ENVIRONMENT = "gpu"
FORK_POLICY = "all_external_contributors"


@dataclass(frozen=True)
class Switch:
    """One setting: what it should be, in words, whether it is, and what was found."""

    name: str
    right: bool
    found: str


@click.command()
@click.option("--repository", required=True, metavar="OWNER/NAME", help="The repository at the host.")
@click.option("--branch", help="The protected branch.  [default: the repository's default branch]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
def main(repository: str, branch: str | None, as_json: bool) -> None:
    """Compare the settings of OWNER/NAME with those that docs/ci.md asks for.

    \b
    Examples:
      GITHUB_TOKEN=... python bench/ci/branch_protection.py --repository OWNER/NAME
      GITHUB_TOKEN=... python bench/ci/branch_protection.py --repository OWNER/NAME --branch main --json
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or ".." in repository:
        raise click.BadParameter(f"{repository!r} is not OWNER/NAME", param_hint="--repository")
    token = os.environ.get("GITHUB_TOKEN", "")
    try:
        if not token:
            raise UnknownError("GITHUB_TOKEN is not set: nothing was asked. Put a token there that may read the administration.")
        found = switches(Api(os.environ.get("GITHUB_API_URL", "https://api.github.com"), token), repository, branch)
    except UnknownError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    right = all(item.right for item in found)
    if as_json:
        verdict = "pass" if right else "fail"
        click.echo(json.dumps({"format_version": 1, "verdict": verdict, "switches": [asdict(item) for item in found]}, indent=2))
    else:
        for item in found:
            click.echo(f"{'ok   ' if item.right else 'WRONG'} {item.name}: {item.found}")
    sys.exit(not right)


def switches(api: Api, repository: str, branch: str | None = None) -> list[Switch]:
    """Every setting of ``docs/ci.md``. Raises UnknownError when one of them cannot be read."""
    place = f"/repos/{repository}"
    about = api.get(place)
    if about is None:
        raise UnknownError(f"{repository}: no such repository, or the token may not see it.")
    # Without this right the host answers 404, which would read as "not set".
    if not _flag(about, "permissions", "admin"):
        raise UnknownError(f"{repository}: the token may not read the administration; it needs that right.")
    name = branch or _text(about, "default_branch")
    protection = api.get(f"{place}/branches/{quote(name, safe='')}/protection")
    return [
        *_branch(name, protection),
        _environment(api.get(f"{place}/environments/{ENVIRONMENT}")),
        *_actions(api, place, private=_flag(about, "private")),
    ]


def _branch(name: str, protection: dict[str, Any] | None) -> Iterator[Switch]:
    if protection is None:
        yield Switch(f"branch {name} is protected", False, "no protection")
        return
    checks = _part(protection, "required_status_checks")
    asked = {str(item.get("context")) for item in _items(checks, "checks")}
    missing = [check for check in REQUIRED_CHECKS if check not in asked]
    yield Switch("required checks", not missing, f"missing: {', '.join(missing)}" if missing else ", ".join(REQUIRED_CHECKS))
    yield _on("the branch must be up to date before it is merged", _flag(checks, "strict"))
    reviews = _part(protection, "required_pull_request_reviews")
    count = reviews.get("required_approving_review_count", 0)
    if not isinstance(count, int):
        raise UnknownError(f"required_approving_review_count is {count!r}, which is no number.")
    yield Switch("approving reviews, at least 1", count >= 1, str(count))
    yield _on("a new commit dismisses the approvals", _flag(reviews, "dismiss_stale_reviews"))
    yield _on("the rules hold for administrators", _flag(protection, "enforce_admins", "enabled"))
    yield _off("force pushes", _flag(protection, "allow_force_pushes", "enabled"))
    yield _off("deletions", _flag(protection, "allow_deletions", "enabled"))


def _environment(environment: dict[str, Any] | None) -> Switch:
    what = f"environment {ENVIRONMENT} has required reviewers"
    if environment is None:
        return Switch(what, False, "no such environment")
    rules = [rule for rule in _items(environment, "protection_rules") if rule.get("type") == "required_reviewers"]
    count = sum(len(_items(rule, "reviewers")) for rule in rules)
    return Switch(what, count > 0, f"{count} reviewers")


def _actions(api: Api, place: str, private: bool) -> Iterator[Switch]:
    workflow = api.get(f"{place}/actions/permissions/workflow")
    if workflow is None:
        raise UnknownError("the host does not tell what workflows may do.")
    rights = _text(workflow, "default_workflow_permissions")
    yield Switch("workflows may only read", rights == "read", rights)
    yield _off("workflows may approve requests", _flag(workflow, "can_approve_pull_request_reviews"))
    what = "workflows of outside contributors wait for an approval, always"
    if private:  # the host has this switch for public repositories alone
        yield Switch(what, True, "not a question: the repository is private")
        return
    policy = api.get(f"{place}/actions/permissions/fork-pr-contributor-approval")
    if policy is None:
        raise UnknownError("the host does not tell whose workflows wait for an approval.")
    yield Switch(what, _text(policy, "approval_policy") == FORK_POLICY, _text(policy, "approval_policy"))


def _on(name: str, value: bool) -> Switch:
    return Switch(name, value, "on" if value else "off")


def _off(name: str, value: bool) -> Switch:
    return Switch(f"{name}: off", not value, "on" if value else "off")


def _part(value: dict[str, Any], key: str) -> dict[str, Any]:
    """A group of settings; the host leaves out what is switched off. Raises UnknownError for anything else."""
    part = value.get(key) or {}
    if not isinstance(part, dict):
        raise UnknownError(f"{key} is {part!r}, where settings were expected.")
    return part


def _items(value: dict[str, Any], key: str) -> list[dict[str, Any]]:
    items = value.get(key) or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UnknownError(f"{key} is {items!r}, where a list was expected.")
    return items


def _flag(value: dict[str, Any], *keys: str) -> bool:
    for key in keys[:-1]:
        value = _part(value, key)
    found = value.get(keys[-1], False)
    if not isinstance(found, bool):
        raise UnknownError(f"{'.'.join(keys)} is {found!r}, which is neither true nor false.")
    return found


def _text(value: dict[str, Any], key: str) -> str:
    found = value.get(key)
    if not isinstance(found, str) or not found:
        raise UnknownError(f"{key} is {found!r}, where a word was expected.")
    return found


if __name__ == "__main__":
    main()

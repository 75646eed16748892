"""What must hold of every workflow: each rule gives the faults of a parsed file, so that tests can show that it finds some."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from workflow_expressions import evaluate

Workflow = dict[str, Any]
HOSTED = {"ubuntu-24.04"}
TRIGGERS = {"pull_request", "merge_group", "push", "workflow_dispatch", "schedule"}  # none of them lends a fork our rights
OURS = "owner/apex-x"


def read(path: Path) -> Workflow:
    """A workflow with texts alone: ``on`` is a word here, where YAML 1.1 has a truth value."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)


def event(name: str, **payload: Any) -> dict[str, Any]:
    """The context ``github`` of an event in our repository."""
    return {"repository": OURS, "event_name": name, "ref": "refs/heads/main", "event": payload}


def pull_request(head: dict[str, Any] | None, base: str = OURS) -> dict[str, Any]:
    """A pull request from ``head``; None: the repository that it came from is gone."""
    return event("pull_request", number="7", pull_request={"head": {"repo": head}, "base": {"repo": {"full_name": base}}})


FORKS = {
    "a fork": pull_request({"full_name": "stranger/apex-x", "fork": True}),
    "a fork that is gone": pull_request(None),
    "a fork without a name": pull_request({}),
    "a fork with a name that begins as ours": pull_request({"full_name": f"{OURS}-2", "fork": True}),
    "a fork on what runs in the rights of the base": event(
        "pull_request_target", pull_request={"head": {"repo": {"full_name": OURS}}}
    ),
    "what follows the run of a fork": event("workflow_run", workflow_run={"head_repository": {"full_name": "stranger/apex-x"}}),
    "a comment on the request of a fork": event("issue_comment", comment={"body": "/gpu"}),
}
TRUSTED = {
    "a branch of ours": pull_request({"full_name": OURS, "fork": False}),
    "a push": event("push", before="1234"),
    "a merge queue": event("merge_group", merge_group={"base_sha": "1234"}),
    "by hand": event("workflow_dispatch"),
}


def hosted(job: dict[str, Any]) -> bool:
    """Whether a job runs on a machine of the host, by a name that is known; anything else counts as one of ours."""
    return job["runs-on"] in HOSTED if isinstance(job["runs-on"], str) else False


def runs(job: dict[str, Any], github: dict[str, Any], needed: str | None) -> bool:
    """Whether a job with a condition is run for an event when ``decide`` said ``needed``."""
    needs = {"decide": {"result": "success", "outputs": {"needed": needed}}, "device": {"result": "skipped", "outputs": {}}}
    return bool(evaluate(job.get("if", "true"), {"github": github, "needs": needs}))


def reached_by_forks(workflow: Workflow) -> Iterator[str]:
    """Jobs on machines of ours that an event of a fork starts."""
    for name, job in workflow["jobs"].items():
        for what, github in FORKS.items():
            if not hosted(job) and any(runs(job, github, needed) for needed in ("true", "false", "", None)):
                yield f"{name}: {what} reaches {job['runs-on']}"


def beyond_reading(workflow: Workflow) -> Iterator[str]:
    """Rights that go beyond reading, or that are not said; secrets; triggers that lend a fork ours."""
    granted = [("workflow", workflow.get("permissions"))]
    granted += [(name, job["permissions"]) for name, job in workflow["jobs"].items() if "permissions" in job]
    for where, rights in granted:
        if not isinstance(rights, dict) or not rights or not set(rights.values()) <= {"read", "none"}:
            yield f"{where}: permissions {rights}"
    triggers = (
        workflow["on"]
        if isinstance(workflow["on"], dict)
        else dict.fromkeys([workflow["on"]] if isinstance(workflow["on"], str) else workflow["on"])
    )
    yield from (f"trigger {name}" for name in triggers if name not in TRIGGERS)
    if re.search(r"\bsecrets\b", yaml.safe_dump(workflow)):
        yield "secrets"


def without_end(workflow: Workflow) -> Iterator[str]:
    """Jobs without a limit of time, a workflow whose runs pile up."""
    for name, job in workflow["jobs"].items():
        if not 1 <= int(job.get("timeout-minutes", 0)) <= 180:
            yield f"{name}: timeout-minutes {job.get('timeout-minutes')}"
    if not workflow.get("concurrency"):
        yield "no concurrency"


def careless_steps(workflow: Workflow) -> Iterator[str]:
    """Actions that may change under us, credentials left in the checkout, text of an event in a command line."""
    for name, job in workflow["jobs"].items():
        for step in job["steps"]:
            action = step.get("uses", "")
            if action and not re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action):
                yield f"{name}: {action} is not pinned to a commit of an action of the host"
            if action.startswith("actions/checkout@") and step.get("with", {}).get("persist-credentials") != "false":
                yield f"{name}: the checkout keeps its credentials"
            if "${{" in step.get("run", ""):
                yield f"{name}: an expression inside a command"


RULES = (reached_by_forks, beyond_reading, without_end, careless_steps)


def faults(workflow: Workflow) -> list[str]:
    """All that is wrong with a workflow."""
    return [fault for rule in RULES for fault in rule(workflow)]

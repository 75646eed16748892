"""The switches of a repository, read from a server of ours that answers as the host documents it."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ci import hosting_api
from ci.branch_protection import REQUIRED_CHECKS, main
from click.testing import CliRunner, Result

PLACE = "/repos/owner/name"
PROTECTION = f"{PLACE}/branches/main/protection"
ENVIRONMENT = f"{PLACE}/environments/gpu"
WORKFLOW = f"{PLACE}/actions/permissions/workflow"
FORKS = f"{PLACE}/actions/permissions/fork-pr-contributor-approval"
TOKEN = "a-token-of-the-test"

RIGHT: dict[str, Any] = {
    PLACE: {"default_branch": "main", "private": False, "permissions": {"admin": True, "push": True}},
    PROTECTION: {
        "url": "...",
        "required_status_checks": {
            "strict": True,
            "contexts": [*REQUIRED_CHECKS, "more"],
            "checks": [{"context": name, "app_id": 15368} for name in (*REQUIRED_CHECKS, "more")],
        },
        "required_pull_request_reviews": {"dismiss_stale_reviews": True, "required_approving_review_count": 2},
        "enforce_admins": {"url": "...", "enabled": True},
        "allow_force_pushes": {"enabled": False},
        "allow_deletions": {"enabled": False},
    },
    ENVIRONMENT: {
        "name": "gpu",
        "protection_rules": [
            {"id": 1, "type": "branch_policy"},
            {"id": 2, "type": "required_reviewers", "reviewers": [{"type": "User", "reviewer": {"login": "a"}}]},
        ],
    },
    WORKFLOW: {"default_workflow_permissions": "read", "can_approve_pull_request_reviews": False},
    FORKS: {"approval_policy": "all_external_contributors"},
}


class Host:
    """A server on this machine: path to answer, which is a value, raw bytes, or a status."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = copy.deepcopy(RIGHT)
        self.seen: list[tuple[str, str | None]] = []
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                host.seen.append((self.path, self.headers.get("Authorization")))
                answer = host.answers.get(self.path, 404)
                if isinstance(answer, threading.Event):
                    answer.wait(20)
                    return
                self.send_response(answer if isinstance(answer, int) else 200)
                if isinstance(answer, int) and 300 <= answer < 400:
                    self.send_header("Location", f"{host.url}/elsewhere")
                text = (
                    answer
                    if isinstance(answer, bytes)
                    else json.dumps({"message": "no"} if isinstance(answer, int) else answer).encode()
                )
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_words: object) -> None:
                """Nothing on standard error."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.close()


def ask(host: Host, *words: str, token: str = TOKEN) -> Result:
    arguments = ["--repository", "owner/name", *words]
    return CliRunner().invoke(
        main, arguments, env={"GITHUB_TOKEN": token, "GITHUB_API_URL": host.url, "http_proxy": "http://127.0.0.1:9"}
    )


def at(path: str, *keys: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    """Sets one field of one answer."""

    def change(answers: dict[str, Any]) -> None:
        place = answers[path]
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return change


def without(path: str, key: str) -> Callable[[dict[str, Any]], None]:
    """Leaves one group of settings out, as the host does for what is off."""
    return lambda answers: answers[path].pop(key)


def test_all_switches_right(host: Host) -> None:
    ran = ask(host)
    assert ran.exit_code == 0, ran.output
    assert "WRONG" not in ran.output and len(ran.output.splitlines()) == 11
    assert {path for path, _ in host.seen} == set(RIGHT)
    assert {sent for _, sent in host.seen} == {f"Bearer {TOKEN}"}
    assert TOKEN not in ran.output
    document = json.loads(ask(host, "--json").output)
    assert (
        document["format_version"] == 1 and document["verdict"] == "pass" and all(item["right"] for item in document["switches"])
    )


WRONG = {
    "the gpu check is not required": (
        at(PROTECTION, "required_status_checks", "checks", 2, "context", value="gpu-tests"),
        "missing: gpu",
    ),
    "a Python is not required": (
        at(PROTECTION, "required_status_checks", "checks", 0, value={"context": "more"}),
        "tests (Python 3.11)",
    ),
    "no check is required": (without(PROTECTION, "required_status_checks"), "required checks"),
    "an old branch may be merged": (at(PROTECTION, "required_status_checks", "strict", value=False), "up to date"),
    "no reviews": (without(PROTECTION, "required_pull_request_reviews"), "approving reviews"),
    "zero reviews": (
        at(PROTECTION, "required_pull_request_reviews", "required_approving_review_count", value=0),
        "approving reviews",
    ),
    "approvals outlive commits": (
        at(PROTECTION, "required_pull_request_reviews", "dismiss_stale_reviews", value=False),
        "dismisses",
    ),
    "administrators pass by": (at(PROTECTION, "enforce_admins", "enabled", value=False), "administrators"),
    "force pushes": (at(PROTECTION, "allow_force_pushes", "enabled", value=True), "force pushes"),
    "deletions": (at(PROTECTION, "allow_deletions", "enabled", value=True), "deletions"),
    "the environment has no reviewers": (at(ENVIRONMENT, "protection_rules", 1, "reviewers", value=[]), "0 reviewers"),
    "the environment has no rules": (at(ENVIRONMENT, "protection_rules", value=[]), "0 reviewers"),
    "workflows write": (at(WORKFLOW, "default_workflow_permissions", value="write"), "only read: write"),
    "workflows approve": (at(WORKFLOW, "can_approve_pull_request_reviews", value=True), "approve requests"),
    "old acquaintances need no approval": (
        at(FORKS, "approval_policy", value="first_time_contributors"),
        "first_time_contributors",
    ),
    "no protection": (lambda answers: answers.update({PROTECTION: 404}), "no protection"),
    "no environment": (lambda answers: answers.update({ENVIRONMENT: 404}), "no such environment"),
}


@pytest.mark.parametrize(("change", "says"), WRONG.values(), ids=list(WRONG))
def test_each_wrong_switch_alone(change: Callable[[dict[str, Any]], None], says: str, host: Host) -> None:
    change(host.answers)
    ran = ask(host)
    assert ran.exit_code == 1, ran.output
    wrong = [line for line in ran.output.splitlines() if line.startswith("WRONG")]
    allowed = 2 if says in ("required checks", "approving reviews") else 1  # a group that is off takes its other switch along
    assert 1 <= len(wrong) <= allowed and says in wrong[0]
    document = json.loads(ask(host, "--json").output)
    assert document["verdict"] == "fail" and sum(not item["right"] for item in document["switches"]) == len(wrong)


UNKNOWN = {
    "a token that is not valid": (PLACE, 401, "not valid"),
    "a token without rights": (PLACE, 403, "may not read"),
    "a repository that is not there": (PLACE, 404, "no such repository"),
    "a repository that moved": (PLACE, 301, "another name"),
    "no rights for the branch": (PROTECTION, 403, "may not read"),
    "too many questions": (ENVIRONMENT, 429, "too often"),
    "a host in trouble": (FORKS, 503, "could not answer"),
    "an older host": (FORKS, 404, "does not tell"),
    "no word on workflows": (WORKFLOW, 404, "does not tell"),
    "not JSON": (PROTECTION, b"<html>", "not JSON"),
    "half an answer": (PROTECTION, b'{"required_status_checks": {', "not JSON"),
    "no text": (PROTECTION, b"\xff\xfe", "not JSON"),
    "brackets without end": (PROTECTION, b"[" * 100_000, "not JSON"),
    "a list": (PROTECTION, [], "not an object"),
    "a number of reviews that is none": (
        PROTECTION,
        {"required_pull_request_reviews": {"required_approving_review_count": "2"}},
        "no number",
    ),
    "a flag that is a word": (PROTECTION, {"required_status_checks": {"strict": "yes"}}, "neither true nor false"),
    "settings that are a word": (PROTECTION, {"required_status_checks": "all"}, "settings were expected"),
    "checks that are a word": (PROTECTION, {"required_status_checks": {"checks": "all"}}, "a list was expected"),
    "rules that are numbers": (ENVIRONMENT, {"protection_rules": [1]}, "a list was expected"),
    "no policy": (FORKS, {}, "a word was expected"),
    "too long": (PLACE, b" " * (5 * 2**20), "longer than"),
}


@pytest.mark.parametrize(("path", "answer", "says"), UNKNOWN.values(), ids=list(UNKNOWN))
def test_what_is_not_known_is_neither_right_nor_wrong(path: str, answer: Any, says: str, host: Host) -> None:
    host.answers[path] = answer
    ran = ask(host, "--json")
    assert ran.exit_code == 2, ran.output
    assert says in ran.stderr and ran.stdout == "" and TOKEN not in ran.output
    assert "/elsewhere" not in {asked for asked, _ in host.seen}


def test_a_token_that_does_not_see_the_administration(host: Host) -> None:
    """The host answers 404 to such a token, as for settings that are off."""
    for permissions in ({"admin": False}, {}):
        host.answers[PLACE]["permissions"] = permissions
        ran = ask(host)
        assert ran.exit_code == 2 and "administration" in ran.stderr


def test_a_private_repository_has_no_policy_for_strangers(host: Host) -> None:
    host.answers[PLACE]["private"] = True
    host.answers[FORKS] = 422
    assert ask(host).exit_code == 0


def test_another_branch_and_a_default_branch_with_a_slash(host: Host) -> None:
    assert ask(host, "--branch", "release").exit_code == 1
    host.answers[PLACE]["default_branch"] = "release/1"
    host.answers[f"{PLACE}/branches/release%2F1/protection"] = host.answers.pop(PROTECTION)
    assert ask(host).exit_code == 0


def test_without_a_token_nothing_is_asked(host: Host) -> None:
    ran = ask(host, token="")
    assert ran.exit_code == 2 and "GITHUB_TOKEN" in ran.stderr and host.seen == []


def test_a_host_that_does_not_answer_in_time(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosting_api, "SECONDS", 0.2)
    released = threading.Event()
    host.answers[PROTECTION] = released
    ran = ask(host)
    released.set()
    assert ran.exit_code == 2 and "no answer" in ran.stderr


def test_a_host_that_is_not_there() -> None:
    absent = Host()
    absent.close()
    ran = ask(absent)
    assert ran.exit_code == 2 and "no answer" in ran.stderr


@pytest.mark.parametrize("url", ["http://example.org", "ftp://127.0.0.1", "file:///etc", "127.0.0.1"])
def test_a_token_does_not_travel_in_the_open(url: str, host: Host) -> None:
    host.url = url
    ran = ask(host)
    assert ran.exit_code == 2 and "only https" in ran.stderr


@pytest.mark.parametrize("name", ["owner", "owner/name/more", "../name", "owner/na me", "owner/.."])
def test_a_repository_by_another_form_is_wrong_usage(name: str, host: Host) -> None:
    assert ask(host, "--repository", name).exit_code == 2
    assert host.seen == []


def test_the_program_runs_by_its_path(repo_root: Path) -> None:
    command = [sys.executable, "bench/ci/branch_protection.py", "--help"]
    run = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0 and "Examples:" in run.stdout, run.stderr

"""The workflows: fork code never reaches a machine of ours, rights are to read, what only a GPU can judge is judged by one."""

from __future__ import annotations

import ast
import copy
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ci.branch_protection import ENVIRONMENT, REQUIRED_CHECKS
from ci.gpu_needed import LIST, critical_files, patterns
from workflow_expressions import evaluate
from workflow_rules import FORKS, TRUSTED, Workflow, faults, hosted, read, runs

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / ".github" / "workflows").iterdir())
GPU_LIBRARIES = {"cuda", "cupy", "nvidia", "pycuda", "tensorrt", "tensorrt_bindings", "tensorrt_rtx", "tensorrt_rtx_bindings"}


@pytest.fixture(scope="module")
def gpu() -> Workflow:
    return read(ROOT / ".github" / "workflows" / "gpu.yml")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_workflow_breaks_no_rule(path: Path) -> None:
    assert path.suffix == ".yml"
    assert faults(read(path)) == []


def test_the_three_workflows_are_there_and_one_job_runs_on_a_machine_of_ours() -> None:
    assert [path.name for path in FILES] == ["cpu.yml", "gpu.yml", "trend.yml"]
    own = [(path.stem, name) for path in FILES for name, job in read(path)["jobs"].items() if not hosted(job)]
    assert own == [("gpu", "device")]


def test_the_programs_that_workflows_run_exist_and_may_be_run() -> None:
    for path in FILES:
        lines = [step.get("run", "") for job in read(path)["jobs"].values() for step in job["steps"]]
        programs = [word for line in lines for word in line.split() if word.startswith(".ci/")]
        for program in programs:
            assert (ROOT / program).stat().st_mode & 0o100, f"{path.name}: {program}"
            named = re.findall(r"(?:bench|engines|tests)/[\w./-]+", (ROOT / program).read_text(encoding="utf-8"))
            assert [name for name in named if not (ROOT / name.rstrip(".")).exists()] == []


def device_without_condition(workflow: Workflow) -> None:
    del workflow["jobs"]["device"]["if"]


def device_for_all_who_need_it(workflow: Workflow) -> None:
    workflow["jobs"]["device"]["if"] = "needs.decide.outputs.needed == 'true'"


def device_trusts_the_base(workflow: Workflow) -> None:
    job = workflow["jobs"]["device"]
    job["if"] = job["if"].replace("pull_request.head.repo", "pull_request.base.repo")


def device_asks_only_for_the_event(workflow: Workflow) -> None:
    workflow["jobs"]["device"]["if"] = "github.event_name == 'push' || github.event_name == 'pull_request'"


def device_unless_a_known_fork(workflow: Workflow) -> None:
    workflow["jobs"]["device"]["if"] = "github.event_name != 'pull_request' || !github.event.pull_request.head.repo.fork"


def another_job_on_the_machine(workflow: Workflow) -> None:
    workflow["jobs"]["decide"]["runs-on"] = ["self-hosted", "linux"]


def a_machine_by_a_name_of_its_own(workflow: Workflow) -> None:
    workflow["jobs"]["decide"]["runs-on"] = "apex-gpu"


def a_machine_by_group(workflow: Workflow) -> None:
    workflow["jobs"]["decide"]["runs-on"] = {"group": "gpus"}


def the_trigger_with_our_rights(workflow: Workflow) -> None:
    workflow["on"]["pull_request_target"] = ""


def a_trigger_after_a_run(workflow: Workflow) -> None:
    workflow["on"] = ["push", "workflow_run"]


def no_permissions(workflow: Workflow) -> None:
    del workflow["permissions"]


def all_permissions(workflow: Workflow) -> None:
    workflow["permissions"] = "write-all"


def a_job_that_may_write(workflow: Workflow) -> None:
    workflow["jobs"]["gpu"]["permissions"] = {"statuses": "write"}


def a_secret(workflow: Workflow) -> None:
    workflow["jobs"]["gpu"]["steps"][0]["env"]["TOKEN"] = "${{ secrets.TOKEN }}"


def no_limit(workflow: Workflow) -> None:
    del workflow["jobs"]["decide"]["timeout-minutes"]


def no_concurrency(workflow: Workflow) -> None:
    del workflow["concurrency"]


def an_action_by_tag(workflow: Workflow) -> None:
    workflow["jobs"]["decide"]["steps"][0]["uses"] = "actions/checkout@v4"


def an_action_of_a_stranger(workflow: Workflow) -> None:
    workflow["jobs"]["decide"]["steps"][0]["uses"] = f"stranger/checkout@{'0' * 40}"


def credentials_left(workflow: Workflow) -> None:
    workflow["jobs"]["device"]["steps"][0]["with"] = {}


def a_title_in_a_command(workflow: Workflow) -> None:
    workflow["jobs"]["decide"]["steps"][2]["run"] = "echo ${{ github.event.pull_request.title }}"


@pytest.mark.parametrize(
    "damage",
    [
        device_without_condition,
        device_for_all_who_need_it,
        device_trusts_the_base,
        device_asks_only_for_the_event,
        device_unless_a_known_fork,
        another_job_on_the_machine,
        a_machine_by_a_name_of_its_own,
        a_machine_by_group,
        the_trigger_with_our_rights,
        a_trigger_after_a_run,
        no_permissions,
        all_permissions,
        a_job_that_may_write,
        a_secret,
        no_limit,
        no_concurrency,
        an_action_by_tag,
        an_action_of_a_stranger,
        credentials_left,
        a_title_in_a_command,
    ],
)
def test_the_rules_find(damage: Callable[[Workflow], None], gpu: Workflow) -> None:
    damaged = copy.deepcopy(gpu)
    damage(damaged)
    assert faults(damaged), damage.__name__


@pytest.mark.parametrize("github", TRUSTED.values(), ids=list(TRUSTED))
def test_the_device_is_asked_for_what_is_ours_and_needs_it(github: dict, gpu: Workflow) -> None:
    device = gpu["jobs"]["device"]
    assert runs(device, github, "true")
    assert not runs(device, github, "false") and not runs(device, github, None)
    assert device["environment"] == ENVIRONMENT


@pytest.mark.parametrize("github", FORKS.values(), ids=list(FORKS))
def test_a_fork_gets_an_answer_from_the_required_check(github: dict, gpu: Workflow) -> None:
    assert all(runs(gpu["jobs"]["gpu"], github, needed) for needed in ("true", "false", None))
    assert hosted(gpu["jobs"]["gpu"])


@pytest.mark.parametrize(
    ("decide", "needed", "device", "code", "says"),
    [
        ("success", "false", "skipped", 0, "not needed"),
        ("success", "true", "success", 0, "passed on the GPU"),
        ("success", "true", "skipped", 1, "fork"),
        ("success", "true", "failure", 1, "no answer"),
        ("success", "true", "cancelled", 1, "no answer"),
        ("failure", "", "skipped", 1, "no answer"),
        ("cancelled", "", "skipped", 1, "no answer"),
        ("success", "", "skipped", 1, "no answer"),
        ("failure", "false", "skipped", 1, "no answer"),
        ("success", "false", "success", 1, "no answer"),
    ],
)
def test_the_required_check_says(decide: str, needed: str, device: str, code: int, says: str, gpu: Workflow) -> None:
    """The very lines of the workflow, run by the shell that GitHub takes."""
    (step,) = gpu["jobs"]["gpu"]["steps"]
    results = {"decide": {"result": decide, "outputs": {"needed": needed}}, "device": {"result": device, "outputs": {}}}
    environment = {name: evaluate(text, {"needs": results}) for name, text in step["env"].items()}
    run = subprocess.run(["bash", "-e", "-c", step["run"]], env=environment, capture_output=True, text=True, timeout=20)
    assert run.returncode == code, run.stderr
    assert says in run.stdout and ("::error" in run.stdout) == bool(code)
    assert ("not needed" in run.stdout) == (says == "not needed")


def test_the_required_checks_are_those_that_the_workflows_report() -> None:
    reported = set()
    for path in FILES[:2]:
        for name, job in read(path)["jobs"].items():
            versions = job.get("strategy", {}).get("matrix", {}).get("python", [""])
            reported |= {job.get("name", name).replace("${{ matrix.python }}", version) for version in versions}
    assert set(REQUIRED_CHECKS) == reported - {"decide", "device"}
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in REQUIRED_CHECKS)


def gpu_files() -> Iterator[str]:
    """What a GPU must judge, found without the list: sources of kernels, the folders of the rooms, imports of GPU libraries."""
    for room in ("plugins", "apex_runtime", "apex_train", "bench", "tests"):
        for path in sorted((ROOT / room).rglob("*")):
            name = path.relative_to(ROOT).as_posix()
            if path.is_dir() or "__pycache__" in name:
                continue
            folder = name.startswith(("plugins/", "apex_runtime/backends/", "apex_runtime/precision/", "bench/gpu/"))
            if folder or path.suffix in (".cu", ".cuh", ".h", ".cpp") or (path.suffix == ".py" and _speaks_to_a_gpu(path)):
                yield name


def _speaks_to_a_gpu(path: Path) -> bool:
    """Whether a file imports a library of the GPU, by a statement or by name, or uses ``torch.cuda``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith("import_module")
            and isinstance(node.args[0], ast.Constant)
        ):
            names.append(node.args[0].value)
        if any(name.split(".")[0] in GPU_LIBRARIES for name in names):
            return True
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.cuda":
            return True
    return False


def test_the_list_covers_every_file_that_only_a_gpu_can_judge() -> None:
    found = list(gpu_files())
    for expected in (
        "plugins/decode_nms/kernel.cu",
        "plugins/kernels/fibers.h",
        "apex_runtime/backends/device.py",
        "apex_runtime/precision/fp16.py",
        "apex_train/engine/memory.py",
        "bench/gpu/fp8.py",
        "tests/plugins/conversions.cpp",
    ):
        assert expected in found, "the search that the list is held against finds too little"
    listed = patterns(LIST.read_text(encoding="utf-8"))
    assert set(found) - set(critical_files(found, listed)) == set()


def test_the_list_covers_what_decides_and_what_runs() -> None:
    job = [".ci/gpu", ".ci/step", "bench/ci/gpu_needed.py", "pyproject.toml", LIST.relative_to(ROOT).as_posix()]
    job += [path.relative_to(ROOT).as_posix() for path in FILES]
    assert critical_files(job, patterns(LIST.read_text(encoding="utf-8"))) == job


def test_every_folder_and_file_of_the_list_is_in_the_tree() -> None:
    for pattern in patterns(LIST.read_text(encoding="utf-8")):
        assert pattern.startswith("*.") or any(ROOT.glob(pattern)), f"{LIST.name} names {pattern}"


def test_what_needs_no_gpu_is_not_on_the_list() -> None:
    harmless = ["README.md", "docs/kernels.md", "CHANGELOG.md", "apex_runtime/routing/budget.py", "apex_runtime/cli/eval.py"]
    harmless += [
        "engines/samples/README.md",
        "tests/apex_runtime/routing/test_budget.py",
        "apex_train/losses/compute.py",
        "bench/halo.py",
    ]
    assert critical_files(harmless, patterns(LIST.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("'a' == 'A'", True),
        ("a.b == 'x'", False),
        ("!a.b", True),
        ("a.c != 'x' && 'y'", "y"),
        ("a.b || 'z'", "z"),
        ("${{ always() }}", True),
        ("a.b == 'x' || (a.c == 'it''s' && !cancelled())", True),
        ("a.c == 'it''s' && a.b", None),
        ("true == 'true'", False),
    ],
)
def test_conditions_are_read_as_the_host_does(expression: str, value: object) -> None:
    assert evaluate(expression, {"a": {"c": "it's"}}) == value


@pytest.mark.parametrize("expression", ["a.b ==", "other.b", "a.b a.c", "(a.b", "a.b > 'x'", "fromJSON('1')"])
def test_a_condition_that_is_not_understood_is_an_error(expression: str) -> None:
    with pytest.raises((ValueError, KeyError, IndexError)):
        evaluate(expression, {"a": {"c": "it's"}})

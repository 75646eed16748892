"""Fixtures for every test, and the rule that a green run must mean something: few skips."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from apex_runtime.release.checkout import Checkout
from apex_runtime.release.tests_row import MAX_SKIPPED_SHARE

# Elsewhere every run draws other examples and may find something; continuous integration judges a change, not the draw.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

if "PYTEST_XDIST_WORKER" in os.environ:  # the processes of a run share the cores; their threads must not wait for each other
    os.environ["OMP_NUM_THREADS"] = "1"

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of large data sets beside the checkout; tests that need it are skipped where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the large data sets (../shared/data) are not on this machine")
    return folder


@pytest.fixture(scope="session")
def nuclei_fixture() -> Path:
    """8 real images with their instances in COCO layout: splits train (5 images) and val (3). Committed, CC0."""
    return ROOT / "tests" / "fixtures" / "nuclei"


@pytest.fixture(scope="session")
def nuclei_yolo_fixture() -> Path:
    """The same 8 images in the layout of YOLO, masks as polygons."""
    return ROOT / "tests" / "fixtures" / "nuclei-yolo"


@pytest.fixture(scope="session")
def nuclei_satellite_fixture() -> Path:
    """The same 8 images with one mask picture each."""
    return ROOT / "tests" / "fixtures" / "nuclei-satellite"


# Files that take longest begin first; the documents each for itself.
FIRST = ("test_docs.py", "test_kernels_build.py", "test_every_command.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest goes first, so that no process is left with it at the end."""
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


@pytest.hookimpl(optionalhook=True)  # of xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file stays in one process, which makes its fixtures once; a document is a piece of work for itself.

    Groups of xdist would say the same, but its 3.8 does not see them under pytest 9.2, without a word.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return nodeid if "test_docs.py" in nodeid else nodeid.split("::")[0]

    config.option.loadscopereorder = False  # it would put files of few tests last, however long these are
    return ByFile(config, log)


def _whole_suite(config: pytest.Config) -> bool:
    """True when neither paths, -k nor another -m narrowed the run: only then does the share of skips say anything."""
    narrowed = config.getoption("keyword") or config.getoption("markexpr") not in ("not slow", "slow or not slow")
    return config.args_source is not pytest.Config.ArgsSource.ARGS and not narrowed


def _junit(config: pytest.Config) -> Any:
    """What writes the file of --junitxml, None without one. pytest's fixture for properties does not reach it under xdist."""
    return next((plugin for plugin in config.pluginmanager.get_plugins() if hasattr(plugin, "add_global_property")), None)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Write into the JUnit file what was tested. In a copy without git that is APEX_COMMIT; who sets it vouches for it."""
    junit = _junit(session.config)
    if junit is None:
        return
    checkout = Checkout(ROOT)
    junit.add_global_property("commit", checkout.commit or os.environ.get("APEX_COMMIT", ""))
    junit.add_global_property("changed_files", str(len(checkout.changed or ())))
    junit.add_global_property("whole_suite", "yes" if _whole_suite(session.config) else "no")


@pytest.hookimpl(tryfirst=True)  # the JUnit file is written by the same hook
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail the whole suite when more than a tenth of it was skipped, and write how it ended into the JUnit file."""
    _judge_skips(session, exitstatus)
    junit = _junit(session.config)
    if junit is not None:
        junit.add_global_property("exit_status", str(int(session.exitstatus)))


def _judge_skips(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or exitstatus != pytest.ExitCode.OK or not _whole_suite(session.config):
        return
    skipped, passed = len(reporter.stats.get("skipped", [])), len(reporter.stats.get("passed", []))
    if skipped > MAX_SKIPPED_SHARE * (skipped + passed):
        reporter.write_line(f"FAILED: {skipped} of {skipped + passed} tests were skipped, more than {MAX_SKIPPED_SHARE:.0%}.")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED

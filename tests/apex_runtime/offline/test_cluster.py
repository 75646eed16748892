"""How many workers a cluster has room for; folders that dead workers left are removed, those of the living are not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from apex_runtime.errors import UsageError
from apex_runtime.offline.cluster import Capacity, Pool, check_address
from apex_runtime.offline.scratch import remove_abandoned


@pytest.mark.parametrize(
    ("cpus", "gpus", "asked", "pool"),
    [
        ((2,), (0,), (None, None, False), Pool(1, 2, False)),
        ((2,), (0,), (None, 1, False), Pool(2, 1, False)),
        ((2,), (0,), (2, 1, False), Pool(2, 1, False)),
        ((2,), (0,), (2, None, False), Pool(2, 1, False)),
        ((8, 8), (0, 0), (100, None, False), Pool(100, 1, False)),
        ((8, 8), (0, 0), (5, None, False), Pool(5, 3, False)),
        ((16, 6, 3), (0, 0, 0), (None, None, False), Pool(5, 4, False)),
        ((16, 16, 64), (4, 8, 0), (None, None, True), Pool(8, 4, True)),
        ((64, 8), (2, 0), (None, 8, True), Pool(2, 8, True)),
    ],
)
def test_as_many_workers_as_fit(cpus: tuple, gpus: tuple, asked: tuple, pool: Pool) -> None:
    assert Capacity(cpus, gpus).pool(*asked) == pool


def test_a_worker_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(UsageError, match="more than 16 CPUs"):
        Capacity((16, 8), (0, 0)).pool(None, 17, False)
    with pytest.raises(UsageError, match="no node of this cluster has a GPU"):
        Capacity((16, 8), (0, 0)).pool(None, None, True)


def test_addresses() -> None:
    for good in ("ray", "ray://auto", "ray://head.example:6379", "ray://10.0.0.3:6379"):
        assert check_address(good) == good
    for bad in ("", "dask", "ray://", "ray://head", "ray://head:10001", "ray:head:1", "ray://head:1/x", "http://head:10001"):
        with pytest.raises(UsageError, match="--on"):
            check_address(bad)


OWNER = "import tempfile, sys, time; tempfile.tempdir = sys.argv[1]\nfrom apex_runtime.offline.scratch import Scratch\n"


def test_what_a_killed_worker_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER + "s = Scratch(); print(s.folder, flush=True); time.sleep(600)", str(tmp_path)]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    folder = Path(owner.stdout.readline().strip())
    (folder / "block").mkdir()
    other = tmp_path / "apex-x-workshop"
    other.mkdir()
    try:
        assert folder.parent == tmp_path and folder.stat().st_mode & 0o777 == 0o700
        aged(folder, other)
        remove_abandoned(tmp_path)
        assert folder.is_dir(), "its owner lives"
    finally:
        owner.kill()
        owner.communicate()
    os.utime(folder)
    remove_abandoned(tmp_path)
    assert folder.is_dir(), "too young to tell"
    aged(folder, other)
    remove_abandoned(tmp_path)
    assert not folder.exists() and other.is_dir()


def aged(*folders: Path) -> None:
    for folder in folders:
        os.utime(folder, (time.time() - 3600,) * 2)

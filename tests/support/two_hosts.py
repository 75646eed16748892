"""Two hosts on one machine: network namespaces with a cable between them, a host name each, and a cut when a test wants one.

Needs Linux, root (or the right to make namespaces) and ``ip`` of iproute2; elsewhere tests that ask for it are skipped.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

PREFIX = "apex-hosts"
_COUNT = itertools.count()
FILES = Path("/etc/netns")  # ip netns exec shows NAME/hosts of it as /etc/hosts
# As another host: its own name, then the command.
AS_HOST = "import os, socket, sys; socket.sethostname(sys.argv[1]); os.execvp(sys.argv[2], sys.argv[2:])"


@dataclass(frozen=True)
class Host:
    """A namespace that passes for a host: ``name`` is its host name, which both resolve to ``address``."""

    namespace: str
    name: str
    address: str

    def start(self, command: list[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
        """Run a command there; standard output and error go into ``log``, after what is in it."""
        enter = ["ip", "netns", "exec", self.namespace, "unshare", "--uts", sys.executable, "-c", AS_HOST, self.name]
        with log.open("ab") as stream:
            return subprocess.Popen([*enter, *command], env=dict(environment), stdout=stream, stderr=subprocess.STDOUT)

    def processes(self, word: str = "") -> list[int]:
        """The processes that run there now, of those whose command line holds ``word``."""
        found = _ip("netns", "pids", self.namespace).stdout.split()
        return [int(pid) for pid in found if word in _command_line(int(pid))]

    def tcp_gives_up_after(self, retries: int) -> bool:
        """As an administrator sets it there (15 is usual: about 15 minutes); False where it may not be set."""
        setting = f"echo {retries} > /proc/sys/net/ipv4/tcp_retries2"
        return subprocess.run(["ip", "netns", "exec", self.namespace, "sh", "-c", setting], capture_output=True).returncode == 0

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """The cable is out until the block ends: packets vanish, and no connection is told."""
        link = ["-n", self.namespace, "link", "set", "cable"]
        _ip(*link, "down").check_returncode()
        try:
            yield
        finally:
            _ip(*link, "up").check_returncode()


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """host-a and host-b with a network of their own. What still runs there in the end is killed. Skips where not permitted."""
    _remove_leftovers()
    pair = f"{PREFIX}-{os.getpid()}-{next(_COUNT)}"
    hosts = tuple(Host(f"{pair}-{letter}", f"host-{letter}", f"10.0.0.{n}") for n, letter in ((1, "a"), (2, "b")))
    try:
        _make(*hosts)
        yield hosts[0], hosts[1]
    finally:
        for host in hosts:
            for pid in host.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            _remove(host.namespace)


def _make(a: Host, b: Host) -> None:
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        pytest.skip("two hosts need ip (iproute2) and unshare (util-linux)")
    table = f"127.0.0.1 localhost\n{a.address} {a.name}\n{b.address} {b.name}\n"
    steps = [["netns", "add", host.namespace] for host in (a, b)]
    steps.append(["-n", a.namespace, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", b.namespace])
    for host in (a, b):
        steps.append(["-n", host.namespace, "address", "add", f"{host.address}/30", "dev", "cable"])
        steps += [["-n", host.namespace, "link", "set", link, "up"] for link in ("lo", "cable")]
    for step in steps:
        done = _ip(*step)
        if done.returncode:
            pytest.skip(f"network namespaces cannot be made here: ip {' '.join(step)}: {done.stderr.strip()}")
    for host in (a, b):
        (FILES / host.namespace).mkdir(parents=True, exist_ok=True)
        (FILES / host.namespace / "hosts").write_text(table)


def _remove(namespace: str) -> None:
    if shutil.which("ip") is not None:
        _ip("netns", "delete", namespace)
    shutil.rmtree(FILES / namespace, ignore_errors=True)
    with contextlib.suppress(OSError):  # another test run has one
        FILES.rmdir()


def _remove_leftovers() -> None:
    """Namespaces of test runs that were killed; what still runs in one keeps it alive without the name, and is left alone."""
    listed = _ip("netns", "list").stdout if shutil.which("ip") else ""
    for name, pid in re.findall(rf"^({PREFIX}-(\d+)-\d+-[ab])\b", listed, re.MULTILINE):
        if not Path(f"/proc/{pid}").exists():
            _remove(name)


def _ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], capture_output=True, text=True)


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # it has just ended
        return ""

"""An MLServer process over an exported folder: started on cores of its own, watched, stopped by its number."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 120


@dataclass
class ServerProcess:
    """A process that serves ``folder``; its ports are those of the folder's settings."""

    folder: Path
    http: int
    grpc: int
    metrics: int
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, folder: Path, model: str | None, cores: Sequence[int] = ()) -> ServerProcess:
        """Start ``mlserver`` of this environment, on ``cores`` where some are named, and wait until ``model`` is ready."""
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        log = folder / "log.txt"
        pinned = ["taskset", "-c", ",".join(map(str, cores))] if cores else []
        command = [*pinned, str(Path(sys.executable).with_name("mlserver")), "start", str(folder)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with log.open("wb") as stream:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=stream, stderr=subprocess.STDOUT)
        server = cls(folder, settings["http_port"], settings["grpc_port"], settings["metrics_port"], process, log)
        if model is not None:
            server.wait(model)
        return server

    def wait(self, model: str) -> None:
        """Until the model is ready. Raises RuntimeError with the log when it does not get so far."""
        until = time.monotonic() + START_SECONDS
        while not self._ready(model):
            if self.process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise RuntimeError(self.log.read_text(encoding="utf-8", errors="replace"))
            time.sleep(0.1)

    def _ready(self, model: str) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/v2/models/{model}/ready", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:  # nobody listens yet, or the answer is no
            return False

    def resident_bytes(self) -> int:
        """Memory of the process (Linux)."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self, seconds: float = 60) -> int:
        """Ask it to stop, end it when it does not; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens at now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports

"""An MLServer of our own for tests: started in a process, asked as its users ask, stopped by its number."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

START_SECONDS = 120


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens at now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def png(image: np.ndarray) -> bytes:
    """An RGB array as a PNG file."""
    return bytes(cv2.imencode(".png", image[:, :, ::-1])[1])


def body(image: bytes, **more: Any) -> bytes:
    """A request over HTTP; ``more``: ``budget`` (text), ``outputs`` (names), ``parameters``."""
    inputs = [{"name": "image", "shape": [1, 1], "datatype": "BYTES", "data": [base64.b64encode(image).decode()]}]
    if "budget" in more:
        inputs.append({"name": "budget", "shape": [1, 1], "datatype": "BYTES", "data": [more["budget"]]})
    request: dict[str, Any] = {"inputs": inputs}
    if "outputs" in more:
        request["outputs"] = [{"name": name} for name in more["outputs"]]
    if "parameters" in more:
        request["parameters"] = more["parameters"]
    return json.dumps(request).encode()


@dataclass
class Server:
    """A process that serves ``folder``."""

    folder: Path
    http: int
    grpc: int
    metrics: int
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, folder: Path, ready: str | None) -> Server:
        """Start ``mlserver`` and wait until the model ``ready`` is."""
        settings = json.loads((folder / "settings.json").read_text())
        log = folder / "log.txt"
        program = Path(sys.executable).with_name("mlserver")
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [str(program), "start", str(folder)], cwd=folder, env=environment, stdout=stream, stderr=subprocess.STDOUT
            )
        server = cls(folder, settings["http_port"], settings["grpc_port"], settings["metrics_port"], process, log)
        if ready is not None:
            server.wait(ready)
        return server

    def wait(self, model: str) -> None:
        """Until the model is ready. Fails with the log when it does not get so far."""
        until = time.monotonic() + START_SECONDS
        while self.get(f"/v2/models/{model}/ready")[0] != 200:
            assert self.process.poll() is None and time.monotonic() < until, self.log.read_text()
            time.sleep(0.1)

    def get(self, path: str, port: int | None = None) -> tuple[int, str]:
        """Status and text; status 0 where nobody listens."""
        return self._ask(urllib.request.Request(f"http://127.0.0.1:{port or self.http}{path}"))

    def post(self, path: str, content: bytes = b"", **headers: str) -> tuple[int, Any]:
        """Status and JSON (or text); status 0 where nobody listens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http}{path}", content, {"Content-Type": "application/json"} | named
        )
        status, text = self._ask(request)
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text

    def infer(self, model: str, image: bytes, **more: Any) -> tuple[int, Any]:
        """A request for detections over HTTP."""
        return self.post(f"/v2/models/{model}/infer", body(image, **more))

    def metric(self, start: str) -> float:
        """The value of the line of the metrics that begins so; 0 where there is none."""
        lines = self.get("/metrics", self.metrics)[1].splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(start)), 0.0)

    def resident_bytes(self) -> int:
        """Memory of the process (Linux)."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self, seconds: float = 60) -> int:
        """Ask it to stop; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        finally:
            self.process.kill()

    @staticmethod
    def _ask(request: urllib.request.Request) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except (urllib.error.URLError, ConnectionError):
            return 0, ""

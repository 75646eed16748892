"""An MLServer of our own for tests: started in a process, asked as its users ask, stopped by its number."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from documents import ROOT, pieces
from server_process import ServerProcess, free_ports

from apex_runtime.serving.mlserver_export import Ports, export_mlserver
from apex_runtime.serving.settings import ServingSettings


def png(image: np.ndarray) -> bytes:
    """An RGB array as a PNG file."""
    return bytes(cv2.imencode(".png", image[:, :, ::-1])[1])


NAME = "blobs"
IMAGE = np.full((90, 128, 3), 20, np.uint8)
IMAGE[20:34, 30:44] = 255
IMAGE[60:70, 90:102] = 230
HUGE = png(np.zeros((5000, 5000, 3), np.uint8))  # some KB that take a good while to decode
SETTINGS = ServingSettings(budget="0.5", workers=1, queue=2, max_image_bytes=1_000_000, max_pixels=30_000_000, timeout_ms=60_000)


def export_blobs(bundle: Path, folder: Path, settings: ServingSettings = SETTINGS) -> Path:
    export_mlserver(bundle, folder, NAME, settings, Ports("127.0.0.1", *free_ports(3)))
    return folder


def uri_of(server: Server) -> str:
    settings = json.loads((server.folder / NAME / "model-settings.json").read_text())
    return settings["parameters"]["uri"]


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


class Server(ServerProcess):
    """A process that serves an exported folder, and what a client over HTTP does with it."""

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

    @staticmethod
    def _ask(request: urllib.request.Request) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except (urllib.error.URLError, ConnectionError):
            return 0, ""


def shown(word: str) -> str:
    """The one indented block of docs/serving.md that has ``word``."""
    (found,) = [
        piece.content
        for piece in pieces(ROOT / "docs" / "serving.md")
        if piece.kind == "indented" and re.search(rf"{word}", piece.content)
    ]
    return found


def here(text: str, server: Server) -> str:
    """A block with the names and ports of a server of ours."""
    for old, new in (("nuclei-nano", NAME), ("localhost:8080", f"localhost:{server.http}"), ("8081", str(server.grpc))):
        text = text.replace(old, new)
    return text


def run(command: list[str], folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, env=os.environ | {"PATH": path})
    assert done.returncode == 0, done.stderr
    return done.stdout

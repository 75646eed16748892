"""An MLServer of our own for tests: started in a process, asked as its users ask, stopped by its number."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from typing import Any

import cv2
import numpy as np
from server_process import ServerProcess


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

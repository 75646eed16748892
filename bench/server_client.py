"""Load on a served engine over gRPC, by tritonclient: as much as it takes, or at a rate that does not wait for answers.

At a rate, a request belongs to its moment of the plan: its time is counted from then, also when the client was late. Else a slow
server would slow down what measures it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

BAD = ("garbage", "truncated", "budget nan", "budget negative", "pixels float")


@dataclass(frozen=True)
class Asked:
    """A request: an encoded image and a budget, or what is wrong with it (one of ``BAD``)."""

    image: bytes
    budget: str
    bad: str = ""


@dataclass(frozen=True)
class Answered:
    """``at``: seconds of the plan; ``seconds`` from then to the answer; ``status``: OK or the code of gRPC; ``spent``: tiles."""

    asked: Asked
    at: float
    seconds: float
    status: str
    spent: int = 0


@dataclass
class Mix:
    """Requests in a fixed random order: every image, every budget, and ``bad_share`` of them wrong in every way in turn."""

    images: Sequence[bytes]
    budgets: Sequence[str]
    bad_share: float
    draw: random.Random = field(default_factory=lambda: random.Random(0))
    wrong: int = 0

    def next(self) -> Asked:
        """The next request."""
        bad = ""
        if self.draw.random() < self.bad_share:
            bad = BAD[self.wrong % len(BAD)]
            self.wrong += 1
        return Asked(self.draw.choice(self.images), self.draw.choice(self.budgets), bad)


class Client:
    """A connection to the model ``model`` of a server; made inside the event loop that uses it."""

    def __init__(self, port: int, model: str, timeout_ms: float) -> None:
        import tritonclient.grpc.aio as triton

        self._triton, self._model, self._timeout = triton, model, round(timeout_ms * 1000)
        self._client = triton.InferenceServerClient(f"127.0.0.1:{port}")

    async def ask(self, asked: Asked, at: float, started: float) -> Answered:
        """Send a request whose moment is ``at`` seconds after ``started`` (``time.perf_counter``)."""
        from tritonclient.utils import InferenceServerException

        status, answer = "OK", None
        try:
            answer = await self._client.infer(self._model, self._inputs(asked), timeout=self._timeout)
        except InferenceServerException as error:
            status = str(error.status()).removeprefix("StatusCode.")
        seconds = time.perf_counter() - started - at
        return Answered(asked, at, seconds, status, 0 if answer is None else int(answer.as_numpy("spent").item()))

    async def close(self) -> None:
        """Give the connection up."""
        await self._client.close()

    def _inputs(self, asked: Asked) -> list[Any]:
        if asked.bad == "pixels float":
            return [self._input("pixels", np.zeros((1, 8, 8, 3), np.float32), "FP32")]
        image = {"garbage": asked.image[::-1], "truncated": asked.image[: len(asked.image) // 2]}.get(asked.bad, asked.image)
        budget = {"budget nan": "nan", "budget negative": "-1"}.get(asked.bad, asked.budget)
        return [self._text("image", image), self._text("budget", budget.encode())]

    def _text(self, name: str, value: bytes) -> Any:
        return self._input(name, np.array([[value]], object), "BYTES")

    def _input(self, name: str, array: np.ndarray, datatype: str) -> Any:
        found = self._triton.InferInput(name, list(array.shape), datatype)
        found.set_data_from_numpy(array)
        return found


async def closed_loop(client: Client, mix: Mix, clients: int, seconds: float) -> list[Answered]:
    """``clients`` that ask again as soon as they are answered."""
    started = time.perf_counter()
    found: list[Answered] = []

    async def one() -> None:
        while (now := time.perf_counter() - started) < seconds:
            found.append(await client.ask(mix.next(), now, started))

    await asyncio.gather(*(one() for _ in range(clients)))
    return found


async def open_loop(client: Client, mix: Mix, moments: Sequence[float], watch: Callable[[], None]) -> list[Answered]:
    """A request at each of ``moments`` (seconds from now), whatever became of those before. ``watch`` is called now and then."""
    started = time.perf_counter()
    calls = []
    for at in moments:
        await asyncio.sleep(max(0.0, at - (time.perf_counter() - started)))
        calls.append(asyncio.create_task(client.ask(mix.next(), at, started)))
        watch()
    return list(await asyncio.gather(*calls))


def moments(rate: float, seconds: float, arrivals: str, seed: int = 0) -> list[float]:
    """When requests come, ``rate`` a second: ``even`` gaps, or those of a ``poisson`` process."""
    if arrivals == "even":
        return [number / rate for number in range(int(rate * seconds))]
    gaps = np.random.default_rng(seed).exponential(1 / rate, int(rate * seconds * 2) + 100)
    times = np.cumsum(gaps)
    return [float(at) for at in times[times < seconds]]


def good(found: Sequence[Answered]) -> list[Answered]:
    """Those that were asked as they should be."""
    return [one for one in found if not one.asked.bad]


def statuses(found: Sequence[Answered]) -> dict[str, int]:
    """How many ended in which way."""
    return dict(Counter(one.status for one in found).most_common())

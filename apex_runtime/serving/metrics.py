"""What Prometheus sees of a served model, beside what the server itself counts."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from apex_runtime.serving.work_queue import WorkQueue

if TYPE_CHECKING:
    from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_TILES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class ServingMetrics:
    """Counters and histograms by the name of the model; requests by how they ended (``refusals.Outcome``)."""

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        model = ["model"]
        self.requests: Counter = Counter("apex_requests", "Requests by how they ended.", [*model, "result"])
        self.waiting: Gauge = Gauge("apex_waiting_requests", "Requests that wait for a worker.", model)
        self.running: Gauge = Gauge("apex_running_requests", "Requests that are computed.", model)
        self.compute: Histogram = Histogram("apex_compute_seconds", "Decoding to outputs, per image.", model, buckets=_SECONDS)
        self.total: Histogram = Histogram("apex_request_seconds", "Arrival to answer, answered ones.", model, buckets=_SECONDS)
        self.overload: Counter = Counter("apex_overload_requests", "Answers computed under the limit of an overload.", model)
        self.tiles: Histogram = Histogram("apex_tiles", "Tiles looked at closely, per image.", model, buckets=_TILES)
        self._loaded: Gauge = Gauge("apex_model_loaded", "1 for the bundle that serves.", [*model, "sha256"])
        self._serving: list[tuple[str, str]] = []

    def began(self, model: str, digest: str, queue: WorkQueue) -> None:
        """A bundle serves, and the gauges speak of its ``queue``; while one takes over from another there are two."""
        self._serving.append((model, digest))
        self._loaded.labels(model, digest).set(1)
        self.overload.labels(model)  # a counter that is absent until it counts hides its first increase
        self.waiting.labels(model).set_function(lambda: queue.waiting)
        self.running.labels(model).set_function(lambda: queue.running)

    def ended(self, model: str, digest: str) -> None:
        """It does not any more. A model that is loaded again from the same bundle goes on to be counted."""
        self._serving.remove((model, digest))
        if (model, digest) not in self._serving:
            self._loaded.remove(model, digest)
        if all(name != model for name, _digest in self._serving):
            self.waiting.remove(model)
            self.running.remove(model)


@cache
def serving_metrics() -> ServingMetrics:
    """The one set of a process, in the registry that the server publishes. Raises ImportError without prometheus-client."""
    return ServingMetrics()

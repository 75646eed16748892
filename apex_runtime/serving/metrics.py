"""What Prometheus sees of a served model, beside what the server itself counts."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

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
        self.tiles: Histogram = Histogram("apex_tiles", "Tiles looked at closely, per image.", model, buckets=_TILES)
        self.loaded: Gauge = Gauge("apex_model_loaded", "1 for the bundle that serves.", [*model, "sha256"])


@cache
def serving_metrics() -> ServingMetrics:
    """The one set of a process, in the registry that the server publishes. Raises ImportError without prometheus-client."""
    return ServingMetrics()

"""Why a request gets no detections, with the status that says so in HTTP and gRPC."""

from __future__ import annotations

from enum import Enum

from apex_runtime.errors import ApexError


class Outcome(Enum):
    """How a request ended: the label of the metric and the HTTP status."""

    OK = "ok", 200
    INVALID = "invalid", 400
    TOO_LARGE = "too_large", 413
    QUEUE_FULL = "queue_full", 429
    CANCELLED = "cancelled", 499
    FAILED = "failed", 500
    STOPPING = "stopping", 503
    LATE = "late", 504

    def __init__(self, label: str, status: int) -> None:
        self.label = label
        self.status = status


class Refusal(ApexError):
    """A request that was not answered with detections. ``outcome`` says of which kind."""

    def __init__(self, outcome: Outcome, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy, code=outcome.label)
        self.outcome = outcome


def invalid(message: str, remedy: str = "") -> Refusal:
    """The request says something that cannot be meant."""
    return Refusal(Outcome.INVALID, message, remedy)


def too_large(message: str, remedy: str = "") -> Refusal:
    """The request is larger than the server takes."""
    return Refusal(Outcome.TOO_LARGE, message, remedy)

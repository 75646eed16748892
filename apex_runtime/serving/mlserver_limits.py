"""What MLServer 1.7 has no setting for: how large the body of an HTTP request may be, what gRPC calls our refusals, and how its
log tells of them.

Its request class reads a body of any length into memory, and unpacks gzip to any length. Both stop at a limit here. Over gRPC the
setting ``grpc_max_message_length`` does this.
"""

from __future__ import annotations

import logging
import zlib

import grpc
from fastapi import HTTPException
from mlserver.errors import MLServerError
from mlserver.grpc.logging import logger as grpc_log
from mlserver.grpc.utils import STATUS_CODE_MAPPING
from mlserver.rest.requests import Request

from apex_runtime.serving.refusals import Outcome

_GRPC = {
    Outcome.TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Outcome.QUEUE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Outcome.STOPPING: grpc.StatusCode.UNAVAILABLE,
    Outcome.LATE: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_ENVELOPE = 1 << 20  # of the JSON around an image
_PATIENCE = 10  # times the limit
_limits: dict[str, int] = {}


def name_grpc_codes() -> None:
    """Let gRPC answer with codes of its own where MLServer would say UNKNOWN."""
    for outcome, code in _GRPC.items():
        STATUS_CODE_MAPPING.setdefault(outcome.status, code)


def quiet_refusals() -> None:
    """One line per refusal in the log of gRPC: with tracebacks a server that is asked too much writes too much as well."""
    if _without_traceback not in grpc_log.filters:
        grpc_log.addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, MLServerError) and error.status_code != Outcome.FAILED.status:
        record.exc_info = None
    return True


def limit_bodies(model: str, max_image_bytes: int, *, loaded: bool) -> None:
    """Refuse bodies that are longer than an image of ``max_image_bytes`` in base64, with 413, from now on.

    Until it is ``loaded`` a model changes nothing for the one of its name that serves: it may turn out to be broken. MLServer
    reads a body before it knows for which model: the largest limit counts, for models of others in this process too.
    """
    limit = max_image_bytes * 4 // 3 + _ENVELOPE
    _limits[model] = limit if loaded else _limits.get(model, limit)
    Request.body = _limited_body


class BodyRefused(MLServerError, HTTPException):
    """An HTTPException, because FastAPI lets no other pass while it reads a body; answered as MLServer answers its own."""

    def __init__(self, message: str, outcome: Outcome) -> None:
        HTTPException.__init__(self, outcome.status, message)  # that of MLServerError would call this one with its own arguments

    def __str__(self) -> str:
        return str(self.detail)


async def _limited_body(self: Request) -> bytes:
    """The body of a request, unpacked. Raises BodyRefused: 413 when it is too long, 400 for broken gzip."""
    if not hasattr(self, "_body"):
        limit = max(_limits.values())
        packed = await _read(self, limit)
        self._body = _unpacked(packed, limit) if "gzip" in self.headers.getlist("Content-Encoding") else packed
    return self._body


async def _read(request: Request, limit: int) -> bytes:
    """The body. What is too long is not kept, but read a while longer: most clients look for an answer when they are done."""
    found, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            found += chunk
        elif size > _PATIENCE * limit:
            break
        else:
            found.clear()
    if size > limit:
        raise _too_long(limit)
    return bytes(found)


def _unpacked(packed: bytes, limit: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        found = unpacker.decompress(packed, limit + 1)
    except zlib.error as error:
        raise BodyRefused(f"the body is not gzip ({error}).", Outcome.INVALID) from error
    if len(found) > limit:
        raise _too_long(limit)
    if not unpacker.eof:
        raise BodyRefused("the body ends before its gzip does.", Outcome.INVALID)
    return found


def _too_long(limit: int) -> BodyRefused:
    return BodyRefused(f"the body has more than {limit} bytes. Send a smaller image.", Outcome.TOO_LARGE)

"""Reading the REST API of the host, with nothing but the standard library. A token never follows a redirect or an open line."""

from __future__ import annotations

import json
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

SECONDS = 15
MOST_BYTES = 4 * 2**20
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class UnknownError(Exception):
    """The host did not tell, so that nothing is known: neither that a setting is right nor that it is wrong."""


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_words: Any, **_more: Any) -> None:
        """urllib would send the token along, to wherever the answer points."""
        return None


class Api:
    """``get`` of one host. Raises UnknownError when ``base`` would carry the token in the open."""

    def __init__(self, base: str, token: str) -> None:
        parts = urlsplit(base)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
            raise UnknownError(f"GITHUB_API_URL is {base!r}: only https.")
        self._base, self._token = base.rstrip("/"), token
        # A proxy sees nothing of https; what goes to this machine must not go to a proxy at all.
        self._opener = build_opener(_NoRedirect, *([ProxyHandler({})] if parts.scheme == "http" else []))

    def get(self, path: str) -> dict[str, Any] | None:
        """The JSON object at ``path``; None where the host says that there is none (404). Raises UnknownError."""
        headers = {"Accept": "application/vnd.github+json", "Authorization": f"Bearer {self._token}", "User-Agent": "apex-x"}
        try:
            with self._opener.open(Request(self._base + path, headers=headers), timeout=SECONDS) as answer:
                text = answer.read(MOST_BYTES + 1)
        except HTTPError as error:
            if error.code == 404:
                return None
            raise UnknownError(f"{path}: {_why(error.code)}") from error
        except (URLError, HTTPException, OSError) as error:  # OSError: a line that breaks while the answer is read
            raise UnknownError(f"{path}: no answer: {getattr(error, 'reason', error)}") from error
        return _object(path, text)


def _why(code: int) -> str:
    words = {
        401: "the token is not valid.",
        403: "the token may not read this, or asked too often.",
        429: "asked too often; wait and try again.",
    }
    if 300 <= code < 400:
        return f"status {code}: the repository has another name now; use that one."
    return f"status {code}: {words.get(code, 'the host could not answer.')}"


def _object(path: str, text: bytes) -> dict[str, Any]:
    if len(text) > MOST_BYTES:
        raise UnknownError(f"{path}: the answer is longer than {MOST_BYTES} bytes.")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnknownError(f"{path}: the answer is not JSON.") from error
    if not isinstance(value, dict):
        raise UnknownError(f"{path}: the answer is not an object.")
    return value

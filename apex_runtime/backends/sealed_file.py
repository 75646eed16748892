"""A cache of some library's bytes on disk, sealed with what it is for and a digest: a damaged or foreign file is never used."""

from __future__ import annotations

import hashlib
from pathlib import Path

from apex_runtime.files import write_atomically

_MAGIC = b"apex-x cache 1"
_MAX_BYTES = 1 << 30


class NotUsable(Exception):
    """The file is damaged, or sealed for something else; the text says which."""


def read_sealed(path: Path, purpose: str) -> bytes:
    """The payload of a file; nothing where there is none. Raises NotUsable."""
    try:
        if not path.exists():
            return b""
        if path.stat().st_size > _MAX_BYTES:
            raise NotUsable(f"{path} is larger than a cache may be")
        magic, of, digest, payload = path.read_bytes().split(b"\n", 3)
    except OSError as error:
        raise NotUsable(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise NotUsable(f"{path} is no cache of this program, or a damaged one") from error
    if magic != _MAGIC or digest != _digest(payload):
        raise NotUsable(f"{path} is no cache of this program, or a damaged one")
    if of != purpose.encode():
        raise NotUsable(f"{path} is for {of.decode(errors='replace')}, not for {purpose}")
    return payload


def write_sealed(path: Path, purpose: str, payload: bytes) -> None:
    """Replace the file in one step. Raises OSError."""
    write_atomically(path, b"\n".join((_MAGIC, purpose.encode(), _digest(payload), payload)))


def _digest(payload: bytes) -> bytes:
    return hashlib.sha256(payload).hexdigest().encode()

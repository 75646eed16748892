"""Files that appear in one step: a reader, or who comes after a crash, sees the old one or the new one, never half of one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO, TextIO


@contextmanager
def replacing(path: Path, durable: bool = False) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` when the block ends without an error; its folder is made when it is missing.

    ``durable``: it is on the disk before it does, so that not even a power failure loses both. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not named after the file, whose name may already be as long as names can be.
    temporary = path.with_name(f".{os.getpid()}.{threading.get_ident()}.part")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_text(path: Path) -> Iterator[TextIO]:
    """``replacing`` for UTF-8 text."""
    with replacing(path) as stream:
        text = TextIOWrapper(stream, encoding="utf-8", write_through=True)
        yield text
        text.flush()
        text.detach()


def write_atomically(path: Path, data: bytes | memoryview, durable: bool = False) -> None:
    """Write a whole file by ``replacing``. Raises OSError."""
    with replacing(path, durable) as stream:
        stream.write(data)

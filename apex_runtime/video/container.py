"""What the bytes of a video file say before a decoder is asked: is it one, is it whole, does it know its length?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from apex_runtime.data.image import EXTENSIONS

VIDEO_EXTENSIONS = (
    ".mp4",
    ".m4v",
    ".mov",
    ".avi",
    ".mkv",
    ".webm",
    ".mpg",
    ".mpeg",
    ".mjpeg",
    ".wmv",
    ".mts",
    ".m2ts",
    ".3gp",
    ".ogv",
)

_STILL_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")  # images in the container of MP4
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # Matroska and WebM
_MAGIC = (_EBML, b"FLV\x01", b"OggS", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11")


def is_clip(path: Path, look_inside: bool = False) -> bool:
    """Whether a file is a video: by its suffix, and by its first bytes where the suffix says nothing or ``look_inside``."""
    suffix = path.suffix.lower()
    if look_inside or suffix not in VIDEO_EXTENSIONS + EXTENSIONS:
        return _has_magic(path) or suffix in VIDEO_EXTENSIONS
    return suffix in VIDEO_EXTENSIONS


def knows_its_length(path: Path) -> bool:
    """Whether the header counts the frames: MP4 and MOV that are not in fragments, AVI. Others state a duration, or nothing."""
    try:
        with path.open("rb") as stream:
            head = stream.read(12)
            if _is_avi(head):
                return True
            return head[4:8] == b"ftyp" and b"moof" not in {name for name, _end in _boxes(stream)}
    except OSError:
        return False


def is_cut_off(path: Path) -> bool:
    """Whether a part of the file reaches beyond its end: a download or a recording that was broken off."""
    try:
        with path.open("rb") as stream:
            head = stream.read(12)
            size = path.stat().st_size
            if _is_avi(head):
                return 8 + int.from_bytes(head[4:8], "little") > size
            if head[:4] == _EBML:
                return _segment_end(stream) > size
            return head[4:8] == b"ftyp" and any(end > size for _name, end in _boxes(stream))
    except OSError:
        return False


def _has_magic(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
    except OSError:
        return False
    if head[4:8] in (b"ftyp", b"moov", b"mdat") or _is_avi(head):
        return head[8:12] not in _STILL_BRANDS
    return head.startswith(_MAGIC)


def _is_avi(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == b"AVI "


def _boxes(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """(name, position of the end) of the outermost boxes of an MP4 (ISO/IEC 14496-12, 4.2)."""
    position = 0
    while True:
        stream.seek(position)
        head = stream.read(16)
        if len(head) < 8:
            return
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        if size < 8:  # 0: as far as the file goes; anything else is damage, which the decoder will find
            return
        position += size
        yield head[4:8], position


def _segment_end(stream: BinaryIO) -> int:
    """Where the segment of a Matroska file ends by its header; 0 when that does not say (RFC 8794, 6.2)."""
    stream.seek(0)
    head = stream.read(4096)
    start = head.find(_SEGMENT) + len(_SEGMENT)
    if start < len(_SEGMENT) or start >= len(head):
        return 0
    length = 9 - head[start].bit_length()
    mask = (1 << (7 * length)) - 1
    size = int.from_bytes(head[start : start + length], "big") & mask
    return 0 if size == mask else start + length + size

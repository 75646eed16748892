"""The unit of work of a job on several machines: a block of images with the ids that they have in the whole job."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass

from apex_runtime.outputs.formats import YOLO, relative_path

LARGEST = 64  # images of a block, unless the user says: what a lost worker costs, and how often one waits at a block's end
_TURNS = 4  # blocks for every worker at least, or some would wait for the last one


@dataclass(frozen=True)
class Image:
    """One image of a job. ``number``: its id. ``location``: an absolute path, or a URL that fsspec reads. ``shown``: what its
    user wrote, for messages and for the name of the file on a worker; of a signed URL without the signature."""

    name: str
    number: int
    location: str
    shown: str

    @property
    def is_remote(self) -> bool:
        """Whether it must be fetched before it is read."""
        return is_url(self.location)


@dataclass(frozen=True)
class Block:
    """Images that one worker takes at a time. ``kin``: names of others that claim the same name of a file (``--save yolo``)."""

    images: tuple[Image, ...]
    kin: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What its shard is called: the same for the same images, so that doing a block again replaces what it gave before."""
        text = "\n".join(f"{image.number} {image.name} {image.location}" for image in self.images)
        return f"{self.images[0].number:09d}-{hashlib.sha256(text.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"

    def singles(self) -> list[Block]:
        """A block for each image."""
        relatives = _Relatives([*(image.name for image in self.images), *self.kin])
        return [Block((image,), relatives.of([image.name])) for image in self.images]

    def to_json(self) -> bytes:
        """For the way to a worker."""
        return json.dumps({"images": [asdict(image) for image in self.images], "kin": self.kin}).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Block:
        """What ``to_json`` wrote."""
        document = json.loads(text)
        return cls(tuple(Image(**image) for image in document["images"]), tuple(document["kin"]))


def is_url(text: str) -> bool:
    """``s3://bucket/a.png``, ``file:///a.png`` and the like."""
    scheme, separator, rest = text.partition("://")
    return bool(separator and rest) and scheme.replace("+", "").replace("-", "").isalnum()


def plan_blocks(
    images: Sequence[Image], done: Collection[str], workers: int, size: int | None, save: Collection[str]
) -> list[Block]:
    """The images that are not ``done``, in their order, in blocks of ``size``; None: ``LARGEST``, or fewer when there are few."""
    left = [image for image in images if image.name not in done]
    step = size or max(1, min(LARGEST, math.ceil(len(left) / (_TURNS * workers))))
    relatives = _Relatives([image.name for image in images] if YOLO in save else [])
    parts = (tuple(left[start : start + step]) for start in range(0, len(left), step))
    return [Block(part, relatives.of([image.name for image in part])) for part in parts]


class _Relatives:
    """Which images of a job claim the same name of a file of ``--save yolo``: ``ImageFiles`` must hear of them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._claims: dict[str, list[str]] = defaultdict(list)
        for name in names:
            for path in self._paths(name):
                self._claims[path].append(name)

    def of(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of ``names``, without these."""
        found = {other for name in names for path in self._paths(name) for other in self._claims.get(path, ())}
        return tuple(sorted(found - set(names)))

    @staticmethod
    def _paths(name: str) -> Iterator[str]:
        yield from (relative_path(YOLO, name, alone) for alone in (True, False))

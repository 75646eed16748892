"""The images without labels: all that were given, but for those that the labelled data set holds as well."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.findings import shown
from apex_runtime.errors import UsageError
from apex_train.pseudo.pictures import Item, Pictures

AGAIN = "again"  # of the images that were given: the same file under another name


@dataclass(frozen=True, eq=False)
class Pool:
    """``pictures`` to label; ``excluded`` counts what was left out by where it is too: train, val, test or ``AGAIN``.

    ``digest``: SHA-256 (hex) over the content of every image, with its name.
    """

    pictures: Pictures
    excluded: Mapping[str, int]
    digest: str


def pool_of(pictures: Pictures, labelled: Mapping[str, InstanceDataset | None]) -> Pool:
    """Leave out the images whose files are, byte for byte, in a split of ``labelled``: what is measured on is not learned from.

    A file that cannot be opened stays in: it is named when its turn comes. Raises UsageError when nothing is left, OSError for a
    labelled image that is not there.
    """
    known = {
        sha256_of(record.path): name
        for name, dataset in reversed(list(labelled.items()))  # an image of several splits counts as one of the first
        for record in (dataset.records if dataset is not None else ())
    }
    kept: list[Item] = []
    excluded: Counter[str] = Counter()
    content = hashlib.sha256()
    for item in pictures.items:
        digest = _digest(item)
        if digest in known:
            excluded[known[digest]] += 1
            continue
        if pictures.dataset is None and digest:  # a data set may show one file in many windows
            known[digest] = AGAIN
        content.update(f"{item.file_name}\0{digest}\n".encode())
        kept.append(item)
    if not kept:
        counts = ", ".join(f"{count} {name}" for name, count in excluded.items())
        raise UsageError(f"--unlabelled: none of its images is new ({counts}).", "Give images that --data does not hold.")
    return Pool(replace(pictures, items=kept), dict(excluded), content.hexdigest())


def _digest(item: Item) -> str:
    try:
        return sha256_of(item.path)
    except OSError:
        return ""


def check_classes(labelled: InstanceDataset, pictures: Pictures) -> None:
    """Raise UsageError when the images are of a data set with other classes: its truth would not be that of the labels."""
    if pictures.dataset is None:
        return
    ours, theirs = ([category.name for category in each.categories] for each in (labelled, pictures.dataset))
    if set(ours) != set(theirs):
        message = f"--unlabelled-split: the classes of {pictures.dataset.source} ({shown(theirs)}) are not {shown(ours)}."
        raise UsageError(message, "Give the folder of its images, without a split.", path=pictures.dataset.source)

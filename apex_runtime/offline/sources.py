"""What the images of a job are: those of ``apex-rt infer``, and also objects of a store and the paths in a Parquet file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from apex_runtime.data.image import EXTENSIONS
from apex_runtime.data.sources import SourceItem, items_of
from apex_runtime.errors import UsageError
from apex_runtime.offline.blocks import Image, is_url
from apex_runtime.offline.fetch import file_system
from apex_runtime.offline.parquet import listed_paths

PARQUET = ".parquet"


def images_of(source: str, local: Callable[[], Sequence[SourceItem]]) -> list[Image]:
    """The images of a source in the order of their names, with ids from 1. ``local``: what ``apex-rt infer`` finds there.

    Raises UsageError, MissingPackageError.
    """
    if source.lower().endswith(PARQUET):
        found = _named(listed_paths(source), source)
    elif is_url(source):
        found = _of_store(source)
    else:
        found = [_of_item(item) for item in local()]
    found.sort(key=lambda pair: pair[0])
    return [Image(name, number, location, shown) for number, (name, location, shown) in enumerate(found, 1)]


_Found = tuple[str, str, str]  # name, location, as its user wrote it


def _of_item(item: SourceItem) -> _Found:
    if item.clip is not None:
        remedy = "Leave --on out for clips; or give only images."
        raise UsageError(f"--on: {item.clip.name} is a clip, whose frames are looked at one after the other.", remedy)
    return item.relative, os.path.abspath(item.path), str(item.path)


def _of_store(url: str) -> list[_Found]:
    """One object, or the images below a prefix; hidden ones are left out, as those of a folder are."""
    system, root = file_system(url)
    paths = sorted(_list(system, root, url))
    if root in paths:
        return [(PurePosixPath(_unsigned(root)).name, url, _unsigned(url))]
    prefix = root.rstrip("/") + "/"
    names = [path.removeprefix(prefix) for path in paths if path.startswith(prefix)]
    images = [name for name in names if name.lower().endswith(EXTENSIONS) and not _is_hidden(name)]
    if not images:
        raise UsageError(f"{url}: no images below it.", f"Looked for {' '.join(EXTENSIONS)}.", path=url)
    return [(name, f"{url.rstrip('/')}/{name}", f"{url.rstrip('/')}/{name}") for name in images]


def _list(system: Any, root: str, url: str) -> list[str]:
    try:
        found = list(system.find(root))
        there = bool(found) or system.exists(root)
    except Exception as error:  # each store has errors of its own
        raise UsageError(f"{url}: cannot be listed ({error}).", "Check the URL, and that you may read it.", path=url) from error
    if not there:
        raise UsageError(f"{url}: nothing is there.", "Check the URL, and that you may read it.", path=url)
    return found


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _named(texts: Iterable[str], source: str) -> list[_Found]:
    """Paths, the relative ones from the folder of the file that lists them, or URLs; each once. Raises UsageError."""
    unique = set(texts)
    urls = sorted(text for text in unique if is_url(text))
    if not unique:
        raise UsageError(f"{source}: no path in this file.", "Write one path per row.", path=source)
    if urls and len(urls) < len(unique):
        raise UsageError(f"{source}: holds both paths and URLs.", "Give one kind: file:///... is a URL too.", path=source)
    if urls:
        return _named_urls(urls, source)
    if is_url(source):
        raise UsageError(f"{source}: a list in a store, of paths that are none of a store.", "List URLs.", path=source)
    return [_of_item(item) for item in items_of(Path(os.path.abspath(Path(source).parent / text)) for text in unique)]


def _named_urls(urls: Sequence[str], source: str) -> list[_Found]:
    """Named relative to the deepest prefix that all have, without signatures where these names differ all the same."""
    schemes = {url.partition("://")[0] for url in urls}
    if len(schemes) > 1:
        raise UsageError(f"{source}: URLs of {' and '.join(sorted(schemes))}.", "Give those of one store.", path=source)
    unsigned = [_unsigned(url) for url in urls]
    shown = unsigned if len(set(unsigned)) == len(urls) else urls
    parts = [url.split("/") for url in shown]
    levels = zip(*(words[:-1] for words in parts), strict=False)
    common = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, levels))
    return [("/".join(words[common:]), url, said) for words, url, said in zip(parts, urls, shown, strict=True)]


def _unsigned(url: str) -> str:
    """A URL of the web without what lets its holder read the object, and changes from day to day: query, fragment, password."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return url  # of a store: what follows a ? may be part of a name
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

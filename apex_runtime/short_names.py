"""Files and folders by names that are short and tell them apart, without the folders that only this machine has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def told_apart(paths: Sequence[str | Path]) -> list[str]:
    """The name of each path, behind as many of its folders as no other path shares with it: ``a/model.onnx``, ``b/model.onnx``.

    One path that is given twice has one name.
    """
    every = [Path(os.path.abspath(path)).parts for path in paths]
    return [_shortest(own, {other for other in every if other != own}) for own in every]


def _shortest(own: tuple[str, ...], others: set[tuple[str, ...]]) -> str:
    enough = (count for count in range(1, len(own)) if all(other[-count:] != own[-count:] for other in others))
    return Path(*own[-next(enough, len(own)) :]).as_posix()

"""Which ops there are: their folders in the order of the pipeline, and their descriptions."""

from __future__ import annotations

import importlib
from functools import cache

from apex_plugins.spec import OpSpec

FOLDERS = ("tile_pack", "tile_ssm_scan", "tile_unpack_fusion", "decode_nms")


@cache
def specs() -> dict[str, OpSpec]:
    """The description of every op by its folder. Reads the references, which import only NumPy."""
    return {folder: importlib.import_module(f"apex_plugins.{folder}.reference").SPEC for folder in FOLDERS}


def folder_of(name: str) -> str | None:
    """The folder of an op by its name, ``tile_pack`` for ``TilePack``; None for an op that is not here."""
    return next((folder for folder, spec in specs().items() if spec.name == name), None)

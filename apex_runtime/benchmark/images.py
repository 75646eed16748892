"""The images that are measured on: real ones, since what post-processing costs depends on what is in them."""

from __future__ import annotations

from pathlib import Path

from apex_runtime.data.sources import resolve_sources
from apex_runtime.parity.cases import sample_folder

MAX_IMAGES = 32  # evenly over the list; a turn decodes its own, so they cost no memory


def choose_images(source: str | None) -> list[Path]:
    """Image files: of a file, folder or pattern, else the samples that come with the package. Raises UsageError without any."""
    found = [item.path for item in resolve_sources(str(sample_folder()) if source is None else source)]
    if len(found) <= MAX_IMAGES:
        return found
    return [found[place * len(found) // MAX_IMAGES] for place in range(MAX_IMAGES)]

"""How often a training looks at each image: the file that ``apex-train mine`` writes, and the draw of an epoch.

Legend: N images of a split.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.errors import DataError
from apex_runtime.pipeline.results import write_json

FORMAT_VERSION = 1
KIND = "sample-weights"
_MOST = 1e6  # only proportions count; sums of such stay exact enough
_REMEDY = "Write it again with apex-train mine."


def write_sample_weights(path: Path, weights: Mapping[str, float], provenance: Mapping[str, Any]) -> None:
    """Write the weight of every image by its file_name; only their proportions count. Raises OSError."""
    content = {"format_version": FORMAT_VERSION, "kind": KIND, "provenance": dict(provenance), "weights": dict(weights)}
    write_json(path, content)


def read_sample_weights(path: Path, dataset: InstanceDataset) -> np.ndarray:
    """float64 [N]: the weight of every image of the split; 1 for those that the file does not name.

    Raises DataError for a file that is none, a weight that is no number from 0 to 1e6, a name that the split does not have, and
    when no image is left.
    """
    weights = _weights_of(path)
    place_of = {record.file_name: place for place, record in enumerate(dataset.records)}
    strange = [name for name in weights if name not in place_of]
    if strange:
        message = f"{path}: {len(strange)} of its images are not in {dataset.source}, the first is {strange[0]!r:.80}."
        raise DataError(message, "It belongs to another data set or split.", path=path)
    found_N = np.ones(len(dataset))
    for name, weight in weights.items():
        found_N[place_of[name]] = weight
    if not found_N.sum() > 0:
        raise DataError(f"{path}: every image has the weight 0.", _REMEDY, path=path)
    return found_N


def _weights_of(path: Path) -> dict[str, float]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as weights of images ({error}).", _REMEDY, path=path) from error
    if not isinstance(content, dict) or (content.get("format_version"), content.get("kind")) != (FORMAT_VERSION, KIND):
        raise DataError(f"{path}: not a file of {KIND}, version {FORMAT_VERSION}.", _REMEDY, path=path)
    weights = content.get("weights")
    if not isinstance(weights, dict):
        raise DataError(f"{path}: it has no weights by file name.", _REMEDY, path=path)
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= _MOST:
            message = f"{path}: the weight of {name!r:.80} is {weight!s:.40}, not a number from 0 to {_MOST:g}."
            raise DataError(message, _REMEDY, path=path)
    return weights


def drawn(weights_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """int64 [N]: the looks of an epoch in random order; look k at image i, from 0, is the number i + k * N.

    Each image comes floor or ceil of N * weight / sum times (systematic sampling), so that equal weights show every one once.
    """
    count = len(weights_N)
    order_N = rng.permutation(count)
    ends_N = np.cumsum(weights_N[order_N])
    at_N = (rng.random() + np.arange(count)) * (ends_N[-1] / count)
    place_N = np.minimum(np.searchsorted(ends_N, at_N, side="right"), np.flatnonzero(np.diff(ends_N, prepend=0)).max())
    first_N = np.searchsorted(place_N, place_N)  # ascending: looks at one image lie together
    return rng.permutation(order_N[place_N] + (np.arange(count) - first_N) * count)

"""Whether scenes of two splits show the same ground."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from apex_runtime.data.findings import Fault, Finding, Findings, Location
from apex_runtime.data.satellite.layout import SceneFile
from apex_runtime.data.scenes.georeference import Georeference, overlap
from apex_runtime.data.scenes.windows import Window


@dataclass(frozen=True)
class Ground:
    """What a split sees of a scene, and where that lies."""

    split: str
    scene: SceneFile
    georeference: Georeference


def ground(split: str, scene: SceneFile, whole: Georeference, view: Window) -> Ground:
    """A window of a scene as ground."""
    a, b, c, d, e, f = whole.affine
    corner = (a * view.x + b * view.y + c, d * view.x + e * view.y + f)
    affine = (a, b, corner[0], d, e, corner[1])
    return Ground(split, scene, replace(whole, affine=affine, height=view.height, width=view.width))


def shared_ground(grounds: Sequence[Ground]) -> Findings:
    """Pairs of scenes in different splits that share more than a row of pixels. Raises DataError where rasterio is needed.

    Neighbours touch, and their corners are rounded: a strip as thin as a pixel is no leak.
    """
    findings = []
    for first, second in _near(grounds):
        pixels = overlap(first.georeference, second.georeference)
        if pixels > max(first.georeference.height, first.georeference.width):
            message = f"{pixels:.0f} pixels of this scene ({first.split}) are also in {second.scene.name} ({second.split})"
            findings.append(Finding(Fault.SPLIT_OVERLAP, Location(first.scene.path), message))
    return findings


def _near(grounds: Sequence[Ground]) -> Iterator[tuple[Ground, Ground]]:
    """Pairs of different scenes and splits whose bounds in degrees meet."""
    if not grounds:
        return
    footprints = np.stack([one.georeference.footprint for one in grounds])
    low, high = footprints.min(axis=1), footprints.max(axis=1)
    for n, first in enumerate(grounds):
        meets = np.all((low[n] < high[n + 1 :]) & (low[n + 1 :] < high[n]), axis=1)
        for place in np.flatnonzero(meets).tolist():
            second = grounds[n + 1 + place]
            if first.split != second.split and first.scene.path != second.scene.path:
                yield first, second

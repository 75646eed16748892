"""The masks of a yardstick's detections in pixels of the image; ``postprocess/masks.py`` makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.postprocess.masks import assemble_masks, masks_of_logits
from apex_runtime.yardsticks.decode import Candidates, Places
from apex_runtime.yardsticks.description import Description, Separate
from apex_runtime.yardsticks.placement import Placement

_NOTHING = np.zeros((1, 1), np.uint8)


def has_masks(description: Description) -> bool:
    """Whether the graph gives any."""
    outputs = description.outputs
    return outputs.prototypes is not None or (isinstance(outputs, Separate) and outputs.masks is not None)


def masks_of(
    kept: Candidates, places: Places, outputs: Mapping[str, np.ndarray], description: Description, placement: Placement
) -> Sequence[RoiMask]:
    """One mask per candidate, assembled when it is asked for; empty ones where the graph gives none."""
    wanted = description.outputs
    if places.coefficients is not None and wanted.prototypes is not None:
        coefficients, prototypes = places.coefficients[kept.places], outputs[wanted.prototypes]
        if wanted.cut_masks:
            return assemble_masks(coefficients, prototypes, kept.boxes, placement)
        logits = np.tensordot(coefficients.astype(np.float32), prototypes.astype(np.float32), 1)
    elif isinstance(wanted, Separate) and wanted.masks is not None:
        logits = outputs[wanted.masks][kept.places].astype(np.float32) - np.float32(wanted.mask_threshold)
    else:
        return [RoiMask(0, 0, _NOTHING)] * len(kept.scores)
    boxes = kept.boxes if wanted.cut_masks else reaches(logits, placement.height, placement.width)
    return masks_of_logits(logits, boxes, placement)


def reaches(logits_nhw: np.ndarray, height: int, width: int) -> np.ndarray:
    """float64 [n,4] xyxy in pixels of an input of height x width: where the interpolated logits can be above 0.

    No further than the centres of the cells around those that are: so much smaller than the input that masks stay cheap.
    """
    sides = [_reach(np.any(logits_nhw > 0, axis=axis), length) for axis, length in ((1, width), (2, height))]
    (left, right), (top, bottom) = sides
    return np.stack([left, top, right, bottom], axis=1)


def _reach(inside_nk: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """First and last pixel, float64 [n] each, along an axis of k cells; nothing where no cell is inside."""
    cells = inside_nk.shape[1]
    first, last = inside_nk.argmax(axis=1), cells - 1 - inside_nk[:, ::-1].argmax(axis=1)
    step, some = length / cells, inside_nk.any(axis=1)
    low = np.where(first == 0, 0, (first - 0.5) * step)
    high = np.where(last == cells - 1, length, (last + 1.5) * step)
    return np.where(some, low, 0), np.where(some, high, 0)

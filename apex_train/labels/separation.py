"""How well a figure tells right annotations from wrong ones, with intervals over images.

Legend: n annotations, I images, R resamples, V different values.
"""

from __future__ import annotations

import numpy as np

RESAMPLES = 1000


def separation(
    quality_n: np.ndarray, wrong_n: np.ndarray, image_n: np.ndarray, images: int, seed: int = 0
) -> dict[str, float] | None:
    """The chance that a right annotation has a higher quality than a wrong one, ties half: the area under the ROC curve.

    ``image_n`` is the place of each annotation's image; the 95 % interval is over resampled images, which are what is drawn
    together. Resamples without right or without wrong ones say nothing and are left out. None where one kind is missing.
    """
    if wrong_n.all() or not wrong_n.any():
        return None
    _, value_n = np.unique(quality_n, return_inverse=True)
    counts_RI = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=RESAMPLES)
    drawn = [_area(value_n, wrong_n, counts_I[image_n]) for counts_I in counts_RI]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    value = _area(value_n, wrong_n, np.ones(len(quality_n), np.int64))
    return {"low": round(float(low), 4), "value": round(value, 4), "high": round(float(high), 4)}


def _area(value_n: np.ndarray, wrong_n: np.ndarray, weight_n: np.ndarray) -> float:
    right_V, wrong_V = (np.bincount(value_n, weight_n * side, minlength=value_n.max() + 1) for side in (~wrong_n, wrong_n))
    pairs = right_V.sum() * wrong_V.sum()
    below_V = np.cumsum(wrong_V) - wrong_V
    return float(right_V @ (below_V + wrong_V / 2) / pairs) if pairs else float("nan")

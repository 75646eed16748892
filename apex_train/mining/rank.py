"""From signals of different units to one order of images, and to how often a training should look at each.

Legend: I images, S signals.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from apex_train.mining.look import Fared


def hardness(fared: Sequence[Fared], signals: Sequence[str]) -> np.ndarray:
    """float64 [I] in 0..1: the mean of the ranks that an image has by each signal; the easiest is near 0, the hardest near 1.

    Ranks and not values: a loss, a share and a gain have no common unit. Equal values share a rank; a signal that says nothing
    of an image puts it in the middle.
    """
    columns = [_shares([getattr(item, signal) for item in fared]) for signal in signals]
    return np.mean(columns, axis=0)


def _shares(values: Sequence[float | None]) -> np.ndarray:
    shares_I = np.full(len(values), 0.5)
    known = [place for place, value in enumerate(values) if value is not None]
    if known:
        known_values = np.array([values[place] for place in known], np.float64)
        below, up_to = (np.searchsorted(np.sort(known_values), known_values, side=side) for side in ("left", "right"))
        shares_I[known] = (below + up_to) / (2 * len(known))
    return shares_I


def emphasised(hardness_I: np.ndarray, emphasis: float) -> np.ndarray:
    """float64 [I]: weights from 1 to ``emphasis``, in proportion to the hardness: the easy ones are not forgotten."""
    return 1 + (emphasis - 1) * hardness_I


def hardest(hardness_I: np.ndarray, share: float) -> list[int]:
    """The places of the hardest ``share`` of the images, at least one, the hardest first; of equal ones the first in the set."""
    count = max(1, round(share * len(hardness_I)))
    return np.argsort(-hardness_I, kind="stable")[:count].tolist()

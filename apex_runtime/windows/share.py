"""One budget over all windows of a scene: tiles go where the router expects most of them, whichever window they are in.

A first pass looks at one tile of every window and learns the utilities of all. What the budget leaves goes to a second pass over
the windows that deserve more than one tile. A window that is looked at again is looked at from the start, so its second tile
costs two; nothing is spent twice in silence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def share_out(utilities: Sequence[np.ndarray], total: int) -> list[int]:
    """K of the second pass for every window, 0 where the first pass is enough.

    ``utilities``: per window float [n], those of its content tiles with the bonus that the user gave them. ``total``: tiles of
    both passes together. The first pass has one tile in every window, even where ``total`` is less. Tiles are taken in the order
    of their utility (ties: the first window, its first tile) as long as they fit.
    """
    left = total - len(utilities)
    window_T = np.concatenate([np.full(len(found), number) for number, found in enumerate(utilities)])
    value_T = np.concatenate([np.asarray(found, np.float64) for found in utilities])
    wanted = np.zeros(len(utilities), np.int64)
    if left < 2:
        return wanted.tolist()
    for number in window_T[np.argsort(-value_T, kind="stable")].tolist():
        cost = (0, 2, 1)[min(int(wanted[number]), 2)]
        if cost <= left:
            wanted[number] += 1
            left -= cost
        if left == 0:
            break
    return [int(count) if count > 1 else 0 for count in wanted]

"""How much of a loss was recovered: a quotient of two differences, over seeds in pairs."""

from __future__ import annotations

from typing import Any

import numpy as np

from apex_train.ablation.statistics import student_interval

LEVEL = 0.95


def recovered(clean: list[float], plain: list[float], helped: list[float]) -> dict[str, Any]:
    """``lost`` (clean minus plain), ``gained`` (helped minus plain) and their quotient, each with its 95 % interval over seeds.

    ``over_half`` is gained minus half of lost: at least half is recovered where its interval is above 0, which holds whatever
    the quotient does. That of the quotient is Fieller's (1954), None where the loss itself may be 0 and the quotient anything.
    Intervals are None for a single seed.
    """
    lost_n, gained_n = np.array(clean) - plain, np.array(helped) - plain
    quotient = float(gained_n.mean() / lost_n.mean()) if lost_n.mean() else None
    return {
        "lost": _with_interval(lost_n),
        "gained": _with_interval(gained_n),
        "over_half": _with_interval(gained_n - lost_n / 2),
        "share": {"value": quotient, "interval": fieller(gained_n, lost_n)},
    }


def _with_interval(differences_n: np.ndarray) -> dict[str, Any]:
    interval = list(student_interval(differences_n, LEVEL)) if len(differences_n) > 1 else None
    return {"value": float(differences_n.mean()), "interval": interval}


def fieller(above_n: np.ndarray, below_n: np.ndarray) -> list[float] | None:
    """The values q for which above - q * below may have the mean 0, by Student's t; None where they are no bounded interval."""
    from scipy.stats import t

    pairs = len(above_n)
    if pairs < 2:
        return None
    square = float(t.ppf((1 + LEVEL) / 2, pairs - 1)) ** 2 / pairs
    (var_above, covariance), (_, var_below) = np.cov(above_n, below_n)
    a = below_n.mean() ** 2 - square * var_below
    b = above_n.mean() * below_n.mean() - square * covariance
    c = above_n.mean() ** 2 - square * var_above
    root = b**2 - a * c
    if a <= 0 or root < 0:
        return None
    return [float((b - np.sqrt(root)) / a), float((b + np.sqrt(root)) / a)]

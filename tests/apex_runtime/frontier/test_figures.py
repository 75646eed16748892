"""Figures and their intervals as they are shown."""

from __future__ import annotations

import numpy as np

from apex_runtime.frontier.figures import as_json, interval
from apex_runtime.frontier.page import bounds


def test_a_figure_without_an_interval_is_shown_by_itself() -> None:
    assert bounds(as_json(interval(np.array([0.5])))) == "50.0"
    assert bounds(as_json(interval(np.array([0.5, 0.4, 0.6])))) == "50.0 (40.5 to 59.5)"
    assert bounds(as_json(interval(np.array([0.0, 0.0, 0.0])))) == "0.0 (0.0 to 0.0)"
    assert bounds(as_json(interval(np.array([np.nan])))) == bounds(None) == ""

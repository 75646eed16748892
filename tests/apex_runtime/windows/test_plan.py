"""``--window`` and ``--overlap``."""

from __future__ import annotations

import pytest

from apex_runtime.errors import UsageError
from apex_runtime.model_info import InputInfo
from apex_runtime.windows.plan import Windowing, parse_windowing

ENGINE = InputInfo(height=512, width=256)


def test_auto_cuts_what_is_larger_than_one_and_a_half_inputs() -> None:
    auto = parse_windowing("auto", None, ENGINE)
    assert auto == Windowing("auto", None, 128)
    assert auto.cut(768, 384, ENGINE) == [] == auto.cut(10, 10, ENGINE)
    assert len(auto.cut(769, 384, ENGINE)) == 4 and len(auto.cut(100, 385, ENGINE)) == 3
    assert {(window.height, window.width) for window in auto.cut(2000, 1000, ENGINE)} == {(512, 256)}


def test_a_size_cuts_what_is_larger_than_it() -> None:
    given = parse_windowing("200x300", 20, ENGINE)
    assert given.cut(200, 300, ENGINE) == []
    assert {(window.height, window.width) for window in given.cut(201, 300, ENGINE)} == {(200, 300)}
    assert parse_windowing("64", 0, ENGINE).size == (64, 64)


def test_none_is_none_and_the_default_overlap_fits_every_engine() -> None:
    assert parse_windowing("none", 9999, ENGINE).cut(90_000, 90_000, ENGINE) == []
    small = InputInfo(height=64, width=96)
    assert parse_windowing("auto", None, small).overlap == 32
    assert parse_windowing("100", None, small).overlap == 50


@pytest.mark.parametrize(
    ("window", "overlap"), [("auto", 256), ("64", 64), ("64x0", 0), ("wide", 0), ("", 0), ("-5", 0), ("auto", -1)]
)
def test_what_does_not_fit_is_named(window: str, overlap: int) -> None:
    with pytest.raises(UsageError, match=r"--window|--overlap") as caught:
        parse_windowing(window, overlap, ENGINE)
    assert caught.value.remedy

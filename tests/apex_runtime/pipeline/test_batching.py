from __future__ import annotations

import pytest

from apex_runtime.errors import UsageError
from apex_runtime.pipeline.batching import MAX_BATCH, parse_batch


def test_auto_depends_on_what_runs() -> None:
    assert parse_batch("auto", "ort-cpu") == 1
    assert parse_batch(" AUTO", "ort-cuda") > 1 and parse_batch("auto", "torch") > 1
    assert parse_batch("7", "ort-cpu") == 7


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "", str(MAX_BATCH + 1), "²"])
def test_anything_else_names_the_option(text: str) -> None:
    with pytest.raises(UsageError, match="--batch"):
        parse_batch(text, "ort-cpu")

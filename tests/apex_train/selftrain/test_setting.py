"""The plan of rounds: kept once, held against what is asked when they are resumed, named when it is damaged."""

from pathlib import Path

import pytest

from apex_runtime.errors import DataError, UsageError
from apex_train.selftrain.setting import PLAN, keep_plan


def test_a_plan_is_kept_and_another_one_is_refused(tmp_path: Path) -> None:
    keep_plan(tmp_path, {"config": 1, "views": ["flip-x"]})
    keep_plan(tmp_path, {"config": 1, "views": ["flip-x"]})
    with pytest.raises(UsageError, match="another config, another views"):
        keep_plan(tmp_path, {"config": 2, "views": []})


@pytest.mark.parametrize("content", ["[]", "null", "{", "\x00"])
def test_a_damaged_plan_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / PLAN).write_text(content)
    with pytest.raises(DataError, match=r"plan\.json"):
        keep_plan(tmp_path, {"config": 1})

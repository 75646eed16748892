"""Processes of one attempt meet each other, and nobody that an earlier attempt left in the store."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch.distributed as dist

from apex_train.engine.meeting import meet


def meeting(store: dist.Store, ranks: list[int], world: int, pause: float = 0.0) -> list[str]:
    """What each of ``world`` processes, which come in this order, reads of the names that they leave in what they share."""

    def come(rank: int) -> str:
        ours = meet(store, rank, world, 20)
        ours.set(f"{rank}", str(rank))
        return ",".join(ours.get(f"{other}").decode() for other in range(world))

    with ThreadPoolExecutor(world) as pool:
        waiting: list[Future[str]] = []
        for rank in ranks:
            waiting.append(pool.submit(come, rank))
            time.sleep(pause)
            assert rank == ranks[-1] or not any(future.done() for future in waiting), "it met somebody of before"
        return [future.result() for future in waiting]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
def test_all_meet_and_again_after_a_restart(order: list[int]) -> None:
    store = dist.HashStore()
    for _ in range(3):  # the same store, as torchrun hands it on
        assert len(set(meeting(store, order, 3, pause=0.15))) == 1


def test_each_meeting_has_a_part_of_its_own() -> None:
    store = dist.HashStore()
    for _ in range(2):
        with ThreadPoolExecutor(2) as pool:
            pair = [future.result() for future in [pool.submit(meet, store, rank, 2, 20) for rank in range(2)]]
        assert not pair[0].check(["address"])
        pair[0].set("address", "here")
        assert pair[1].get("address") == b"here"


def test_who_stays_away_is_named() -> None:
    store = dist.HashStore()
    meeting(store, [0, 1, 2], 3)
    with pytest.raises(RuntimeError, match="process 1, 2 did not come"):
        meet(store, 0, 3, 0.2)
    with pytest.raises(RuntimeError, match="process 0 did not come"):
        meet(store, 2, 3, 0.2)

"""Where the processes of a run meet: a part of torchrun's store that is theirs alone.

torchrun keeps one store over all its restarts (torch 2.13; https://github.com/pytorch/pytorch/issues/135712), and with it the
addresses that the processes before the restart left there. Who comes early would read one of those, find nobody, and end, which
costs another restart. So the processes name themselves anew, the first one gathers the names, and they go on under its name.
"""

from __future__ import annotations

import json
import time
import uuid

from torch.distributed.distributed_c10d import PrefixStore, Store

PAUSE = 0.05  # seconds between looks at the store


def meet(store: Store, rank: int, world: int, seconds: float) -> Store:
    """The part of ``store`` that belongs to these ``world`` processes. Raises RuntimeError when one stays away so long."""
    name, end = uuid.uuid4().hex, time.monotonic() + seconds
    found = _invite(store, name, world, end) if rank == 0 else _come(store, name, rank, end)
    return PrefixStore(found, store)


def _invite(store: Store, name: str, world: int, end: float) -> str:
    """Tell who is seen until all have said that they saw it; a name from before the restart is answered by nobody."""
    others = range(1, world)
    while True:
        store.set("meeting", json.dumps([name, *(_read(store, f"name/{rank}") for rank in others)]))
        absent = [rank for rank in others if _read(store, f"came/{rank}") != name]
        if not absent:
            return name
        _pause(end, f"process {', '.join(map(str, absent))} did not come")


def _come(store: Store, name: str, rank: int, end: float) -> str:
    """The name of the meeting that knows ours, which is therefore not one from before the restart."""
    store.set(f"name/{rank}", name)
    while True:
        host, *guests = json.loads(_read(store, "meeting") or "[null]")
        if name in guests:
            store.set(f"came/{rank}", host)
            return str(host)
        _pause(end, "process 0 did not come")


def _read(store: Store, key: str) -> str:
    return store.get(key).decode() if store.check([key]) else ""


def _pause(end: float, complaint: str) -> None:
    if time.monotonic() >= end:
        raise RuntimeError(complaint)
    time.sleep(PAUSE)

"""Faults of a runtime, planted one by one around a session that is right: the file is the same, what is answered is not.

Each is what a preprocessing, a buffer or a copy of another runtime got wrong, so it is written as a change of what the graph is
asked, or of what it answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np

from apex_runtime.backends.session import Session, Tiles, in_all
from apex_runtime.model_info import ModelInfo
from apex_runtime.parity import subjects
from apex_runtime.routing.selection import MAX_BONUS

Outputs = dict[str, np.ndarray]
Run = Callable[[np.ndarray, Tiles, np.ndarray], Outputs]
Change = Callable[[np.ndarray], np.ndarray]

LISTS = ("boxes", "scores", "labels", "mask_coefficients", "candidate_ids")


class RuntimeFault(NamedTuple):
    """``around`` makes a wrong ``run`` of a right one. ``batch``: how many images a run must have to show it. ``level``: the one
    that must see it, whatever others do."""

    around: Callable[[Run], Run]
    batch: int = 1
    level: str = "tensor"


class FaultyRuntime:
    """A session that does one thing wrong. Implements ``Session``."""

    def __init__(self, session: Session, fault: RuntimeFault) -> None:
        self.info: ModelInfo = session.info
        self.name: str = session.name
        self.run: Run = fault.around(session.run)


@contextmanager
def run_by(fault: RuntimeFault, file: Path) -> Iterator[None]:
    """As long as it lasts, parity gets a runtime with that fault for ``file``."""
    plain = subjects.open_session

    def opened(path: Path, *rest: object) -> Session:
        session = plain(path, *rest)  # type: ignore[arg-type]
        return FaultyRuntime(session, fault) if path == file else session

    with mock.patch.object(subjects, "open_session", opened):
        yield


def _asked(change: Change) -> RuntimeFault:
    """Other images than it was given."""
    return RuntimeFault(lambda run: lambda images, tiles, bonus: run(np.ascontiguousarray(change(images)), tiles, bonus))


def _steered(change: Change) -> RuntimeFault:
    """Another bonus of the tiles than it was given."""
    return RuntimeFault(lambda run: lambda images, tiles, bonus: run(images, tiles, change(bonus)))


def _answered(change: Callable[[Outputs], object]) -> RuntimeFault:
    """The right answer, changed in place."""

    def around(run: Run) -> Run:
        def wrong(images: np.ndarray, tiles: Tiles, bonus: np.ndarray) -> Outputs:
            outputs = {name: array.copy() for name, array in run(images, tiles, bonus).items()}
            change(outputs)
            return outputs

        return wrong

    return RuntimeFault(around)


def _output(name: str, change: Change) -> RuntimeFault:
    def edit(outputs: Outputs) -> None:
        outputs[name] = change(outputs[name])

    return _answered(edit)


def _put(name: str, value: float) -> RuntimeFault:
    """One value in the middle of one output."""

    def edit(outputs: Outputs) -> None:
        outputs[name].flat[outputs[name].size // 2] = value

    return _answered(edit)


def _budget(change: Callable[[int, int], int], as_asked: bool) -> RuntimeFault:
    """Another K, made of K and N. ``as_asked``: it says nevertheless that it looked at the K that were asked for."""

    def around(run: Run) -> Run:
        def wrong(images: np.ndarray, tiles: Tiles, bonus: np.ndarray) -> Outputs:
            found = run(images, change(in_all(tiles), bonus.shape[1]), bonus)
            said = ("tile_ids", "tile_levels") if as_asked else ()
            return found | {name: array for name, array in run(images, tiles, bonus).items() if name in said}

        return wrong

    return RuntimeFault(around)


def _other_tiles(run: Run) -> Run:
    """It looks at the tiles that lie opposite to those that it names."""

    def wrong(images: np.ndarray, tiles: Tiles, bonus: np.ndarray) -> Outputs:
        right = run(images, tiles, bonus)
        opposite = np.full_like(bonus, -MAX_BONUS)
        np.put_along_axis(opposite, bonus.shape[1] - 1 - right["tile_ids"], MAX_BONUS, 1)
        found = run(images, tiles, opposite)
        return found | {name: right[name] for name in ("tile_ids", "tile_levels", "utilities")}

    return wrong


def _cut_one_too_far(run: Run) -> Run:
    """In place of the K-th tile, the one that comes next."""

    def wrong(images: np.ndarray, tiles: Tiles, bonus: np.ndarray) -> Outputs:
        right = run(images, tiles, bonus)
        totals = right["utilities"] + bonus
        last = right["tile_ids"][np.arange(len(images)), np.take_along_axis(totals, right["tile_ids"], 1).argmin(1)]
        bonus = bonus.copy()
        bonus[np.arange(len(images)), last] -= MAX_BONUS
        return run(images, tiles, bonus.clip(-MAX_BONUS, MAX_BONUS))

    return wrong


def _shorter_list(outputs: Outputs) -> None:
    """The cut of the candidates comes at half the list, and the rest is filled with the last that was kept."""
    half = outputs["scores"].shape[1] // 2
    for name in LISTS:
        outputs[name][:, half:] = outputs[name][:, half - 1 : half]


def _one_late(run: Run) -> Run:
    """The buffer is read before the copy has ended: each answer is that of the run before."""
    kept: list[Outputs] = []

    def wrong(images: np.ndarray, tiles: Tiles, bonus: np.ndarray) -> Outputs:
        kept.append(run(images, tiles, bonus))
        late = kept.pop(0) if len(kept) > 1 else kept[0]
        same = all(late[name].shape == array.shape for name, array in kept[-1].items())
        return late if same else kept[-1]

    return wrong


def _first_for_all(outputs: Outputs) -> None:
    for name, array in outputs.items():
        outputs[name] = np.repeat(array[:1], len(array), 0)


def _swapped(outputs: Outputs) -> None:
    for name, array in outputs.items():
        outputs[name] = array[::-1]


def _centred(boxes: np.ndarray) -> np.ndarray:
    """Centre and size in place of two corners."""
    first, second = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([(first + second) / 2, second - first], -1)


def _video_range(images: np.ndarray) -> np.ndarray:
    return (16 + images * (219 / 255)).astype(np.uint8)


RUNTIME = {
    "BGR for RGB": _asked(lambda images: images[..., ::-1]),
    "video range for full range": _asked(_video_range),
    "half the scale of the input": _asked(lambda images: images // 2),
    "a saturated input": _asked(lambda images: np.minimum(images, 127)),
    "an input one step too bright": _asked(lambda images: np.minimum(images, 254) + np.uint8(1)),
    "a letterbox one pixel too far right": _asked(lambda images: np.roll(images, 1, 2)),
    "a letterbox one pixel too far down": _asked(lambda images: np.roll(images, 1, 1)),
    "a mirrored image": _asked(lambda images: images[:, :, ::-1]),
    "the bonus of the tiles ignored": _steered(np.zeros_like)._replace(level="decision"),
    "the bonus of the tiles with the other sign": _steered(np.negative)._replace(level="decision"),
    "the budget ignored": _budget(lambda _k, n: n, as_asked=False)._replace(level="decision"),
    "the budget ignored and not told": _budget(lambda _k, n: n, as_asked=True),
    "one tile less than the budget": _budget(lambda k, _n: max(1, k - 1), as_asked=False),
    "one tile less, and not told": _budget(lambda k, _n: max(1, k - 1), as_asked=True),
    "the cut of the tiles one too far": RuntimeFault(_cut_one_too_far, level="decision"),
    "the cut of the candidates at half": _answered(_shorter_list),
    "tiles under the wrong ids": _output("tile_ids", lambda ids: ids ^ 1),
    "tiles in another order": _output("tile_ids", lambda ids: ids[:, ::-1]),
    "other tiles than it names": RuntimeFault(_other_tiles),
    "utilities under the wrong ids": _output("utilities", lambda utilities: utilities[:, ::-1]),
    "a NaN in one pixel of a prototype": _put("mask_prototypes", np.nan),
    "an Inf in one score": _put("scores", np.inf),
    "a NaN in one utility": _put("utilities", np.nan),
    "saturated prototypes": _output("mask_prototypes", lambda array: array.clip(-0.25, 0.25)),
    "prototypes upside down": _output("mask_prototypes", lambda array: array[:, :, ::-1]),
    "coefficients in the order of another list": _output("mask_coefficients", lambda array: np.roll(array, 1, 1)),
    "boxes half a pixel off": _output("boxes", lambda boxes: boxes + np.float32(0.5)),
    "boxes as centre and size": _output("boxes", _centred),
    "scores before the sigmoid": _output("scores", lambda scores: np.log(scores / (1 - scores))),
    "labels of the next class": _output("labels", lambda labels: labels + 1),
    "anchors counted from one": _output("candidate_ids", lambda ids: ids + 1),
    "scores of another type": _output("scores", lambda scores: scores.astype(np.float64)),
    "ids of another type": _output("tile_ids", lambda ids: ids.astype(np.int32)),
    "one place less in a list": _output("boxes", lambda boxes: boxes[:, :-1]),
    "prototypes without the axis of the batch": _output("mask_prototypes", lambda array: array[0]),
    "a missing output": _answered(lambda outputs: outputs.pop("mask_coefficients")),
    "the answer of the run before": RuntimeFault(_one_late, level="decision"),
    "images of a batch swapped": _answered(_swapped)._replace(batch=4),
    "the first image for the whole batch": _answered(_first_for_all)._replace(batch=4),
}

"""The first image and budget on which two graphs differ, and what it is that differs: there the search begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from apex_runtime.backends.ort import graph_feeds
from apex_runtime.backends.session import Tiles
from apex_runtime.errors import BackendError, ModelError
from apex_runtime.model_info import ModelInfo
from apex_runtime.parity.bisect.journal import Difference
from apex_runtime.parity.bisect.slices import Arrays, Graph, open_model, run_session
from apex_runtime.parity.cases import Case
from apex_runtime.parity.outputs import forcing_bonus
from apex_runtime.parity.run import BudgetResult, chosen_tiles, compare_sessions
from apex_runtime.parity.tolerance import Rules
from apex_runtime.routing.budget import Budget
from apex_runtime.routing.grid import padding_bonus
from apex_runtime.routing.split import plan_tiles

if TYPE_CHECKING:
    import onnxruntime


class Whole:
    """A whole graph as a ``Session``, that holds no memory between its runs. It is opened by the first, and may fail there."""

    name = "ort-cpu"

    def __init__(self, graph: Graph, info: ModelInfo) -> None:
        self.graph, self.info = graph, info
        self._session: onnxruntime.InferenceSession | None = None

    def run(self, images: np.ndarray, tiles: Tiles, tile_bonus: np.ndarray) -> Arrays:
        """As ``Session.run``. Raises BackendError."""
        if self._session is None:
            self._session = open_model(self.graph.model, self.graph.path, self.graph.threads)
        return run_session(self._session, graph_feeds(self.info, images, tiles, tile_bonus))


def first_difference(
    reference: Whole,
    candidate: Whole,
    cases: Sequence[Case],
    budgets: Sequence[Budget],
    rules: Rules,
    progress: Callable[[int, int], None] = lambda done, failed: None,
) -> Difference | None:
    """Compare image by image until one differs; None when none does. ``progress(done, 0)`` is called after each.

    Raises ModelError when the reference's own outputs are not finite, BackendError when the reference does not run.
    """
    for done, (case, budget) in enumerate(product(cases, budgets), 1):
        found = _compare(reference, candidate, case, budget, rules)
        progress(done, 0)
        if found.outputs:
            return found
    return None


def feeds_of(difference: Difference, case: Case, budget: Budget, info: ModelInfo) -> Arrays:
    """The inputs of the graph under which this difference shows."""
    bonus_N = padding_bonus(case.content_N)
    if difference.mode == "forced":
        bonus_N = forcing_bonus(np.array(difference.tiles, np.int64), info.tiles.count)[0]
    return graph_feeds(info, case.pixels[None], plan_tiles(budget, case.content_N, info), bonus_N[None])


def _compare(reference: Whole, candidate: Whole, case: Case, budget: Budget, rules: Rules) -> Difference:
    info = reference.info
    tiles = plan_tiles(budget, case.content_N, info)
    free = reference.run(case.pixels[None], tiles, padding_bonus(case.content_N)[None])
    _check_finite(free, case)
    chosen = chosen_tiles(free, info.tiles).tolist()
    found = Difference(image=case.name, image_sha256=case.sha256, budget=budget.asked, mode="forced", tiles=chosen, outputs={})
    try:
        result = compare_sessions(reference, candidate, [case], [budget], rules)[0]
    except BackendError as error:
        return found.model_copy(update={"outputs": {name: [str(error)] for name in free}, "runs": False})
    return found.model_copy(update=_failing(result, rules))


def _failing(result: BudgetResult, rules: Rules) -> dict[str, Any]:
    """What the outputs say; only where they agree, what the choice of tiles says. Of that no least overlap is asked: it is a mean
    over images, and one swap that rounding explains would be below it."""
    outputs = {name: stats.reasons(*rules.gate(name)) for name, stats in result.outputs.items()}
    failing = {name: why for name, why in outputs.items() if why}
    decisions = result.decisions.reasons(min_overlap=0.0)
    if failing or not decisions:
        return {"outputs": failing}
    return {"mode": "free", "outputs": {"tile_ids": decisions}}


def _check_finite(outputs: Mapping[str, np.ndarray], case: Case) -> None:
    for name, array in outputs.items():
        if not np.isfinite(array).all():
            raise ModelError(
                f"The reference itself gives NaN or Inf in {name} on {case.name}: nothing can be compared with it.",
                "Export it again, or leave this image out with --images.",
            )

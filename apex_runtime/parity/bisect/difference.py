"""How far two tensors inside the graphs lie apart, in one number: 1 is the edge of the tolerance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from apex_runtime.model_info import output_names
from apex_runtime.parity.tolerance import Rules

MOST = 1e9  # what a NaN on one side counts, or another shape: JSON has no infinity


@dataclass(frozen=True)
class Judge:
    """``rules`` hold for outputs as they are. Inside the graph a tensor has no unit, and its atol grows with its largest value:
    rounding does, too. ``depth``: levels of tiles."""

    rules: Rules
    depth: int

    def excess(self, name: str, reference: np.ndarray, candidate: np.ndarray) -> float:
        """|difference| by what is allowed, of the worst value that ``mismatch_limit`` does not forgive; 0 to ``MOST``.

        The same NaN or infinity on both sides is no difference here. Integers are equal, or differ by ``MOST``.
        """
        floats = all(np.issubdtype(array.dtype, np.floating) for array in (reference, candidate))
        if reference.shape != candidate.shape or not (floats or reference.dtype == candidate.dtype):
            return MOST
        if not floats:
            return 0.0 if np.array_equal(reference, candidate) else MOST
        finite = np.isfinite(reference)
        if not np.array_equal(reference[~finite], candidate[~finite], equal_nan=True) or not np.isfinite(candidate[finite]).all():
            return MOST
        kind = np.result_type(reference, candidate, np.float32)
        return self._of_numbers(name, reference[finite].astype(kind), candidate[finite].astype(kind))

    def _of_numbers(self, name: str, reference_n: np.ndarray, candidate_n: np.ndarray) -> float:
        if not reference_n.size:
            return 0.0
        tolerance = self.rules.tolerance(name)
        assert tolerance is not None  # only in eight bits, and those are refused
        size_n = np.abs(reference_n)
        scale = 1.0 if name in output_names(self.depth) else max(1.0, float(size_n.max()))
        allowed_n = size_n * tolerance.rtol + tolerance.atol * scale
        ratio_n = np.abs(candidate_n - reference_n) / np.maximum(allowed_n, np.finfo(np.float32).tiny)
        forgiven = min(math.floor(self.rules.gate(name).mismatch_limit * ratio_n.size), ratio_n.size - 1)
        worst = float(np.partition(ratio_n, ratio_n.size - 1 - forgiven)[ratio_n.size - 1 - forgiven])
        return min(worst, MOST)

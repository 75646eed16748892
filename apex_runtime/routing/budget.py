"""The budget: how many tiles of an image get a close look, said in tiles, as a share, in GFLOPs, or as a deadline.

Grammar: ``16`` tiles, ``0.25`` or ``25%`` share of the content tiles, ``2.5gflops`` per image, ``8ms`` from the file to its
detections. So ``1`` is one tile and ``1.0`` is all; Python int and float likewise.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Literal

from apex_plugins.spec import MAX_DEPTH
from apex_runtime.backends.reasons import ReasonCode, argument_error
from apex_runtime.errors import UsageError
from apex_runtime.model_info import ModelInfo

EXAMPLES = "Examples: 16 (tiles), 0.25 or 25% (share of the image's tiles), 1.0 (all tiles), 2.5gflops, 8ms (a deadline)."
MAX_COUNT = 1_000_000  # no grid is this large: a larger number is a slip of the keyboard, not a wish for all tiles

_FORM = re.compile(
    r"(?P<number>[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?nan|[+-]?inf)\s*(?P<unit>%|ms|gflops)?", re.IGNORECASE | re.ASCII
)


@dataclass(frozen=True)
class Budget:
    """A budget per image: ``asked`` as the user wrote it, and what it means. ``levels``: tiles of every level, coarsest first,
    where the user shared them out; ``value`` is then their sum. One of kind ``ms`` means nothing before ``planner.planned``.
    ``limit``: another budget, of which it is at most; of one image, not of a scene of several windows."""

    asked: str
    kind: Literal["tiles", "share", "gflops", "ms"]
    value: float
    levels: tuple[int, ...] = ()
    limit: Budget | None = None

    @property
    def has_deadline(self) -> bool:
        """Whether it or its limit is a deadline that no latency table has turned into tiles."""
        return self.kind == "ms" or (self.limit is not None and self.limit.has_deadline)

    def at_most(self, other: Budget) -> Budget:
        """The smaller of this budget and ``other``, image by image; of several limits the smallest counts.

        ``asked`` stays what the user wrote. ``levels`` are dropped: how a smaller number is shared out, the engine decides.
        """
        return replace(self, levels=(), limit=other if self.limit is None else self.limit.at_most(other))

    def tiles_for(self, n_content: int, n_total: int, info: ModelInfo) -> int:
        """K, 1 <= K <= n_content: tiles for an image with ``n_content`` content tiles out of ``n_total``, of all levels together
        (``split`` shares them out).

        A share is floor(share * n_content), at least 1; more than the image has is all it has. Never more than ``limit`` gives.
        Raises UsageError when the GFLOPs do not reach for one tile, and for a deadline that no latency table has turned into
        tiles; of the limit too.
        """
        if not 1 <= n_content <= n_total:
            raise ValueError(f"{n_content} content tiles of {n_total}")
        if self.kind == "tiles":
            wanted = int(self.value)
        elif self.kind == "share":
            # The tolerance repairs binary fractions: 0.29 * 100 tiles are 29 tiles, not 28.999999999999996.
            wanted = math.floor(self.value * n_content + 1e-9)
        elif self.kind == "gflops":
            wanted = self._affordable(n_total, info)
        else:
            message = f"budget {self.asked}: a deadline needs the latency table of this engine on this machine."
            remedy = "Make one with apex-rt bench ENGINE, where deadlines are understood; else give tiles, a share or gflops."
            raise argument_error(ReasonCode.LATENCY_TABLE_MISSING, message, remedy=remedy)
        most = n_content if self.limit is None else self.limit.tiles_for(n_content, n_total, info)
        return max(1, min(wanted, most))

    def _affordable(self, n_total: int, info: ModelInfo) -> int:
        base, per_tile = info.gflops.base, info.gflops.per_tile
        left = self.value - base
        if left < per_tile:
            least = f"{base + per_tile:.3g}gflops"
            raise UsageError(f"budget {self.asked}: one image with one tile already costs {least}.", f"Give at least {least}.")
        return n_total if per_tile == 0 else min(n_total, math.floor(left / per_tile + 1e-9))


def parse_budget(value: str | int | float | Budget) -> Budget:
    """A budget from what a user wrote. Raises UsageError with examples when it cannot mean anything.

    A deadline (``8ms``) becomes tiles when an engine is opened: ``apex_runtime.routing.planner.planned``.
    """
    if isinstance(value, Budget):
        return value
    asked = str(value).strip()
    if isinstance(value, bool):
        raise _refused(asked, "is neither a number nor text")
    match = _FORM.fullmatch(asked)
    if match is None:
        raise _refused(asked, "is not a budget")
    text, unit = match["number"], (match["unit"] or "").lower()
    number = float(text)
    if not math.isfinite(number) or number <= 0:
        raise _refused(asked, "must be a number above 0")
    if unit == "ms":
        return Budget(asked, "ms", number)
    if unit == "gflops":
        return Budget(asked, "gflops", number)
    if unit == "" and re.fullmatch(r"\+?[0-9]+", text):
        return _tiles(asked, int(text))
    return _share(asked, number / 100 if unit == "%" else number)


def parse_levels(text: str) -> Budget:
    """The budget that ``--tiles 16,12`` means: 16 tiles of level 0 and 12 of their children. Raises UsageError."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > MAX_DEPTH or not all(re.fullmatch(r"[0-9]{1,6}", part) for part in parts) or int(parts[0]) < 1:
        remedy = "For example --tiles 16,12: 16 tiles of the coarsest level (at least 1) and 12 of their children."
        raise UsageError(f"--tiles {text!r}: expected 1 to {MAX_DEPTH} whole numbers.", remedy)
    counts = tuple(map(int, parts))
    return Budget(",".join(map(str, counts)), "tiles", sum(counts), counts)


def _tiles(asked: str, count: int) -> Budget:
    if count > MAX_COUNT:
        raise _refused(asked, "is more tiles than any image has")
    return Budget(asked, "tiles", count)


def _share(asked: str, share: float) -> Budget:
    if share > 1:
        raise _refused(asked, "is a share above 1.0 (a number without a decimal point counts tiles)")
    return Budget(asked, "share", share)


def _refused(asked: str, reason: str) -> UsageError:
    return UsageError(f"budget {asked!r} {reason}.", EXAMPLES)

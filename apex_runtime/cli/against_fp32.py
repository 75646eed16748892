"""How a comparison with fp32 reads: a table where it was made, a row per budget where a bundle is looked at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apex_runtime.bundle.fp32_record import AgainstFp32, BudgetRow, Measured, Milliseconds, Precisions


def table(against: AgainstFp32) -> Iterator[str]:
    """The lines below a build; none for a graph that is as it was exported."""
    measured = against.measured
    if measured is None:
        if against.not_made:
            yield f"not compared with fp32: {against.not_made}"
        return
    yield f"against fp32: {_of(measured)}"
    yield f"  model.onnx {_sizes(measured)}"
    yield f"  {'budget':<8}{'box AP':<16}{'drop':>6}   {'mask AP':<16}{'drop':>6}   {'same tiles (worst)':<20}graph ms"
    for row in measured.budgets:
        figures = "   ".join(_precisions(each) for each in (row.box_ap, row.mask_ap))
        yield f"  {row.budget:<8}{figures}   {_tiles(row):<20}{_milliseconds(row.graph_milliseconds)}"
    yield from measured.remarks
    if not any(row.box_ap or row.mask_ap for row in measured.budgets):
        yield "without labels there is no AP: how far boxes and masks are from those of fp32 is for apex-rt parity to say"


def rows(against: AgainstFp32) -> Iterator[str]:
    """The same in a line per budget, below one that says on what."""
    measured = against.measured
    if measured is None:
        yield from table(against)
        return
    remarks = "".join(f"; {remark}" for remark in measured.remarks)
    yield f"against fp32: {_of(measured)}; {_sizes(measured)}{remarks}"
    for row in measured.budgets:
        drops = (("box AP", row.box_ap), ("mask AP", row.mask_ap))
        parts = [f"{name} {100 * each.built:.2f} (drop {points(each.drop_points)})" for name, each in drops if each is not None]
        time = [f"graph {row.graph_milliseconds.ratio:.2f}x"] if row.graph_milliseconds is not None else []
        yield f"  budget {row.budget}: {', '.join([*parts, f'same tiles {_tiles(row)}', *time])}"


def points(drop: float) -> str:
    """A drop in points, without a minus before nothing."""
    return f"{round(drop, 2) + 0.0:.2f}"


def _of(measured: Measured) -> str:
    times = "" if measured.threads is None else f", {measured.threads} thread(s), {measured.rounds} rounds"
    return f"{measured.images} image(s), {measured.origin}; {measured.executed}{times}"


def _sizes(measured: Measured) -> str:
    sizes = measured.model_bytes
    return f"{sizes.fp32 / 1e6:.2f} -> {sizes.built / 1e6:.2f} MB ({sizes.built / sizes.fp32:.2f}x)"


def _precisions(found: Precisions | None) -> str:
    if found is None:
        return f"{'-':<16}{'-':>6}"
    return f"{f'{100 * found.fp32:.2f} -> {100 * found.built:.2f}':<16}{points(found.drop_points):>6}"


def _tiles(row: BudgetRow) -> str:
    return f"{row.tile_overlap.mean:.4f} ({row.tile_overlap.worst:.3f})"


def _milliseconds(found: Milliseconds | None) -> str:
    return "-" if found is None else f"{found.fp32:.1f} -> {found.built:.1f} ({found.ratio:.2f}x)"

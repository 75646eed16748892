"""What became of the rounds: the figures of each, and which one is the best."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from apex_runtime.files import write_atomically
from apex_train.selftrain.rounds import TEACHER

if TYPE_CHECKING:
    from rich.table import Table

    from apex_train.selftrain.rounds import Rounds

FORMAT_VERSION = 1
BEST = "best.pt"


def best_round(entries: Sequence[dict[str, Any]]) -> int:
    """The round with the best figure on val, of equal ones the first; the last one where nothing was measured."""
    measured = [entry for entry in entries if entry["value"] is not None]
    if not measured:
        return int(entries[-1]["round"])
    sign = -1 if measured[0]["metric"] == "val_loss" else 1
    return int(max(measured, key=lambda entry: sign * entry["value"])["round"])


def conclude(rounds: Rounds) -> dict[str, Any]:
    """The report of finished rounds (self-train.schema.json); their best checkpoint becomes ``BEST`` of the folder."""
    entries, pool, setting = rounds.entries(), rounds.pool, rounds.setting
    best = best_round(entries)
    write_atomically(rounds.output / BEST, (rounds.folder(best) / TEACHER).read_bytes(), durable=True)
    return {
        "format_version": FORMAT_VERSION,
        "kind": "self-train",
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "labelled": {"images": len(rounds.train), "fingerprint": rounds.train.fingerprint()},
        "unlabelled": {
            "images": len(pool.pictures.items),
            "excluded": dict(pool.excluded),
            "sha256": pool.digest,
            "truth": pool.pictures.annotated,
        },
        "labelled_share": setting.labelled_share,
        "pseudo_weight": setting.pseudo_weight,
        "student": setting.student,
        "views": [view.name for view in setting.choice.views],
        "unsure_as": "crowd" if setting.choice.keep_unsure else "background",
        "rounds": entries,
        "best": {"round": best, "checkpoint": BEST},
    }


def round_table(report: dict[str, Any]) -> Table:
    """A row per round."""
    from rich.table import Table

    metric = report["rounds"][0]["metric"]
    table = Table(title="rounds of self-training", title_justify="left")
    table.add_column("round", justify="right")
    table.add_column("from")
    for name in ("pseudo labels", "unsure", "precision", "recall", "steps", f"{metric} on val" if metric else "val"):
        table.add_column(name, justify="right")
    for entry in report["rounds"]:
        labelling = entry["labelling"] or {}
        counts = [str(labelling.get(name, "")) for name in ("labels", "unsure")]
        right = ["" if labelling.get(name) is None else f"{labelling[name]['value']:.2f}" for name in ("precision", "recall")]
        value = "-" if entry["value"] is None else f"{entry['value']:.3f}"
        table.add_row(str(entry["round"]), entry["from"], *counts, *right, str(entry["steps"]), value)
    table.caption = f"best: round {report['best']['round']}"
    return table

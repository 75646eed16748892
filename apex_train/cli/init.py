"""``apex-train init``: a commented configuration that fits a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.cli.options import dataset_type_option, json_option, not_empty

if TYPE_CHECKING:
    from apex_runtime.data.dataset import DatasetType
    from apex_train.preflight.facts import Facts

FORMAT_VERSION = 1


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False),
    default="fit.yaml",
    show_default=True,
    callback=not_empty,
    help="The file to write.",
)
@dataset_type_option
@click.option("--force", is_flag=True, help="Replace the file when it exists.")
@json_option
def init(data: Path, output: str, dataset_type: DatasetType | None, force: bool, as_json: bool) -> None:
    """Measure DATA and write a configuration that fits it, with the reason beside every value.

    \b
    Examples:
      apex-train init nuclei/ -o fit.yaml
      apex-train fit fit.yaml --data nuclei/ --output runs/a
    """
    from apex_runtime.cli.data import choose_type
    from apex_runtime.errors import UsageError
    from apex_runtime.files import write_atomically
    from apex_train.preflight.advice import advise, as_sections
    from apex_train.preflight.recipe import as_yaml

    target = Path(output)
    if target.exists() and not force:
        raise UsageError(f"{target}: exists.", "Replace it with --force, or choose another --output.", path=target)
    facts = _measure(data, choose_type(data, dataset_type))
    advice = advise(facts)
    sections = as_sections(advice)
    write_atomically(target, as_yaml(facts, advice).encode())
    if as_json:
        click.echo(json.dumps(_document(facts, sections, {item.key: item.reason for item in advice}, target), indent=2))
        return
    for item in advice:
        click.echo(f"{item.key}: {json.dumps(item.value)}  ({item.reason})")
    click.echo(f"written: {target}")


def _document(facts: Facts, sections: dict[str, Any], reasons: dict[str, str], target: Path) -> dict[str, Any]:
    from apex_train.preflight.recipe import rare_classes

    rare, absent = rare_classes(facts)
    return {
        "format_version": FORMAT_VERSION,
        "output": str(target),
        "data": str(facts.data),
        "dataset_type": facts.kind,
        "measured_split": facts.train.split,
        "faulty": facts.errors,
        "config": sections,
        "reasons": reasons,
        "rare_classes": rare,
        "absent_classes": absent,
    }


def _measure(data: Path, kind: DatasetType) -> Facts:
    from apex_runtime.cli.progress import Counter, counter
    from apex_train.preflight.facts import measure

    bars: list[Counter] = []

    def progress(done: int, total: int) -> None:
        if not bars:
            bars.append(counter(total, "init").__enter__())
        bars[0](done, 0)

    try:
        return measure(data, kind, progress)
    finally:
        for bar in bars:
            bar.__exit__(None, None, None)

"""What a command says about the data it was given: the layout it recognised, and the annotations that were left out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from apex_runtime.data.dataset import DatasetType, InstanceDataset
from apex_runtime.data.findings import shown
from apex_runtime.data.open import recognise, split_names
from apex_runtime.model_info import ModelInfo


def choose_type(data: Path, asked: DatasetType | None) -> DatasetType:
    """The layout the user named, else the recognised one, which is said with its reason on standard error."""
    if asked is not None:
        return asked
    found = recognise(data)
    click.echo(str(found), err=True)
    return found.kind


def default_split(data: Path, kind: DatasetType) -> str:
    """test; or the only split of a file that is given by itself."""
    names = split_names(data, kind) if data.is_file() else []
    return names[0] if len(names) == 1 else "test"


def say_unknown_classes(info: ModelInfo, dataset: InstanceDataset) -> None:
    """One line, on standard error, when the data has classes that the model does not: their objects count as missed."""
    known = {category.name for category in info.classes}
    unknown = [category.name for category in dataset.categories if category.name not in known]
    if unknown and len(unknown) < len(dataset.categories):
        click.echo(f"classes of the data that the model does not know: {shown(unknown)}; their objects count as missed", err=True)


def say_left_out(*splits: InstanceDataset | None) -> None:
    """One line per split, on standard error, when annotations were left out of it; silence otherwise."""
    for dataset in splits:
        if dataset is None:
            continue
        left_out = Counter(finding.fault for finding in dataset.findings if finding.fault.is_error)
        if left_out:
            counts = ", ".join(f"{count} {fault}" for fault, count in left_out.items())
            click.echo(f"{dataset.split}: annotations left out: {counts}; `apex-train preflight` names them", err=True)

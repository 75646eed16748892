"""What the measuring programs share about their data: the size, which images, and an image as the training loss sees it.

The pixels are those that the engine gets (``letterbox_image``), so that a truth measured with the loss is one of that picture.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click
import numpy as np

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.errors import UsageError
from apex_runtime.image_size import parse_size
from apex_runtime.model_info import Category
from apex_runtime.postprocess.letterbox import Letterbox, letterbox_image
from apex_train.data.geometry import scaling
from apex_train.data.loader import Batch, collate
from apex_train.data.place import place
from apex_train.data.sample import read_sample
from apex_train.model.detector import ApexDetector


def read_size(_ctx: click.Context, _parameter: click.Parameter, value: str) -> tuple[int, int]:
    """Callback of ``--size``: one side or HEIGHTxWIDTH, in pixels."""
    try:
        return parse_size(value)
    except UsageError as error:
        raise click.BadParameter(str(error)) from error


def spread(candidates: list[int], wanted: int | None) -> list[int]:
    """At most ``wanted`` of the candidates, evenly over the list; all when None."""
    count = len(candidates) if wanted is None else min(wanted, len(candidates))
    return [candidates[int(place)] for place in np.linspace(0, len(candidates) - 1, count)]


def kinds_of(truth: dict[str, Any]) -> tuple[str, ...]:
    """The kinds of overlap that a COCO document can be measured by: boxes, and masks where it has any."""
    return ("bbox", "segm") if any("segmentation" in entry for entry in truth["annotations"]) else ("bbox",)


def with_objects(dataset: InstanceDataset) -> list[int]:
    """Positions of the images that have at least one object; a crowd is none."""
    return [index for index in range(len(dataset)) if (~dataset.instances(index).crowd).any()]


def letterboxed(dataset: InstanceDataset, index: int, size: tuple[int, int]) -> tuple[Batch, Letterbox]:
    """Image ``index`` as a batch of one, its objects scaled with it, at ``size`` (height, width) pixels."""
    sample = read_sample(dataset, index)
    canvas, box = letterbox_image(sample.image, *size)
    vertical, horizontal = box.scales
    placed = place(sample, scaling(horizontal, vertical), size, keep_visible=0.0)
    return collate([replace(placed, image=canvas)]), box


def one_level(model: ApexDetector) -> ApexDetector:
    """``model``, if its tiles have one level. Raises UsageError: truth and choices are compared on one grid."""
    if model.config.depth > 1:
        raise UsageError(f"a model of depth {model.config.depth} cannot be measured here.", "Measure one of depth 1.")
    return model


def same_classes(classes: tuple[Category, ...], dataset: InstanceDataset) -> None:
    """Raises UsageError unless a label of the model means the same in the data: the training loss compares labels, not names."""
    names, theirs = ([category.name for category in each] for each in (classes, dataset.categories))
    if names != theirs:
        raise UsageError(
            f"{dataset.source}: its classes ({', '.join(theirs[:5])}) are not those of the checkpoint ({', '.join(names[:5])}).",
            "Measure on the kind of data the checkpoint was trained on.",
            path=dataset.source,
        )

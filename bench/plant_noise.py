"""A data set with known errors in the labels of one split: missing, shifted, of a wrong class, spurious.

    python bench/plant_noise.py ../shared/data/nuclei-dsb2018 --missing 0.07 --shifted 0.07 --spurious 0.06 -o noisy/

OUT is a COCO data set; its images are links, all other splits are as they were. ``OUT/planted.json`` is the record of what was
changed, which ``apex-train label-quality --truth`` reads. The same arguments give the same files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click
import cv2
import numpy as np

from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.open import open_dataset, split_names
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.errors import ApexError, UsageError
from apex_runtime.files import write_atomically
from apex_runtime.pipeline.results import write_json
from apex_runtime.postprocess.rle import roi_to_rle
from apex_train.labels.document import annotations_of
from apex_train.labels.planted import Kind, Planted, Record, Truth

KINDS: tuple[Kind, ...] = get_args(Kind)
RECORD = "planted.json"
_TURNS = 8  # directions that are tried until enough of a moved object is in the image
_VISIBLE = 0.6  # share of it that must be


@dataclass(frozen=True)
class Noise:
    """``rates``: wrong annotations of each kind, as shares of the objects. ``shift``: least and largest distance that a shifted
    one is moved, as shares of its sides; ``jitter``: largest factor by which its sides grow or shrink."""

    rates: Mapping[Kind, float]
    shift: tuple[float, float] = (0.3, 0.7)
    jitter: float = 1.25


@dataclass(frozen=True, eq=False)
class Item:
    """One object: its COCO annotation, its mask if any, and the size (height, width) of its image."""

    entry: dict[str, Any]
    mask: RoiMask | None
    size: tuple[int, int]

    @property
    def truth(self) -> Truth:
        """What it was, for the record."""
        segmentation = None if self.mask is None else roi_to_rle(self.mask, *self.size)
        return Truth(category_id=self.entry["category_id"], bbox=tuple(self.entry["bbox"]), segmentation=segmentation)


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--split", default="train", show_default=True)
@click.option("--missing", type=click.FloatRange(0, 1), default=0.0, help="Share of the objects whose annotation is left out.")
@click.option("--shifted", type=click.FloatRange(0, 1), default=0.0, help="Share that is moved and scaled.")
@click.option("--wrong-class", type=click.FloatRange(0, 1), default=0.0, help="Share that gets another class.")
@click.option("--spurious", type=click.FloatRange(0, 1), default=0.0, help="Annotations of nothing, as a share of the objects.")
@click.option("--shift", type=float, nargs=2, default=(0.3, 0.7), show_default=True, help="Distance, shares of the sides.")
@click.option("--jitter", type=click.FloatRange(min=1), default=1.25, show_default=True, help="Largest factor on the sides.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--output", "-o", required=True, type=click.Path(path_type=Path))
def main(data: Path, split: str, shift: tuple[float, float], jitter: float, seed: int, output: Path, **rates: float) -> None:
    """Write OUTPUT, a copy of DATA with errors in SPLIT."""
    noise = Noise({kind: rates[kind.replace("-", "_")] for kind in KINDS}, shift, jitter)
    try:
        record = plant(data, split, noise, seed, output)
    except ApexError as error:
        raise click.ClickException(str(error)) from error
    counts = {kind: sum(each.kind == kind for each in record.planted) for kind in KINDS}
    click.echo(f"{record.objects} objects; planted: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))


def plant(data: Path, split: str, noise: Noise, seed: int, output: Path) -> Record:
    """Write the noisy data set and its record. Raises UsageError, DataError."""
    dataset = open_dataset(data, split)
    _check(dataset, data, noise, output)
    _link_images(dataset, output / "images" / split)
    for name in split_names(data, dataset.kind):
        if name != split:
            other = open_dataset(data, name)
            _link_images(other, output / "images" / name)
            write_json(output / "annotations" / f"{name}.json", other.ground_truth())
    rng = np.random.default_rng(seed)
    document, planted = noisy_document(dataset, noise, rng)
    file = output / "annotations" / f"{split}.json"
    write_json(file, document)
    record = Record(
        split=split,
        seed=seed,
        rates=dict(noise.rates),
        objects=len(_items(dataset)),
        source=dataset.fingerprint(),
        annotations_sha256=sha256_of(file),
        planted=tuple(planted),
    )
    write_atomically(output / RECORD, record.model_dump_json(indent=1).encode())
    return record


def _check(dataset: InstanceDataset, data: Path, noise: Noise, output: Path) -> None:
    """Raises UsageError for noise that cannot be planted, and for an output that would take the place of the data."""
    if any(output.resolve() in file.resolve().parents for file in dataset.annotation_files()):
        raise UsageError(f"--output {output}: holds {data}, which would be written over.", "Name another folder.", path=output)
    if sum(rate for kind, rate in noise.rates.items() if kind != "spurious") > 1:
        raise UsageError(
            "--missing, --shifted, --wrong-class: together above 1.", "An annotation is wrong in one way: lower them."
        )
    if noise.rates.get("wrong-class") and len(dataset.categories) < 2:
        raise UsageError(
            f"--wrong-class: {data} has one class, {dataset.categories[0].name}.",
            "Plant --spurious objects instead, or choose other data.",
        )


def _link_images(dataset: InstanceDataset, folder: Path) -> None:
    for record in dataset.records:
        link = folder / record.file_name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        os.symlink(record.path.resolve(), link)


def noisy_document(dataset: InstanceDataset, noise: Noise, rng: np.random.Generator) -> tuple[dict[str, Any], list[Planted]]:
    """The COCO document of the split with errors, and which they are. Crowds stay as they are."""
    items = _items(dataset)
    chosen = draw_kinds(len(items), noise.rates, rng)
    known = [category.id for category in dataset.categories]
    changed: dict[int, dict[str, Any] | None] = {}
    planted = []
    for item, kind in zip(items, chosen, strict=True):
        if kind:
            changed[item.entry["id"]] = _wrong(item, kind, noise, known, rng)
            planted.append(Planted(id=item.entry["id"], image_id=item.entry["image_id"], kind=kind, before=item.truth))
    whole = dataset.ground_truth()
    kept = [changed.get(entry["id"], entry) for entry in whole["annotations"]]
    annotations = [entry for entry in kept if entry is not None]
    first = 1 + max((entry["id"] for entry in whole["annotations"]), default=0)
    for number in range(_count(noise.rates.get("spurious", 0.0), len(items))):
        annotations.append(_spurious(items, dataset, first + number, rng))
        planted.append(Planted(id=first + number, image_id=annotations[-1]["image_id"], kind="spurious"))
    return {**whole, "annotations": annotations}, planted


def _items(dataset: InstanceDataset) -> list[Item]:
    entries, items = annotations_of(dataset), []
    for place, record in enumerate(dataset.records):
        masks = dataset.instances(place).masks
        for entry, mask in zip(entries[record.image_id], masks, strict=True):
            if not entry.get("iscrowd"):
                items.append(Item(entry, mask, (record.height, record.width)))
    return items


def draw_kinds(objects: int, rates: Mapping[Kind, float], rng: np.random.Generator) -> list[Kind | None]:
    """Which error each object gets: of every kind its rate times the objects, rounded down or up, no object two."""
    kinds: list[Kind | None] = [None] * objects
    order = rng.permutation(objects).tolist()
    end = 0.0
    for kind in ("missing", "shifted", "wrong-class"):
        start, end = end, min(float(objects), end + rates.get(kind, 0.0) * objects)  # type: ignore[call-overload]
        for place in order[round(start) : round(end)]:
            kinds[place] = kind  # type: ignore[call-overload]
    return kinds


def _count(rate: float, objects: int) -> int:
    return round(rate * objects)


def _wrong(item: Item, kind: Kind, noise: Noise, known: list[int], rng: np.random.Generator) -> dict[str, Any] | None:
    """The annotation with its error; None of a missing one."""
    if kind == "missing":
        return None
    if kind == "wrong-class":
        others = [category for category in known if category != item.entry["category_id"]]
        return item.entry | {"category_id": others[int(rng.integers(len(others)))]}
    return _shifted(item, noise, rng)


def _shifted(item: Item, noise: Noise, rng: np.random.Generator) -> dict[str, Any]:
    """Moved by a drawn share of its sides in a drawn direction, and scaled; turned until enough of it is in the image, else the
    direction that leaves most of it."""
    x, y, width, height = item.entry["bbox"]
    distance, angle = rng.uniform(*noise.shift), rng.uniform(0, 2 * np.pi)
    scale = np.exp(rng.uniform(-np.log(noise.jitter), np.log(noise.jitter), 2))
    sides = np.maximum(1, np.array([width, height]) * scale)
    middle = np.array([x + width / 2, y + height / 2])
    best: tuple[float, tuple[float, float, float, float]] | None = None
    for turn in range(_TURNS):
        at = angle + 2 * np.pi * turn / _TURNS
        moved = middle + distance * np.array([width, height]) * (np.cos(at), np.sin(at))
        box = (*(moved - sides / 2), *sides)
        seen = _share_inside(box, item.size)
        if best is None or seen > best[0]:
            best = seen, box
        if seen >= _VISIBLE:
            break
    assert best is not None
    return _placed(item.entry, item.mask, best[1], item.size)


def _share_inside(box: tuple[float, ...], size: tuple[int, int]) -> float:
    """Of the area of a box [x, y, width, height]."""
    x, y, width, height = box
    inside = max(0.0, min(x + width, size[1]) - max(x, 0)) * max(0.0, min(y + height, size[0]) - max(y, 0))
    return inside / (width * height)


def _spurious(items: list[Item], dataset: InstanceDataset, identity: int, rng: np.random.Generator) -> dict[str, Any]:
    """The shape and class of a drawn object at a drawn place of a drawn image. It may happen to lie on an object."""
    model = items[int(rng.integers(len(items)))]
    record = dataset.records[int(rng.integers(len(dataset)))]
    sides = np.minimum(model.entry["bbox"][2:], (record.width, record.height))
    corner = rng.uniform(0, np.array([record.width, record.height]) - sides + 1e-9)
    entry = {"id": identity, "image_id": record.image_id, "category_id": model.entry["category_id"], "iscrowd": 0}
    return _placed(entry, model.mask, (*corner, *sides), (record.height, record.width))


def _placed(
    entry: Mapping[str, Any], mask: RoiMask | None, box: tuple[float, float, float, float], size: tuple[int, int]
) -> dict[str, Any]:
    """The annotation with its shape drawn into ``box``, [x, y, width, height], cut off at the rim of the image."""
    if mask is not None:
        bits = _drawn(mask, box, size)
        if bits.any():
            rows, columns = (np.flatnonzero(bits.any(axis=axis)) for axis in (1, 0))
            top, left = int(rows[0]), int(columns[0])
            cut = RoiMask(left, top, bits[top : rows[-1] + 1, left : columns[-1] + 1])
            bbox = [float(left), float(top), float(cut.bits.shape[1]), float(cut.bits.shape[0])]
            return {**entry, "bbox": bbox, "area": float(cut.area), "segmentation": roi_to_rle(cut, *size)}
    x1, y1 = max(0.0, box[0]), max(0.0, box[1])
    x2, y2 = min(size[1], box[0] + box[2]), min(size[0], box[1] + box[3])
    bbox = [round(float(value), 2) for value in (x1, y1, x2 - x1, y2 - y1)]
    found = {key: value for key, value in entry.items() if key != "segmentation"}
    return {**found, "bbox": bbox, "area": bbox[2] * bbox[3]}


def _drawn(mask: RoiMask, box: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
    """uint8 [height,width]: the mask stretched into the box."""
    x, y = round(box[0]), round(box[1])
    sides = max(1, round(box[2])), max(1, round(box[3]))
    return RoiMask(x, y, cv2.resize(mask.bits, sides, interpolation=cv2.INTER_NEAREST)).full(*size)


if __name__ == "__main__":
    main()

"""How many objects are lost when a mask replaces polygons: regions of masks/ against the polygons of annotations/.

    python bench/components_against_polygons.py ../shared/data/satellite-banepa [--output FILE]

Buildings that touch are one region of a mask. For every annotated object the region that covers most of its pixels is looked up:

* ``one_to_one``: a region covers half of the object or more and half of no other one, at an IoU >= 0.5;
* ``merged``: the region covers half of the object or more, and half of another one, too (``merged_iou50``: of these, at an IoU
  >= 0.5 all the same: a large roof that swallowed a small one);
* ``lost``: no region covers half of the object (regions under ``min_area`` pixels, 64, are no instances);
* ``other``: covered by a region that holds no second object, at an IoU below 0.5.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path

import click
import numpy as np
from evidence import write_evidence

from apex_runtime.data.dataset import InstanceDataset, Instances
from apex_runtime.data.open import open_dataset, split_names
from apex_runtime.data.roi_mask import RoiMask

COLUMNS = ("polygons", "regions", "one_to_one", "merged", "merged_iou50", "lost", "other", "regions_of_several", "largest_group")


def overlap(a: RoiMask, b: RoiMask) -> int:
    """Pixels that two masks share."""
    left, top = max(a.x, b.x), max(a.y, b.y)
    right, bottom = (
        min(m + n for m, n in sides)
        for sides in (
            ((a.x, a.bits.shape[1]), (b.x, b.bits.shape[1])),
            ((a.y, a.bits.shape[0]), (b.y, b.bits.shape[0])),
        )
    )
    if right <= left or bottom <= top:
        return 0
    pieces = (mask.bits[top - mask.y : bottom - mask.y, left - mask.x : right - mask.x] for mask in (a, b))
    return int(np.count_nonzero(np.logical_and(*pieces)))


def compare(polygons: Instances, regions: Instances) -> Counter[str]:
    """The counts of one image."""
    shared = np.array([[overlap(p, r) if p and r else 0 for r in regions.masks] for p in polygons.masks], float)
    shared = shared.reshape(len(polygons), len(regions))
    own = np.array([mask.area if mask else 0 for mask in polygons.masks], float)
    covered = shared >= np.maximum(own[:, None] / 2, 1)
    iou = shared / np.maximum(own[:, None] + regions.areas[None, :] - shared, 1)
    members = covered.sum(axis=0)
    counts = Counter(polygons=len(polygons), regions=len(regions), regions_of_several=int((members > 1).sum()))
    for n in range(len(polygons)):
        if not covered[n].any():
            counts["lost"] += 1
        elif members[covered[n]].max() > 1:
            counts["merged"] += 1
            counts["merged_iou50"] += bool(iou[n].max() >= 0.5)
        elif iou[n].max() >= 0.5:
            counts["one_to_one"] += 1
        else:
            counts["other"] += 1
    counts["largest_group"] = int(members.max(initial=0))
    return counts


def of_split(polygons: InstanceDataset, regions: InstanceDataset) -> Counter[str]:
    """The counts of one split; ``largest_group`` is the largest of any image."""
    place = {Path(record.file_name).stem: n for n, record in enumerate(regions.records)}
    total: Counter[str] = Counter()
    for n, record in enumerate(polygons.records):
        found = compare(polygons.instances(n), regions.instances(place[Path(record.file_name).stem]))
        largest = max(total["largest_group"], found.pop("largest_group"))
        total += found
        total["largest_group"] = largest
    return total


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--output", type=click.Path(path_type=Path))
def main(data: Path, output: Path | None) -> None:
    """Print the table; write the counts as JSON where asked."""
    with tempfile.TemporaryDirectory() as folder:
        masks = Path(folder) / "satellite.yaml"
        masks.write_text(json.dumps({"path": str(data.resolve()), "source": "masks"}))
        rows = {
            name: of_split(open_dataset(data, name, "coco"), open_dataset(masks, name, "satellite"))
            for name in split_names(data, "coco")
        }
    total = sum(rows.values(), Counter())
    rows["total"] = total
    total["largest_group"] = max(row["largest_group"] for name, row in rows.items() if name != "total")
    print("| split | " + " | ".join(name.replace("_", " ") for name in COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(str(row[column]) for column in COLUMNS) + " |")
    if output:
        counts = {name: {column: row[column] for column in COLUMNS} for name, row in rows.items()}
        write_evidence(output, {"data": data.name, "splits": counts})


if __name__ == "__main__":
    main()

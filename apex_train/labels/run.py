"""From a labelled split and a model to what is thought of each label: the COCO file and the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.errors import UsageError
from apex_runtime.evaluation.coco_ap import shared_classes
from apex_runtime.pipeline.predictor import Predictor
from apex_train.labels.against_record import against_record
from apex_train.labels.agreement import Agreement, agree
from apex_train.labels.document import annotations_of, weighted_document
from apex_train.labels.planted import Record
from apex_train.pseudo.against_truth import has_masks, labels_in_truth

FORMAT_VERSION = 1
_ALL_TILES = 1.0  # a label is judged once and learned from often: nothing is saved on it
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_SHOWN = 200  # least believed annotations in the report
_DIGITS = 4


@dataclass(frozen=True)
class Limits:
    """``score``: the least of a detection that may speak for a label; ``unlabelled``: the least of one that needs none;
    ``regions``: whether the latter become crowd regions. Raises UsageError when ``unlabelled`` is below ``score``."""

    score: float
    unlabelled: float
    regions: bool

    def __post_init__(self) -> None:
        if self.unlabelled < self.score:
            message = f"--unlabelled-score {self.unlabelled}: below --min-score {self.score}."
            raise UsageError(message, "What is too unsure to speak for a label needs one itself: raise it.")


class LabelJudge:
    """Judges the labels of a split, image after image. ``model`` says which model it is. Raises DataError when no class is
    shared."""

    def __init__(self, predictor: Predictor, dataset: InstanceDataset, limits: Limits, model: Mapping[str, Any]) -> None:
        self._predictor, self._dataset, self._limits, self._model = predictor, dataset, limits, model
        classes = predictor.info.classes
        self._id_of = shared_classes(classes, dataset, "the model")
        self._label_of = labels_in_truth(classes, dataset)
        self._names = [each.name for each in classes if each.id in self._id_of]
        self._by_mask = has_masks(dataset)
        self._judged: list[Agreement] = []

    def run(self, on_image: Callable[[int, int], None]) -> None:
        """Look at every image. Raises what the data set's readers raise."""
        limit, sure = self._limits.score, self._limits.unlabelled
        for place in range(len(self._dataset)):
            image_hw3 = self._dataset.read_image(place)
            (found,) = self._predictor.predict([image_hw3], _ALL_TILES, limit, classes=self._names)
            self._judged.append(agree(found, self._dataset.instances(place), self._label_of, self._by_mask, sure))
            on_image(place + 1, 0)

    def document(self) -> dict[str, Any]:
        """The COCO file."""
        shape = "masks" if self._by_mask else "boxes"
        regions = shape if self._limits.regions else "none"
        return weighted_document(self._dataset, self._judged, self._id_of, self._provenance(), regions)  # type: ignore[arg-type]

    def report(self, record: Record | None) -> dict[str, Any]:
        """What is thought of the labels, and with the record of planted noise how right that is; label-quality.schema.json."""
        quality_n = np.concatenate([np.zeros(0), *(found.quality for found in self._judged)])
        known = quality_n[~np.isnan(quality_n)]
        levels = np.quantile(known, _QUANTILES).tolist() if len(known) else []
        return {
            "format_version": FORMAT_VERSION,
            "kind": "label-quality",
            "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            **self._provenance(),
            "overlap": "mask" if self._by_mask else "box",
            "annotations": len(known),
            "quantiles": [{"share": share, "quality": round(q, _DIGITS)} for share, q in zip(_QUANTILES, levels, strict=False)],
            "unlabelled": sum(len(found.unlabelled) for found in self._judged),
            "images": self._images(),
            "least": self._least(),
            "truth": None if record is None else against_record(self._dataset, self._judged, record, self._by_mask),
        }

    def _provenance(self) -> dict[str, Any]:
        data = self._dataset
        return {
            "model": dict(self._model),
            "data": {"split": data.split, "images": len(data), "fingerprint": data.fingerprint()},
            "limits": asdict(self._limits),
        }

    def _images(self) -> list[dict[str, Any]]:
        """All images, the least believed first; those without annotations last."""
        rows = [
            {
                "file_name": record.file_name,
                "image_id": record.image_id,
                "agreement": None if (mean := found.mean) is None else round(mean, _DIGITS),
                "annotations": int((~np.isnan(found.quality)).sum()),
                "unlabelled": len(found.unlabelled),
            }
            for record, found in zip(self._dataset.records, self._judged, strict=True)
        ]
        return sorted(rows, key=lambda row: (row["agreement"] is None, row["agreement"]))

    def _least(self) -> list[dict[str, Any]]:
        entries = annotations_of(self._dataset)
        rows = [
            {"file_name": record.file_name, "annotation": entry["id"], "quality": round(value, _DIGITS), "box": entry["bbox"]}
            for record, found in zip(self._dataset.records, self._judged, strict=True)
            for entry, value in zip(entries[record.image_id], found.quality.tolist(), strict=True)
            if not entry.get("iscrowd")
        ]
        return sorted(rows, key=lambda row: row["quality"])[:_SHOWN]

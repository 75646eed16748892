"""From images to a COCO file of pseudo labels and the report on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from apex_runtime.bundle.hashing import sha256_of
from apex_runtime.bundle.load import Opened
from apex_runtime.errors import ImageError
from apex_runtime.evaluation.coco_ap import shared_classes
from apex_runtime.pipeline.predictor import Predictor
from apex_runtime.pipeline.results import Failure
from apex_train.pseudo.against_truth import Tally, has_masks, labels_in_truth
from apex_train.pseudo.choose import STEPS, Judged, Limits
from apex_train.pseudo.document import Labelled, coco_document, labelled, provenance
from apex_train.pseudo.judge import judge
from apex_train.pseudo.pictures import Item, Pictures
from apex_train.pseudo.views import View

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Choice:
    """How labels are chosen; ``keep_unsure``: what is not sure enough is passed over by a training, not taught as background."""

    limits: Limits
    views: tuple[View, ...]
    keep_unsure: bool
    calibration: Mapping[str, Any] | None = None  # on which split the limits were chosen, and how right they are there


class Labelling:
    """Labels image after image. ``model`` says which model it is, for the file. Raises DataError when no class is shared."""

    def __init__(self, predictor: Predictor, pictures: Pictures, choice: Choice, model: Mapping[str, Any]) -> None:
        self._predictor, self._pictures, self._choice, self._model = predictor, pictures, choice, model
        classes, data = predictor.info.classes, pictures.dataset
        same = {category.id: category.id for category in classes}
        self._id_of = same if data is None else shared_classes(classes, data, "the model")
        self._classes = [category.name for category in classes if category.id in self._id_of]
        self._tally = self._new_tally() if pictures.annotated else None
        self._done: list[Labelled] = []
        self._passed_S = np.zeros(len(STEPS), np.int64)
        self._candidates = 0
        self.failures: list[Failure] = []

    def _new_tally(self) -> Tally:
        data = self._pictures.dataset
        assert data is not None
        return Tally(self._choice.limits, labels_in_truth(self._predictor.info.classes, data), has_masks(data))

    def run(self, on_image: Callable[[int, int], None]) -> None:
        """Label every image; one that cannot be read is noted and left out. ``on_image`` is told how many are done and failed."""
        for item in self._pictures.items:
            try:
                image_hw3 = self._pictures.read(item)
            except ImageError as error:
                self.failures.append(Failure.of(item.file_name, error))
            else:
                self._label(item, self._judge(image_hw3))
            on_image(len(self._done), len(self.failures))

    def _judge(self, image_hw3: np.ndarray) -> Judged:
        return judge(self._predictor, image_hw3, self._choice.limits, self._choice.views, self._classes)

    def _label(self, item: Item, judged: Judged) -> None:
        limits, keep = self._choice.limits, self._choice.keep_unsure
        self._done.append(
            labelled(judged, limits, item.image_id, item.file_name, sha256_of(item.path), self._id_of, keep_unsure=keep)
        )
        self._candidates += len(judged.found)
        self._passed_S += judged.passed(limits).sum(axis=1)
        if self._tally is not None:
            self._tally.add(judged, self._pictures.truth(item))

    def document(self) -> dict[str, Any]:
        """The COCO file."""
        categories = self._pictures.categories(self._predictor.info.classes)
        return coco_document(self._done, categories, self._provenance(), _now())

    def report(self) -> dict[str, Any]:
        """What was kept at each step, per class, and how right it is; its schema is pseudo-label.schema.json."""
        names = {each.id: each.name for each in self._pictures.categories(self._predictor.info.classes)}
        kept = [entry for item in self._done for entry in item.annotations if not entry["iscrowd"]]
        return {
            "format_version": FORMAT_VERSION,
            "kind": "pseudo-label",
            "created_utc": _now(),
            **self._provenance(),
            "images": {
                "labelled": sum(item.kept > 0 for item in self._done),
                "empty": sum(item.kept == 0 for item in self._done),
                "failed": len(self.failures),
            },
            "candidates": self._candidates,
            "steps": self._steps(),
            "labels": len(kept),
            "unsure": sum(item.unsure for item in self._done),
            "classes": _classes(names, kept),
            "truth": None if self._tally is None else self._tally.report(),
            "failures": [asdict(failure) for failure in self.failures],
        }

    def _provenance(self) -> dict[str, Any]:
        choice = self._choice
        return provenance(self._model, choice.limits, choice.calibration, choice.views, choice.keep_unsure)

    def _steps(self) -> list[dict[str, Any]]:
        left = zip(STEPS, self._passed_S.tolist(), strict=True)
        return [{"step": step, "limit": getattr(self._choice.limits, step), "left": count} for step, count in left]


def model_facts(opened: Opened) -> dict[str, Any]:
    """Which model it is, for ``Labelling``."""
    info = opened.session.info
    return {
        "sha256": opened.digest,
        "checkpoint_sha256": info.checkpoint_sha256,
        "backend": opened.executed,
        "input": [info.input.height, info.input.width],
    }


def _classes(names: Mapping[int, str], kept: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    counts = Counter(entry["category_id"] for entry in kept)
    return [{"category_id": category, "name": name, "labels": counts[category]} for category, name in names.items()]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

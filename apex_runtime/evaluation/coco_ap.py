"""COCO average precision and recall of results, and of a predictor on a data set (https://cocodataset.org/#detection-eval).

Figures are fractions; -1 where there is nothing to measure (no object of that size), as in pycocotools. A mean is over the
classes that have such objects: a class without any enters no mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.detections import Detections
from apex_runtime.errors import DataError
from apex_runtime.evaluation.results import detections_to_results
from apex_runtime.model_info import Category, InputInfo

if TYPE_CHECKING:
    from apex_runtime.evaluation.coco_matching import Backend, CocoEvaluation
    from apex_runtime.routing.budget import Budget

IOU_TYPES = ("bbox", "segm")
_LIMITS = (100, 500, 1000, 3000)  # 100 is COCO's own
_AREAS = {"s": 1, "m": 2, "l": 3}  # position in the evaluator's list of area ranges


class PredictorInfo(Protocol):
    """What an evaluation must know of a model: a ``ModelInfo`` says it, and so does what is not ours (``yardsticks``)."""

    @property
    def classes(self) -> tuple[Category, ...]:
        """By label."""
        ...

    @property
    def input(self) -> InputInfo:
        """The size that images are brought to."""
        ...


class ImagePredictor(Protocol):
    """What is evaluated: anything that turns images into detections under a budget."""

    @property
    def info(self) -> PredictorInfo:
        """Classes and input."""
        ...

    def predict(
        self,
        images: list[np.ndarray],
        budget: Budget | int | float | str = 1.0,
        min_score: float = 0.001,
        max_detections: int | None = None,
    ) -> list[Detections]:
        """Detections of each image, uint8 [h,w,3] RGB."""
        ...


def evaluate_coco(
    ground_truth: dict[str, Any],
    results: Sequence[dict[str, Any]],
    iou_types: Sequence[str] = IOU_TYPES,
    max_detections: int | None = None,
    image_ids: Iterable[int] | None = None,
    backend: Backend | None = None,
) -> dict[str, float]:
    """COCO's twelve figures per kind of overlap x = bbox or segm: mAP_x, AP50_x, AP75_x, APs_x, APm_x, APl_x, AR1_x, ... ARl_x.

    ``ground_truth`` is a COCO document, ``results`` COCO results; at most ``max_detections`` count per image and class
    (``detection_limit`` when None). ``image_ids`` restricts to some images; ``backend`` None takes the fastest installed. Raises
    DataError when the results do not fit.
    """
    from apex_runtime.evaluation.coco_matching import run_coco_eval

    limit = max_detections or detection_limit(ground_truth)
    chosen = None if image_ids is None else list(image_ids)
    figures: dict[str, float] = {}
    for iou_type in iou_types:
        figures |= summarise(run_coco_eval(ground_truth, results, iou_type, limit, chosen, backend))
    return figures


def summarise(evaluation: CocoEvaluation) -> dict[str, float]:
    """The twelve figures. AR1 and AR10 count the best 1 and 10 detections of an image and class, all others the largest limit.

    ARmax is therefore COCO's AR100 where that limit is 100, as APs to ARl are COCO's there. (pycocotools' own summary reads mAP
    at 100 detections whatever was asked for, so its tables are read here.)
    """
    precision, recall, kind = evaluation.precision_TRKAM, evaluation.recall_TKAM, evaluation.iou_type
    at = {name: np.isclose(evaluation.thresholds, value) for name, value in (("AP50", 0.5), ("AP75", 0.75))}
    figures = {"mAP": _mean(precision[..., 0, -1])} | {name: _mean(precision[rows][..., 0, -1]) for name, rows in at.items()}
    figures |= {f"AP{letter}": _mean(precision[..., area, -1]) for letter, area in _AREAS.items()}
    figures |= {f"AR{name}": _mean(recall[..., 0, limit]) for limit, name in enumerate(("1", "10", "max"))}
    figures |= {f"AR{letter}": _mean(recall[..., area, -1]) for letter, area in _AREAS.items()}
    return {f"{name}_{kind}": value for name, value in figures.items()}


def per_class(evaluations: Sequence[CocoEvaluation], names: dict[int, str]) -> list[dict[str, Any]]:
    """A row per class, in the order of its id: category_id, name, objects (crowds do not count), and AP_x, AP50_x per kind.

    A figure is None for a class without objects.
    """
    first = evaluations[0]
    rows: list[dict[str, Any]] = [
        {"category_id": category, "name": names[category], "objects": int(first.objects_K[place])}
        for place, category in enumerate(first.category_ids)
    ]
    for evaluation in evaluations:
        half = np.isclose(evaluation.thresholds, 0.5)
        for place, row in enumerate(rows):
            table = evaluation.precision_TRKAM[:, :, place, 0, -1]
            row[f"AP_{evaluation.iou_type}"] = _defined(_mean(table))
            row[f"AP50_{evaluation.iou_type}"] = _defined(_mean(table[half]))
    return rows


def _mean(table: np.ndarray) -> float:
    """The mean of what is defined; -1 when nothing is."""
    defined = table[table > -1]
    return float(defined.mean()) if defined.size else -1.0


def _defined(value: float) -> float | None:
    return None if value < 0 else value


def detection_limit(ground_truth: dict[str, Any]) -> int:
    """The number of detections that count per image: COCO's 100, or the next of 500, 1000, 3000 that holds the fullest image."""
    fullest = max(Counter(entry["image_id"] for entry in ground_truth["annotations"]).values(), default=0)
    return next((limit for limit in _LIMITS if limit >= fullest), fullest)


def predict_results(
    predictor: ImagePredictor,
    dataset: InstanceDataset,
    budget: Budget | int | float | str,
    *,
    min_score: float = 0.001,
    max_detections: int | None = None,
    batch: int = 8,
    indices: Sequence[int] | None = None,
    on_images: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """COCO results of a predictor on a data set; ``on_images`` is told how many images are done after each batch.

    ``indices`` are the positions of the images to predict, in this order; None for all. (Several processes that share the work
    each predict their part and score the sum of the lists.) A class of the model is found in the data set by its name; those it
    lacks are left out. Raises DataError when it lacks all.
    """
    id_of = shared_classes(predictor.info.classes, dataset, "the model")
    chosen = range(len(dataset)) if indices is None else indices
    results: list[dict[str, Any]] = []
    for start in range(0, len(chosen), batch):
        part = chosen[start : start + batch]
        images = [dataset.read_image(index) for index in part]
        found = predictor.predict(images, budget, min_score=min_score, max_detections=max_detections)
        for index, detections in zip(part, found, strict=True):
            entries = detections_to_results(detections, dataset.records[index].image_id)
            results += [e | {"category_id": id_of[e["category_id"]]} for e in entries if e["category_id"] in id_of]
        if on_images is not None:
            on_images(start + len(part))
    return results


def shared_classes(classes: Iterable[Category], dataset: InstanceDataset, whose: str) -> dict[int, int]:
    """The data set's category id of each category id of a model, or a file, that has one of the same name.

    Raises DataError when there is none; ``whose`` is what the message calls the other side.
    """
    theirs = list(classes)
    names = {category.name: category.id for category in dataset.categories}
    shared = {category.id: names[category.name] for category in theirs if category.name in names}
    if not shared:
        known = ", ".join(category.name for category in theirs[:5])
        raise DataError(
            f"{dataset.source}: none of its classes ({', '.join(list(names)[:5])}) is known to {whose} ({known}).",
            "Evaluate on the kind of data the model was trained for, or rename the categories.",
            path=dataset.source,
        )
    return shared


def evaluate_predictor(
    predictor: ImagePredictor,
    dataset: InstanceDataset,
    budget: Budget | int | float | str = 1.0,
    *,
    iou_types: Sequence[str] = IOU_TYPES,
    min_score: float = 0.001,
    max_detections: int | None = None,
    batch: int = 8,
) -> dict[str, float]:
    """``predict_results`` and ``evaluate_coco`` in one: the COCO figures of a predictor under a budget."""
    limit = max_detections or detection_limit(dataset.ground_truth())
    results = predict_results(predictor, dataset, budget, min_score=min_score, max_detections=limit, batch=batch)
    return evaluate_coco(dataset.ground_truth(), results, iou_types, limit)

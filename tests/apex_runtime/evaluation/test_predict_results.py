"""A predictor that knows the answers must get full marks, through the same path as a real one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.open import open_dataset
from apex_runtime.data.roi_mask import RoiMask
from apex_runtime.detections import Detections
from apex_runtime.errors import DataError
from apex_runtime.evaluation.coco_ap import evaluate_predictor, predict_results
from apex_runtime.model_info import ModelInfo
from apex_runtime.postprocess.letterbox import Letterbox

FIGURES = ("mAP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "ARmax", "ARs", "ARm", "ARl")


def info_of(*names: str) -> ModelInfo:
    return ModelInfo.model_validate(
        {
            "classes": [{"id": 40 + index, "name": name} for index, name in enumerate(names)],
            "input": {"height": 64, "width": 64},
            "preprocessing": {"mean": [0, 0, 0], "std": [1, 1, 1]},
            "tiles": {"tile": 32, "halo": 8, "rows": 2, "cols": 2},
            "mask": {"channels": 2},
            "max_detections": 500,
            "gflops": {"base": 1.0, "per_tile": 0.5},
            "model": {},
        }
    )


class Oracle:
    """Gives the instances of the data set image by image, as the class named ``kind``; knows other classes too."""

    def __init__(self, dataset: InstanceDataset, names: tuple[str, ...], kind: str, shift: int = 0) -> None:
        self.info = info_of(*names)
        self.label = names.index(kind)
        self.dataset, self.shift, self.seen = dataset, shift, 0
        self.calls: list[dict[str, Any]] = []

    def predict(
        self, images: list[np.ndarray], budget: Any = 1.0, min_score: float = 0.001, max_detections: int | None = None
    ) -> list[Detections]:
        self.calls.append({"images": len(images), "budget": budget, "min_score": min_score, "max_detections": max_detections})
        return [self._detect(image) for image in images]

    def _detect(self, image: np.ndarray) -> Detections:
        found = self.dataset.instances(self.seen)
        self.seen += 1
        count, height, width = len(found), *image.shape[:2]
        masks = [RoiMask(min(m.x + self.shift, width - m.bits.shape[1]), m.y, m.bits) for m in found.masks if m is not None]
        return Detections(
            boxes=found.boxes + np.array([self.shift, 0, self.shift, 0], np.float32),
            scores=np.linspace(0.9, 0.5, count, dtype=np.float32),
            labels=np.full(count, self.label),
            category_ids=np.full(count, 40 + self.label),
            masks=masks,
            tile_ids=np.zeros(1, np.int64),
            tile_levels=np.zeros(1, np.int64),
            n_content=4,
            letterbox=Letterbox(height, width, 64, 64),
        )


@pytest.fixture
def dataset(nuclei_fixture: Path) -> InstanceDataset:
    return open_dataset(nuclei_fixture, "val")


def test_the_answers_get_full_marks(dataset: InstanceDataset) -> None:
    oracle = Oracle(dataset, ("cell", "nucleus"), "nucleus")
    figures = evaluate_predictor(oracle, dataset, "25%", batch=2, min_score=0.01)
    assert figures["mAP_bbox"] == pytest.approx(1) and figures["mAP_segm"] == pytest.approx(1)
    assert [call["images"] for call in oracle.calls] == [2, 1]
    assert oracle.calls[0] | {"images": 0} == {"images": 0, "budget": "25%", "min_score": 0.01, "max_detections": 100}
    shifted = evaluate_predictor(Oracle(dataset, ("nucleus",), "nucleus", shift=3), dataset, iou_types=("segm",))
    assert set(shifted) == {f"{name}_segm" for name in FIGURES}
    assert shifted["AP75_segm"] < shifted["AP50_segm"] < 1


def test_results_are_coco_results_in_the_ids_of_the_data_set(dataset: InstanceDataset) -> None:
    done: list[int] = []
    results = predict_results(Oracle(dataset, ("nucleus",), "nucleus"), dataset, 1.0, batch=1, on_images=done.append)
    assert done == [1, 2, 3]
    truth = dataset.ground_truth()["annotations"]
    assert len(results) == len(truth)
    for entry, expected in zip(results[:5], truth[:5], strict=True):
        assert entry["category_id"] == 1 and entry["image_id"] == expected["image_id"]
        assert entry["bbox"] == pytest.approx(expected["bbox"])
        np.testing.assert_array_equal(coco_mask.decode(entry["segmentation"]), coco_mask.decode(expected["segmentation"]))


def test_the_parts_of_several_processes_are_the_whole(dataset: InstanceDataset) -> None:
    class ByPicture(Oracle):
        """Knows an image by its pixels, whatever the order of the calls."""

        def _detect(self, image: np.ndarray) -> Detections:
            self.seen = next(i for i in range(len(dataset)) if np.array_equal(dataset.read_image(i), image))
            return super()._detect(image)

    oracle, done = ByPicture(dataset, ("nucleus",), "nucleus"), list[int]()
    whole = predict_results(oracle, dataset, 1.0)
    parts = [predict_results(oracle, dataset, 1.0, indices=part, on_images=done.append) for part in ([2, 0], range(1, 3, 2), [])]
    assert done == [2, 1] and parts[2] == []
    assert list(dict.fromkeys(entry["image_id"] for entry in parts[0])) == [dataset.records[i].image_id for i in (2, 0)]
    assert sorted(parts[0] + parts[1], key=lambda entry: (entry["image_id"], -entry["score"])) == whole


def test_a_class_the_data_set_lacks_is_left_out_and_no_shared_class_is_an_error(dataset: InstanceDataset) -> None:
    assert predict_results(Oracle(dataset, ("nucleus", "yeast"), "yeast"), dataset, 1.0) == []
    with pytest.raises(DataError, match=r"\(nucleus\) is known to the model \(cat, dog\)"):
        predict_results(Oracle(dataset, ("cat", "dog"), "cat"), dataset, 1.0)

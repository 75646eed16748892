import numpy as np
import pytest

from apex_runtime.errors import BackendError
from apex_runtime.model_info import ModelInfo
from apex_runtime.postprocess.detections import detections_of_image
from apex_runtime.postprocess.letterbox import Letterbox

INFO = ModelInfo.model_validate(
    {
        "classes": [{"id": 3, "name": "cat"}, {"id": 17, "name": "dog"}],
        "input": {"height": 64, "width": 64},
        "preprocessing": {"mean": [0, 0, 0], "std": [1, 1, 1]},
        "tiles": {"tile": 32, "halo": 8, "rows": 2, "cols": 2},
        "mask": {"channels": 2},
        "max_detections": 4,
        "gflops": {"base": 1.0, "per_tile": 0.5},
        "model": {},
    }
)
LETTERBOX = Letterbox(32, 128, 64, 64)  # content 16 x 64: the upper two tiles


def outputs() -> dict[str, np.ndarray]:
    return {
        "boxes": np.array([[0, 0, 8, 8], [4, 4, 20, 12], [2, 20, 8, 30], [-5, -5, 100, 100]], np.float32),
        "scores": np.array([0.9, 0.5, 0.4, 0.1], np.float32),
        "labels": np.array([1, 0, 1, 0]),
        "mask_coefficients": np.ones((4, 2), np.float32),
        "mask_prototypes": np.ones((2, 16, 16), np.float32),
        "tile_ids": np.array([0, 1]),
        "tile_levels": np.array([0, 0]),
    }


def test_boxes_classes_masks_and_tiles() -> None:
    found = detections_of_image(outputs(), LETTERBOX, INFO)
    np.testing.assert_allclose(found.boxes, [[0, 0, 16, 16], [8, 8, 40, 24], [0, 0, 128, 32]])  # the third lies in the padding
    assert found.labels.tolist() == [1, 0, 0] and found.category_ids.tolist() == [17, 3, 3]
    assert [(m.x, m.y, *m.bits.shape) for m in found.masks] == [(0, 0, 16, 16), (8, 8, 16, 32), (0, 0, 32, 128)]
    assert all(mask.bits.all() for mask in found.masks)
    assert found.n_content == 2 and found.tile_ids.tolist() == [0, 1] and len(found) == 3


def test_filters() -> None:
    assert detections_of_image(outputs(), LETTERBOX, INFO, min_score=0.5).scores.tolist() == [np.float32(0.9), 0.5]
    assert detections_of_image(outputs(), LETTERBOX, INFO, labels={0}).labels.tolist() == [0, 0]
    assert len(detections_of_image(outputs(), LETTERBOX, INFO, max_detections=1)) == 1
    assert len(detections_of_image(outputs(), LETTERBOX, INFO, min_score=1.0)) == 0


@pytest.mark.parametrize("name", ["boxes", "scores", "mask_coefficients", "mask_prototypes"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite_is_an_error_that_names_the_output(name: str, value: float) -> None:
    raw = outputs()
    raw[name].flat[-1] = value
    with pytest.raises(BackendError, match=name) as caught:
        detections_of_image(raw, LETTERBOX, INFO)
    assert caught.value.code == "non_finite_output"


def test_an_unknown_label_is_an_error() -> None:
    raw = outputs()
    raw["labels"][2] = 2
    with pytest.raises(BackendError, match="labels"):
        detections_of_image(raw, LETTERBOX, INFO)


def test_empty_places_behind_nms() -> None:
    raw = outputs()
    raw["labels"][3], raw["scores"][3], raw["boxes"][3] = -1, 0, 0
    info = INFO.model_copy(update={"decode": "nms"})
    for min_score in (0.0, 0.001):
        assert detections_of_image(raw, LETTERBOX, info, min_score=min_score).category_ids.tolist() == [17, 3]
    raw["boxes"][3] = 8  # even if the box were not empty
    raw["boxes"][3, 2:] = 12
    assert len(detections_of_image(raw, LETTERBOX, info, min_score=0.0)) == 2
    with pytest.raises(BackendError, match="labels"):
        detections_of_image(raw, LETTERBOX, INFO)  # without NMS no place is empty
    raw["scores"][3] = 0.1
    with pytest.raises(BackendError, match="labels"):
        detections_of_image(raw, LETTERBOX, info)

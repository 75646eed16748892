"""``export --decode nms``: the file equals torch and the op's NumPy meaning, suppresses, pads, and every reader takes it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx.helper import get_attribute_value

from apex_plugins.decode_nms.reference import decode_nms
from apex_runtime.backends.onnx_contract import read_onnx
from apex_runtime.backends.ort import OrtSession, graph_feeds
from apex_runtime.cli.main import main
from apex_runtime.model_info import ModelInfo
from apex_runtime.precision.convert import convert
from apex_runtime.precision.plan import Plan
from apex_train.checkpoint import save_checkpoint
from apex_train.cli.export import export
from apex_train.export.agreement import check_agreement
from apex_train.export.structure import ExportError, check_structure
from apex_train.model.detector import ApexDetector
from apex_train.model.heads import anchor_grid
from apex_train.predictor import TorchSession

HEIGHT, WIDTH, TILES = 64, 128, 8
PLACES = 160  # of 168 anchors: some are always left empty
IMAGES = Path(__file__).parents[2] / "fixtures" / "nuclei" / "images"


@pytest.fixture(scope="module")
def model(detector: ApexDetector) -> ApexDetector:
    """The same weights with a longer list of detections, and boxes so large that neighbours overlap."""
    other = ApexDetector(detector.config.model_copy(update={"max_detections": PLACES}))
    other.load_state_dict(detector.state_dict())
    with torch.no_grad():
        for head in other.heads:
            head.ltrb.bias += 2
    return other.eval()


@pytest.fixture(scope="module")
def saved(model: ApexDetector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nms") / "best.pt"
    save_checkpoint(path, model, model.config)
    return path


@pytest.fixture(scope="module")
def nms_file(saved: Path) -> Path:
    path = saved.with_name("nms.onnx")
    arguments = [str(saved), "-o", str(path), "--size", f"{HEIGHT}x{WIDTH}", "--decode", "nms", "--json"]
    result = CliRunner().invoke(export, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    assert report["decode"] == "nms" and report["functions"]["DecodeNMS"] == 1
    return path


def picture() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def outputs(nms_file: Path) -> dict[str, np.ndarray]:
    return OrtSession(nms_file, threads=1).run(picture(), TILES, np.zeros((2, TILES), np.float32))


def meaning(model: ApexDetector, iou: float) -> tuple[np.ndarray, ...]:
    """What the NumPy op makes of the network's one-to-many branch."""
    with torch.inference_mode():
        heads = model(torch.from_numpy(picture()), TILES, torch.zeros(2, TILES)).heads
    grid = (item.numpy() for item in anchor_grid(HEIGHT, WIDTH))
    scores = 1 / (1 + np.exp(-heads.many.double().numpy()))
    return decode_nms(scores, heads.ltrb.double().numpy(), *grid, max_detections=PLACES, pre_nms=333, score=0.001, iou=iou)


def pair_ious(boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """IoU of every two boxes of one class."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.maximum(high - low, 0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    iou = shared / (area[:, None] + area - shared)
    return iou[np.triu(labels[:, None] == labels, 1)]


def test_the_file_says_what_it_does(nms_file: Path) -> None:
    graph = onnx.load(nms_file)
    info = OrtSession(nms_file).info
    assert info.decode == "nms" and info.max_detections == PLACES
    assert {f.name for f in graph.functions} == {"TilePack", "TileSSMScan", "TileUnpackFusion", "DecodeNMS"}
    (node,) = (n for n in graph.graph.node if n.op_type == "DecodeNMS")
    given = {a.name: get_attribute_value(a) for a in node.attribute}
    assert (given["max_detections"], given["pre_nms"]) == (PLACES, 333)
    assert (given["score"], given["iou"]) == (np.float32(0.001), np.float32(0.6))


def test_passports_from_before_there_was_a_choice(nms_file: Path) -> None:
    record = json.loads(OrtSession(nms_file).info.to_json())
    del record["decode"]
    assert ModelInfo.from_json(json.dumps(record), "old.onnx").decode == "topk"


def test_it_equals_the_meaning_of_the_op(outputs: dict[str, np.ndarray], model: ApexDetector) -> None:
    boxes, scores, labels, ids = meaning(model, 0.6)
    np.testing.assert_array_equal(outputs["candidate_ids"], ids)
    np.testing.assert_array_equal(outputs["labels"], labels)
    np.testing.assert_allclose(outputs["scores"], scores, atol=1e-5)
    np.testing.assert_allclose(outputs["boxes"], boxes, atol=1e-3)


def test_it_suppresses(outputs: dict[str, np.ndarray], model: ApexDetector) -> None:
    for image in range(2):
        real = outputs["candidate_ids"][image] >= 0
        assert real.sum() > 5
        assert pair_ious(outputs["boxes"][image, real], outputs["labels"][image, real]).max(initial=0) <= 0.6 + 1e-5
    boxes, _, labels, ids = meaning(model, 1.0)
    assert pair_ious(boxes[0, ids[0] >= 0], labels[0, ids[0] >= 0]).max() > 0.7, "there was something to suppress"


def test_empty_places(outputs: dict[str, np.ndarray]) -> None:
    empty = outputs["candidate_ids"] == -1
    assert empty.any(1).all() and (outputs["scores"] > 0.001)[~empty].all()
    assert (outputs["labels"][empty] == -1).all() and not outputs["scores"][empty].any()
    assert not outputs["boxes"][empty].any() and not outputs["mask_coefficients"][empty].any()
    assert np.abs(outputs["mask_coefficients"][~empty]).min() > 0


def test_parity_with_the_checkpoint(saved: Path, nms_file: Path, exported: tuple, tmp_path: Path) -> None:
    arguments = ["--against", str(nms_file), "--budget", "0.5", "--images", str(sorted(IMAGES.iterdir())[0])]
    report = tmp_path / "parity.json"
    result = CliRunner().invoke(main, ["parity", str(saved), *arguments, "-o", str(report)])
    assert result.exit_code == 0, result.output
    (comparison,) = json.loads(report.read_text())["comparisons"]
    assert comparison["budgets"][0]["tensor"]["boxes"]["count"] > 0
    other = CliRunner().invoke(main, ["parity", str(exported[0]), *arguments, "-o", str(report)])
    assert other.exit_code == 1 and "decode: the candidate has nms, the reference topk" in report.read_text()


def test_inference(nms_file: Path, tmp_path: Path) -> None:
    photo = sorted(IMAGES.iterdir())[0]
    result = CliRunner().invoke(
        main, ["infer", str(photo), "--engine", str(nms_file), "--window", "none", "--output", str(tmp_path / "out")]
    )
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "results.json").read_text())["annotations"]
    assert 0 < len(found) < PLACES and all(item["score"] > 0.001 for item in found)
    assert {item["category_id"] for item in found} <= {7, 9, 2}


def test_the_pass_fp16_leaves_the_decoding_alone(nms_file: Path, tmp_path: Path) -> None:
    file, images = read_onnx(nms_file), picture()
    bonus = np.zeros((len(images), TILES), np.float32)
    converted = convert(file.model, Plan(half=True), [graph_feeds(file.info, images, TILES, bonus)])
    (nms,) = [item for item in converted.decisions if item.op == "DecodeNMS"]
    assert (nms.region, nms.precision) == ("decode", "float32")
    onnx.save(converted.model, tmp_path / "half.onnx")
    full, half = (OrtSession(path).run(images, 3, bonus) for path in (nms_file, tmp_path / "half.onnx"))
    assert np.abs(full["mask_prototypes"] - half["mask_prototypes"]).max() < 0.02 * np.abs(full["mask_prototypes"]).max()
    np.testing.assert_allclose(half["scores"], full["scores"], atol=1e-2)


def graph_scan(model: onnx.ModelProto) -> None:
    """The body's Scan once more, outside of it."""
    body = next(f for f in model.functions if f.name == "DecodeNMS")
    model.graph.node.append(next(n for n in body.node if n.op_type == "Scan"))


def no_body_scan(model: onnx.ModelProto) -> None:
    body = next(f for f in model.functions if f.name == "DecodeNMS")
    next(n for n in body.node if n.op_type == "Scan").op_type = "Identity"


@pytest.mark.parametrize("damage", [graph_scan, no_body_scan])
def test_the_one_scan_is_where_it_may_be(nms_file: Path, damage, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = onnx.load(nms_file)
    damage(graph)
    monkeypatch.setattr("apex_train.export.structure._check_valid", lambda model: None)  # it would find these first
    with pytest.raises(ExportError, match="Scan nodes") as failure:
        check_structure(graph, "nms")
    assert failure.value.code == "scans"


def test_the_end_of_the_graph_must_be_what_was_asked_for(nms_file: Path, exported: tuple) -> None:
    with pytest.raises(ExportError, match="1 in DecodeNMS"):
        check_structure(onnx.load(nms_file), "topk")
    with pytest.raises(ExportError, match="does not call DecodeNMS"):
        check_structure(onnx.load(exported[0]), "nms")


class Spoiled(TorchSession):
    """Torch with one thing wrong in the empty places, or in the list."""

    fault = staticmethod(lambda found: None)

    def run(self, images: np.ndarray, tiles: int, tile_bonus: np.ndarray) -> dict[str, np.ndarray]:
        found = super().run(images, tiles, tile_bonus)
        self.fault(found)
        return found


def box_in_padding(found: dict[str, np.ndarray]) -> None:
    found["boxes"][0, -1] = 1


def label_in_padding(found: dict[str, np.ndarray]) -> None:
    found["labels"][0, -1] = 0


def one_dropped(found: dict[str, np.ndarray]) -> None:
    for name in ("boxes", "scores", "mask_coefficients", "labels", "candidate_ids"):
        found[name][0, :-1] = found[name][0, 1:]


def all_dropped(found: dict[str, np.ndarray]) -> None:
    for name in ("boxes", "scores", "mask_coefficients"):
        found[name][:] = 0
    found["labels"][:] = found["candidate_ids"][:] = -1


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (box_in_padding, "empty places"),
        (label_in_padding, "empty places"),
        (one_dropped, "no partner"),
        (all_dropped, "no partner"),
    ],
)
def test_the_agreement_check_sees_faults(model: ApexDetector, fault, says: str) -> None:
    sides = TorchSession(model, HEIGHT, WIDTH, decode="nms"), Spoiled(model, HEIGHT, WIDTH, decode="nms")
    sides[1].fault = fault
    with pytest.raises(ExportError, match=says):
        check_agreement(*sides, sides[0].info)


def test_an_agreement_about_nothing_is_none(model: ApexDetector) -> None:
    sides = [Spoiled(model, HEIGHT, WIDTH, decode="nms") for _ in range(2)]
    for side in sides:
        side.fault = all_dropped
    with pytest.raises(ExportError, match="nothing was detected"):
        check_agreement(*sides, sides[0].info)

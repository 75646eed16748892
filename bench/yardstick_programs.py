"""What ``yardsticks_against.py`` has other projects' programs do, each in an environment of its own: these texts run there.

A model with random weights, whose heads are widened so that scores and masks differ from place to place, is exported to
``model.onnx``, and answers for the images of ``images.txt`` in ``answers.npz``: boxes_0 [n,4] xyxy, scores_0, labels_0 and
masks_0 [n,h,w] of the first image, and so on.
"""

from __future__ import annotations

_ANSWERS = """
import os, sys
import numpy as np
import torch
torch.manual_seed(0)
torch.set_num_threads(1)
images, answers = open("images.txt").read().split("\\n")[:-1], {}
def answer(number, boxes, scores, labels, masks):
    found = {"boxes": boxes, "scores": scores, "labels": labels, "masks": np.asarray(masks) > 0}
    answers.update({f"{name}_{number}": np.asarray(value) for name, value in found.items()})
"""

ULTRALYTICS = (
    _ANSWERS
    + """
import cv2, ultralytics, yaml
name, end_to_end = sys.argv[1], sys.argv[2] == "end_to_end"
config = ultralytics.YOLO(name + ".yaml").model.yaml | {"nc": 3}
yaml.safe_dump(config, open(name + "-3.yaml", "w"))
model = ultralytics.YOLO(name + "-3.yaml", task="segment")
pixels = [cv2.resize(cv2.imread(path), (320, 256))[:, :, ::-1].copy() for path in images]
batch = torch.stack([torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in pixels])
for module in model.model.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
        module.momentum = 0.5
model.model.train()
generator = torch.Generator().manual_seed(1)
with torch.no_grad():
    for _ in range(8):  # norms that know the images
        model.model(batch)
    for where, weight in model.model.named_parameters():
        for branch, spread in (("cv2.", 0.1), ("cv3.", 0.25), ("cv4.", 0.3)):
            if branch in where and where.endswith("2.weight"):
                weight.normal_(0, spread, generator=generator)
        if "cv3." in where and where.endswith("2.bias"):
            weight.fill_(-4)
model.model.eval()
os.replace(model.export(format="onnx", imgsz=(256, 320), nms=False if end_to_end else None), "model.onnx")
model = ultralytics.YOLO("model.onnx", task="segment")
for number, path in enumerate(images):
    settings = dict(conf=0.05, iou=0.7, max_det=300, retina_masks=True)
    found = model.predict(path, imgsz=(256, 320), device="cpu", verbose=False, **settings)[0]
    masks = np.zeros((0, *found.orig_shape)) if found.masks is None else found.masks.data
    answer(number, found.boxes.xyxy, found.boxes.conf, found.boxes.cls, masks)
np.savez_compressed("answers.npz", **answers)
print("version", ultralytics.__version__)
"""
)

RF_DETR = (
    _ANSWERS
    + """
import importlib.metadata, cv2, rfdetr
from PIL import Image
model = rfdetr.RFDETRSegNano(pretrain_weights=None, num_classes=3)
generator = torch.Generator().manual_seed(1)
with torch.no_grad():
    for where, weight in model.model.model.named_parameters():
        if "class_embed" in where:
            weight.normal_(0 if weight.ndim == 2 else -1, 0.3, generator=generator)
        if "bbox_embed.layers.2" in where and weight.ndim == 2:
            weight.normal_(0, 0.05, generator=generator)
weights = {name: value.clone() for name, value in model.model.model.state_dict().items()}
model.export(output_dir=".")
os.replace("rfdetr-seg-nano.onnx", "model.onnx")
model = rfdetr.RFDETRSegNano(pretrain_weights=None, num_classes=3)
model.model.model.load_state_dict(weights)
for number, path in enumerate(images):
    found = model.predict(Image.fromarray(cv2.imread(path)[:, :, ::-1]), threshold=0.05)
    answer(number, found.xyxy, found.confidence, found.class_id, found.mask)
np.savez_compressed("answers.npz", **answers)
print("version", importlib.metadata.version("rfdetr"))
"""
)

SAHI = """
import importlib.metadata, json
import numpy as np
from sahi.postprocess.combine import batched_nms
from sahi.slicing import get_slice_bboxes
asked, answers = json.load(open("asked.json")), {}
answers["windows"] = [get_slice_bboxes(h, w, side, side, False, overlap, overlap) for h, w, side, overlap in asked["images"]]
for match in ("ios", "iou"):
    sets = [np.array(rows, np.float32) for rows in asked["boxes"]]
    answers[match] = [[int(place) for place in batched_nms(rows, match.upper(), 0.5)] for rows in sets]
json.dump(answers, open("answers.json", "w"))
print("version", importlib.metadata.version("sahi"))
"""

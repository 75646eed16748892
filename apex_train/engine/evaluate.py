"""How good the averaged weights are: COCO figures with all tiles, and with none, which tells whether the close look matters; or
the loss, where there is no truth to measure AP on. The processes of a run share the images; the first one counts."""

from __future__ import annotations

from itertools import chain

import numpy as np
import torch

from apex_runtime.backends.reasons import ReasonCode
from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.errors import ApexError, BackendError
from apex_train.config import AugmentConfig, FitConfig
from apex_train.data.augment import augment
from apex_train.data.loader import Batch, SourceCache, collate
from apex_train.engine.distributed import Peers
from apex_train.engine.selection import Metric
from apex_train.losses.compute import compute_training_losses
from apex_train.model.detector import ApexDetector
from apex_train.predictor import TorchSession

BATCH = 8
# The whole picture at the scale of the letterbox, nothing random.
AS_IT_IS = AugmentConfig(
    scale_min=1, scale_max=1, flip_horizontal=0, flip_vertical=0, transpose=0, brightness=0, contrast=0, keep_visible=0
)


class DivergedError(ApexError):
    """The averaged weights no longer give finite numbers."""


def evaluate_weights(
    model: ApexDetector, dataset: InstanceDataset, config: FitConfig, metric: Metric, peers: Peers
) -> dict[str, float]:
    """The figures of an epoch, the same in every process; ``<metric>_peripheral`` is the metric with every tile gated off.

    Raises DivergedError, and what the data set's readers raise.
    """
    if metric == "val_loss":
        return {"val_loss": validation_loss(model, dataset, config, peers)}
    try:
        figures = average_precision(model, dataset, config.train.letterbox, metric, peers)
        without = average_precision(model, dataset, config.train.letterbox, metric, peers, peripheral_only=True)
    except BackendError as error:  # its own remedy is for whoever was handed a broken engine
        if error.code != ReasonCode.NON_FINITE_OUTPUT.value:
            raise
        raise DivergedError(
            f"the training has diverged: on {dataset.source} the weights of this epoch give no finite numbers ({error.message})",
            "Start a new run with a smaller train.learning_rate; best.pt is still what it was before this epoch.",
            code=error.code,
        ) from error
    return figures | {f"{metric}_peripheral": without[metric]}


def average_precision(
    model: ApexDetector,
    dataset: InstanceDataset,
    letterbox: tuple[int, int],
    metric: Metric,
    peers: Peers,
    peripheral_only: bool = False,
) -> dict[str, float]:
    """COCO figures with all tiles, or with none; of masks only when the metric is of masks."""
    from apex_runtime.evaluation.coco_ap import detection_limit, evaluate_coco, predict_results
    from apex_runtime.pipeline.predictor import Predictor

    truth = dataset.ground_truth()
    limit = detection_limit(truth)
    share = range(peers.placement.rank, len(dataset), peers.placement.world)
    predictor = Predictor(TorchSession(model, *letterbox, peripheral_only=peripheral_only))
    mine = predict_results(predictor, dataset, 1.0, max_detections=limit, batch=BATCH, indices=share)
    results = list(chain.from_iterable(peers.gather(mine)))
    kinds = ("bbox", "segm") if metric == "mAP_segm" else ("bbox",)
    report = evaluate_coco(truth, results, kinds, limit) if peers.placement.leads else {}
    figures = {key: value for key, value in report.items() if key.startswith(("mAP", "AP")) and isinstance(value, float)}
    return peers.from_leader(figures)


@torch.inference_mode()
def validation_loss(model: ApexDetector, dataset: InstanceDataset, config: FitConfig, peers: Peers) -> float:
    """The training loss of the whole pictures with all tiles, per object of the split; of the background alone without one."""
    model.eval()
    device = peers.placement.device
    share = range(peers.placement.rank, len(dataset), peers.placement.world)
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    for start in range(0, len(share), BATCH):
        batch = whole_pictures(dataset, share[start : start + BATCH], config.train.letterbox).to(device)
        counts = model.config.counts(*batch.images.shape[1:3])
        outputs = model(batch.images, counts, torch.zeros(len(batch), sum(counts), device=device))
        total, _ = compute_training_losses(outputs, batch, config.loss, objects=1)
        sums += torch.stack([total.double(), torch.tensor(float(batch.objects), device=device).double()])
    loss, objects = peers.total(sums).tolist()
    return loss / max(1.0, objects)


def whole_pictures(dataset: InstanceDataset, indices: range, letterbox: tuple[int, int]) -> Batch:
    """Pictures in a letterbox (height, width) with their objects, not augmented. Raises what the data set's readers raise."""
    sources = SourceCache(dataset, 0)
    rngs = (np.random.default_rng(index) for index in indices)
    return collate(
        [augment(sources, index, letterbox, letterbox, AS_IT_IS, rng) for index, rng in zip(indices, rngs, strict=True)]
    )

"""What does the halo leave out? Mask AP with all tiles against a dense foveal pass of the same weights (DESIGN rule 6).

python bench/halo.py engines/nuclei-nano/checkpoint.pt --data DIR --split test --output bench/evidence/halo.json
"""

from __future__ import annotations

from pathlib import Path

import click
from dense import densify
from evidence import write_evidence

from apex_runtime.data.open import open_dataset
from apex_runtime.evaluation.bootstrap import matches_of, paired_bootstrap
from apex_runtime.evaluation.coco_ap import detection_limit, predict_results
from apex_runtime.evaluation.coco_matching import run_coco_eval
from apex_runtime.pipeline.predictor import Predictor
from apex_train.checkpoint import file_sha256, load_model
from apex_train.predictor import TorchSession


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, path_type=Path))
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--split", default="test", show_default=True)
@click.option("--size", default=512, show_default=True)
@click.option("--output", type=click.Path(path_type=Path))
def main(checkpoint: Path, data: Path, split: str, size: int, output: Path | None) -> None:
    """Measure both and the paired difference."""
    model, dataset = load_model(checkpoint), open_dataset(data, split)
    truth = dataset.ground_truth()
    limit = detection_limit(truth)
    matches = {}
    for name, item in (("tiles", model), ("dense", densify(model))):
        found = predict_results(Predictor(TorchSession(item, size, size)), dataset, 1.0, max_detections=limit)
        matches[name] = matches_of(run_coco_eval(truth, found, "segm", limit))
    gap = paired_bootstrap(matches["tiles"], matches["dense"])
    click.echo(f"dense - all tiles: {100 * gap.value:+.2f} points of mask AP ({100 * gap.low:+.2f} to {100 * gap.high:+.2f})")
    if output is not None:
        write_evidence(
            output,
            {
                "checkpoint_sha256": file_sha256(checkpoint),
                "tile": model.config.tile,
                "halo": model.config.halo,
                "data": {"split": split, "images": len(dataset), "fingerprint": dataset.fingerprint()},
                "dense_minus_all_tiles": {"mAP_segm": gap.value, "interval": [gap.low, gap.high]},
            },
        )


if __name__ == "__main__":
    main()

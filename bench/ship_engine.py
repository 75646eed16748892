"""From a finished run to a shipped engine: weights without optimiser, one ONNX file, a bundle, figures on the test split, a card.

    python bench/ship_engine.py RUN --data DIR --name nuclei-nano --trained-at COMMIT --command COMMAND [--continues]

Every figure of the card is computed here and also written to bench/evidence/NAME.json.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import click
from engine_card import PERIPHERAL, card
from evidence import ROOT, circumstances, write_evidence

from apex_runtime.backends.ort import OrtSession
from apex_runtime.bundle.build import build_bundle
from apex_runtime.bundle.recipe import BuildRecipe
from apex_runtime.data.dataset import InstanceDataset
from apex_runtime.data.open import open_dataset
from apex_runtime.evaluation.bootstrap import Matches, bootstrap_interval, matches_of, paired_bootstrap
from apex_runtime.evaluation.coco_ap import detection_limit, evaluate_coco, predict_results
from apex_runtime.evaluation.coco_matching import default_backend, run_coco_eval
from apex_runtime.pipeline.predictor import Predictor
from apex_train.checkpoint import file_sha256, load_model, save_checkpoint
from apex_train.export.exporter import export_onnx
from apex_train.predictor import TorchSession

BUDGETS = (1.0, 0.75, 0.5, 0.25, 0.125)
NO_TRAINING: dict[str, Any] = {"commit": "", "commands": [], "epochs": [], "seconds": 0, "validation": []}


@click.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--name", required=True)
@click.option("--size", default=512, show_default=True)
@click.option("--split", default="test", show_default=True)
@click.option("--trained-at", required=True, help="Commit of the training run.")
@click.option("--command", required=True, help="Command of the training run.")
@click.option("--continues", is_flag=True, help="The run started from the weights that engines/NAME has now.")
def main(run: Path, data: Path, name: str, size: int, split: str, trained_at: str, command: str, continues: bool) -> None:
    """Write engines/NAME and its evidence."""
    folder, proof = ROOT / "engines" / name, ROOT / "bench" / "evidence" / f"{name}.json"
    before = json.loads(proof.read_text())["training"] if continues else NO_TRAINING
    model = load_model(run / "best.pt")
    checkpoint, draft = run / "checkpoint.pt", run / "model.onnx"
    save_checkpoint(checkpoint, model, model.config)
    report = export_onnx(model, (size, size), draft, file_sha256(checkpoint))
    recipe = BuildRecipe(backend="ort-cpu")
    build_bundle(draft, recipe.backend, folder)
    (folder / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    dataset = open_dataset(data, split)
    predictors = {str(budget): (Predictor(OrtSession(folder / "model.onnx")), budget) for budget in BUDGETS}
    predictors[PERIPHERAL] = (Predictor(TorchSession(model, size, size, peripheral_only=True)), 1.0)
    rows, gaps = evaluate(predictors, dataset)
    evidence = {
        "engine": {
            "name": name,
            "size": size,
            "checkpoint_sha256": file_sha256(checkpoint),
            "onnx_against_torch": report.worst,
            "parameters": sum(p.numel() for p in model.parameters()),
            "gflops": report.gflops.model_dump(),
        },
        "training": _with_run(before, run, trained_at, command),
        "data": {"split": split, "images": len(dataset), "fingerprint": dataset.fingerprint()},
        "contract": {
            "max_detections": detection_limit(dataset.ground_truth()),
            "min_score": 0.001,
            "evaluator": default_backend(),
        },
        "rows": rows,
        "gaps": gaps,
    }
    write_evidence(proof, evidence)
    shutil.copyfile(run / "config.yaml", folder / f"train-{len(evidence['training']['epochs'])}.yaml")
    shutil.copyfile(checkpoint, folder / "checkpoint.pt")
    (folder / "card.md").write_text(card(name, evidence, circumstances()["commit"] or "not known"), encoding="utf-8")
    for label, row in rows.items():
        figures = "  ".join(f"{key} {row[key]:.3f}" for key in ("mAP_segm", "AP50_segm", "mAP_bbox"))
        click.echo(f"{label:<10}{figures}  interval {row['interval_segm']}")
    click.echo(json.dumps(gaps, indent=2))


def _with_run(before: dict[str, Any], run: Path, commit: str, command: str) -> dict[str, Any]:
    """What is known of the training so far, and of a further run."""
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {
        "commit": ", ".join(filter(None, (before["commit"], commit))),
        "commands": [*before["commands"], command],
        "epochs": [*before["epochs"], len(log)],
        "seconds": before["seconds"] + round(sum(line["seconds"] for line in log)),
        "validation": [*before["validation"], [line for line in log if "mAP_segm" in line]],
    }


def evaluate(predictors: dict[str, tuple[Predictor, float]], dataset: InstanceDataset) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures per line with 95 % intervals over images, and the paired differences of all tiles to each other line."""
    truth = dataset.ground_truth()
    limit = detection_limit(truth)
    rows: dict[str, Any] = {}
    matches: dict[str, Matches] = {}
    for label, (predictor, budget) in predictors.items():
        found = predict_results(predictor, dataset, budget, max_detections=limit)
        rows[label] = evaluate_coco(truth, found, max_detections=limit)
        matches[label] = matches_of(run_coco_eval(truth, found, "segm", limit))
        interval = bootstrap_interval(matches[label])
        rows[label]["interval_segm"] = [round(interval.low, 4), round(interval.high, 4)]
    full = str(BUDGETS[0])
    gaps = {}
    for label in rows:
        if label != full:
            pair = paired_bootstrap(matches[label], matches[full])
            gaps[f"all tiles - {label}"] = {
                "mAP_segm": pair.value,
                "interval": [pair.low, pair.high],
                "share_kept": rows[label]["mAP_segm"] / rows[full]["mAP_segm"],
            }
    return rows, gaps


if __name__ == "__main__":
    main()

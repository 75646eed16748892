"""From a finished run to a shipped engine: weights without optimiser, one ONNX file, a bundle, figures on the test split, a card.

    python bench/ship_engine.py RUN --earlier RUN --data DIR --name nuclei-nano --trained-at COMMIT --command COMMAND

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


@click.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--earlier", multiple=True, type=click.Path(exists=True, path_type=Path), help="Runs this one was started from, in order."
)
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--name", required=True)
@click.option("--size", default=512, show_default=True)
@click.option("--split", default="test", show_default=True)
@click.option("--trained-at", required=True, help="Commit of the training run.")
@click.option("--command", "commands", multiple=True, required=True, help="Command of the training run; repeatable, in order.")
def main(
    run: Path, earlier: tuple[Path, ...], data: Path, name: str, size: int, split: str, trained_at: str, commands: tuple[str, ...]
) -> None:
    """Write engines/NAME and its evidence."""
    folder = ROOT / "engines" / name
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
    logs = [[json.loads(line) for line in (item / "log.jsonl").read_text().splitlines()] for item in (*earlier, run)]
    evidence = {
        "engine": {
            "name": name,
            "size": size,
            "checkpoint_sha256": file_sha256(checkpoint),
            "onnx_against_torch": report.worst,
            "parameters": sum(p.numel() for p in model.parameters()),
            "gflops": report.gflops.model_dump(),
        },
        "training": {
            "commit": trained_at,
            "commands": list(commands),
            "epochs": [len(log) for log in logs],
            "seconds": round(sum(line["seconds"] for log in logs for line in log)),
            "validation": [[line for line in log if "mAP_segm" in line] for log in logs],
        },
        "data": {"split": split, "images": len(dataset), "fingerprint": dataset.fingerprint()},
        "contract": {
            "max_detections": detection_limit(dataset.ground_truth()),
            "min_score": 0.001,
            "evaluator": default_backend(),
        },
        "rows": rows,
        "gaps": gaps,
    }
    write_evidence(ROOT / "bench" / "evidence" / f"{name}.json", evidence)
    for number, item in enumerate((*earlier, run), 1):
        shutil.copyfile(item / "config.yaml", folder / f"train-{number}.yaml")
    shutil.copyfile(checkpoint, folder / "checkpoint.pt")
    (folder / "card.md").write_text(card(name, evidence, circumstances()["commit"]), encoding="utf-8")
    for label, row in rows.items():
        figures = "  ".join(f"{key} {row[key]:.3f}" for key in ("mAP_segm", "AP50_segm", "mAP_bbox"))
        click.echo(f"{label:<10}{figures}  interval {row['interval_segm']}")
    click.echo(json.dumps(gaps, indent=2))


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

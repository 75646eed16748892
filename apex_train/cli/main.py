"""``apex-train``: the command line of training. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import click

from apex_runtime.cli.group import EXIT_CODES, HELP_OPTIONS, LazyGroup, version_option

COMMANDS = {
    "ablate": ("apex_train.cli.ablate:ablate", "Which choice of a training helps, by seeds in pairs."),
    "eval": ("apex_runtime.cli.eval:evaluate", "Average precision of a checkpoint on a labelled data set, per budget."),
    "export": ("apex_train.cli.export:export", "Write a checkpoint as one ONNX file with the budget as an input."),
    "fit": ("apex_train.cli.fit:fit", "Train a detector on a COCO, YOLO or satellite data set."),
    "init": ("apex_train.cli.init:init", "Write a configuration that fits a data set, with the reason for every value."),
    "label-quality": ("apex_train.cli.label_quality:label_quality", "How far a model agrees with each annotation, as weights."),
    "mine": ("apex_train.cli.mine:mine", "The images that a checkpoint gets wrong or is unsure of, and weights for them."),
    "preflight": ("apex_train.cli.preflight:preflight", "What a data set holds, and every fault by file and line."),
    "pseudo-label": ("apex_train.cli.pseudo_label:pseudo_label", "Labels of a model for images that nobody has annotated."),
    "report": ("apex_train.cli.report:report", "Measure a finished run on the test split again and write its report."),
    "self-train": ("apex_train.cli.self_train:self_train", "Rounds of training on few labels and many images without any."),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings=HELP_OPTIONS,
    epilog=EXIT_CODES,
)
@version_option("apex-train")
def main() -> None:
    """Train the detector whose engine takes the budget as an input, and export it.

    \b
    Examples:
      apex-train preflight DIR --draw 16
      apex-train init DIR -o fit.yaml
      apex-train fit fit.yaml --data DIR --output runs/a
      apex-train export runs/a/best.pt -o model.onnx
      apex-train eval runs/a/best.pt --data DIR --split test --budget 0.25,1.0
    """


if __name__ == "__main__":
    main()

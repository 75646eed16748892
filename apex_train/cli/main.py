"""``apex-train``: the command line of training. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import click

from apex_runtime.cli.group import LazyGroup

COMMANDS = {
    "eval": ("apex_runtime.cli.eval:evaluate", "Average precision of a checkpoint on a labelled data set, per budget."),
    "export": ("apex_train.cli.export:export", "Write a checkpoint as one ONNX file with the budget as an input."),
    "fit": ("apex_train.cli.fit:fit", "Train a detector on a COCO data set."),
}


def _print_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"apex-train {version('apex-x')}")
    ctx.exit()


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done; 1 the answer is no, or some inputs failed; 2 wrong usage.",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version.")
def main() -> None:
    """Train the detector whose engine takes the budget as an input, and export it.

    \b
    Examples:
      apex-train fit --data DIR --output runs/a
      apex-train export runs/a/best.pt -o model.onnx
      apex-train eval runs/a/best.pt --data DIR --split test --budget 0.25,1.0
    """


if __name__ == "__main__":
    main()

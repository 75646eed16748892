"""``apex-rt``: the command line of the runtime. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import click

from apex_runtime.cli.group import EXIT_CODES, HELP_OPTIONS, LazyGroup, version_option

COMMANDS = {
    "bench": ("apex_runtime.cli.bench:bench", "Time an engine per budget, and write the table that deadlines need."),
    "build-engine": ("apex_runtime.cli.build_engine:build_engine", "Build an engine bundle from an exported model."),
    "doctor": ("apex_runtime.cli.doctor:doctor", "Say which backends this machine can build and run, and what is missing."),
    "eval": ("apex_runtime.cli.eval:evaluate", "Average precision of an engine on a labelled data set, per budget."),
    "export-server": ("apex_runtime.cli.export_server:export_server", "Write what MLServer or Triton needs to serve a bundle."),
    "infer": ("apex_runtime.cli.infer:infer", "Detect and segment the objects in images and clips."),
    "inspect": ("apex_runtime.cli.inspect:inspect", "Say what is in an engine bundle or an exported model."),
    "parity": ("apex_runtime.cli.parity:parity", "Compare two forms of one model: is the fast one still the same?"),
    "release-check": ("apex_runtime.cli.release_check:release_check", "Say whether a checkout may be released, from its files."),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings=HELP_OPTIONS,
    epilog=EXIT_CODES,
)
@version_option("apex-rt")
def main() -> None:
    """Detection and instance segmentation of large images under a compute budget.

    \b
    Examples:
      apex-rt infer images/ --output out/
      apex-rt infer images/ --engine bundle/ --budget 0.25 --output out/
      apex-rt build-engine model.onnx --backend ort-cpu -o bundle/
      apex-rt parity best.pt --against bundle/
    """


if __name__ == "__main__":
    main()

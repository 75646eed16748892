"""``apex-rt release-check``: may this checkout be released? Computed from its files."""

from __future__ import annotations

import json
from pathlib import Path

import click

from apex_runtime.cli.options import json_option, not_empty
from apex_runtime.errors import UsageError


@click.command("release-check")
@click.option("--root", default=".", show_default=True, type=click.Path(), callback=not_empty, help="The checkout.")
@click.option(
    "--tests",
    metavar="FILE",
    callback=not_empty,
    help="JUnit XML of the whole suite, by pytest --junitxml.  [default: release/tests.xml in the checkout]",
)
@click.option(
    "--regression",
    metavar="FILE",
    callback=not_empty,
    help="Answer of apex-rt bench check.  [default: release/regression.json in the checkout]",
)
@json_option
def release_check(root: str, tests: str | None, regression: str | None, as_json: bool) -> None:
    """Print the release checklist of a checkout: pass, fail or not run for tests, parity, regression, evidence, docs, changelog.

    Nothing is typed by hand and nothing is measured: every row is what files say, and a result of another commit is "not run".
    One program of the checkout is run, the one that writes the README's figures. The exit code is 0 when every row passes,
    else 1.

    \b
    Examples:
      pytest -m "slow or not slow" --junitxml=release/tests.xml
      apex-rt release-check
      apex-rt release-check --root ../checkout --tests tests.xml --json
    """
    from apex_runtime.release.checklist import checklist
    from apex_runtime.release.checkout import Checkout
    from apex_runtime.release.report import passed, to_dict

    folder = Path(root)
    if not (folder / "pyproject.toml").is_file():
        raise UsageError(f"--root {root}: no pyproject.toml is there, so it is no checkout.", "Name the folder of the checkout.")
    checkout, made = Checkout(folder), folder / "release"
    rows = checklist(checkout, Path(tests or made / "tests.xml"), Path(regression or made / "regression.json"))
    if as_json:
        click.echo(json.dumps(to_dict(checkout, rows), indent=2))
    else:
        from rich.console import Console

        from apex_runtime.release.report import release_table

        console = Console()
        console.print(release_table(checkout, rows))
        for row in rows:
            for detail in row.details:
                console.print(f"{row.name}: {detail}", markup=False, highlight=False, soft_wrap=True)
    if not passed(rows):
        raise SystemExit(1)

"""``apex-rt export-server``: from a bundle to a folder that an inference server serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apex_runtime.cli.options import FiniteRange, json_option, not_empty, split_list
from apex_runtime.errors import UsageError

if TYPE_CHECKING:
    from apex_runtime.serving.settings import ServingSettings

_PORT = click.IntRange(1, 65535)
# Options of one kind of server: name of the parameter -> its default. None on the command line means that it was not given.
_OWN: dict[str, dict[str, Any]] = {
    "mlserver": {"host": None, "http_port": None, "grpc_port": None, "metrics_port": None}
    | {"workers": None, "device": "cpu", "overload_budget": None, "overload_waiting": None},
    "triton": {"max_batch": 8, "delay_ms": 2.0, "instances": 1, "helpers": 2},
}
_ABOVE_0 = FiniteRange(min=0, min_open=True)


@click.command("export-server")
@click.argument("bundle", type=click.Path(), callback=not_empty)
@click.option("--for", "kind", type=click.Choice(["mlserver", "triton"]), required=True, help="Which server.")
@click.option(
    "--output", "-o", type=click.Path(), required=True, callback=not_empty, help="Folder that the server is started with."
)
@click.option("--name", help="Of the model.  [default: the name of the bundle's folder]")
@click.option("--budget", default="1.0", show_default=True, help="Of a request that names none.")
@click.option("--min-score", type=FiniteRange(0, 1), default=0.001, show_default=True, help="Least score of a detection.")
@click.option("--max-detections", type=click.IntRange(min=1), help="Per image, the best.  [default: all]")
@click.option("--classes", multiple=True, callback=split_list, metavar="NAME[,NAME]", help="Only these.  [default: all]")
@click.option("--max-image-mb", type=_ABOVE_0, default=20.0, show_default=True, help="Largest encoded image, in MiB.")
@click.option(
    "--max-megapixels",
    type=FiniteRange(min=0, min_open=True, max=300),
    default=50.0,
    show_default=True,
    help="Largest image, in million pixels.",
)
@click.option("--queue", type=click.IntRange(0, 100_000), default=16, show_default=True, help="Requests that may wait.")
@click.option(
    "--timeout-ms",
    type=FiniteRange(min=0, min_open=True, max=86_400_000),
    default=10_000.0,
    show_default=True,
    help="Until the answer must be there, where a request does not say.",
)
@click.option("--threads", type=click.IntRange(1, 1024), default=1, show_default=True, help="Of the engine, per image.")
@click.option("--workers", type=click.IntRange(1, 1024), help="mlserver: images at a time.  [default: one per core]")
@click.option("--device", help="mlserver: cpu, cuda or cuda:N.  [default: cpu]")
@click.option("--overload-budget", help="mlserver: at most this for each request while many wait.  [default: no limit]")
@click.option(
    "--overload-waiting",
    type=click.IntRange(1, 100_000),
    help="mlserver: requests that must wait for --overload-budget.  [default: 2]",
)
@click.option("--host", help="mlserver: address to listen at; 0.0.0.0 for all.  [default: 127.0.0.1]")
@click.option("--http-port", type=_PORT, help="mlserver.  [default: 8080]")
@click.option("--grpc-port", type=_PORT, help="mlserver.  [default: 8081]")
@click.option("--metrics-port", type=_PORT, help="mlserver.  [default: 8082]")
@click.option("--max-batch", type=click.IntRange(1, 256), help="triton: images of one call of the graph.  [default: 8]")
@click.option("--delay-ms", type=FiniteRange(0, 1000), help="triton: how long a request may wait for others.  [default: 2]")
@click.option("--instances", type=click.IntRange(1, 256), help="triton: copies of the graph.  [default: 1]")
@click.option("--helpers", type=click.IntRange(1, 256), help="triton: processes of each Python model.  [default: 2]")
@json_option
def export_server(bundle: str, kind: str, output: str, name: str | None, as_json: bool, **asked: Any) -> None:
    """Write what an inference server needs to serve BUNDLE, a folder that build-engine wrote.

    For mlserver: a folder for "mlserver start", in which the engine runs as a model behind the Open Inference Protocol; called
    again for the same folder it puts the new bundle beside the old one, and a server that is told to load the model changes over.
    For triton: a model repository with the graph between two Python models, checked against Triton's definitions.

    \b
    Examples:
      apex-rt export-server bundle/ --for mlserver -o server/ --budget 0.25 --queue 32
      apex-rt export-server bundle/ --for mlserver -o server/ --overload-budget 0.125 --overload-waiting 4
      apex-rt export-server bundle/ --for triton -o repository/ --max-batch 16
    """
    own = _own_options(kind, asked)
    settings = _settings(asked, own)
    write = _write_mlserver if kind == "mlserver" else _write_triton
    model = name or Path(bundle).resolve().name
    written = write(Path(bundle), Path(output), model, settings, own)
    start = f"mlserver start {output}" if kind == "mlserver" else f"tritonserver --model-repository={output}"
    facts = {"for": kind, "model": model, "written": [str(path) for path in written], "start": start}
    click.echo(json.dumps(facts, indent=2) if as_json else "\n".join([*facts["written"], f"start it: {start}"]))


def _own_options(kind: str, asked: dict[str, Any]) -> dict[str, Any]:
    """The options of this kind of server, with their defaults. Raises UsageError for one of the other kind."""
    for other in _OWN.keys() - {kind}:
        for name in _OWN[other]:
            if asked[name] is not None:
                raise UsageError(f"--{name.replace('_', '-')}: only for {other}.", f"Leave it out, or give --for {other}.")
    return {name: default if asked[name] is None else asked[name] for name, default in _OWN[kind].items()}


def _settings(asked: dict[str, Any], own: dict[str, Any]) -> ServingSettings:
    from apex_runtime.routing.budget import parse_budget
    from apex_runtime.serving.settings import MEBIBYTE, parse_settings

    for name in ("budget", "overload_budget"):
        if asked[name] is not None:
            try:
                parse_budget(asked[name])  # a wrong one is a slip of the command line, not of a file of settings
            except UsageError as error:
                raise UsageError(f"--{name.replace('_', '-')}: {error.message}", error.remedy) from error
    _check_overload(asked["overload_budget"], asked["overload_waiting"], asked["queue"])
    same = ("budget", "min_score", "max_detections", "classes", "queue", "timeout_ms", "threads")
    raw = {name: asked[name] for name in same}
    raw |= {name: own[name] for name in ("workers", "device", "overload_budget", "overload_waiting") if own.get(name) is not None}
    raw["max_image_bytes"] = max(1, round(asked["max_image_mb"] * MEBIBYTE))
    raw["max_pixels"] = max(1, round(asked["max_megapixels"] * 1_000_000))
    return parse_settings(raw, "export-server")


def _check_overload(budget: str | None, waiting: int | None, queue: int) -> None:
    from apex_runtime.serving.settings import ServingSettings

    if budget is None and waiting is not None:
        raise UsageError("--overload-waiting: without --overload-budget it limits nothing.", "Give both: --overload-budget 25%.")
    least = waiting or ServingSettings.model_fields["overload_waiting"].default
    if budget is not None and least > queue:
        remedy = "Give a longer --queue, or a smaller --overload-waiting."
        raise UsageError(f"--overload-waiting {least} is above --queue {queue}: so many never wait.", remedy)


def _write_mlserver(bundle: Path, output: Path, name: str, settings: ServingSettings, own: dict[str, Any]) -> list[Path]:
    from apex_runtime.serving.mlserver_export import Ports, export_mlserver

    ports = Ports(own["host"], own["http_port"], own["grpc_port"], own["metrics_port"])
    return export_mlserver(bundle, output, name, settings, ports)


def _write_triton(bundle: Path, output: Path, name: str, settings: ServingSettings, own: dict[str, Any]) -> list[Path]:
    from apex_runtime.serving.triton_config import TritonOptions
    from apex_runtime.serving.triton_export import export_triton

    options = TritonOptions(own["max_batch"], round(own["delay_ms"] * 1000), own["instances"], own["helpers"])
    return export_triton(bundle, output, name, settings, options)

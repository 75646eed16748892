"""``apex-rt export-server``: what it writes, and what it refuses before it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def test_mlserver(apex_rt: Callable[..., Any], tiny_bundle: Path, tmp_path: Path) -> None:
    words = ("--budget", "25%", "--queue", 3, "--host", "0.0.0.0", "--http-port", 9000, "--classes", "blob", "--json")
    done = apex_rt("export-server", tiny_bundle, "--for", "mlserver", "-o", tmp_path / "server", *words)
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["model"] == "bundle" and all(Path(path).exists() for path in told["written"])
    server = json.loads((tmp_path / "server" / "settings.json").read_text())
    assert (server["host"], server["http_port"], server["parallel_workers"]) == ("0.0.0.0", 9000, 0)
    model = json.loads((tmp_path / "server" / "bundle" / "model-settings.json").read_text())
    assert model["parameters"]["extra"]["budget"] == "25%" and model["parameters"]["extra"]["queue"] == 3
    copied = tmp_path / "server" / "bundle" / model["parameters"]["uri"]
    assert {path.name for path in copied.iterdir()} == {path.name for path in tiny_bundle.iterdir()}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), (None, 2)),
        (("--overload-budget", "12.5%"), ("12.5%", 2)),
        (("--overload-budget", 4, "--overload-waiting", 5), ("4", 5)),
    ],
)
def test_an_overload_budget(
    apex_rt: Callable[..., Any], tiny_bundle: Path, tmp_path: Path, words: tuple[object, ...], expected: tuple[Any, int]
) -> None:
    done = apex_rt("export-server", tiny_bundle, "--for", "mlserver", "-o", tmp_path / "server", *words)
    assert done.code == 0, done.err
    settings = json.loads((tmp_path / "server" / "bundle" / "model-settings.json").read_text())["parameters"]["extra"]
    assert (settings["overload_budget"], settings["overload_waiting"]) == expected


def test_mlserver_again(apex_rt: Callable[..., Any], tiny_bundle: Path, tmp_path: Path) -> None:
    def export(*words: object) -> dict[str, Any]:
        assert apex_rt("export-server", tiny_bundle, "--for", "mlserver", "-o", tmp_path / "server", *words).code == 0
        return json.loads((tmp_path / "server" / "settings.json").read_text())

    first = export("--http-port", 9000, "--max-image-mb", 30)
    assert (first["http_port"], first["grpc_port"], first["host"]) == (9000, 8081, "127.0.0.1")
    (tmp_path / "server" / "settings.json").write_text(json.dumps(first | {"use_structured_logging": True}))
    second = export("--grpc-port", 9001, "--max-image-mb", 10)
    assert second == first | {"grpc_port": 9001, "use_structured_logging": True}, "what is not asked for stays"
    assert export("--max-image-mb", 50)["grpc_max_message_length"] > 50 << 20
    assert len(list((tmp_path / "server" / "bundle").glob("bundle-*"))) == 1
    (tmp_path / "server" / "settings.json").write_text("{")
    done = apex_rt("export-server", tiny_bundle, "--for", "mlserver", "-o", tmp_path / "server")
    assert done.code == 2 and "settings.json: not JSON" in done.err


def test_a_copy_that_was_damaged_is_made_again(apex_rt: Callable[..., Any], tiny_bundle: Path, tmp_path: Path) -> None:
    words = ("export-server", tiny_bundle, "--for", "mlserver", "-o", tmp_path / "server", "--json")
    copied = Path(json.loads(apex_rt(*words).out)["written"][-1])
    for damage in (b"", b"damaged"):
        (copied / "model.onnx").write_bytes(damage)
        assert apex_rt(*words).code == 0
        assert (copied / "model.onnx").read_bytes() == (tiny_bundle / "model.onnx").read_bytes()
    assert {path.name for path in copied.iterdir()} == {path.name for path in tiny_bundle.iterdir()}


def test_triton(apex_rt: Callable[..., Any], tiny_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed: the extra serve")
    words = ("--budget", "0.25", "--max-batch", 16, "--delay-ms", 0.5, "--instances", 2, "--helpers", 3)
    done = apex_rt("export-server", tiny_bundle, "--for", "triton", "-o", tmp_path / "repository", "--name", "cells", *words)
    assert done.code == 0, done.err
    assert sorted(path.name for path in (tmp_path / "repository").iterdir()) == sorted(
        ["cells", "cells_graph", "cells_postprocess", "cells_preprocess"]
    )
    graph = (tmp_path / "repository" / "cells_graph" / "config.pbtxt").read_text()
    assert "max_batch_size: 16" in graph and "max_queue_delay_microseconds: 500" in graph and "count: 2" in graph
    assert "count: 3" in (tmp_path / "repository" / "cells_preprocess" / "config.pbtxt").read_text()


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (("--for", "mlserver", "--budget", "nan"), "budget 'nan'"),
        (("--for", "mlserver", "--budget", "lots"), "budget 'lots'"),
        (("--for", "mlserver", "--classes", "cat"), "does not know"),
        (("--for", "mlserver", "--name", "../../x"), "not a name"),
        (("--for", "mlserver", "--name", "a b"), "not a name"),
        (("--for", "mlserver", "--max-batch", "4"), "only for triton"),
        (("--for", "triton", "--grpc-port", "4"), "only for mlserver"),
        (("--for", "triton", "--workers", "4"), "only for mlserver"),
        (("--for", "mlserver", "--overload-budget", "lots"), "--overload-budget: budget 'lots'"),
        (("--for", "mlserver", "--overload-budget", ""), "budget ''"),
        (("--for", "mlserver", "--overload-waiting", "4"), "without --overload-budget"),
        (("--for", "mlserver", "--overload-budget", "4", "--overload-waiting", "0"), "range"),
        (("--for", "mlserver", "--overload-budget", "4", "--queue", "1"), "--overload-waiting 2 is above --queue 1"),
        (("--for", "triton", "--overload-budget", "4"), "only for mlserver"),
        (("--for", "triton", "--overload-waiting", "4"), "only for mlserver"),
        (("--for", "mlserver", "--timeout-ms", "0"), "range"),
        (("--for", "mlserver", "--max-image-mb", "nan"), "not a number"),
        (("--for", "seldon"), "not one of"),
    ],
)
def test_wrong_usage(apex_rt: Callable[..., Any], tiny_bundle: Path, tmp_path: Path, words: tuple[str, ...], cause: str) -> None:
    done = apex_rt("export-server", tiny_bundle, "-o", tmp_path / "out", *words)
    assert done.code == 2 and cause in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["mlserver", "triton"])
def test_a_bundle_that_was_changed_is_not_exported(
    apex_rt: Callable[..., Any], tiny_bundle: Path, tmp_path: Path, kind: str
) -> None:
    with (tiny_bundle / "model.onnx").open("ab") as stream:
        stream.write(b"more")
    done = apex_rt("export-server", tiny_bundle, "--for", kind, "-o", tmp_path / "out")
    assert done.code == 1 and "changed after the bundle was built" in done.err
    assert not (tmp_path / "out").exists()
    done = apex_rt("export-server", tiny_bundle.parent, "--for", kind, "-o", tmp_path / "out")
    assert done.code == 1 and "not an engine bundle" in done.err


def test_without_the_definitions_of_triton_it_says_what_to_install(
    apex_rt: Callable[..., Any], tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tritonclient.grpc.model_config_pb2", None)
    done = apex_rt("export-server", tiny_bundle, "--for", "triton", "-o", tmp_path / "out")
    assert done.code == 1 and "extra serve" in done.err

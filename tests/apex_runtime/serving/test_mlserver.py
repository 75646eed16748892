"""A real MLServer with an engine of ours, asked by tritonclient and by plain HTTP. Needs the extra serve."""

from __future__ import annotations

import base64
import gzip
import importlib.util
import json
import re
import shutil
import socket
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from documents import ROOT
from pycocotools import mask as coco_mask
from served import HUGE, IMAGE, NAME, SETTINGS, Server, body, export_blobs, here, png, run, shown, uri_of

from apex_runtime.engine import Engine, load

if importlib.util.find_spec("mlserver") is None:  # not imported: it and tritonclient define the same protobuf messages
    pytest.skip("MLServer is not installed: the extra serve", allow_module_level=True)
grpc = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed: the extra serve")
http = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed: the extra serve")
from tritonclient.utils import InferenceServerException  # noqa: E402

pytestmark = pytest.mark.slow  # processes that are started; a step of their own in .ci/run


@pytest.fixture(scope="module")
def server(bundles: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server.start(export_blobs(bundles[1], tmp_path_factory.mktemp("server")), NAME)
    yield started
    assert started.stop() == 0, started.log.read_text()


@pytest.fixture(scope="module")
def by_grpc(server: Server) -> Iterator[Any]:
    with grpc.InferenceServerClient(f"127.0.0.1:{server.grpc}") as client:
        yield client


def inputs(module: Any, image: bytes | np.ndarray, budget: Any = None, **binary: bool) -> list[Any]:
    """The inputs of a request as a user of tritonclient makes them."""
    if isinstance(image, np.ndarray):
        found = [module.InferInput("pixels", list(image[None].shape), "UINT8")]
        found[0].set_data_from_numpy(image[None], **binary)
    else:
        found = [module.InferInput("image", [1, 1], "BYTES")]
        found[0].set_data_from_numpy(np.array([[image]], object), **binary)
    if budget is not None:
        value = np.array([[budget]]) if not isinstance(budget, str) else np.array([[budget.encode()]], object)
        kind = {"i": "INT64", "f": "FP64", "O": "BYTES"}[value.dtype.kind]
        found.append(module.InferInput("budget", [1, 1], kind))
        found[-1].set_data_from_numpy(value, **binary)
    return found


def check(found: Any, engine: Engine, budget: Any) -> None:
    """The answer of a client is that of the engine."""
    expected = engine.predict_one(IMAGE, budget)
    assert len(expected) > 0
    np.testing.assert_allclose(found.as_numpy("boxes")[0], expected.boxes, rtol=1e-5)
    np.testing.assert_allclose(found.as_numpy("scores")[0], expected.scores, rtol=1e-5)
    np.testing.assert_array_equal(found.as_numpy("labels")[0], expected.labels)
    assert found.as_numpy("spent").tolist() == [[expected.budget.spent]]
    masks = [coco_mask.decode(json.loads(text)) for text in found.as_numpy("masks")[0]]
    np.testing.assert_array_equal(np.array(masks, bool), expected.masks_full())


@pytest.mark.parametrize(
    ("budget", "meaning"), [(None, "0.5"), (3, 3), (0.25, 0.25), (1.0, 1.0), (1, 1), ("25%", "25%"), ("5", 5)]
)
def test_a_budget_per_request_over_grpc(by_grpc: Any, engine: Engine, budget: Any, meaning: Any) -> None:
    for image in (png(IMAGE), IMAGE):
        check(by_grpc.infer(NAME, inputs(grpc, image, budget)), engine, meaning)


def test_the_same_over_http(server: Server, engine: Engine) -> None:
    with http.InferenceServerClient(f"127.0.0.1:{server.http}") as client:
        names = ("boxes", "scores", "labels", "spent", "masks")
        outputs = [http.InferRequestedOutput(name, binary_data=False) for name in names]
        for image in (base64.b64encode(png(IMAGE)), IMAGE):
            found = client.infer(NAME, inputs(http, image, 0.25, binary_data=False), outputs=outputs)
            check(found, engine, 0.25)


def test_only_what_is_asked_for_comes_back(server: Server) -> None:
    status, answer = server.infer(NAME, png(IMAGE), outputs=["scores", "class_names"])
    assert status == 200 and [output["name"] for output in answer["outputs"]] == ["scores", "class_names"]
    assert set(answer["outputs"][1]["data"]) == {"blob"}
    status, answer = server.infer(NAME, png(IMAGE), outputs=["depth"])
    assert status == 400 and "'depth' is unknown" in answer["error"]


def test_an_image_without_objects_has_empty_outputs(by_grpc: Any, server: Server) -> None:
    black = np.zeros((64, 64, 3), np.uint8)
    found = by_grpc.infer(NAME, inputs(grpc, black))
    assert found.as_numpy("spent").tolist() == [[8]]
    assert found.as_numpy("boxes").shape[::2] == (1, 4)
    status, answer = server.infer(NAME, png(black))
    assert status == 200 and answer["model_version"] == load(server.folder / NAME / uri_of(server)).opened.digest[:12]


@pytest.mark.parametrize(
    ("image", "more", "status", "code", "cause"),
    [
        (b"GIF89a", {}, 400, "INVALID_ARGUMENT", "not an image"),
        (png(IMAGE)[:80], {}, 400, "INVALID_ARGUMENT", "truncated"),
        (b"", {}, 400, "INVALID_ARGUMENT", "empty"),
        (png(IMAGE), {"budget": "nan"}, 400, "INVALID_ARGUMENT", "above 0"),
        (png(IMAGE), {"budget": "-1"}, 400, "INVALID_ARGUMENT", "above 0"),
        (png(IMAGE), {"budget": "1.5"}, 400, "INVALID_ARGUMENT", "share above 1.0"),
        (png(IMAGE), {"budget": "8ms"}, 400, "INVALID_ARGUMENT", "for a deadline. Give the budget in tiles"),
        (b"\x89PNG" + b"x" * 1_000_000, {}, 413, "RESOURCE_EXHAUSTED", "the limit is 1000000"),
        (png(np.zeros((6000, 6000, 3), np.uint8)), {}, 413, "RESOURCE_EXHAUSTED", "the limit is 30000000"),
        (png(IMAGE), {"parameters": {"timeout": -4}}, 400, "INVALID_ARGUMENT", "timeout"),
        (png(IMAGE), {"parameters": {"timeout": 1}}, 504, "DEADLINE_EXCEEDED", "deadline"),
    ],
)
def test_what_is_wrong_is_said_with_a_status_of_its_own(
    server: Server, by_grpc: Any, image: bytes, more: dict[str, Any], status: int, code: str, cause: str
) -> None:
    found, answer = server.infer(NAME, image, **more)
    assert (found, bool(re.search(cause, answer["error"]))) == (status, True), answer
    with pytest.raises(InferenceServerException) as caught:
        parameters = dict(more.get("parameters", {}))
        by_grpc.infer(NAME, inputs(grpc, image, more.get("budget")), timeout=parameters.get("timeout"))
    assert caught.value.status() == f"StatusCode.{code}" and re.search(cause, caught.value.message())


def test_bodies_that_are_no_requests(server: Server) -> None:
    path = f"/v2/models/{NAME}/infer"
    assert server.post(path, b"{")[0] == 422
    assert server.post(path, b'{"inputs": 3}')[0] == 422
    assert server.post(path, b'{"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["%%"]}]}')[0] == 400
    assert server.post(path, b'{"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [[[7]]]}]}')[0] == 400
    assert server.post("/v2/models/other/infer", body(png(IMAGE)))[0] == 404
    status, answer = server.post(path, b"not gzip", Content_Encoding="gzip")
    assert status == 400 and "not gzip" in answer["error"]
    status, answer = server.post(path, gzip.compress(body(png(IMAGE)))[:-9], Content_Encoding="gzip")
    assert status == 400 and "ends before its gzip" in answer["error"]
    assert server.infer(NAME, png(IMAGE))[0] == 200


def test_a_body_without_end_is_cut_off_and_not_kept(server: Server) -> None:
    before = server.resident_bytes()
    status, answer = server.post(f"/v2/models/{NAME}/infer", b"x" * 20_000_000)
    assert status == 413 and "bytes" in answer["error"]
    packed = gzip.compress(b"[" + b" " * 400_000_000, 1)
    assert len(packed) < 2_300_000
    status, answer = server.post(f"/v2/models/{NAME}/infer", packed, Content_Encoding="gzip")
    assert status == 413 and "bytes" in answer["error"]
    assert chunked(server, 60_000_000) == 413
    assert server.resident_bytes() - before < 60_000_000


def chunked(server: Server, size: int) -> int:
    """The status of a body that does not say how long it is."""
    with socket.create_connection(("127.0.0.1", server.http), 30) as connection:
        connection.sendall(f"POST /v2/models/{NAME}/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        piece = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        try:
            for _ in range(size // 0x100000):
                connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it answered and left
        return int(connection.recv(1000).split()[1])


def all_at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(lambda call: call(), calls))


def grpc_status(client: Any, image: bytes, **more: Any) -> str:
    try:
        client.infer(NAME, inputs(grpc, image), **more)
    except InferenceServerException as error:
        return str(error.status()).removeprefix("StatusCode.")
    return "OK"


def test_a_full_queue_refuses_at_once(server: Server, by_grpc: Any) -> None:
    before = server.metric(f'apex_requests_total{{model="{NAME}",result="queue_full"}}')
    found = all_at_once([lambda: grpc_status(by_grpc, HUGE)] * 8)
    assert set(found) == {"OK", "RESOURCE_EXHAUSTED"} and found.count("OK") >= 3
    started = time.monotonic()
    answers = all_at_once([lambda: (server.infer(NAME, HUGE, outputs=["spent"]), time.monotonic())] * 8)
    refused = [(answer, at) for (status, answer), at in answers if status == 429]
    served = [at for (status, _answer), at in answers if status == 200]
    assert len(refused) + len(served) == 8 and len(served) >= 3
    assert all("requests wait already" in answer["error"] for answer, _at in refused)
    assert min(at for _answer, at in refused) - started < max(served) - started
    refusals = found.count("RESOURCE_EXHAUSTED") + len(refused)
    assert server.metric(f'apex_requests_total{{model="{NAME}",result="queue_full"}}') == before + refusals
    assert server.infer(NAME, png(IMAGE))[0] == 200


def test_in_overload_some_get_less_and_afterwards_all_they_ask_for(bundles: dict[int, Path], tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"queue": 8, "overload_budget": "25%"})
    crowded = Server.start(export_blobs(bundles[1], tmp_path, settings), NAME)
    counted = f'apex_overload_requests_total{{model="{NAME}"}}'
    try:
        calls = [lambda: crowded.infer(NAME, HUGE, budget="1.0", outputs=["spent"])] * 6
        answers = all_at_once(calls)
        assert [status for status, _answer in answers] == [200] * 6
        spent = [answer["outputs"][0]["data"][0] for _status, answer in answers]
        assert set(spent) == {4, 16} and crowded.metric(counted) == spent.count(4)
        status, answer = crowded.infer(NAME, HUGE, budget="1.0", outputs=["spent"])
        assert status == 200 and answer["outputs"][0]["data"] == [16] and crowded.metric(counted) == spent.count(4)
    finally:
        assert crowded.stop() == 0, crowded.log.read_text()


def test_what_waits_past_its_deadline_is_never_computed(server: Server, by_grpc: Any) -> None:
    computed = f'apex_compute_seconds_count{{model="{NAME}"}}'
    before = server.metric(computed)
    slow = threading.Thread(target=lambda: server.infer(NAME, HUGE, outputs=["spent"]))
    slow.start()
    while server.metric(f'apex_running_requests{{model="{NAME}"}}') == 0:
        assert slow.is_alive()
    assert grpc_status(by_grpc, png(IMAGE), timeout=20_000) == "DEADLINE_EXCEEDED"
    assert grpc_status(by_grpc, png(IMAGE), client_timeout=0.02) == "DEADLINE_EXCEEDED"
    slow.join()
    assert server.infer(NAME, png(IMAGE))[0] == 200
    assert server.metric(computed) == before + 2, "the slow one and the last"
    assert server.metric(f'apex_requests_total{{model="{NAME}",result="cancelled"}}') >= 1


def test_the_loop_goes_on_while_an_image_is_computed(server: Server) -> None:
    slow = threading.Thread(target=lambda: server.infer(NAME, HUGE, outputs=["spent"]))
    slow.start()
    asked = 0
    while slow.is_alive():
        assert server.get("/v2/health/live")[0] == 200
        asked += 1
    assert asked > 5


def test_health_metadata_and_metrics(server: Server, by_grpc: Any) -> None:
    assert server.get("/v2/health/ready")[0] == 200 and by_grpc.is_server_ready() and by_grpc.is_model_ready(NAME)
    told = by_grpc.get_model_metadata(NAME, as_json=True)
    assert [item["name"] for item in told["inputs"]] == ["image", "pixels", "budget"]
    ok = f'apex_requests_total{{model="{NAME}",result="ok"}}'
    tiles = f'apex_tiles_sum{{model="{NAME}"}}'
    before = server.metric(ok), server.metric(tiles)
    assert server.infer(NAME, png(IMAGE), budget="3")[0] == 200
    assert (server.metric(ok), server.metric(tiles)) == (before[0] + 1, before[1] + 3)
    assert server.metric(f'apex_model_loaded{{model="{NAME}"') == 1


def test_bytes_that_are_not_of_their_shape_are_an_error_and_no_more(by_grpc: Any) -> None:
    wrong = grpc.InferInput("pixels", [1, 90, 128, 3], "UINT8")
    wrong.set_data_from_numpy(IMAGE[None])
    wrong.set_shape([1, 9000, 12800, 3])
    with pytest.raises(InferenceServerException, match="INTERNAL"):
        by_grpc.infer(NAME, [wrong])
    assert grpc_status(by_grpc, png(IMAGE)) == "OK"


# The document.


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_request_of_the_document_in_the_shell(server: Server) -> None:
    answer = json.loads(run(["bash", "-euo", "pipefail", "-c", here(shown("base64 -w 0"), server)], ROOT))
    assert [output["name"] for output in answer["outputs"]] == ["boxes", "scores", "spent"]


def test_the_request_of_the_document_in_python(server: Server) -> None:
    told = run([sys.executable, "-c", textwrap.dedent(here(shown("import tritonclient"), server))], ROOT)
    assert "[[8]]" in told, "half of the tiles"

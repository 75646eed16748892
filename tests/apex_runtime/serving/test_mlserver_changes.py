"""A real MLServer over time: a new bundle, a broken one, starting, stopping. Needs the extra serve."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from served import HUGE, IMAGE, NAME, SETTINGS, Server, body, export_blobs, here, png, run, shown, uri_of

from apex_runtime.engine import Engine
from apex_runtime.serving.mlserver_export import Ports, export_mlserver

if importlib.util.find_spec("mlserver") is None:
    pytest.skip("MLServer is not installed: the extra serve", allow_module_level=True)

pytestmark = pytest.mark.slow  # processes that are started; a step of their own in .ci/run


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_change_of_the_document(own: Server, bundles: dict[int, Path], tmp_path: Path) -> None:
    before = own.infer(NAME, png(IMAGE))[1]["model_version"]
    (tmp_path / "new-bundle").symlink_to(bundles[2])
    (tmp_path / "server").symlink_to(own.folder)
    block = here(shown("apex-rt export-server new-bundle"), own)
    run(["bash", "-euo", "pipefail", "-c", block], tmp_path)
    assert own.infer(NAME, png(IMAGE))[1]["model_version"] != before


@pytest.fixture
def own(bundles: dict[int, Path], tmp_path: Path) -> Iterator[Server]:
    started = Server.start(export_blobs(bundles[1], tmp_path / "own"), NAME)
    yield started
    started.stop()


def test_a_new_bundle_takes_over_without_a_lost_request_and_a_broken_one_does_not(
    own: Server, bundles: dict[int, Path], engine: Engine
) -> None:
    statuses: list[int] = []
    running = threading.Event()
    running.set()

    def ask() -> None:
        while running.is_set():
            statuses.append(own.infer(NAME, png(IMAGE), outputs=["spent"])[0])

    clients = [threading.Thread(target=ask) for _ in range(2)]
    for client in clients:
        client.start()
    first = own.infer(NAME, png(IMAGE))[1]["model_version"]
    export_mlserver(bundles[2], own.folder, NAME, SETTINGS, Ports())
    assert own.post(f"/v2/repository/models/{NAME}/load")[0] == 200
    status, answer = own.infer(NAME, png(IMAGE), outputs=["class_names"])
    second = answer["model_version"]
    assert status == 200 and second != first
    assert own.metric(f'apex_model_loaded{{model="{NAME}",sha256="{second}') == 1
    assert own.metric(f'apex_model_loaded{{model="{NAME}",sha256="{first}') == 0

    (own.folder / NAME / uri_of(own) / "model.onnx").write_bytes(b"broken")
    status, answer = own.post(f"/v2/repository/models/{NAME}/load")
    assert status == 500 and "model.onnx" in answer["error"] and "not loaded" in answer["error"]
    assert own.infer(NAME, png(IMAGE))[1]["model_version"] == second, "the one before goes on"
    assert own.get(f"/v2/models/{NAME}/ready")[0] == 200

    small = SETTINGS.model_copy(update={"max_image_bytes": 1})
    settings = own.folder / NAME / "model-settings.json"
    limits = [f'"max_image_bytes": {each.max_image_bytes}' for each in (SETTINGS, small)]
    settings.write_text(settings.read_text().replace(*limits))
    assert limits[1] in settings.read_text() and own.post(f"/v2/repository/models/{NAME}/load")[0] == 500
    long = body(png(IMAGE)) + b" " * 1_200_000  # longer than a megabyte and an image of one byte
    assert own.post(f"/v2/models/{NAME}/infer", long)[0] == 200, "the limits of the one before stay too"

    settings.write_text(settings.read_text().replace('"queue"', '"quue"'))
    status, answer = own.post(f"/v2/repository/models/{NAME}/load")
    assert status == 500 and "quue" in answer["error"]
    running.clear()
    for client in clients:
        client.join()
    assert set(statuses) == {200} and len(statuses) > 4


def test_a_stopped_server_answers_what_it_accepted_and_takes_nothing_new(own: Server) -> None:
    with ThreadPoolExecutor(3) as pool:
        accepted = [pool.submit(own.infer, NAME, HUGE, outputs=["spent"]) for _ in range(3)]
        while own.metric(f'apex_waiting_requests{{model="{NAME}"}}') < 2:
            time.sleep(0.01)
        own.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + 30
        while own.infer(NAME, png(IMAGE), outputs=["spent"])[0] != 0:
            assert time.monotonic() < until
        assert [call.result()[0] for call in accepted] == [200, 200, 200]
    assert own.stop() == 0


def test_a_server_that_cannot_load_its_model_is_never_ready_and_says_why(bundles: dict[int, Path], tmp_path: Path) -> None:
    folder = export_blobs(bundles[1], tmp_path)
    broken = next((folder / NAME).glob("bundle-*")) / "model.onnx"
    broken.write_bytes(broken.read_bytes()[:-1])
    server = Server.start(folder, None)
    try:
        while server.process.poll() is None:  # the server as a whole calls itself ready when it has no model left
            assert server.get(f"/v2/models/{NAME}/ready")[0] != 200
    finally:
        server.stop()
    assert "model.onnx: it was changed after the bundle was built" in server.log.read_text()


def test_loading_again_and_unloading(own: Server) -> None:
    serving = f'apex_model_loaded{{model="{NAME}"'
    for _ in range(2):  # the same bundle: the new one takes its place in the metrics too
        assert own.post(f"/v2/repository/models/{NAME}/load")[0] == 200
        assert own.metric(serving) == 1 and own.infer(NAME, png(IMAGE))[0] == 200
    assert own.post(f"/v2/repository/models/{NAME}/unload")[0] == 200
    assert own.infer(NAME, png(IMAGE))[0] == 404 and own.metric(serving) == 0
    assert own.post(f"/v2/repository/models/{NAME}/load")[0] == 200 and own.infer(NAME, png(IMAGE))[0] == 200


IN_A_WORKER = """
import asyncio, multiprocessing
from mlserver import ModelSettings
from mlserver.errors import MLServerError
from apex_runtime.serving.mlserver_model import ApexModel

def load():
    try:
        asyncio.run(ApexModel(ModelSettings(name="blobs", implementation=ApexModel)).load())
    except MLServerError as error:
        print(error)

process = multiprocessing.get_context("fork").Process(target=load)
process.start()
process.join()
"""


def test_a_worker_process_of_mlserver_is_refused(tmp_path: Path) -> None:
    assert "Set it to 0 in settings.json" in run([sys.executable, "-c", IN_A_WORKER], tmp_path)

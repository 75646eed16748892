"""The TensorRT adapter without a GPU: what it asks of a device, in which order, and that the answers are the model's."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable

import numpy as np
import pytest
from engine_requests import assert_same, feeds_of, request_of
from fake_gpu import FakeDevice, FakeTensorRT

from apex_runtime.backends import captured
from apex_runtime.backends.device import DeviceFailure
from apex_runtime.backends.ort import OrtSession
from apex_runtime.backends.tensorrt_session import TensorRTSession
from apex_runtime.errors import BackendError, UsageError

Open = Callable[..., tuple[TensorRTSession, FakeTensorRT, FakeDevice]]
FLAVOURS = ("tensorrt", "tensorrt-rtx")


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_run_gives_what_the_model_gives(open_fake: Open, reference: OrtSession, flavour: str) -> None:
    """First runs, replays, other budgets and batches, and back again, each on images of its own."""
    session, _, device = open_fake(flavour)
    assert (session.name, session.max_batch, session.info) == (flavour, 4, reference.info)
    for seed, (batch, tiles) in enumerate([(2, 3), (2, 3), (1, 16), (2, 3), (4, 1), (2, 3), (1, 16), (4, 1)]):
        images, bonus = feeds_of(batch, seed)
        assert_same(session.run(images, tiles, bonus), reference.run(images, tiles, bonus))
    session.close()
    assert device.closed and not device.blocks and not device.graphs


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_order_of_calls(open_fake: Open, flavour: str) -> None:
    session, _, device = open_fake(flavour)
    images, bonus = feeds_of()
    outputs = {name: value.nbytes for name, value in session.run(images, 4, bonus).items()}
    assert outputs["boxes"] == 1 * 12 * 4 * 4 and outputs["mask_prototypes"] == 1 * 2 * 32 * 32 * 4
    allocations = [call for call in device.calls if call.startswith("allocate")]
    # two inputs on the device, nine outputs (tile_ids and tile_levels for all of 16 tiles), scratch memory
    sizes = {"images": 128 * 128 * 3, "bonus": 16 * 4, "scratch": 4096, "ids": 16 * 8}
    assert len(allocations) == 12
    assert {f"allocate {size}" for size in sizes.values()} <= set(allocations)
    copies_out = [f"download {size}" for size in outputs.values()]
    copies_in = [f"upload {128 * 128 * 3}", "upload 64"]
    first = [call for call in device.calls if not call.startswith("allocate")]
    assert first == ["activate", *copies_in, "execute", *copies_out, "wait", "capture", "execute"]
    device.calls.clear()
    session.run(images, 4, bonus)
    assert device.calls == ["activate", *copies_in, "launch", *copies_out, "wait"]


def test_one_graph_per_batch_and_budget_is_captured_once(open_fake: Open) -> None:
    session, trt, device = open_fake()
    for _ in range(3):
        for batch, tiles in ((4, 2), (1, 2), (4, 5)):
            images, bonus = feeds_of(batch)
            session.run(images, tiles, bonus)
    assert device.calls.count("capture") == 3 == len(trt.contexts) == len(device.graphs)
    assert device.calls.count("launch") == 6


def test_buffers_are_reused_for_smaller_batches_and_grown_for_larger_ones(open_fake: Open, reference: OrtSession) -> None:
    session, _, device = open_fake()
    for batch in (2, 1, 2):
        session.run(feeds_of(batch)[0], 3, feeds_of(batch)[1])
    assert sum(call.startswith("allocate") for call in device.calls) == 12 and "free" not in device.calls
    before = set(device.blocks)
    images, bonus = feeds_of(3, seed=5)
    assert_same(session.run(images, 3, bonus), reference.run(images, 3, bonus))
    assert len(device.blocks) == 12
    assert len(before & set(device.blocks)) == 1, "the scratch memory is the same for every batch"
    assert len(device.graphs) == 1, "graphs of the old addresses are gone"
    images, bonus = feeds_of(2, seed=6)
    assert_same(session.run(images, 3, bonus), reference.run(images, 3, bonus))


def test_graphs_are_bounded_and_the_one_used_longest_ago_goes(open_fake: Open) -> None:
    session, _, device = open_fake()
    images, bonus = feeds_of()
    for tiles in range(1, 17):
        session.run(images, tiles, bonus)
    assert len(device.graphs) == captured.MAX_REQUEST_SHAPES == 16
    images, bonus = feeds_of(2)
    session.run(images, 1, bonus)  # a larger batch: the buffers move
    for tiles in range(1, 17):
        session.run(*request_of(1, tiles))
    assert len(device.graphs) == 16
    device.calls.clear()
    session.run(images, 1, bonus)  # used longest ago, and so gone
    assert device.calls.count("capture") == 1 == device.calls.count("free_graph")
    session.run(*request_of(1, 1))
    assert device.calls.count("capture") == 2, "the next oldest went for it"
    session.run(*request_of(1, 16))
    assert device.calls.count("launch") == 1, "the newest is still there"


def test_shape_limit_evicts_the_least_recently_used() -> None:
    released: list[str] = []
    shapes: captured.RequestShapes[str] = captured.RequestShapes(released.append, limit=2)
    shapes.put((1, (1,)), "a")
    shapes.put((1, (2,)), "b")
    assert shapes.get((1, (1,))) == "a" and shapes.get((9, (9,))) is None
    shapes.put((1, (3,)), "c")
    assert released == ["b"]
    shapes.drop((1, (1,)))
    shapes.drop((1, (1,)))
    shapes.clear()
    assert released == ["b", "a", "c"] and shapes.get((1, (3,))) is None


def test_a_forgotten_session_leaves_nothing_on_the_device(open_fake: Open) -> None:
    session, trt, device = open_fake()
    session.run(*request_of())
    del session, trt
    gc.collect()
    assert device.closed and not device.blocks and not device.graphs


def test_closing_twice_is_closing(open_fake: Open) -> None:
    session, _, device = open_fake()
    session.run(*request_of())
    session.close()
    session.close()
    assert device.calls.count("close") == 1


FAILURES = ["create_execution_context", "set_input_shape", "set_tensor_address", "infer_shapes", "execute_async_v3"]


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("method", FAILURES)
@pytest.mark.parametrize(("words", "code"), [("node 7 is unhappy", "execution_failed"), ("CUDA out of memory", "out_of_memory")])
def test_a_refusal_of_the_library_has_a_code_and_the_next_run_works(
    open_fake: Open, reference: OrtSession, flavour: str, method: str, words: str, code: str
) -> None:
    session, trt, device = open_fake(flavour)
    trt.refuse, trt.words = [method], words
    with pytest.raises(BackendError) as caught:
        session.run(*request_of())
    assert caught.value.code == code and "1 image(s) with 4 tile(s)" in caught.value.message and caught.value.remedy
    assert words in caught.value.message
    assert not device.queue, "nothing is left under way"
    assert_same(session.run(*request_of()), reference.run(*request_of()))
    session.close()
    assert not device.blocks and not device.graphs


@pytest.mark.parametrize("call", ["activate", "allocate", "upload", "download", "wait", "launch"])
def test_a_failure_of_the_device_has_a_code_and_the_next_run_works(open_fake: Open, reference: OrtSession, call: str) -> None:
    session, _, device = open_fake()
    if call == "launch":
        session.run(*request_of())
    device.fail[call] = [DeviceFailure("cudaErrorUnknown")]
    with pytest.raises(BackendError, match="cudaErrorUnknown") as caught:
        session.run(*request_of())
    assert caught.value.code == "execution_failed"
    assert_same(session.run(*request_of()), reference.run(*request_of()))
    session.close()
    assert not device.blocks and not device.graphs


def test_too_little_memory_for_a_batch_leaves_room_for_a_smaller_one(open_fake: Open, reference: OrtSession) -> None:
    session, _, device = open_fake()
    session.run(*request_of(1))
    device.memory = 2 * sum(map(len, device.blocks.values()))
    with pytest.raises(BackendError) as caught:
        session.run(*request_of(4))
    assert caught.value.code == "out_of_memory" and "--batch" in caught.value.remedy
    assert_same(session.run(*request_of(1)), reference.run(*request_of(1)))


@pytest.mark.parametrize("how", ["the device refuses", "the library knows"])
def test_without_graphs_it_runs_and_says_so_once(
    open_fake: Open, reference: OrtSession, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    session, trt, device = open_fake("tensorrt-rtx")
    if how == "the library knows":
        trt.capturable = False
    device.fail["capture"] = [DeviceFailure("not permitted when stream is capturing")]
    with caplog.at_level(logging.WARNING):
        for tiles in (4, 4, 5):
            images, bonus = feeds_of(2, tiles)
            assert_same(session.run(images, tiles, bonus), reference.run(images, tiles, bonus))
    assert session.graph_refusal == "cuda_graph_unavailable" and not device.graphs and "launch" not in device.calls
    assert caplog.text.count("cuda_graph_unavailable") == 1


def test_a_batch_beyond_the_plan_is_refused_before_the_device_hears_of_it(open_fake: Open) -> None:
    session, _, device = open_fake()
    with pytest.raises(UsageError) as caught:
        session.run(*request_of(5))
    assert caught.value.code == "batch_not_in_plan" and "--max-batch" in caught.value.remedy and not device.calls
    with pytest.raises(UsageError, match="tiles"):
        session.run(*request_of(1, 17))


def test_arrays_in_any_layout_are_taken(open_fake: Open, reference: OrtSession) -> None:
    session, _, _ = open_fake()
    images, bonus = feeds_of(2)
    crossed = np.asfortranarray(images)
    assert not crossed.flags.c_contiguous
    assert_same(session.run(crossed, 4, np.asfortranarray(bonus)), reference.run(images, 4, bonus))


def test_outputs_of_unexpected_shape_are_refused(open_fake: Open) -> None:
    session, trt, _ = open_fake()
    trt.outputs["utilities"] = type(trt.outputs["boxes"])("utilities", "float32", (None, 9))
    with pytest.raises(BackendError, match=r"utilities has shape \(1, 9\), expected \(1, 16\)") as caught:
        session.run(*request_of())
    assert caught.value.code == "plan_does_not_fit"

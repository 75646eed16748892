"""ort-cuda without a GPU: its checks against ONNX Runtime's real answers, its bound runs on the CPU's memory."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from pictures import discs

from apex_runtime.backends import captured, ort_cuda
from apex_runtime.backends.node_placement import RECORD_PLACEMENT, float_nodes_outside, name_nodes
from apex_runtime.backends.ort import OrtSession
from apex_runtime.backends.ort_cuda import OrtCudaSession, check_placement
from apex_runtime.errors import BackendError, ModelError, UsageError

CPU = "CPUExecutionProvider"


def feeds(batch: int = 1) -> tuple[np.ndarray, np.ndarray]:
    images = np.stack([discs(128, 128, (40 + 15 * index, 60, 11)) for index in range(batch)])
    bonus = np.zeros((batch, 16), np.float32)
    bonus[:, 9] = 24
    return images, bonus


class Recorder:
    """Stands for ``onnxruntime.InferenceSession``: the CPU's, which notes how it was made and run, and fails when told."""

    def __init__(self) -> None:
        self.made: list[dict[str, str]] = []
        self.graphs: list[str] = []
        self.released: list[int] = []
        self.fail_open: list[Exception] = []
        self.fail_run: list[Exception] = []
        self._real = onnxruntime.InferenceSession

    def open(self, data: bytes, options: onnxruntime.SessionOptions, providers: list, disabled_optimizers: list[str]) -> Any:
        (name, made_with), last = providers
        assert name == last == CPU and disabled_optimizers == []
        self.made.append(made_with)
        if self.fail_open:
            raise self.fail_open.pop(0)
        session = self._real(data, options, providers=[CPU])
        run = session.run_with_iobinding

        def noted(binding: object, run_options: onnxruntime.RunOptions) -> None:
            self.graphs.append(run_options.get_run_config_entry("gpu_graph_id"))
            if self.fail_run:
                raise self.fail_run.pop(0)
            run(binding)

        session.run_with_iobinding = noted
        session.release_captured_graph = self.released.append
        return session


@pytest.fixture
def recorder(reference: OrtSession, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """The session logic on the CPU: its memory and its provider in place of CUDA's."""
    made = Recorder()
    monkeypatch.setattr(ort_cuda, "PROVIDER", CPU)
    monkeypatch.setattr(ort_cuda, "_MEMORY", "cpu")
    monkeypatch.setattr(onnxruntime, "InferenceSession", made.open)
    return made


def test_bound_runs_give_what_the_model_gives(tiny_onnx: Path, reference: OrtSession, recorder: Recorder) -> None:
    session = OrtCudaSession(tiny_onnx, index=1, threads=1)
    assert session.name == "ort-cuda" and session.info == reference.info and session.graph_refusal == ""
    assert recorder.made == [{"device_id": "1", "enable_cuda_graph": "1", "use_tf32": "0"}]
    for batch, tiles in ((2, 3), (2, 3), (1, 16), (2, 3), (3, 1), (1, 16)):
        images, bonus = feeds(batch)
        found, wanted = session.run(images, tiles, bonus), reference.run(images, tiles, bonus)
        assert list(found) == list(wanted)
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert recorder.graphs == ["1", "1", "2", "1", "3", "2"], "one graph per batch and budget"


def test_what_onnx_runtime_prints_about_cuda_libraries_stays_off_standard_output(
    tiny_onnx: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print("Failed to load libcudnn.so.9"))
    OrtCudaSession(tiny_onnx)
    printed = capsys.readouterr()
    assert printed.out == "" and "libcudnn" in printed.err


def test_results_of_one_run_survive_the_next(tiny_onnx: Path, recorder: Recorder) -> None:
    session = OrtCudaSession(tiny_onnx, threads=1)
    images, bonus = feeds()
    first = session.run(images, 4, bonus)
    kept = {name: value.copy() for name, value in first.items()}
    session.run(np.zeros_like(images), 4, bonus)
    for name, value in kept.items():
        np.testing.assert_array_equal(first[name], value, err_msg=name)


def test_graphs_are_bounded_and_their_numbers_never_used_again(tiny_onnx: Path, recorder: Recorder) -> None:
    session = OrtCudaSession(tiny_onnx, threads=1)
    images, bonus = feeds()
    for tiles in (*range(1, 17), 1):
        session.run(images, tiles, bonus)
    images, bonus = feeds(2)
    session.run(images, 1, bonus)
    assert captured.MAX_REQUEST_SHAPES == 16
    assert recorder.graphs[-2:] == ["1", "17"] and recorder.released == [2], "2 tiles were asked for longest ago"


def test_a_session_without_graphs_when_the_provider_refuses_them(
    tiny_onnx: Path, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    recorder.fail_open = [RuntimeError("This session cannot use the graph capture feature as requested by the user")]
    with caplog.at_level(logging.WARNING):
        session = OrtCudaSession(tiny_onnx)
    assert [options["enable_cuda_graph"] for options in recorder.made] == ["1", "0"]
    session.run(feeds()[0], 3, feeds()[1])
    assert recorder.graphs == ["-1"] and session.graph_refusal == "cuda_graph_unavailable"
    assert caplog.text.count("cuda_graph_unavailable") == 1


def test_a_capture_that_fails_later_is_given_up_and_the_run_done_without(
    tiny_onnx: Path, recorder: Recorder, reference: OrtSession
) -> None:
    session = OrtCudaSession(tiny_onnx)
    recorder.fail_run = [RuntimeError("CUDA failure 900: operation not permitted when stream is capturing")]
    images, bonus = feeds(2)
    found = session.run(images, 3, bonus)
    np.testing.assert_array_equal(found["boxes"], reference.run(images, 3, bonus)["boxes"])
    assert recorder.graphs == ["1", "-1"] and session.graph_refusal == "cuda_graph_unavailable"
    session.run(images, 3, bonus)
    assert recorder.graphs[2:] == ["-1"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("Failed to allocate memory for requested buffer of size 99", "out_of_memory"),
        ("CUDA failure 2: out of memory", "out_of_memory"),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED", "out_of_memory"),
        ("CUDA failure 700: an illegal memory access was encountered", "execution_failed"),
    ],
)
def test_a_failing_run_has_a_code_and_the_next_one_binds_afresh(
    tiny_onnx: Path, recorder: Recorder, words: str, code: str
) -> None:
    session = OrtCudaSession(tiny_onnx)
    images, bonus = feeds()
    recorder.fail_run = [RuntimeError(words)]
    with pytest.raises(BackendError, match="ort-cuda failed on 1 image") as caught:
        session.run(images, 4, bonus)
    assert caught.value.code == code and recorder.released == [1]
    session.run(images, 4, bonus)
    assert recorder.graphs == ["1", "2"]


def test_out_of_memory_while_loading(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("CUDA failure 2: out of memory ; GPU=0")

    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    with pytest.raises(BackendError) as caught:
        OrtCudaSession(tiny_onnx)
    assert caught.value.code == "out_of_memory"


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_session_that_silently_fell_back_to_the_cpu_is_an_error(tiny_onnx: Path) -> None:
    """The ONNX Runtime of the tests has no CUDA, and opens a session all the same: exactly the silence that is meant."""
    with pytest.raises(BackendError) as caught:
        OrtCudaSession(tiny_onnx)
    assert caught.value.code == "cuda_provider_not_in_session" and CPU in caught.value.message


def real_session(data: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(RECORD_PLACEMENT, "1")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=[CPU])


def test_onnx_runtime_is_asked_where_each_node_is(tiny_onnx: Path) -> None:
    """All nodes are on the CPU: those that compute floats are strays of CUDA, integer arithmetic is not, and CPU has no stray."""
    graph = name_nodes(onnx.load(tiny_onnx))
    session = real_session(graph.data)
    strays = float_nodes_outside(session, "CUDAExecutionProvider", graph.is_float)
    kinds = {name.split(".")[-1] for name in strays}
    assert {"MatMul", "Sigmoid", "ReduceSum", "Round", "AveragePool"} <= kinds, "bodies of functions included"
    assert kinds.isdisjoint({"Mod", "Shape", "Identity"}), "labels, shapes and tile ids are integers"
    assert float_nodes_outside(session, CPU, graph.is_float) == []


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_naming_nodes_changes_no_result(tiny_onnx: Path) -> None:
    images, bonus = feeds(2)
    values = {"images": images, "tiles": np.array([3]), "tile_bonus": bonus}
    plain, named = tiny_onnx.read_bytes(), name_nodes(onnx.load(tiny_onnx)).data
    for left, right in zip(*(real_session(data).run(None, values) for data in (plain, named)), strict=True):
        np.testing.assert_array_equal(left, right)


def placed(*nodes: tuple[str, str, str]) -> Any:
    """A session that says it placed (provider, node name, op) so."""
    parts = [
        SimpleNamespace(ep_name=provider, get_nodes=lambda name=name, op=op: [SimpleNamespace(name=name, op_type=op)])
        for provider, name, op in nodes
    ]
    return SimpleNamespace(get_providers=lambda: ["CUDAExecutionProvider", CPU], get_provider_graph_assignment_info=lambda: parts)


GRAPH = SimpleNamespace(is_float={"a.Conv": True, "b.Shape": False})


def test_integers_may_stay_on_the_cpu_and_floats_may_not() -> None:
    fine = placed(("CUDAExecutionProvider", "a.Conv", "Conv"), (CPU, "b.Shape", "Shape"), (CPU, "", "MemcpyFromHost"))
    check_placement(fine, GRAPH, Path("model.onnx"))
    for stray in ((CPU, "a.Conv", "Conv"), (CPU, "fused_7", "FusedConv")):
        with pytest.raises(BackendError, match=stray[1]) as caught:
            check_placement(placed(stray), GRAPH, Path("model.onnx"))
        assert caught.value.code == "float_nodes_on_cpu"


def test_an_onnx_runtime_that_does_not_tell_is_refused() -> None:
    silent = SimpleNamespace(get_providers=lambda: ["CUDAExecutionProvider", CPU])
    with pytest.raises(BackendError) as caught:
        check_placement(silent, GRAPH, Path("model.onnx"))  # type: ignore[arg-type]
    assert caught.value.code == "node_placement_unknown" and "1.24" in caught.value.remedy


def test_what_ort_cpu_refuses_is_refused(tiny_onnx: Path, tmp_path: Path, recorder: Recorder) -> None:
    with pytest.raises(UsageError, match="--threads"):
        OrtCudaSession(tiny_onnx, threads=0)
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError):
        OrtCudaSession(tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="tiles"):
        OrtCudaSession(tiny_onnx).run(feeds()[0], 99, feeds()[1])

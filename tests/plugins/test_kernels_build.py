"""Kernels are compiled once, kept by content, refused when they spill; without a compiler the reason is a code."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from apex_plugins.kernels import build as building
from apex_plugins.kernels import cache, host
from apex_plugins.kernels.build import ARCHITECTURES, COMMAND, build, build_all, fatbin, main, ops, ptx
from apex_plugins.kernels.nvcc import find_toolkit
from apex_plugins.kernels.reasons import KernelError
from apex_plugins.kernels.resources import parse_ptxas, refuse_local_memory

LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'apex_a_f32' for 'sm_75'
ptxas info    : Function properties for apex_a_f32
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 54 registers, used 1 barriers, 1024 bytes smem, 416 bytes cmem[0]
ptxas info    : Compile time = 23.9 ms
ptxas info    : Compiling entry function 'apex_a_f32' for 'sm_90a'
ptxas info    : Function properties for apex_a_f32
    {stack} bytes stack frame, {spills} bytes spill stores, 8 bytes spill loads
ptxas info    : Used 32 registers, used 0 barriers
"""
# Writes what it is asked for, reports LOG, and leaves a line in "calls" for every compilation.
FAKE_NVCC = """#!{python}
import pathlib, sys
here = pathlib.Path(sys.argv[0]).parent
if "--version" in sys.argv:
    print("Cuda compilation tools, release 99.0")
    raise SystemExit
with (here / "calls").open("a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
if (here / "broken").exists():
    print("kernel.cu(3): error: identifier x is undefined", file=sys.stderr)
    raise SystemExit(2)
pathlib.Path(sys.argv[sys.argv.index("-o") + 1]).write_bytes(b"compiled")
print((here / "log").read_text(), file=sys.stderr)
"""


@pytest.fixture
def toolkit(tmp_path, monkeypatch):
    """A toolkit whose nvcc only says what it did, an op "small" in a folder of its own, and a cache of its own."""
    folder = tmp_path / "cuda" / "bin"
    folder.mkdir(parents=True)
    nvcc = folder / "nvcc"
    nvcc.write_text(FAKE_NVCC.format(python=sys.executable))
    nvcc.chmod(nvcc.stat().st_mode | stat.S_IXUSR)
    (folder / "log").write_text(LOG.format(stack=0, spills=0).replace("8 bytes", "0 bytes"))
    sources = tmp_path / "plugins"
    for name, text in (("small/kernel.cu", "one"), ("small/kernel.h", "two"), ("kernels/runs.h", "three")):
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        (sources / name).write_text(text)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    monkeypatch.setenv("APEX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "SOURCES", sources)
    monkeypatch.setattr(building, "SOURCES", sources)
    return folder


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []


def test_ptxas_is_read():
    first, second = parse_ptxas(LOG.format(stack=16, spills=4))
    assert (first.kernel, first.architecture, first.registers, first.shared) == ("apex_a_f32", "sm_75", 54, 1024)
    assert (first.stack, first.spills) == (0, 0)
    assert (second.architecture, second.registers, second.shared, second.stack, second.spills) == ("sm_90a", 32, 0, 16, 12)
    refuse_local_memory([first])
    with pytest.raises(KernelError, match="apex_a_f32 for sm_90a: 16 bytes of stack, 12 of spills"):
        refuse_local_memory([first, second])
    with pytest.raises(ValueError, match="no resources of apex_a_f32 for sm_75"):
        parse_ptxas(LOG.split("    0 bytes stack")[0])


def test_an_op_is_compiled_once_and_again_when_a_source_changes(toolkit, tmp_path):
    assert ops() == ("small",)
    first, again = build("small"), build("small")
    assert (first.cached, again.cached) == (False, True) and len(calls(toolkit)) == 1
    assert again.path == first.path and again.kernels == first.kernels and again.seconds == first.seconds
    assert first.path.read_bytes() == b"compiled" and first.path.parent == tmp_path / "cache" / "kernels"
    (line,) = calls(toolkit)
    assert all(f"-gencode=arch=compute_{name},code=sm_{name}" in line for name in ARCHITECTURES) and "code=compute_80" in line
    for name in ("small/kernel.h", "kernels/runs.h", "small/kernel.cu"):
        (tmp_path / "plugins" / name).write_text("changed")
        assert not build("small").cached
    assert len(calls(toolkit)) == 4
    assert len(list(first.path.parent.glob(".part-*"))) == 0


def test_ptx_is_kept_for_each_architecture(toolkit):
    assert ptx("small", "89") == ptx("small", "89") == ptx("small", "90a") == b"compiled"
    assert [("-arch=compute_89" in line, "-ptx" in line) for line in calls(toolkit)] == [(True, True), (False, True)]


def test_a_kernel_that_spills_is_refused_every_time(toolkit):
    (toolkit / "log").write_text(LOG.format(stack=0, spills=4))
    for _ in range(2):
        with pytest.raises(KernelError) as caught:
            build("small")
        assert caught.value.reason == "kernel_spills"
    assert len(calls(toolkit)) == 2


def test_the_compilers_words_reach_the_user(toolkit):
    (toolkit / "broken").touch()
    with pytest.raises(KernelError, match="identifier x is undefined") as caught:
        build("small")
    assert caught.value.reason == "kernel_compile_failed"


def test_a_cache_that_cannot_be_written_has_a_reason(toolkit, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("APEX_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(KernelError, match="APEX_CACHE_DIR") as caught:
        build("small")
    assert caught.value.reason == "cache_not_writable"


def test_the_command_prints_a_table_or_json(toolkit, capsys):
    assert main([]) == 0
    table, progress = capsys.readouterr()
    assert progress.splitlines()[0] == "small: compiling for 7 architectures" and "small: compiled in " in progress
    assert "apex_a_f32" in table and "75:54 90a:32" in table and "small: " in table and "compiled now" in table
    assert main(["--json"]) == 0
    document, progress = capsys.readouterr()
    assert progress == "", "nothing is compiled twice"
    (op,) = json.loads(document)["ops"]
    assert op["cached"] and {item["registers"] for item in op["kernels"]} == {54, 32}


def test_a_first_use_says_what_takes_so_long_and_how_to_do_it_beforehand(toolkit, caplog):
    for _ in range(2):
        assert fatbin("small").read_bytes() == b"compiled"
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "of small" in record.getMessage() and COMMAND in record.getMessage()


def test_ops_are_compiled_side_by_side_and_one_that_fails_is_named(toolkit, tmp_path):
    """Each nvcc waits until the other has been called, for a minute at most."""
    (tmp_path / "plugins" / "other").mkdir()
    (tmp_path / "plugins" / "other" / "kernel.cu").write_text("four")
    nvcc = (toolkit / "nvcc").read_text()
    waits = (
        "import time\n"
        "end = time.monotonic() + 60\n"
        "while len((here / 'calls').read_text().splitlines()) < 2:\n"
        "    assert time.monotonic() < end, 'alone'\n"
        "    time.sleep(0.01)\n"
    )
    (toolkit / "nvcc").write_text(nvcc.replace('if (here / "broken")', waits + 'if (here / "broken")'))
    said = []
    assert [item.op for item in build_all(said.append)] == ["other", "small"]
    assert set(said[:2]) == {"other: compiling for 7 architectures", "small: compiling for 7 architectures"} and len(said) == 4
    (tmp_path / "plugins" / "other" / "kernel.cu").write_text("five")
    (toolkit / "broken").touch()
    with pytest.raises(KernelError, match="identifier x is undefined"):
        build_all(said.append)


def test_without_nvcc_the_command_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("apex_plugins.kernels.nvcc.USUAL_FOLDER", tmp_path)
    assert main([]) == 1
    said = capsys.readouterr()
    assert "[nvcc_not_found]" in said.err and "Install the CUDA toolkit" in said.err and not said.out
    assert main(["--json"]) == 1
    assert json.loads(capsys.readouterr().out)["reason"] == "nvcc_not_found"
    monkeypatch.setenv("CUDA_PATH", str(tmp_path / "nothing"))
    with pytest.raises(KernelError, match="nothing, without bin/nvcc"):
        find_toolkit()


def test_without_a_cxx_compiler_the_host_face_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(KernelError) as caught:
        host.find_compiler()
    assert caught.value.reason == "cxx_not_found"
    monkeypatch.setenv("CXX", "ccache nobody++")
    with pytest.raises(KernelError, match="CXX names ccache"):
        host.find_compiler()


def test_the_folder_of_caches_is_the_runtimes():
    from apex_runtime.cache_folder import cache_folder

    assert cache_folder is cache.cache_folder


@pytest.fixture(scope="module")
def real():
    """Every op as the command compiles it, in the user's cache, so that a run after the first takes no time."""
    try:
        find_toolkit()
    except KernelError as error:
        pytest.skip(str(error))
    return {built.op: built for built in build_all(lambda line: None)}


@pytest.mark.parametrize("op", ops())
def test_the_real_kernels_compile_for_every_architecture_without_local_memory(op, real):
    built = real[op]
    assert built.path.stat().st_size > 10_000 and build(op).cached
    names = {item.kernel for item in built.kernels}
    assert names and all(name.startswith(f"apex_{op}_") for name in names)
    for name in names:
        assert [item.architecture.removeprefix("sm_") for item in built.kernels if item.kernel == name] == list(ARCHITECTURES)
    assert all(item.stack == item.spills == 0 for item in built.kernels)
    text = ptx(op, "75").decode()  # what TensorRT's plugins are made of
    assert all(f".entry {name}(" in text for name in names) and ".target sm_75" in text


def test_small_types_convert_as_cudas_own_headers_do(tmp_path):
    """Random bits and all neighbours of what a small type can hold, against the host side of cuda_fp16.h, _bf16.h and _fp8.h."""
    try:
        nvcc = find_toolkit().nvcc  # as a C++ compiler that knows where the headers are
    except KernelError as error:
        pytest.skip(str(error))
    program = Path(__file__).parent / "conversions.cpp"
    subprocess.run([nvcc, "-std=c++17", "-O1", "-I", cache.SOURCES, program, "-o", tmp_path / "conversions"], check=True)
    run = subprocess.run([tmp_path / "conversions"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout

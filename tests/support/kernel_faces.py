"""Kernels of the ops for tests: on this processor by their host faces, and on a GPU by torch, with the types of NumPy.

With APEX_TEST_KERNELS=gpu what the tests run by the host faces runs on the GPU instead (``kernel_on_gpu.py``).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from kernel_on_gpu import ON_GPU, run_on_gpu

from apex_plugins.kernels.host import host_library
from apex_plugins.kernels.launch import Launch
from apex_plugins.kernels.reasons import KernelError

NUMPY_TYPES = {
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "e4m3": np.dtype(ml_dtypes.float8_e4m3fn),
    "u8": np.dtype(np.uint8),
}
LETTERS = {dtype: letters for letters, dtype in NUMPY_TYPES.items()}
# What one rounding to the type may cost, relative to the largest of the numbers that go in.
TOLERANCES = {"f32": 1e-5, "f16": 2e-3, "bf16": 8e-3}


def library(op: str) -> ctypes.CDLL:
    """The host face of an op, or the test is skipped with the reason code."""
    try:
        return host_library(op)
    except KernelError as error:
        if error.reason == "cxx_not_found":
            pytest.skip(str(error))
        raise


def run_on_host(op: str, launch: Launch) -> None:
    """Every thread of every block of a launch, one by one."""
    if not launch.empty:
        getattr(library(op), launch.kernel)(*launch.arguments, ctypes.c_int32(launch.grid[0]))


def run_kernel(op: str, launch: Launch, arrays: Sequence[np.ndarray]) -> None:
    """A launch for the addresses of ``arrays``, on this processor or, when the tests were asked to, on the GPU."""
    if ON_GPU:
        run_on_gpu(op, launch, arrays)
    else:
        run_on_host(op, launch)


def poisoned(shape: tuple[int, ...], dtype: np.dtype, offset: int = 0) -> np.ndarray:
    """An array in which every element is NaN (255 in uint8); ``offset`` elements off what is aligned to 64 bytes."""
    count = int(np.prod(shape))
    memory = np.full(count * dtype.itemsize + 64 + offset * dtype.itemsize, 0xFF, np.uint8)
    start = -memory.ctypes.data % 64 + offset * dtype.itemsize
    return memory[start : start + count * dtype.itemsize].view(dtype).reshape(shape)


def moved(array: np.ndarray, offset: int = 0) -> np.ndarray:
    """A copy of an array that lies ``offset`` elements off what is aligned."""
    copy = poisoned(array.shape, array.dtype, offset)
    copy[...] = array
    return copy


def host_tile_pack(
    inputs: dict[str, np.ndarray], attributes: dict[str, Any], out: str | None = None, offset: int = 0, **more: Any
) -> np.ndarray:
    """[B,K,C,P,P] of an image [B,C,H,W], or of pixels [B,H,W,3] with a ``normalisation``."""
    from apex_plugins.tile_pack.launch import launch

    image, ids, levels = moved(inputs["image"], offset), inputs["ids"], inputs["levels"]
    kind = LETTERS[image.dtype]
    b, c, h, w = image.shape if kind != "u8" else tuple(image.shape[n] for n in (0, 3, 1, 2))
    side = attributes["tile"] + 2 * attributes["halo"]
    tiles = poisoned((b, ids.shape[1], c, side, side), NUMPY_TYPES[out or kind], offset)
    arrays = (image, ids, levels, tiles)
    addresses = (item.ctypes.data for item in arrays)
    what = launch(*addresses, types=(kind, out or kind), shape=(b, c, h, w), tiles=ids.shape[1], **attributes, **more)
    run_kernel("tile_pack", what, arrays)
    return tiles


def host_tile_unpack_fusion(
    inputs: dict[str, np.ndarray], attributes: dict[str, Any], in_place: bool = True, offset: int = 0
) -> np.ndarray:
    """The map with the tiles in it, or when not ``in_place`` one of its own, which was full of poison."""
    from apex_plugins.tile_unpack_fusion.launch import launch

    base, tiles, ids, levels, alpha = (
        moved(item, offset) if item.dtype.kind != "i" else np.ascontiguousarray(item) for item in inputs.values()
    )
    merged = base if in_place else poisoned(base.shape, base.dtype, offset)
    arrays = (base, tiles, ids, levels, alpha, merged)
    how = {"kind": LETTERS[base.dtype], "shape": base.shape, "tiles": ids.shape[1], "cells": attributes["tile"] // 8}
    run_kernel("tile_unpack_fusion", launch(*(item.ctypes.data for item in arrays), **how), arrays)
    return merged


def host_tile_ssm_scan(inputs: dict[str, np.ndarray], attributes: dict[str, Any], offset: int = 0) -> np.ndarray:
    """y [B,K,H,P], in the type of the inputs."""
    from apex_plugins.tile_ssm_scan.launch import launch

    held = [moved(item, offset) for item in inputs.values()]
    y = poisoned(held[0].shape, held[0].dtype, offset)
    how = {"kind": LETTERS[y.dtype], "shape": y.shape, "states": held[3].shape[2], "reverse": bool(attributes["reverse"])}
    run_kernel("tile_ssm_scan", launch([item.ctypes.data for item in held], y.ctypes.data, **how), [*held, y])
    return y


def host_decode_nms(
    inputs: dict[str, np.ndarray], attributes: dict[str, Any], alone: bool = False, offset: int = 0
) -> tuple[np.ndarray, ...]:
    """Boxes, scores, labels, candidate ids of scores in float32 or float16 and float32 coordinates."""
    from apex_plugins.decode_nms.launch import Geometry, Settings, launch_alone, launches, workspace_bytes

    scores, *geometry = (moved(item, offset) for item in inputs.values())
    batch, anchors, _ = shape = scores.shape
    flat = batch, attributes["max_detections"]
    outputs = poisoned((*flat, 4), np.dtype(np.float32)), poisoned(flat, scores.dtype), *(np.full(flat, -7) for _ in range(2))
    workspace = poisoned((workspace_bytes(batch, anchors) // 4,), np.dtype(np.float32))
    places = scores.ctypes.data, Geometry(*(item.ctypes.data for item in geometry)), [item.ctypes.data for item in outputs]
    how = {"kind": LETTERS[scores.dtype], "shape": shape, "settings": Settings(**attributes)}
    for launch in [launch_alone(*places, **how)] if alone else launches(*places, workspace.ctypes.data, **how):
        run_kernel("decode_nms", launch, [scores, *geometry, *outputs, workspace])
    return outputs


# Of the ops that compute: a face takes inputs of one type. DecodeNMS decides, and is held to every bit elsewhere.
HOST_FACES: dict[str, Callable[..., Any]] = {
    "tile_pack": host_tile_pack,
    "tile_ssm_scan": host_tile_ssm_scan,
    "tile_unpack_fusion": host_tile_unpack_fusion,
}


def cuda_face(op: str, inputs: dict[str, np.ndarray], attributes: dict[str, Any]) -> tuple[np.ndarray, ...]:
    """The op's torch function on the GPU, where its kernel runs, or the test is skipped with the reason code."""
    import importlib

    import torch

    from apex_plugins.kernels.torch_face import why_not

    # What torch leaves uninitialised it fills then: NaN, or the largest integer.
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    if (reason := why_not(op)) is not None:
        pytest.skip(str(reason))
    bits = {2: np.int16, 1: np.uint8}
    kinds = {"bf16": torch.bfloat16, "e4m3": torch.float8_e4m3fn}

    def tensor(array: np.ndarray) -> torch.Tensor:
        letters = LETTERS.get(array.dtype, "")
        plain = array.view(bits[array.dtype.itemsize]) if letters in kinds else array
        found = torch.from_numpy(np.ascontiguousarray(plain)).cuda()
        return found.view(kinds[letters]) if letters in kinds else found

    function = getattr(importlib.import_module(f"apex_plugins.{op}.torch_op"), op)
    result = function(*(tensor(item) for item in inputs.values()), *attributes.values())
    results = result if isinstance(result, tuple) else (result,)
    return tuple((item.float() if item.is_floating_point() else item).cpu().numpy() for item in results)

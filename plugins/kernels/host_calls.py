"""The kernels of every op on NumPy arrays by their host faces: the lines that run on a GPU, on this processor."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from apex_plugins.decode_nms import launch as decode_nms
from apex_plugins.kernels.host import host_library
from apex_plugins.kernels.launch import Launch
from apex_plugins.tile_pack import launch as tile_pack
from apex_plugins.tile_ssm_scan import launch as tile_ssm_scan
from apex_plugins.tile_unpack_fusion import launch as tile_unpack_fusion

_LETTERS = {np.dtype(np.float32): "f32", np.dtype(np.float16): "f16"}
Outputs = tuple[np.ndarray, ...]


def call_host(op: str, inputs: dict[str, np.ndarray], attributes: dict[str, Any]) -> Outputs:
    """The outputs of an op, named by its folder; ``inputs`` in the order of its description, floats in float32 or float16.

    Raises KernelError where the host face cannot be built, ValueError for what no kernel takes.
    """
    held = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
    return _CALLS[op](held, attributes)


def _run(op: str, launch: Launch) -> None:
    """Every thread of every block, one by one."""
    if not launch.empty:
        getattr(host_library(op), launch.kernel)(*launch.arguments, ctypes.c_int32(launch.grid[0]))


def _pointers(*arrays: np.ndarray) -> list[int]:
    return [array.ctypes.data for array in arrays]


def _tile_pack(inputs: dict[str, np.ndarray], attributes: dict[str, Any]) -> Outputs:
    image, ids, levels = inputs.values()
    kind, side = _LETTERS[image.dtype], attributes["tile"] + 2 * attributes["halo"]
    tiles = np.empty((image.shape[0], ids.shape[1], image.shape[1], side, side), image.dtype)
    b, c, h, w = image.shape
    where = _pointers(image, ids, levels, tiles)
    _run("tile_pack", tile_pack.launch(*where, types=(kind, kind), shape=(b, c, h, w), tiles=ids.shape[1], **attributes))
    return (tiles,)


def _tile_ssm_scan(inputs: dict[str, np.ndarray], attributes: dict[str, Any]) -> Outputs:
    x = inputs["x"]
    y = np.empty_like(x)
    b, k, h, p = x.shape
    how = {"kind": _LETTERS[x.dtype], "states": inputs["Bm"].shape[2], "reverse": bool(attributes["reverse"])}
    launch = tile_ssm_scan.launch(_pointers(*inputs.values()), y.ctypes.data, shape=(b, k, h, p), **how)
    _run("tile_ssm_scan", launch)
    return (y,)


def _tile_unpack_fusion(inputs: dict[str, np.ndarray], attributes: dict[str, Any]) -> Outputs:
    base, ids = inputs["base"], inputs["ids"]
    merged = np.empty_like(base)
    b, c, h, w = base.shape
    how = {"kind": _LETTERS[base.dtype], "tiles": ids.shape[1], "cells": attributes["tile"] // 8}
    where = _pointers(*inputs.values(), merged)
    _run("tile_unpack_fusion", tile_unpack_fusion.launch(*where, shape=(b, c, h, w), **how))
    return (merged,)


def _decode_nms(inputs: dict[str, np.ndarray], attributes: dict[str, Any]) -> Outputs:
    scores, *geometry = inputs.values()
    b, a, c = scores.shape
    flat = b, attributes["max_detections"]
    outputs = np.empty((*flat, 4), np.float32), np.empty(flat, scores.dtype), np.empty(flat, np.int64), np.empty(flat, np.int64)
    workspace = np.empty(decode_nms.workspace_bytes(b, a) // 8, np.int64)
    places = scores.ctypes.data, decode_nms.Geometry(*_pointers(*geometry)), _pointers(*outputs), workspace.ctypes.data
    settings = decode_nms.Settings(**attributes)
    for launch in decode_nms.launches(*places, kind=_LETTERS[scores.dtype], shape=(b, a, c), settings=settings):
        _run("decode_nms", launch)
    return outputs


_CALLS = {
    "tile_pack": _tile_pack,
    "tile_ssm_scan": _tile_ssm_scan,
    "tile_unpack_fusion": _tile_unpack_fusion,
    "decode_nms": _decode_nms,
}

"""How an op describes itself: one record per op, from which the exporter builds its node and the tests walk its faces."""

from __future__ import annotations

from dataclasses import dataclass, field

DOMAIN = "apex"  # ONNX domain, torch namespace and TensorRT plugin namespace of every op
TILE_CELL = 8  # a tile and its halo are multiples of this: the stride of the feature map that tiles are pasted into
MAX_DEPTH = 3  # levels of tiles that a file may have, at most


@dataclass(frozen=True)
class OpSpec:
    """Name, version, inputs and outputs (name -> "float" or "int64") and attributes (name -> int or float) of one op."""

    name: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    attributes: dict[str, type] = field(default_factory=dict)
    version: int = 1

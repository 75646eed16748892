"""Makes ``tensorrt_bindings`` and its plugin module known as ``tensorrt``, which is how TensorRT's own package does it."""

from __future__ import annotations

import importlib
import sys

import tensorrt_bindings as trt

sys.modules["tensorrt"] = trt
sys.modules["tensorrt.plugin"] = importlib.import_module("tensorrt_bindings.plugin")
trt.plugin = sys.modules["tensorrt.plugin"]

"""Detectors of other projects, as ONNX files that a small YAML describes: what ours are measured against."""

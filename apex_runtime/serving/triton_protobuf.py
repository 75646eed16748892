"""Triton's own definition of a model configuration, from its client package."""

from __future__ import annotations

from typing import Any

from apex_runtime.errors import MissingPackageError


def model_config() -> Any:
    """An empty ``inference.ModelConfig``. Raises MissingPackageError without tritonclient."""
    try:
        from tritonclient.grpc.model_config_pb2 import ModelConfig
    except ImportError as error:
        message = f"--for triton: Triton's definitions cannot be imported ({error})."
        raise MissingPackageError(message, 'Install the extra serve: pip install ".[serve]" in a checkout.') from error
    return ModelConfig()

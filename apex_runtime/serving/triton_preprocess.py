"""The first model of the ensemble, a copy of a file of apex_runtime: decode an image, letterbox it, turn its budget into K.

Runs in the Python backend of a Triton server in whose Python environment apex-x is installed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # Triton puts it on the path of a model

from apex_runtime.backends.ort import graph_feeds
from apex_runtime.errors import ApexError
from apex_runtime.pipeline.predictor import prepare_image
from apex_runtime.serving.request import INPUTS, RequestTensor, read_request
from apex_runtime.serving.triton_arguments import opened
from apex_runtime.serving.triton_graph import slot_names, slots_of

_DATATYPES = {"image": "BYTES", "pixels": "UINT8", "budget": "BYTES"}


class TritonPythonModel:
    """image or pixels, budget -> images, tile_slots (or tiles, of a plan), tile_bonus, source_size."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the passport of the model and the settings. ``args`` as Triton gives them."""
        model = opened(args)
        self.info, self.settings = model.info, model.settings
        self.outputs = set(model.outputs)

    def execute(self, requests: list[Any]) -> list[Any]:
        """A response for each request; what is wrong with one is its own error."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        try:
            tensors = [pb_utils.Tensor(name, array) for name, array in self._prepared(request).items()]
        except ApexError as error:
            return pb_utils.InferenceResponse(
                output_tensors=[], error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
            )
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def _prepared(self, request: Any) -> dict[str, np.ndarray]:
        given = {name: pb_utils.get_input_tensor_by_name(request, name) for name in INPUTS}
        arrays = {name: tensor.as_numpy() for name, tensor in given.items() if tensor is not None}
        asked = read_request([RequestTensor(name, _DATATYPES[name], a.shape, a) for name, a in arrays.items()], self.settings)
        prepared = prepare_image(asked.pixels(self.settings.max_pixels), asked.budget, self.info)
        feeds = graph_feeds(self.info, prepared.image_HW3[None], prepared.tiles, prepared.bonus_N[None])
        values = feeds | slots_of(self.info, prepared.tiles) | {"source_size": self._size(prepared.letterbox)}
        # Of a plan, one number per batch; the batch of a model is Triton's first dimension all the same.
        values |= {name: values[name][None] for name in slot_names(self.info)}
        return {name: array for name, array in values.items() if name in self.outputs}

    @staticmethod
    def _size(letterbox: Any) -> np.ndarray:
        return np.array([[letterbox.source_height, letterbox.source_width]], np.int64)

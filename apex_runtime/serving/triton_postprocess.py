"""The last model of the ensemble, a copy of a file of apex_runtime: from the outputs of the graph to detections of the image.

Runs in the Python backend of a Triton server in whose Python environment apex-x is installed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # Triton puts it on the path of a model

from apex_runtime.errors import ApexError
from apex_runtime.pipeline.predictor import checked_filter
from apex_runtime.postprocess.detections import detections_of_image
from apex_runtime.postprocess.letterbox import Letterbox
from apex_runtime.serving.answer import answer_of
from apex_runtime.serving.triton_arguments import opened


class TritonPythonModel:
    """Outputs of the graph, source_size -> boxes, scores, labels, category_ids, class_names, masks, spent."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the passport of the model and the settings. ``args`` as Triton gives them."""
        model = opened(args)
        self.info, self.inputs, asked = model.info, model.inputs, model.settings
        self.wanted = checked_filter(self.info, asked.min_score, asked.max_detections, asked.classes)

    def execute(self, requests: list[Any]) -> list[Any]:
        """A response for each request; what is wrong with one is its own error."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        arrays = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy()[0] for name in self.inputs}
        try:
            found = self._answer(arrays, set(request.requested_output_names()))
        except ApexError as error:
            return pb_utils.InferenceResponse(
                output_tensors=[], error=pb_utils.TritonError(str(error), pb_utils.TritonError.INTERNAL)
            )
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor(name, array) for name, array in found.items()])

    def _answer(self, arrays: dict[str, np.ndarray], names: set[str]) -> dict[str, np.ndarray]:
        height, width = (int(side) for side in arrays.pop("source_size"))
        size, wanted = self.info.input, self.wanted
        found = detections_of_image(
            arrays,
            Letterbox(height, width, size.height, size.width),
            self.info,
            min_score=wanted.min_score,
            max_detections=wanted.max_detections,
            labels=wanted.labels,
        )
        return answer_of(found, self.info, names)

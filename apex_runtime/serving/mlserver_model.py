"""The model that MLServer hosts: ``"implementation": "apex_runtime.serving.mlserver_model.ApexModel"``.

MLServer imports this module again for every load, so nothing here outlives one: state is in the model, metrics in a module of
their own. It is the only module, with its neighbours that say so, that needs a package which only the server brings.
"""

from __future__ import annotations

import multiprocessing
from pathlib import Path

from mlserver import MLModel
from mlserver.errors import MLServerError
from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor
from mlserver.utils import get_model_uri

from apex_runtime.errors import ApexError, UsageError
from apex_runtime.serving.answer import OUTPUT_NAMES, OUTPUTS
from apex_runtime.serving.mlserver_limits import limit_bodies, name_grpc_codes, quiet_refusals
from apex_runtime.serving.mlserver_tensors import request_tensors, response_outputs
from apex_runtime.serving.refusals import Outcome, Refusal
from apex_runtime.serving.request import read_request
from apex_runtime.serving.service import Service
from apex_runtime.serving.settings import ServingSettings, parse_settings

_INPUTS = (("image", "BYTES", [1, 1]), ("pixels", "UINT8", [1, -1, -1, 3]), ("budget", "BYTES", [1, 1]))


class ApexModel(MLModel):
    """An engine bundle behind the Open Inference Protocol. A new instance is loaded beside the one that serves."""

    async def load(self) -> bool:
        """Open the bundle and answer one image. Raises MLServerError with the reason, and the model before goes on serving."""
        try:
            _refuse_workers()
            name_grpc_codes()
            quiet_refusals()
            settings = self._serving_settings()
            limit_bodies(self.name, settings.max_image_bytes, loaded=False)
            self.service = await Service.open(self.name, Path(await get_model_uri(self.settings)), settings)
            limit_bodies(self.name, settings.max_image_bytes, loaded=True)
        except ApexError as error:
            raise MLServerError(f"{self.name}: not loaded: {error}", Outcome.FAILED.status) from error
        self.inputs = [MetadataTensor(name=name, datatype=kind, shape=shape) for name, kind, shape in _INPUTS]
        self.outputs = [MetadataTensor(name=spec.name, datatype=spec.datatype, shape=list(spec.shape)) for spec in OUTPUTS]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """The detections of one image. Raises MLServerError with the status that ``refusals.Outcome`` gives."""
        service = self.service
        try:
            wanted = [output.name for output in payload.outputs or ()] or OUTPUT_NAMES
            timeout = getattr(payload.parameters, "timeout", None)
            answer = await service.answer(lambda: read_request(request_tensors(payload), service.settings), wanted, timeout)
        except Refusal as refusal:
            raise MLServerError(str(refusal), refusal.outcome.status) from refusal
        outputs = response_outputs(answer)
        return InferenceResponse(model_name=self.name, model_version=service.digest[:12], id=payload.id, outputs=outputs)

    async def unload(self) -> bool:
        """Answer what was accepted, then let the engine go."""
        service = getattr(self, "service", None)
        if service is not None:  # a model that could not be loaded is unloaded too
            await service.close()
        return True

    def _serving_settings(self) -> ServingSettings:
        parameters = self.settings.parameters
        return parse_settings((parameters and parameters.extra) or {}, f"{self.name}: parameters.extra")


def _refuse_workers() -> None:
    """Raises UsageError in a process that MLServer made for ``parallel_workers``."""
    if multiprocessing.parent_process() is not None:
        cause = "parallel_workers: each would have a queue, limits and metrics of its own, and none over HTTP."
        raise UsageError(cause, "Set it to 0 in settings.json; docs/serving.md says how to use more cores.")

"""The model of a bundle in the precision that was asked for: as exported, or calibrated and rewritten by the passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from apex_runtime.backends.onnx_contract import OnnxFile
from apex_runtime.backends.reasons import REMEDIES, ReasonCode
from apex_runtime.backends.timing_cache import Note
from apex_runtime.bundle.sensitivity_run import choose_regions
from apex_runtime.errors import ModelError, UsageError
from apex_runtime.evaluation.coco_ap import shared_classes
from apex_runtime.precision.calibration_cache import default_cache_file, read_cache, write_cache
from apex_runtime.precision.calibration_key import CacheKey
from apex_runtime.precision.convert import Conversion, Converted
from apex_runtime.precision.data import PrecisionData, Reported, digest, precision_data
from apex_runtime.precision.graph_precision import precision_of
from apex_runtime.precision.plan import Plan, plan_for
from apex_runtime.precision.ranges import Calibration, Feeds, calibration_feeds, collect_ranges
from apex_runtime.precision.request import PrecisionRequest, Step
from apex_runtime.precision.sensitivity import Sensitivity

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Rewritten:
    """The file to build from; what the passes decided, None for fp32; and by what regions were chosen, where they were."""

    file: OnnxFile
    converted: Converted | None = None
    sensitivity: Sensitivity | None = None


@dataclass(frozen=True)
class Rewriting:
    """One exported model on its way into a precision. ``data``: the images, None for fp32, which needs none."""

    exported: OnnxFile
    request: PrecisionRequest
    backend: str
    data: PrecisionData | None

    @classmethod
    def of(cls, exported: OnnxFile, request: PrecisionRequest, backend: str, note: Note) -> Rewriting:
        """Raises UsageError (options that do not go together, no images), ModelError (rewritten before)."""
        request.check()
        if precision_of(exported.model) != "fp32":
            raise ModelError(
                f"{exported.path}: it is float16 or rounded to eight bits already; a bundle is built from an exported model.",
                "Give the model.onnx of apex-train export, not that of a bundle.",
                path=exported.path,
            )
        if request.wanted == "fp32":
            return cls(exported, request, backend, None)
        data = precision_data(request.data, request.calibration_images)
        if (found := data.recognised) is not None:
            others = f"; that of the kind {', '.join(found.also)} in it is not read" if found.also else ""
            note(f"--data: a {found.kind} set, {found.reason}{others}")
        return cls(exported, request, backend, data)

    def reported(self) -> Reported | None:
        """The images to compare on; None where nothing is to be compared. Raises UsageError, DataError (other classes, too)."""
        if self.data is None or not self.request.report:
            return None
        found = self.data.report
        if found.labels is None:
            return found
        shared_classes(self.exported.info.classes, found.labels, "the model")
        chosen_by = self.request.max_drop is not None and found.labels.split == "val"
        return replace(found, origin=f"{found.origin}, by which the regions were chosen") if chosen_by else found

    def run(self, step: Step, note: Note) -> Rewritten:
        """The model in the precision; for fp32 the exported file itself.

        Raises ImageError, ModelError (no region may be rounded), UsageError (a pin that matches nothing, or all),
        KeyboardInterrupt when ``step`` says no.
        """
        request, exported = self.request, self.exported
        if self.data is None:
            return Rewritten(exported)
        sensitivity = None if request.max_drop is None else self._chosen(self.data, request.max_drop, step)
        regions = sensitivity.chosen if sensitivity else None
        plan = plan_for(request.wanted, self.backend, request.profile, request.pins, regions)
        assert plan is not None, "only fp32 has none"
        conversion = Conversion(exported.model, plan)
        self._check_changes_something(conversion)
        converted = conversion.finish(self._calibration(conversion, self.data, step, note))
        data = converted.model.SerializeToString(deterministic=True)
        return Rewritten(OnnxFile(exported.path, data, converted.model, exported.info), converted, sensitivity)

    def _chosen(self, data: PrecisionData, max_drop: float, step: Step) -> Sensitivity:
        """The regions that may be rounded. Raises ModelError, with the ranking, when there are none."""
        request = self.request
        asked = request.wanted, self.backend, request.profile, request.pins, request.method
        found = choose_regions(self.exported, *asked, data, max_drop, step)
        if not found.chosen:
            ranking = "; ".join(f"{item.region} {item.why}" for item in found.steps)
            message = (
                f"--max-drop {max_drop:g}: no region may be rounded to {request.wanted}: {ranking or 'it has no candidates'}."
            )
            code = ReasonCode.NOTHING_TO_ROUND
            raise ModelError(message, REMEDIES[code], code=code.value)
        return found

    def _check_changes_something(self, conversion: Conversion) -> None:
        """A graph like the exported one must not bear the name of a precision."""
        if conversion.placement.products if conversion.plan.number_format else conversion.free:
            return
        refused = ", ".join(sorted(set(conversion.placement.refused.values())))
        why = f"what is not pinned is refused: {refused}" if refused else "all that could change is pinned"
        raise UsageError(
            f"{self.exported.path}: nothing is left to change for {self.request.name}; {why}.",
            "Pin less with --pin, or give another precision.",
        )

    def _calibration(self, conversion: Conversion, data: PrecisionData, step: Step, note: Note) -> Calibration:
        """The ranges of the tensors that matter, from the cache where it has them. Raises ModelError for a damaged file."""
        file, request = self.exported, self.request
        key = CacheKey.of(file, _asked(conversion.plan, request), request.method, digest(data.calibration))
        path = request.calibration_cache or default_cache_file(file.path, key.profile, request.method)
        found = read_cache(path, key, conversion.watched, conversion.placement.tensors)
        if found.calibration is not None:
            note(f"calibration: that of {path}")
            return found.calibration
        if found.changes:
            note(f"calibrating anew: {'; '.join(found.changes)} ({path})")
        feeds = _feeds(data, file, step)
        calibration = collect_ranges(file.model, conversion.watched, feeds, conversion.placement.tensors, request.method)
        try:
            write_cache(path, key, calibration)
        except OSError as error:
            note(f"the calibration is not kept: {path}: {error.strerror or error}")
        return calibration


def _asked(plan: Plan, request: PrecisionRequest) -> str:
    """What decides which tensors have a range, in words for the key of the cache."""
    rounded = f"{plan.number_format.name} in {', '.join(sorted(plan.regions))}" if plan.number_format else "no eight bits"
    pins = f", pinned {', '.join(request.pins)}" if request.pins else ""
    return f"{request.name}: {rounded}, {'float16' if plan.half else 'float32'} elsewhere{pins}"


def _feeds(data: PrecisionData, file: OnnxFile, step: Step) -> Iterator[Feeds]:
    title = f"calibrating on {len(data.calibration)} image(s)"
    return calibration_feeds(data.calibration, file.info, lambda done, total: step(title, done, total))

"""The regions to round are chosen: graphs are made from one calibration on train and held against fp32 on val, by ONNX Runtime.

What was measured once stands in a journal; what is wanted of it next time is neither calibrated nor measured again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from apex_runtime.backends.onnx_contract import OnnxFile
from apex_runtime.bundle.against_fp32 import Comparison, Side
from apex_runtime.bundle.fp32_record import Measured
from apex_runtime.bundle.sensitivity_journal import Journal, JournalKey
from apex_runtime.errors import UsageError
from apex_runtime.machine import processor, usable_cpus
from apex_runtime.precision.calibration_cache import read_cache, write_cache
from apex_runtime.precision.calibration_key import CacheKey, digest_of
from apex_runtime.precision.convert import Conversion
from apex_runtime.precision.data import PrecisionData, Reported, digest
from apex_runtime.precision.plan import Plan, Precision, Profile, plan_for
from apex_runtime.precision.ranges import Calibration, Method, calibration_feeds, collect_ranges
from apex_runtime.precision.request import Step
from apex_runtime.precision.sensitivity import Cost, Sensitivity, candidates, choose


def choose_regions(
    file: OnnxFile,
    precision: Precision,
    backend: str,
    profile: Profile | None,
    pins: Sequence[str],
    method: Method,
    data: PrecisionData,
    max_drop: float,
    step: Step,
) -> Sensitivity:
    """The regions that may be rounded for ``backend`` while AP on val stays within ``max_drop`` points of fp32, and the ranking.

    Graphs are timed for ort-cpu only. ``step`` is asked before each image and each step of a measurement. Nothing chosen is an
    answer, too, with its reasons. Raises UsageError (the precision rounds nothing, no split val, no labels in it), ImageError,
    DataError, ModelError (also for a damaged journal), BackendError (an output is not finite), KeyboardInterrupt.
    """
    plan = plan_for(precision, backend, profile, pins)
    if plan is None or plan.number_format is None:
        message = f"--max-drop has no meaning for {precision}, which rounds nothing to eight bits."
        raise UsageError(message, "Leave it out, or give --precision int8.")
    val = data.select
    alone = candidates(file.model, plan)
    calibrating = _Calibrating(file, plan, alone, data, method, step)
    with tempfile.TemporaryDirectory(prefix="apex-x-") as folder:
        trials = _Trials(calibrating, val, usable_cpus() if backend == "ort-cpu" else None, Path(folder))
        choice = choose({region: len(item.placement.products) for region, item in alone.items()}, trials.cost, max_drop)
    return Sensitivity(
        **dict(choice),
        split="val",
        images=len(val.items),
        figure=trials.figure,
        executed="ort-cpu" if backend == "ort-cpu" else "simulated on ort-cpu",
    )


class _Calibrating:
    """The ranges of one model on the images of train, for all candidates together; looked at when they are first wanted."""

    def __init__(
        self, file: OnnxFile, plan: Plan, alone: Mapping[str, Conversion], data: PrecisionData, method: Method, step: Step
    ) -> None:
        self.file, self.plan, self.step = file, plan, step
        self._alone, self._images = alone, data.calibration
        self.key = CacheKey.of(file, _asked(plan, alone), method, digest(data.calibration))
        self._known: Calibration | None = None

    def converted(self, regions: frozenset[str], cache: Path) -> bytes:
        """The graph in which ``regions`` are rounded, as a file. ``cache``: where the ranges are kept."""
        conversion = Conversion(self.file.model, replace(self.plan, regions=regions))
        return conversion.finish(self._ranges(conversion, cache)).model.SerializeToString(deterministic=True)

    def _ranges(self, conversion: Conversion, cache: Path) -> Calibration:
        """What is known, and more where that does not cover ``conversion``: a set of regions may round at its borders what
        neither its parts nor all regions together do."""
        known = self._known or read_cache(cache, self.key).calibration
        wanted = [conversion, *(() if known else self._foreseen())]
        watched = {name for item in wanted for name in item.watched} - (known.ranges.keys() if known else set())
        rounded = {name for item in wanted for name in item.placement.tensors} - (known.quantised.keys() if known else set())
        if watched or rounded:
            title = f"calibrating on {len(self._images)} image(s)"
            feeds = calibration_feeds(self._images, self.file.info, partial(self.step, title))
            more = collect_ranges(self.file.model, sorted(watched), feeds, sorted(rounded), self.key.method)
            known = more if known is None else _joined(known, more)
            write_cache(cache, self.key, known)
        assert known is not None, "without a calibration everything was wanted"
        self._known = known
        return known

    def _foreseen(self) -> list[Conversion]:
        """The candidates one by one, and all together."""
        together = replace(self.plan, regions=frozenset(self._alone))
        return [*self._alone.values(), Conversion(self.file.model, together)]


class _Trials:
    """Sets of regions, each rounded and held against fp32 once: now, or in the run before."""

    def __init__(self, calibrating: _Calibrating, val: Reported, threads: int | None, folder: Path) -> None:
        """``threads``: of the sessions, where times are measured, else None. ``folder``: for graphs that are not kept."""
        self._calibrating, self._val, self._threads, self._folder = calibrating, val, threads, folder
        key = JournalKey(
            calibration=calibrating.key,
            val_sha256=_digest_of_labelled(val),
            processor=None if threads is None else processor(),
            threads=threads,
        )
        self._journal = Journal(key.path, key)
        self._cache = key.path.with_suffix(".calibration.json")
        self._comparison: Comparison | None = None

    @property
    def figure(self) -> str | None:
        """Which average precision decides; None when nothing was measured."""
        return next((_figure(measured) for measured in self._journal.found.values()), None)

    def cost(self, regions: frozenset[str]) -> Cost:
        """What it costs to round ``regions``, and nothing else. Raises UsageError when val has no labels to lose AP on."""
        if regions not in self._journal.found:
            self._journal.add(regions, self._measure(regions))
        return _cost(self._journal.found[regions], self._val)

    def _measure(self, regions: frozenset[str]) -> Measured:
        path = self._folder / "model.onnx"
        path.write_bytes(self._calibrating.converted(regions, self._cache))
        threads, name = usable_cpus(), " + ".join(sorted(regions))
        if self._comparison is None:
            fp32 = Side.of_file("the exported model", self._calibrating.file.path, threads)
            self._comparison = Comparison(fp32, self._val, self._threads)
        built = Side.of_file(f"the model with {name} rounded", path, threads)
        return self._comparison.measure(built, partial(self._calibrating.step, f"measuring {name} on val"))


def _asked(plan: Plan, alone: Mapping[str, Conversion]) -> str:
    """What decides which tensors have a range and how they are rounded, in words for a key."""
    assert plan.number_format is not None
    pins = f", pinned {', '.join(pattern.pattern for pattern in plan.pins)}" if plan.pins else ""
    half = "float16" if plan.half else "float32"
    return f"{plan.number_format.name} in any of {', '.join(sorted(alone))}; {half} elsewhere{pins}"


def _joined(first: Calibration, second: Calibration) -> Calibration:
    return replace(first, ranges={**first.ranges, **second.ranges}, quantised={**first.quantised, **second.quantised})


def _digest_of_labelled(val: Reported) -> str:
    assert val.labels is not None
    return digest_of([digest(val.items), val.labels.fingerprint()])


def _figure(measured: Measured) -> str:
    return "mask AP" if all(row.mask_ap for row in measured.budgets) else "box AP"


def _cost(measured: Measured, val: Reported) -> Cost:
    drops = [(row.mask_ap if _figure(measured) == "mask AP" else row.box_ap) for row in measured.budgets]
    times = [row.graph_milliseconds.ratio for row in measured.budgets if row.graph_milliseconds]
    lost = [found.drop_points for found in drops if found]
    if not lost:
        raise UsageError(f"--max-drop: {val.origin} has no labelled objects, so no AP can be lost.", "Label it, or leave it out.")
    return Cost(
        drop_points=max(lost),
        time_ratio=round(sum(times) / len(times), 4) if times else None,
        tile_overlap=measured.budgets[0].tile_overlap.mean,
    )

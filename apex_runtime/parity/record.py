"""``apex-rt parity SUBJECT --record FILE``: what a subject answers here, kept to be compared elsewhere."""

from __future__ import annotations

from pathlib import Path

from apex_runtime.errors import UsageError
from apex_runtime.parity.check import Progress, Settings
from apex_runtime.parity.recording import RecordedSubject, Recorder, Recording, write_recording
from apex_runtime.parity.report import tool_versions
from apex_runtime.parity.run import look_at_all
from apex_runtime.parity.subjects import identify, open_subject


def record(subject: Path, settings: Settings, path: Path, progress: Progress) -> Recording:
    """Run a subject on the images in every combination of a budget and a batch size, alone and with its own tiles forced.

    Raises UsageError for a name that does not end in .json, and what opening and running raise.
    """
    if path.suffix != ".json":
        raise UsageError(
            f"--record {path}: expected a name that ends in .json; the outputs are put beside it.", "--record gpu.json"
        )
    found = identify(subject)
    recorder = Recorder(open_subject(found, None, settings.size, settings.threads))
    cases = settings.cases(recorder.info)
    with progress(len(cases) * len(settings.budgets) * len(settings.batches)) as step:
        for done, _seen in enumerate(look_at_all(recorder, recorder, cases, settings.budgets, settings.batches), 1):
            step(done, 0)
    answered = RecordedSubject(file_name=found.hashed, sha256=found.sha256, precision=found.precision, backend=recorder.name)
    return write_recording(path, answered, {case.name: case.sha256 for case in cases}, tool_versions(), recorder)

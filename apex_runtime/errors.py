"""Errors a user can act on.

Every error that reaches the command line names the thing that is wrong (a file, an option), the cause, and what to do about it.
The command line prints ``message`` and ``remedy`` and leaves with ``exit_code``: 1 = the answer is no, 2 = wrong usage.
"""

from __future__ import annotations

from pathlib import Path


class ApexError(Exception):
    """A failure with a cause and a remedy, both written for the person at the keyboard."""

    exit_code = 1

    def __init__(self, message: str, remedy: str = "", *, path: str | Path | None = None, code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.path = None if path is None else str(path)
        self.code = code

    @property
    def kind(self) -> str:
        """What is wrong, in a word: image, data, usage, backend, ..."""
        return type(self).__name__.removesuffix("Error").lower()

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class UsageError(ApexError):
    """The command was asked for something it cannot mean: a bad budget, a missing folder, an unknown option value."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file or value does not fit its schema."""


class DataError(ApexError):
    """A data set or annotation file cannot be read as what it claims to be."""


class ImageError(DataError):
    """One image cannot be decoded; a run skips it and goes on."""


class ModelError(ApexError):
    """A checkpoint or ONNX file is not one of ours, or is damaged."""


class MissingPackageError(ModelError):
    """The model may be fine; what opens its kind is not installed here."""


class BundleError(ModelError):
    """An engine bundle is incomplete, was changed after it was built, or does not fit this machine."""


class BackendError(ApexError):
    """A backend is missing or failed; ``code`` is a stable reason code."""

"""Several threads, one session: who may run at once, and who waits."""

from __future__ import annotations

import threading

import numpy as np

from apex_runtime.backends.session import Session, Tiles
from apex_runtime.model_info import ModelInfo

# ``InferenceSession.run`` of ONNX Runtime may be called by several threads, and OrtSession changes nothing after it was opened.
# The others keep buffers, streams or a captured graph between calls.
_CONCURRENT = frozenset({"ort-cpu"})


def in_turn(session: Session) -> Session:
    """The session itself where its backend takes calls of several threads at once, else one that lets them in one by one."""
    return session if session.name in _CONCURRENT else InTurn(session)


class InTurn:
    """A session whose ``run`` is entered by one thread at a time. Implements ``Session``."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()

    @property
    def info(self) -> ModelInfo:
        """The model's passport."""
        return self._session.info

    @property
    def name(self) -> str:
        """The backend's name."""
        return self._session.name

    def run(self, images: np.ndarray, tiles: Tiles, tile_bonus: np.ndarray) -> dict[str, np.ndarray]:
        """As ``Session.run``, when it is this thread's turn."""
        with self._lock:
            return self._session.run(images, tiles, tile_bonus)

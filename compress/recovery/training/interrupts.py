"""Ctrl-C during a training: the running step is finished, the state saved, and what was saved is said."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class Asked:
    """Whether somebody asked to stop."""

    stop: bool = False


@contextmanager
def deferred() -> Iterator[Asked]:
    """Note the first Ctrl-C instead of raising; the second one raises at once. Other threads cannot listen."""
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(_signal: int, _frame: FrameType | None) -> None:
        """Ask to stop; who asks twice does not want to wait."""
        if asked.stop:
            raise KeyboardInterrupt("at once: the running step was not saved")
        asked.stop = True

    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)

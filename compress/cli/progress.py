"""Progress in the terminal: on stderr, only where somebody watches, only for what takes long enough to wonder."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from compress.core.progress import Advance, Progress, Silent

PATIENCE = 2.0  # seconds that a stage may take before it is shown


class TerminalProgress:
    """Shows a bar with the time left for every stage that takes longer than `PATIENCE`; it vanishes afterwards."""

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Advance]:
        """Enter the stage `name`; the bar pulses until a total is known."""
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        bar = Bar(*columns, console=Console(stderr=True), transient=True)
        task = bar.add_task(name, total=total)
        timer = threading.Timer(PATIENCE, bar.start)
        timer.daemon = True
        timer.start()
        try:
            yield lambda done, total: bar.update(task, completed=done, total=total)
        finally:
            timer.cancel()
            timer.join()
            bar.stop()


def speaks() -> bool:
    """Tell whether this process is the one, among those that torchrun started, that prints and writes."""
    return os.environ.get("RANK", "0") == "0"


def progress_for(*, quiet: bool) -> Progress:
    """Return the progress that suits the terminal: silent with `quiet` and where stderr is not a terminal."""
    return Silent() if quiet or not sys.stderr.isatty() else TerminalProgress()

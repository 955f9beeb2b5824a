"""How long stages say where they are, without knowing who listens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Advance(Protocol):
    """Called by a running stage with how much of it is done."""

    def __call__(self, done: int, total: int) -> None:
        """Say that `done` of `total` steps are finished."""


class Progress(Protocol):
    """Who is told about stages: the terminal, a test, or nobody."""

    def stage(self, name: str, total: int | None = None) -> AbstractContextManager[Advance]:
        """Enter the stage `name` of `total` steps (None where unknown); the yielded callable reports steps."""


class Silent:
    """Tells nobody.

    >>> with Silent().stage("trace") as advance:
    ...     advance(1, 2)
    """

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Advance]:
        """Enter the stage and say nothing."""
        del name, total
        yield _nobody_listens


def _nobody_listens(done: int, total: int) -> None:
    del done, total

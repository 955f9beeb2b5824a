"""A write-once table of named things; serves operator rules, criteria, formats and export targets."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from compress.core.errors import UsageError

V = TypeVar("V")


class Registry(Generic[V]):
    """Maps names to values, refuses a second registration, and helps with typos.

    >>> criteria: Registry[int] = Registry("importance")
    >>> criteria.add("l1", 1)
    >>> criteria["l3"]
    Traceback (most recent call last):
    compress.core.errors.UsageError: no importance named 'l3'; did you mean 'l1'? Known: l1
    """

    def __init__(self, kind: str) -> None:
        """`kind` is the noun that error messages use."""
        self.kind = kind
        self._table: dict[str, V] = {}

    def add(self, name: str, value: V) -> None:
        """Enter `value` under `name`; a name is entered once."""
        if name in self._table:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._table[name] = value

    def register(self, *names: str) -> Callable[[V], V]:
        """Return a decorator that enters what it decorates under every one of `names`."""

        def enter(value: V) -> V:
            for name in names:
                self.add(name, value)
            return value

        return enter

    def get(self, name: str) -> V | None:
        """Return the value under `name`, or None."""
        return self._table.get(name)

    def __getitem__(self, name: str) -> V:
        """Return the value under `name`; UsageError names the nearest known one otherwise."""
        if name in self._table:
            return self._table[name]
        near = difflib.get_close_matches(name, self._table, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise UsageError(f"no {self.kind} named {name!r}{hint} Known: {', '.join(sorted(self._table))}")

    def __contains__(self, name: object) -> bool:
        """Tell whether `name` is registered."""
        return name in self._table

    def __iter__(self) -> Iterator[str]:
        """Iterate over the registered names, in order of registration."""
        return iter(self._table)

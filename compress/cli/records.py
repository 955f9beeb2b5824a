"""Options that belong together are one record: a command takes records, and typer sees their fields."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_type_hints


def flat(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command` with the fields of its records in place of each record, as typer reads parameters.

    A record is a dataclass whose fields are annotated with typer's options; the command gets it filled in. Two records
    of one command must not share a name: ValueError.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Size:
    ...     height: int = 2
    ...     width: int = 3
    >>> def area(*, size: Size, unit: str) -> None:
    ...     print(size.height * size.width, unit)
    >>> inspect.signature(flat(area))
    <Signature (*, height: int = 2, width: int = 3, unit: str)>
    >>> flat(area)(height=4, width=5, unit="pixels")
    20 pixels
    """
    own = inspect.signature(command, eval_str=True).parameters
    records: dict[str, Any] = {name: each.annotation for name, each in own.items() if is_dataclass(each.annotation)}

    def run(**given: Any) -> None:
        taken = {name: {f.name: given.pop(f.name) for f in fields(record)} for name, record in records.items()}
        command(**{name: record(**taken[name]) for name, record in records.items()}, **given)

    shown = [one for name, each in own.items() for one in (_fields(records[name]) if name in records else [each])]
    run.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    return run


def _fields(record: Any) -> Iterator[inspect.Parameter]:
    """The fields of a record as keyword parameters."""
    hints = get_type_hints(record, include_extras=True)
    for field in fields(record):
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        how = inspect.Parameter.KEYWORD_ONLY
        yield inspect.Parameter(field.name, how, default=default, annotation=hints[field.name])


def values(*records: Any) -> dict[str, Any]:
    """Return the fields of all records, by name."""
    return {field.name: getattr(record, field.name) for record in records for field in fields(record)}

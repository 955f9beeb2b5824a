"""What the commands that explore share: their options as fields, and files with them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import typer

from compress.cli import checks
from compress.core.errors import UsageError

FIELDS = (
    "checkpoint", "data", "arch", "input_shape", "num_classes", "trust", "download", "mean", "std", "resize",
    "calibration", "images", "threads", "seed",
)  # fmt: skip


def fields(given: dict[str, Any], outputs: Iterable[Path | None], pictures: Iterable[Path | None]) -> dict[str, Any]:
    """Return the fields of ExploreOptions; raise what can be known to be wrong without importing torch."""
    shape = checks.input_shape(given["input_shape"])
    mean, std = checks.normalisation(given["mean"], given["std"])
    checks.checkpoint(given["checkpoint"])
    pictures = list(pictures)
    for path in pictures:
        checks.picture(path)
    checks.outputs((), (*outputs, *pictures), inputs=(given["checkpoint"],))
    read = {"input_shape": shape, "mean": mean, "std": std}
    return {name: given.get(name) for name in FIELDS} | read


def counts(text: str) -> tuple[int, ...]:
    """Read --k: "1:128:2" as Python's range, or "1,2,8".

    >>> counts("1:8:2"), counts("4,2")
    ((1, 3, 5, 7), (2, 4))
    """
    fix = "--k 1:128:2 is 1, 3, ... 127; --k 1,2,8 a list"
    try:
        parts = [int(part) for part in text.replace(",", ":").split(":")]
    except ValueError:
        raise UsageError(f"--k must be numbers, got {text!r}", fix=fix) from None
    ranged = ":" in text
    if (ranged and "," in text) or (ranged and len(parts) > 3) or (len(parts) == 3 and ranged and parts[2] < 1):
        raise UsageError(f"--k cannot be read: {text!r}", fix=fix)
    found = range(*parts) if ranged else parts
    if not found or min(found) < 0:
        raise UsageError(f"--k {text} names no number of channels", fix=fix)
    return tuple(sorted(set(found)))


def names(text: str) -> tuple[str, ...]:
    """Read a list with commas between.

    >>> names("activation, l1")
    ('activation', 'l1')
    """
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise UsageError(f"--importance {text!r} names no criterion", fix="for example activation,l1")
    return found


def finish(found: Any, words: ModuleType, json: Path | None, picture: Path | None, *, quiet: bool) -> None:
    """Write and show what was found, as the report's module `words` has it; end an interrupted command as one."""
    from compress.report.exploring import write_report
    from compress.report.terminal import console

    if json is not None:
        write_report(found.origin, words.tree(found), json)
    if picture is not None:
        words.draw(found, picture)
    if not quiet:
        console().print(words.told(found))
    ended(complete=found.complete, files=(json, picture))


def ended(*, complete: bool, files: Iterable[Path | None]) -> None:
    """End an interrupted command: say on stderr which files hold what was measured until then."""
    if complete:
        return
    saved = [str(path) for path in files if path is not None]
    text = f"saved what was measured until then: {', '.join(saved)}" if saved else "no file was asked for"
    typer.echo(f"interrupted: {text}", err=True)
    raise typer.Exit(130)

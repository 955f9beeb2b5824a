"""What `compress sweep`, `sensitivity` and `maps` found out, as plain frozen data, and as JSON.

Every file begins with the same keys: format, command, version, argv, seed, threads, versions, machine, network, data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from compress.core.files import written_whole
from compress.evaluation.variants import Costing, Precision, Tally
from compress.measure.machine import Machine
from compress.report.assemble import versions
from compress.report.jsonfile import finite

UNITS: Mapping[str, str] = {
    "agreement": "fraction of images on which the answer is the original's, in [0, 1]",
    "activation": "mean over images and pixels",
    "channels": "channels",
    "full": "seconds that one evaluation of the whole original took",
    "images": "images",
    "loss": "nats per image",
    "macs": "multiply-accumulates of one forward pass at batch 1",
    "removed": "channels that left",
    "share": "fraction of the group's channels that left, in [0, 1)",
    "top1": "fraction of images, in [0, 1]",
    "total": "seconds that the whole measurement took, the original included",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where figures come from: the command with its arguments, the network, the images, the machine."""

    command: str
    argv: tuple[str, ...]
    network: str
    path: str
    arch: str | None
    data: str
    preprocessing: str | None
    seed: int
    threads: int
    machine: Machine
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Variants:
    """What `original` and cut networks were measured on: `images` of those `asked` for, all of them if `complete`.

    `ranked_on` says what importance looked at, `prepared` are the seconds before anything was measured.
    """

    origin: Origin
    original: Tally
    ranked_on: str
    images: int
    asked: int
    complete: bool
    prepared: float
    costing: Costing
    precision: Precision
    notes: tuple[str, ...]


def measured(found: Variants, points: int) -> dict[str, Any]:
    """What the JSON files of all such commands say of `points` networks."""
    return {
        "ranked_on": found.ranked_on,
        "images": found.images,
        "asked": found.asked,
        "complete": found.complete,
        "original": asdict(found.original),
        "seconds": {"prepared": found.prepared, "full": found.costing.full, "total": found.costing.total},
        "operators": {"computed": found.costing.computed, "skipped": found.costing.skipped},
        "precision": asdict(found.precision),
        "points": points,
        "warnings": list(found.notes),
    }


def write_report(origin: Origin, found: Mapping[str, Any], path: Path) -> None:
    """Write the figures of one command, whole or not at all; numbers that are not finite become null."""
    tree = {
        "format": f"compress-{origin.command}-1",
        "command": origin.command,
        "version": versions().get("channel-compress"),
        "argv": list(origin.argv),
        "seed": origin.seed,
        "threads": origin.threads,
        "versions": versions(),
        "machine": asdict(origin.machine),
        "network": {"name": origin.network, "path": origin.path, "arch": origin.arch},
        "data": {"name": origin.data, "preprocessing": origin.preprocessing},
        "notes": list(origin.notes),
        "units": dict(UNITS),
        **found,
    }
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(finite(tree), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def facts(
    origin: Origin,
    images: tuple[int, int],
    rows: Sequence[tuple[str, str]],
    warnings: Sequence[str] = (),
    *,
    complete: bool = True,
) -> RenderableType:
    """What stands below a table: the images (seen, asked for), `rows` of label and text, notes, and warnings."""
    seen, asked = images
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in (("data", f"{origin.data}, {seen:,} images"), *rows):
        table.add_row(label, Text(text))
    for note in origin.notes:
        table.add_row("note", Text(note))
    told = list(warnings)
    if not complete:
        told.append(f"interrupted: every figure is of {seen:,} of {asked:,} images, drawn at random")
    return Group(table, *(Panel(escape(text), title="warning", border_style="yellow") for text in told))

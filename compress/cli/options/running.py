"""Running."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

PANEL = "Running"

Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, metavar="N", help="Threads of the latency measurement.", rich_help_panel=PANEL),
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, metavar="N", help="Seed of everything random.", rich_help_panel=PANEL)
]


@dataclass(frozen=True, kw_only=True)
class Running:
    """What is checked and measured."""

    verify: Annotated[
        bool,
        typer.Option(
            "--verify/--no-verify",
            help="Check in float64 that only the removed channels changed.",
            rich_help_panel=PANEL,
        ),
    ] = True
    bench: Annotated[
        bool, typer.Option("--bench/--no-bench", help="Measure latency before and after.", rich_help_panel=PANEL)
    ] = True
    threads: Threads = None
    batch: Annotated[
        int,
        typer.Option(
            "--batch", min=1, metavar="N", help="Inputs per pass of the latency measurement.", rich_help_panel=PANEL
        ),
    ] = 1
    seed: Seed = 0


@dataclass(frozen=True, kw_only=True)
class Speaking:
    """What the terminal shows."""

    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.", rich_help_panel=PANEL)] = False
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.", rich_help_panel=PANEL)] = False


@dataclass(frozen=True, kw_only=True)
class Repeating:
    """What the figures hang on besides the files."""

    threads: Threads = None
    seed: Seed = 0

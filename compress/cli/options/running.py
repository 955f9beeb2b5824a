"""Running."""

from __future__ import annotations

from typing import Annotated

import typer

PANEL = "Running"

Verify = Annotated[
    bool,
    typer.Option(
        "--verify/--no-verify", help="Check in float64 that only the removed channels changed.", rich_help_panel=PANEL
    ),
]
Bench = Annotated[
    bool, typer.Option("--bench/--no-bench", help="Measure latency before and after.", rich_help_panel=PANEL)
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, metavar="N", help="Threads of the latency measurement.", rich_help_panel=PANEL),
]
Batch = Annotated[
    int,
    typer.Option(
        "--batch", min=1, metavar="N", help="Inputs per pass of the latency measurement.", rich_help_panel=PANEL
    ),
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, metavar="N", help="Seed of everything random.", rich_help_panel=PANEL)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.", rich_help_panel=PANEL)]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.", rich_help_panel=PANEL)]

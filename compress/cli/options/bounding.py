"""How good the result must be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

PANEL = "How good it must be"


@dataclass(frozen=True, kw_only=True)
class Bounding:
    """How good the result must be."""

    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            metavar="POINTS",
            help="Find the smallest network that loses at most so many points of top-1 on the labelled images of "
            "--data, recovery included. With --macs: never below that many MACs.",
            rich_help_panel=PANEL,
        ),
    ] = None
    min_agreement: Annotated[
        float | None,
        typer.Option(
            "--min-agreement",
            metavar="FRACTION",
            help="The same without labels: it must give the original's answer on this fraction of the images of "
            "--data, else of those that --calibration sets aside.",
            rich_help_panel=PANEL,
        ),
    ] = None
    time_budget: Annotated[
        str | None,
        typer.Option(
            "--time-budget",
            metavar="10m",
            help="How long the search may take (s, m, h); it ends with the best so far.",
            rich_help_panel=PANEL,
        ),
    ] = None

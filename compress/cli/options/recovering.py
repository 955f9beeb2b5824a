"""Recovery."""

from __future__ import annotations

from typing import Annotated

import typer

PANEL = "Recovery"

Recover = Annotated[
    bool,
    typer.Option(
        "--recover/--no-recover",
        help="With --calibration, let what stays absorb what leaves; without, only compare on it.",
        rich_help_panel=PANEL,
    ),
]

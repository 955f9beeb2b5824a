"""What two files are compared by."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PANEL = "Comparing"

First = Annotated[Path, typer.Argument(metavar="A", help="A checkpoint, a saved cut, .onnx, .ts or .pt2.")]
Second = Annotated[Path, typer.Argument(metavar="B", help="Another one.")]
Tolerance = Annotated[
    float,
    typer.Option(
        "--tolerance",
        min=0.0,
        metavar="ERROR",
        help="Largest relative error that counts as the same: max |B - A| / max |A|.",
        rich_help_panel=PANEL,
    ),
]
Agreement = Annotated[
    float | None,
    typer.Option(
        "--agreement",
        min=0.0,
        max=1.0,
        metavar="FRACTION",
        help="Ask instead that both choose the same class on this fraction of the inputs: for float16 and int8.",
        rich_help_panel=PANEL,
    ),
]

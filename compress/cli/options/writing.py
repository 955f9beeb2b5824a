"""Output."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

PANEL = "Output"

Json = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Write every figure, with units.", rich_help_panel=PANEL),
]
Tree = Annotated[
    bool,
    typer.Option("--tree", help="Show the layers under their modules instead of the groups.", rich_help_panel=PANEL),
]
Dot = Annotated[
    Path | None,
    typer.Option("--dot", metavar="FILE", help="Write the coupling as graphviz text.", rich_help_panel=PANEL),
]
Svg = Annotated[
    Path | None,
    typer.Option(
        "--svg", metavar="FILE", help="Write the coupling as a picture: layers by groups.", rich_help_panel=PANEL
    ),
]
Spread = Annotated[
    str | None,
    typer.Option(
        "--importance",
        "-i",
        metavar="NAME",
        help="Score the channels by this criterion, and show the smallest, median and largest of every group.",
        rich_help_panel=PANEL,
    ),
]


@dataclass(frozen=True, kw_only=True)
class Writing:
    """Which files are written."""

    out: Annotated[
        list[Path] | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Write the network for its runtime, by suffix: .onnx, .ts, .pt2. Repeatable.",
            rich_help_panel=PANEL,
        ),
    ] = None
    save: Annotated[
        Path | None,
        typer.Option(
            "--save",
            "-s",
            metavar="FILE",
            help="Write weights and plan, to train on: compress.load reads it.",
            rich_help_panel=PANEL,
        ),
    ] = None
    plan_out: Annotated[
        Path | None,
        typer.Option("--plan-out", metavar="FILE", help="Write what was removed, as JSON.", rich_help_panel=PANEL),
    ] = None
    json: Json = None

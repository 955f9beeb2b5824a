"""What to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

PANEL = "What to look at"

Layer = Annotated[
    str,
    typer.Option(
        "--layer", "-l", metavar="PATH", help="The layer, as in `compress inspect --tree`.", rich_help_panel=PANEL
    ),
]
Whole = Annotated[
    bool,
    typer.Option(
        "--group",
        help="Remove channels of the whole group to which the layer's outputs belong (a residual stream), not of the "
        "layer alone.",
        rich_help_panel=PANEL,
    ),
]
Counts = Annotated[
    str,
    typer.Option(
        "--k",
        metavar="1:128:2|1,2,8",
        help="How many channels leave: from, up to but without, step; or a list.",
        rich_help_panel=PANEL,
    ),
]
Criteria = Annotated[
    str,
    typer.Option(
        "--importance",
        "-i",
        metavar="NAMES",
        help="Criteria by which the least important channels leave, with commas between: activation,l1.",
        rich_help_panel=PANEL,
    ),
]
Ranked = Annotated[
    str | None,
    typer.Option(
        "--calibration",
        metavar="SOURCE",
        help="Images that importance looks at. Default: those of --data, without their labels.",
        rich_help_panel="Data",
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE", help="Draw it: .svg, .png or .pdf.", rich_help_panel="Output"),
]
Top = Annotated[
    int, typer.Option("--top", min=1, metavar="N", help="Draw the N most active channels.", rich_help_panel=PANEL)
]
Picture = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FILE", help="Draw it: .png, .svg or .pdf.", rich_help_panel="Output"),
]


@dataclass(frozen=True, kw_only=True)
class Looking:
    """On which images a network is looked at."""

    data: Annotated[
        str,
        typer.Option(
            "--data",
            "-d",
            metavar="SOURCE",
            help="Images: fashion-mnist, mnist, cifar10, cifar100 (each with :DIR), digits, a folder with one folder a "
            "class, an .npz with x and y, or file.py:factory. Without labels, agreement with the original is measured.",
            rich_help_panel="Data",
        ),
    ]
    images: Annotated[
        int | None,
        typer.Option("--images", min=1, metavar="N", help="Take N images at random.", rich_help_panel="Data"),
    ] = None

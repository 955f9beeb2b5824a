"""Data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

PANEL = "Data"

Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        "-d",
        metavar="SOURCE",
        help="Labelled images for the accuracy: fashion-mnist, mnist, cifar10, cifar100 (each with :DIR), digits, a "
        "folder with one folder a class, an .npz with x and y, or file.py:factory.",
        rich_help_panel=PANEL,
    ),
]
Download = Annotated[
    bool, typer.Option("--download", help="Let --data download what is missing.", rich_help_panel=PANEL)
]
Mean = Annotated[
    str | None,
    typer.Option("--mean", metavar="A,B,C", help="Normalisation, one per channel.", rich_help_panel=PANEL),
]
Std = Annotated[str | None, typer.Option("--std", metavar="A,B,C", help="With --mean.", rich_help_panel=PANEL)]
Resize = Annotated[
    int | None,
    typer.Option("--resize", min=1, metavar="PIXELS", help="Shorter side of the images.", rich_help_panel=PANEL),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        "--calibration",
        metavar="SOURCE",
        help="Images to win accuracy back from, as in --data; labels are not needed. A few hundred do. Of a data set "
        "with parts the training part is taken.",
        rich_help_panel=PANEL,
    ),
]
Inputs = Annotated[
    str | None,
    typer.Option(
        "--calibration",
        metavar="SOURCE",
        help="Images for criteria that look at what the network does: a folder, an .npz with x, a data set's name. "
        "Labels are needed by taylor alone. Without --importance it is reconstruction.",
        rich_help_panel=PANEL,
    ),
]


@dataclass(frozen=True, kw_only=True)
class Preparing:
    """How images are found and become inputs."""

    download: Download = False
    mean: Mean = None
    std: Std = None
    resize: Resize = None

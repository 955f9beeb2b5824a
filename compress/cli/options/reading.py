"""Reading the network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

PANEL = "Reading the network"

Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT",
        help="A state_dict (.pt, .pth, .safetensors), a TorchScript archive, an exported program (.pt2), a file from "
        "--save, or with --trust a pickled module. Which it is, is found out.",
        show_default=False,
    ),
]
Arch = Annotated[
    str | None,
    typer.Option(
        "--arch",
        "-a",
        metavar="NAME",
        help="Architecture of a state_dict: a torchvision name, timm:NAME, or file.py:factory. Default: identified.",
        rich_help_panel=PANEL,
    ),
]
InputShape = Annotated[
    str | None,
    typer.Option(
        "--input-shape", metavar="N,C,H,W", help="Shape of the input, where it is not known.", rich_help_panel=PANEL
    ),
]
NumClasses = Annotated[
    int | None,
    typer.Option(
        "--num-classes", min=1, metavar="N", help="Classes, where the weights do not say.", rich_help_panel=PANEL
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Unpickle the file. That runs code inside it: only for files you trust.", rich_help_panel=PANEL
    ),
]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a network is read."""

    arch: Arch = None
    input_shape: InputShape = None
    num_classes: NumClasses = None
    trust: Trust = False

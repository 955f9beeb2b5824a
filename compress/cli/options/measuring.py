"""What to measure, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from compress.core.measuring import Backend, Device

PANEL = "Measuring"

Files = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE...",
        help="Checkpoints, files from --save, ONNX, TorchScript, .pt2, in any mix. The first is what the others are "
        "compared with.",
        show_default=False,
    ),
]
File = Annotated[
    Path, typer.Argument(metavar="FILE", help="A checkpoint, or ONNX, TorchScript, .pt2.", show_default=False)
]
Archs = Annotated[
    list[str] | None,
    typer.Option(
        "--arch",
        "-a",
        metavar="NAME",
        help="Architecture of the state_dicts: once for all, or once for each file in order ('' for none).",
        rich_help_panel="Reading the network",
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE", help="Draw it: .svg, .png or .pdf.", rich_help_panel="Output"),
]
All = Annotated[bool, typer.Option("--all", help="Show every operator.", rich_help_panel="Output")]
Top = Annotated[
    int, typer.Option("--top", min=1, metavar="N", help="Show so many of the dearest.", rich_help_panel="Output")
]


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """On what, and how long."""

    backend: Annotated[
        list[Backend] | None,
        typer.Option(
            "--backend",
            "-b",
            help="What runs the networks; repeatable. Default: onnxruntime, for which other files are exported first.",
            rich_help_panel=PANEL,
            show_default=False,
        ),
    ] = None
    device: Annotated[
        Device,
        typer.Option("--device", help="cpu, cuda, or auto: CUDA where PyTorch sees a device.", rich_help_panel=PANEL),
    ] = Device.AUTO
    batch: Annotated[
        str, typer.Option("--batch", metavar="N,N,...", help="Inputs per pass, one or several.", rich_help_panel=PANEL)
    ] = "1"
    threads: Annotated[
        str | None,
        typer.Option(
            "--threads", metavar="N,N,...", help="Threads inside an operator, one or several.", rich_help_panel=PANEL
        ),
    ] = None
    rounds: Annotated[
        int,
        typer.Option("--rounds", min=5, metavar="N", help="Interleaved rounds of a comparison.", rich_help_panel=PANEL),
    ] = 30
    seconds: Annotated[
        float,
        typer.Option(
            "--seconds", min=0.1, metavar="S", help="About how long a pair of files is measured.", rich_help_panel=PANEL
        ),
    ] = 20.0
    per_layer: Annotated[
        bool,
        typer.Option(
            "--per-layer",
            help="Profile in onnxruntime on the CPU: which layers got faster, which did not, and why.",
            rich_help_panel=PANEL,
        ),
    ] = False
    memory: Annotated[
        bool,
        typer.Option(
            "--memory/--no-memory",
            help="Load time and peak memory, each in a process of its own.",
            rich_help_panel=PANEL,
        ),
    ] = True

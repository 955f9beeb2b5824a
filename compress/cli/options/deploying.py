"""How the files of --out are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from compress.core.deploying import Int8Method

PANEL = "Deployment"


@dataclass(frozen=True, kw_only=True)
class Deploying:
    """How the files of --out are written."""

    opset: Annotated[
        int | None,
        typer.Option(
            "--opset",
            min=7,
            metavar="N",
            help="ONNX operator set. Default: the newest that the installed onnxruntime fully supports.",
            rich_help_panel=PANEL,
        ),
    ] = None
    dynamic_size: Annotated[
        bool,
        typer.Option(
            "--dynamic-size", help="Leave height and width of images free, as the batch is.", rich_help_panel=PANEL
        ),
    ] = False
    optimize: Annotated[
        bool,
        typer.Option(
            "--optimize",
            help="Prepare .ts files for inference on this kind of machine, not only freeze them.",
            rich_help_panel=PANEL,
        ),
    ] = False
    fp16: Annotated[
        bool,
        typer.Option(
            "--fp16", help="Write .onnx and .ts in float16; inputs and outputs stay float32.", rich_help_panel=PANEL
        ),
    ] = False
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Write .onnx in int8, calibrated on --calibration or the training part of --data.",
            rich_help_panel=PANEL,
        ),
    ] = False
    int8_auto: Annotated[
        bool,
        typer.Option(
            "--int8-auto",
            help="Or --int8 auto: as --int8, but what it costs most stays in float32 until the drop is small enough.",
            rich_help_panel=PANEL,
        ),
    ] = False
    int8_method: Annotated[
        Int8Method,
        typer.Option("--int8-method", help="How ranges are taken from the calibration inputs.", rich_help_panel=PANEL),
    ] = Int8Method.MINMAX
    int8_max_drop: Annotated[
        float,
        typer.Option(
            "--int8-max-drop",
            min=0.0,
            max=100.0,
            metavar="POINTS",
            help="With --int8-auto: how many points of accuracy on --data int8 may cost the cut network; without "
            "labels, of agreement with it on the calibration inputs.",
            rich_help_panel=PANEL,
        ),
    ] = 1.0

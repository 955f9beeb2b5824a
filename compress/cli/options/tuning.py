"""Training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from compress.recovery.training.recipe import Optimizer, Precision

PANEL = "Training"


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """Where a training goes on, and on what."""

    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on where the same command was interrupted or killed; its state lies beside the output.",
            rich_help_panel=PANEL,
        ),
    ] = False
    checkpoint_every: Annotated[
        int,
        typer.Option(
            "--checkpoint-every",
            min=1,
            metavar="STEPS",
            help="Save the state of the training after so many steps, and after every epoch.",
            rich_help_panel=PANEL,
        ),
    ] = 500
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="cpu|cuda",
            help="Where to train; with cpu, latency is not measured on CUDA either. Default: a GPU if there is one.",
            rich_help_panel=PANEL,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What training follows the cut."""

    finetune: Annotated[
        int,
        typer.Option(
            "--finetune",
            min=0,
            metavar="EPOCHS",
            help="After the cut, train so many epochs on labelled images; kept only if held-out accuracy improves.",
            rich_help_panel=PANEL,
        ),
    ] = 0
    distill: Annotated[
        int,
        typer.Option(
            "--distill",
            min=0,
            metavar="EPOCHS",
            help="After the cut, train so many epochs to answer as the original does; no labels are needed. Kept only "
            "if held-out agreement improves. With --finetune, this comes first.",
            rich_help_panel=PANEL,
        ),
    ] = 0
    distill_features: Annotated[
        bool,
        typer.Option(
            "--distill-features", help="With --distill, match the output of every stage too.", rich_help_panel=PANEL
        ),
    ] = False
    train: Annotated[
        str | None,
        typer.Option(
            "--train",
            metavar="SOURCE",
            help="Images to train on, as in --data. Default: the training part of --data, else --calibration.",
            rich_help_panel=PANEL,
        ),
    ] = None
    lr: Annotated[
        float | None,
        typer.Option(
            "--lr", metavar="RATE", help="Highest learning rate. Default: 0.02; 0.001 with Adam.", rich_help_panel=PANEL
        ),
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            min=1,
            metavar="N",
            help="Images of one training step, over all processes. Default: 128.",
            rich_help_panel=PANEL,
        ),
    ] = None
    optimizer: Annotated[
        Optimizer | None,
        typer.Option("--optimizer", help="SGD has Nesterov momentum. Default: sgd.", rich_help_panel=PANEL),
    ] = None
    precision: Annotated[
        Precision,
        typer.Option(
            "--precision",
            help="In what training computes; weights stay in float32. auto: bfloat16 where the processor multiplies "
            "it in hardware, float16 on older GPUs, else float32.",
            rich_help_panel=PANEL,
        ),
    ] = Precision.AUTO
    channels_last: Annotated[
        bool,
        typer.Option(
            "--channels-last",
            help="Store maps with the channels innermost: the same training up to rounding, on CPUs often faster.",
            rich_help_panel=PANEL,
        ),
    ] = False

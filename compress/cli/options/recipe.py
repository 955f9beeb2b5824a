"""The recipe of a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from compress.recovery.training.recipe import Optimizer, Precision, Regularizer, Schedule

PANEL = "Recipe: what is not given is the named recipe's"

Name = Annotated[
    str,
    typer.Option(
        "--recipe",
        metavar="NAME",
        help="plain: SGD, 10 epochs, one cosine. slimming: network slimming, 160 epochs of SGD, 1e-4 on the BatchNorm "
        "scales. activation: Adam, 30 epochs, a cosine over the last 15.",
        rich_help_panel=PANEL,
    ),
]


@dataclass(frozen=True, kw_only=True)
class Training:
    """What differs from the named recipe; None is the recipe's own value."""

    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, metavar="N", rich_help_panel=PANEL, help="How long.")
    ] = None
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size", min=1, metavar="N", help="Images of one step, over all processes.", rich_help_panel=PANEL
        ),
    ] = None
    lr: Annotated[
        float | None, typer.Option("--lr", metavar="RATE", help="Highest learning rate.", rich_help_panel=PANEL)
    ] = None
    optimizer: Annotated[
        Optimizer | None, typer.Option("--optimizer", help="SGD has Nesterov momentum.", rich_help_panel=PANEL)
    ] = None
    momentum: Annotated[
        float | None, typer.Option("--momentum", metavar="M", help="Of SGD, in [0, 1).", rich_help_panel=PANEL)
    ] = None
    decay: Annotated[
        float | None,
        typer.Option("--weight-decay", metavar="D", help="Of matrices and kernels only.", rich_help_panel=PANEL),
    ] = None
    schedule: Annotated[
        Schedule | None,
        typer.Option(
            "--schedule",
            help="cosine to zero; tail: constant, then a cosine over the last --tail epochs; steps: a tenth at half, a "
            "hundredth at three quarters; constant.",
            rich_help_panel=PANEL,
        ),
    ] = None
    warmup: Annotated[
        float | None,
        typer.Option(
            "--warmup", metavar="PART", help="Fraction of the training in which the rate rises.", rich_help_panel=PANEL
        ),
    ] = None
    tail: Annotated[
        float | None, typer.Option("--tail", metavar="EPOCHS", help="With --schedule tail.", rich_help_panel=PANEL)
    ] = None
    smoothing: Annotated[
        float | None,
        typer.Option("--label-smoothing", metavar="E", help="In [0, 1); 0 is off.", rich_help_panel=PANEL),
    ] = None
    ema: Annotated[
        float | None,
        typer.Option(
            "--ema",
            metavar="D",
            help="Average the weights, the past counts D, such as 0.999; 0 is off.",
            rich_help_panel=PANEL,
        ),
    ] = None
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="Mirror every other image.", rich_help_panel=PANEL)
    ] = None
    pad: Annotated[
        int | None,
        typer.Option(
            "--pad", min=0, metavar="PIXELS", help="Pad and crop at a random place; 0 is off.", rich_help_panel=PANEL
        ),
    ] = None
    clip: Annotated[
        float | None,
        typer.Option("--clip", metavar="NORM", help="Bound of the gradient's norm.", rich_help_panel=PANEL),
    ] = None
    sparsity: Annotated[
        float | None,
        typer.Option(
            "--sparsity",
            metavar="S",
            help="Pull channels towards zero while training, for example 1e-4; 0 is off.",
            rich_help_panel=PANEL,
        ),
    ] = None
    regularizer: Annotated[
        Regularizer | None,
        typer.Option(
            "--regularizer",
            help="What --sparsity pulls: bn, the BatchNorm scales; group-lasso, all weights of a channel together, "
            "with a strength that grows over the first half.",
            rich_help_panel=PANEL,
        ),
    ] = None
    shifts: Annotated[
        bool | None,
        typer.Option("--shifts/--no-shifts", help="--sparsity pulls BatchNorm shifts too.", rich_help_panel=PANEL),
    ] = None
    scale: Annotated[
        float | None,
        typer.Option("--bn-scale", metavar="G", help="What BatchNorm scales start from.", rich_help_panel=PANEL),
    ] = None
    precision: Annotated[
        Precision | None,
        typer.Option(
            "--precision",
            help="In what the network computes; weights stay in float32. Default auto: bfloat16 where the processor "
            "multiplies it in hardware, float16 on older GPUs, else float32.",
            rich_help_panel=PANEL,
        ),
    ] = None
    channels_last: Annotated[
        bool | None,
        typer.Option(
            "--channels-last/--channels-first",
            help="Store maps with the channels innermost: the same training up to rounding, on CPUs often faster.",
            rich_help_panel=PANEL,
        ),
    ] = None
    patience: Annotated[
        int | None,
        typer.Option(
            "--patience",
            min=0,
            metavar="EPOCHS",
            help="Stop after so many without a better one; 0 is never.",
            rich_help_panel=PANEL,
        ),
    ] = None
    held_out: Annotated[
        float | None,
        typer.Option(
            "--held-out",
            metavar="PART",
            help="Fraction of the training images on which the best epoch is found, default 0.1; 0 keeps the last "
            "epoch.",
            rich_help_panel=PANEL,
        ),
    ] = None
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, metavar="N", help="Seed of everything random.", rich_help_panel=PANEL)
    ] = None

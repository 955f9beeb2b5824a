"""What to cut."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from compress.core.choosing import Attention, Scope

PANEL = "What to cut"

Importance = Annotated[
    str | None,
    typer.Option(
        "--importance",
        "-i",
        metavar="NAME",
        help="How a channel is valued: bn, l1, l2, lamp, fpgm, random; with --calibration also reconstruction, wanda, "
        "activation, apoz, hessian, and with its labels taylor. Default: reconstruction with --calibration, else bn "
        "where there is batch norm, else l2.",
        rich_help_panel=PANEL,
    ),
]
AttentionOption = Annotated[
    Attention,
    typer.Option(
        "--attention",
        help="What leaves in attention: whole heads, or the same position in every head (dims).",
        rich_help_panel=PANEL,
    ),
]


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """What leaves."""

    percent: Annotated[
        float | None,
        typer.Option(
            "--percent", "-p", help="Fraction of the prunable channels that leaves: 0.5 is half.", rich_help_panel=PANEL
        ),
    ] = None
    macs: Annotated[
        str | None,
        typer.Option(
            "--macs",
            metavar="0.5|900M",
            help="Instead of --percent: how many MACs may be left, as a fraction of the original's or a number (k, M, "
            "G).",
            rich_help_panel=PANEL,
        ),
    ] = None
    params: Annotated[
        str | None,
        typer.Option(
            "--params",
            metavar="0.5|5M",
            help="Instead of --percent: how many parameters may be left, as a fraction or a number (k, M, G).",
            rich_help_panel=PANEL,
        ),
    ] = None
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="0.5|4MB",
            help="Instead of --percent: what the network may take as an ONNX file, as a fraction or in kB, MB, KiB, "
            "MiB; files are written and measured until it fits.",
            rich_help_panel=PANEL,
        ),
    ] = None
    steps: Annotated[
        int,
        typer.Option(
            "--steps",
            min=1,
            metavar="N",
            help="Approach the budget in N cuts, each won back and looked at anew before the next.",
            rich_help_panel=PANEL,
        ),
    ] = 1
    latency: Annotated[
        str | None,
        typer.Option(
            "--latency",
            metavar="0.5|8ms",
            help="Instead of --percent: how much of the latency in onnxruntime may be left, as a fraction "
            "of the original's or a time (us, ms, s). Layers are timed on this machine first; the result is measured, "
            "too.",
            rich_help_panel=PANEL,
        ),
    ] = None
    widths: Annotated[
        str | None,
        typer.Option(
            "--widths",
            metavar="NAME=N,...",
            help="Instead of --percent: how many channels stay, layer by layer (a name or a glob); others keep all.",
            rich_help_panel=PANEL,
        ),
    ] = None
    drop_dead: Annotated[
        bool | None,
        typer.Option(
            "--drop-dead",
            help="Instead of --percent: channels leave that are the same on every image of --calibration.",
            rich_help_panel=PANEL,
        ),
    ] = None
    drop_blocks: Annotated[
        str | None,
        typer.Option(
            "--drop-blocks",
            metavar="N|NAMES",
            help="Reduce residual blocks to their shortcuts first: so many, the least missed on --calibration or "
            "--data, or these (names or globs, with commas between). Alone, or with one of the above; a share of MACs "
            "or parameters is one of the whole original's.",
            rich_help_panel=PANEL,
        ),
    ] = None
    scope: Annotated[
        Scope,
        typer.Option(
            "--scope",
            help="Rank channels over the whole network (global), take the same fraction from every group (layer), or "
            "rank groups of the same topology among each other only (isomorphic).",
            rich_help_panel=PANEL,
        ),
    ] = Scope.GLOBAL
    importance: Importance = None
    round_to: Annotated[
        str,
        typer.Option(
            "--round-to",
            metavar="auto|N",
            help="Keep widths at multiples of N; auto is what this machine's kernels like, 1 is off.",
            rich_help_panel=PANEL,
        ),
    ] = "auto"
    min_channels: Annotated[
        int,
        typer.Option(
            "--min-channels", min=1, metavar="N", help="Every group keeps at least so many.", rich_help_panel=PANEL
        ),
    ] = 1
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep",
            "-k",
            metavar="GLOB",
            help="Parameters and modules that match keep their shapes, for example 'layer4.*'.",
            rich_help_panel=PANEL,
        ),
    ] = None
    ratio: Annotated[
        list[str] | None,
        typer.Option(
            "--ratio",
            metavar="GLOB=FRACTION",
            help="What matches loses this fraction of its channels, whatever the budget: 'layer3.*=0.3'. Repeatable; "
            "the last match speaks.",
            rich_help_panel=PANEL,
        ),
    ] = None
    max_ratio: Annotated[
        float,
        typer.Option(
            "--max-ratio",
            min=0,
            max=1,
            metavar="FRACTION",
            help="No group loses more than this fraction of its channels.",
            rich_help_panel=PANEL,
        ),
    ] = 1.0
    attention: AttentionOption = Attention.HEADS
    submodule: Annotated[
        str | None,
        typer.Option(
            "--submodule",
            metavar="PATH",
            help="Cut only this part of the network, in its place: for example backbone.",
            rich_help_panel=PANEL,
        ),
    ] = None
    plan_in: Annotated[
        Path | None,
        typer.Option("--plan", metavar="FILE", help="Replay a cut instead of planning one.", rich_help_panel=PANEL),
    ] = None

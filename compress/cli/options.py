"""The options of all commands, each with the words that --help shows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compress.core.types import Attention, Scope

_CUT = "What to cut"
_INPUT = "Reading the network"
_DATA = "Data"
_OUTPUT = "Output"
_RUN = "Running"

Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT",
        help="A state_dict (.pt, .pth, .safetensors), a TorchScript archive, an exported program (.pt2), a file from "
        "--save, or with --trust a pickled module. Which it is, is found out.",
        show_default=False,
    ),
]

Percent = Annotated[
    float | None,
    typer.Option(
        "--percent", "-p", help="Fraction of the prunable channels that leaves: 0.5 is half.", rich_help_panel=_CUT
    ),
]
Macs = Annotated[
    str | None,
    typer.Option(
        "--macs",
        metavar="0.5|900M",
        help="Instead of --percent: how many MACs may be left, as a fraction of the original's or a number (k, M, G).",
        rich_help_panel=_CUT,
    ),
]
ScopeOption = Annotated[
    Scope,
    typer.Option(
        "--scope",
        help="Rank channels over the whole network (global), or take the fraction from every group (layer).",
        rich_help_panel=_CUT,
    ),
]
Importance = Annotated[
    str | None,
    typer.Option(
        "--importance",
        "-i",
        metavar="NAME",
        help="How a channel is valued: bn, l1, l2, lamp, fpgm, random; with --calibration also reconstruction, wanda, "
        "activation, apoz, hessian, and with its labels taylor. Default: reconstruction with --calibration, else bn "
        "where there is batch norm, else l2.",
        rich_help_panel=_CUT,
    ),
]
RoundTo = Annotated[
    str,
    typer.Option(
        "--round-to",
        metavar="auto|N",
        help="Keep widths at multiples of N; auto is what this machine's kernels like, 1 is off.",
        rich_help_panel=_CUT,
    ),
]
MinChannels = Annotated[
    int,
    typer.Option(
        "--min-channels", min=1, metavar="N", help="Every group keeps at least so many.", rich_help_panel=_CUT
    ),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(
        "--keep",
        "-k",
        metavar="GLOB",
        help="Parameters and modules that match keep their shapes, for example 'layer4.*'.",
        rich_help_panel=_CUT,
    ),
]
AttentionOption = Annotated[
    Attention,
    typer.Option(
        "--attention",
        help="What leaves in attention: whole heads, or the same position in every head (dims).",
        rich_help_panel=_CUT,
    ),
]
Submodule = Annotated[
    str | None,
    typer.Option(
        "--submodule",
        metavar="PATH",
        help="Cut only this part of the network, in its place: for example backbone.",
        rich_help_panel=_CUT,
    ),
]
PlanIn = Annotated[
    Path | None,
    typer.Option("--plan", metavar="FILE", help="Replay a cut instead of planning one.", rich_help_panel=_CUT),
]

Arch = Annotated[
    str | None,
    typer.Option(
        "--arch",
        "-a",
        metavar="NAME",
        help="Architecture of a state_dict: a torchvision name, timm:NAME, or file.py:factory. Default: identified.",
        rich_help_panel=_INPUT,
    ),
]
InputShape = Annotated[
    str | None,
    typer.Option(
        "--input-shape", metavar="N,C,H,W", help="Shape of the input, where it is not known.", rich_help_panel=_INPUT
    ),
]
NumClasses = Annotated[
    int | None,
    typer.Option(
        "--num-classes", min=1, metavar="N", help="Classes, where the weights do not say.", rich_help_panel=_INPUT
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Unpickle the file. That runs code inside it: only for files you trust.", rich_help_panel=_INPUT
    ),
]

Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        "-d",
        metavar="SOURCE",
        help="Labelled images for the accuracy: fashion-mnist, mnist, cifar10, cifar100 (each with :DIR), digits, a "
        "folder with one folder a class, an .npz with x and y, or file.py:factory.",
        rich_help_panel=_DATA,
    ),
]
Download = Annotated[
    bool, typer.Option("--download", help="Let --data download what is missing.", rich_help_panel=_DATA)
]
Mean = Annotated[
    str | None,
    typer.Option("--mean", metavar="A,B,C", help="Normalisation, one per channel.", rich_help_panel=_DATA),
]
Std = Annotated[str | None, typer.Option("--std", metavar="A,B,C", help="With --mean.", rich_help_panel=_DATA)]
Resize = Annotated[
    int | None,
    typer.Option("--resize", min=1, metavar="PIXELS", help="Shorter side of the images.", rich_help_panel=_DATA),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        "--calibration",
        metavar="SOURCE",
        help="Images to win accuracy back from, as in --data; labels are not needed. A few hundred do. Of a data set "
        "with parts the training part is taken.",
        rich_help_panel=_DATA,
    ),
]
Recover = Annotated[
    bool,
    typer.Option(
        "--recover/--no-recover",
        help="With --calibration, let what stays absorb what leaves; without, only compare on it.",
        rich_help_panel=_DATA,
    ),
]

Out = Annotated[
    list[Path] | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        help="Write the network for its runtime, by suffix: .onnx, .ts, .pt2. Repeatable.",
        rich_help_panel=_OUTPUT,
    ),
]
Save = Annotated[
    Path | None,
    typer.Option(
        "--save",
        "-s",
        metavar="FILE",
        help="Write weights and plan, to train on: compress.load reads it.",
        rich_help_panel=_OUTPUT,
    ),
]
PlanOut = Annotated[
    Path | None,
    typer.Option("--plan-out", metavar="FILE", help="Write what was removed, as JSON.", rich_help_panel=_OUTPUT),
]
Json = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Write every figure, with units.", rich_help_panel=_OUTPUT),
]

Tree = Annotated[
    bool,
    typer.Option("--tree", help="Show the layers under their modules instead of the groups.", rich_help_panel=_OUTPUT),
]
Dot = Annotated[
    Path | None,
    typer.Option("--dot", metavar="FILE", help="Write the coupling as graphviz text.", rich_help_panel=_OUTPUT),
]
Svg = Annotated[
    Path | None,
    typer.Option(
        "--svg", metavar="FILE", help="Write the coupling as a picture: layers by groups.", rich_help_panel=_OUTPUT
    ),
]
Spread = Annotated[
    str | None,
    typer.Option(
        "--importance",
        "-i",
        metavar="NAME",
        help="Score the channels by this criterion, and show the smallest, median and largest of every group.",
        rich_help_panel=_OUTPUT,
    ),
]

Verify = Annotated[
    bool,
    typer.Option(
        "--verify/--no-verify", help="Check in float64 that only the removed channels changed.", rich_help_panel=_RUN
    ),
]
Bench = Annotated[
    bool, typer.Option("--bench/--no-bench", help="Measure latency before and after.", rich_help_panel=_RUN)
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, metavar="N", help="Threads of the latency measurement.", rich_help_panel=_RUN),
]
Batch = Annotated[
    int,
    typer.Option(
        "--batch", min=1, metavar="N", help="Inputs per pass of the latency measurement.", rich_help_panel=_RUN
    ),
]
Seed = Annotated[
    int, typer.Option("--seed", min=0, metavar="N", help="Seed of everything random.", rich_help_panel=_RUN)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.", rich_help_panel=_RUN)]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.", rich_help_panel=_RUN)]

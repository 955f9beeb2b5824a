"""`compress slim`: a checkpoint goes in, a smaller network that computes what it should comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.cli import checks
from compress.cli.errors import told_in_words
from compress.cli.options import bounding, cutting, deploying, images, reading, recovering, running, tuning, writing
from compress.cli.progress import progress_for, speaks
from compress.core.deploying import Int8Method
from compress.core.types import Attention, Scope
from compress.recovery.training.recipe import Precision

HELP = """Remove channels from a trained network, check the result, measure it, and export it.

[bold]Examples[/bold]

Half of the channels, to ONNX; the architecture is identified:
[cyan]compress slim resnet18.pt --percent 0.5 --out small.onnx[/cyan]

The same, with the accuracy won back from images without labels:
[cyan]compress slim resnet18.pt --percent 0.5 --calibration train/ --data test/[/cyan]

With a few epochs of training after that, on the training part of the data:
[cyan]compress slim net.pt --arch net.py:build --macs 0.5 --data cifar10 --finetune 3 --save small.pt[/cyan]

Half of the time in onnxruntime on this machine:
[cyan]compress slim resnet18.pt --latency 0.5 --out small.onnx[/cyan]

Your own architecture, with the accuracy before and after:
[cyan]compress slim net.pt --arch net.py:build --percent 0.3 --data images/ --save pruned.pt[/cyan]

The smallest network that loses at most one point of accuracy:
[cyan]compress slim net.pt --max-drop 1.0 --calibration train/ --data test/ --out small.onnx[/cyan]

Protect some layers, and keep every figure:
[cyan]compress slim net.pt2 --percent 0.5 --keep 'layer4.*' --json report.json[/cyan]
"""


def slim(  # noqa: PLR0917 - typer reads the options from the parameters, one each
    checkpoint: reading.Checkpoint,
    percent: cutting.Percent = None,
    macs: cutting.Macs = None,
    params: cutting.Params = None,
    size: cutting.Size = None,
    steps: cutting.Steps = 1,
    max_drop: bounding.MaxDrop = None,
    min_agreement: bounding.MinAgreement = None,
    time_budget: bounding.TimeBudget = None,
    latency: cutting.Latency = None,
    widths: cutting.Widths = None,
    drop_dead: cutting.DropDead = None,
    drop_blocks: cutting.DropBlocks = None,
    scope: cutting.ScopeOption = Scope.GLOBAL,
    importance: cutting.Importance = None,
    round_to: cutting.RoundTo = "auto",
    min_channels: cutting.MinChannels = 1,
    keep: cutting.Keep = None,
    ratio: cutting.Ratio = None,
    max_ratio: cutting.MaxRatio = 1.0,
    attention: cutting.AttentionOption = Attention.HEADS,
    submodule: cutting.Submodule = None,
    plan_in: cutting.PlanIn = None,
    arch: reading.Arch = None,
    input_shape: reading.InputShape = None,
    num_classes: reading.NumClasses = None,
    trust: reading.Trust = False,
    data: images.Data = None,
    download: images.Download = False,
    mean: images.Mean = None,
    std: images.Std = None,
    resize: images.Resize = None,
    calibration: images.Calibration = None,
    recover: recovering.Recover = True,
    finetune: tuning.Finetune = 0,
    distill: tuning.Distill = 0,
    distill_features: tuning.DistillFeatures = False,
    train: tuning.Train = None,
    lr: tuning.Lr = None,
    batch_size: tuning.BatchSize = None,
    optimizer: tuning.OptimizerOption = None,
    precision: tuning.PrecisionOption = Precision.AUTO,
    resume: tuning.Resume = False,
    checkpoint_every: tuning.CheckpointEvery = 500,
    device: tuning.Device = None,
    out: writing.Out = None,
    opset: deploying.Opset = None,
    dynamic_size: deploying.DynamicSize = False,
    optimize: deploying.Optimize = False,
    fp16: deploying.Fp16 = False,
    int8: deploying.Int8 = False,
    int8_auto: deploying.Int8Auto = False,
    int8_method: deploying.Int8MethodOption = Int8Method.MINMAX,
    int8_max_drop: deploying.Int8MaxDrop = 1.0,
    save: writing.Save = None,
    plan_out: writing.PlanOut = None,
    json: writing.Json = None,
    verify: running.Verify = True,
    bench: running.Bench = True,
    threads: running.Threads = None,
    batch: running.Batch = 1,
    seed: running.Seed = 0,
    quiet: running.Quiet = False,
    debug: running.Debug = False,
) -> None:
    """Run the command: the parameters are the fields of SlimOptions, and what only the terminal cares about."""
    given = dict(locals())
    del given["quiet"], given["debug"]
    with told_in_words(debug=debug):
        _run(_checked(given), quiet=quiet)


def _checked(given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of SlimOptions; raise what can be known to be wrong without importing torch."""
    checks.bound(given)
    checks.target(given, given["plan_in"])
    shape = checks.input_shape(given["input_shape"])
    mean, std = checks.normalisation(given["mean"], given["std"])
    checks.images(given["data"], given["calibration"])
    width = checks.round_to(given["round_to"])
    checks.training(given)
    checks.checkpoint(given["checkpoint"])
    out: tuple[Path, ...] = tuple(given["out"] or ())
    others = (given["save"], given["plan_out"], given["json"])
    int8 = given["int8"] or given["int8_auto"]
    checks.deployment(out, given | {"int8": int8})
    checks.outputs(out, others, inputs=(given["checkpoint"], given["plan_in"]))
    ratio = tuple(checks.ratio(text) for text in given["ratio"] or ())
    read = {"ratio": ratio, "input_shape": shape, "mean": mean, "std": std, "round_to": width, "int8": int8}
    return given | read | {"keep": tuple(given["keep"] or ()), "out": out}


def _run(fields: dict[str, Any], *, quiet: bool) -> None:
    from compress.pipeline import SlimOptions, run_slim
    from compress.report.jsonfile import write_json
    from compress.report.terminal import console, show

    quiet = quiet or not speaks()
    report = run_slim(SlimOptions(**fields), progress_for(quiet=quiet))
    if fields["json"] is not None and speaks():
        write_json(report, fields["json"])
    if not quiet:
        show(report, console())

"""`compress slim`: a checkpoint goes in, a smaller network that computes what it should comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.cli import checks
from compress.cli.errors import told_in_words
from compress.cli.options import bounding, cutting, deploying, images, reading, recovering, running, tuning, writing
from compress.cli.progress import progress_for, speaks
from compress.cli.records import values

HELP = """\
Examples

Half of the channels, to ONNX; the architecture is identified:
compress slim resnet18.pt --percent 0.5 --out small.onnx

The same, with the accuracy won back from images without labels:
compress slim resnet18.pt --percent 0.5 --calibration train/ --data test/

With a few epochs of training after that, on the training part of the data:
compress slim net.pt --arch net.py:build --macs 0.5 --data cifar10 --finetune 3 --save small.pt

Half of the time in onnxruntime on this machine:
compress slim resnet18.pt --latency 0.5 --out small.onnx

Your own architecture, with the accuracy before and after:
compress slim net.pt --arch net.py:build --percent 0.3 --data images/ --save pruned.pt

The smallest network that loses at most one point of accuracy:
compress slim net.pt --max-drop 1.0 --calibration train/ --data test/ --out small.onnx

Protect some layers, and keep every figure:
compress slim net.pt2 --percent 0.5 --keep 'layer4.*' --json report.json
"""


def slim(
    *,
    checkpoint: reading.Checkpoint,
    cut: cutting.Cutting,
    bound: bounding.Bounding,
    read: reading.Reading,
    data: images.Data = None,
    prepared: images.Preparing,
    calibration: images.Calibration = None,
    recover: recovering.Recover = True,
    tuned: tuning.Tuning,
    kept: tuning.Keeping,
    written: writing.Writing,
    deployed: deploying.Deploying,
    run: running.Running,
    speaking: running.Speaking,
) -> None:
    """Run the command: all options but those of the terminal are the fields of SlimOptions."""
    given = values(cut, bound, read, prepared, tuned, kept, written, deployed, run)
    given |= {"checkpoint": checkpoint, "data": data, "calibration": calibration, "recover": recover}
    with told_in_words(debug=speaking.debug):
        _run(_checked(given), quiet=speaking.quiet)


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

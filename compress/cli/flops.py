"""`compress flops`: what every layer of a network costs."""

from __future__ import annotations

from compress.cli import checks
from compress.cli.errors import told_in_words
from compress.cli.options import measuring, reading, running, writing
from compress.cli.progress import progress_for

HELP = """Count MACs, parameters, activations and memory traffic of a network, layer by layer, for one input.

MACs are multiply-accumulates; FLOPs are twice that. Traffic is what an operator reads and writes, once each. Layers \
with few FLOPs a byte are bound by memory: taking channels from them saves less time than MACs.

[bold]Examples[/bold]

[cyan]compress flops resnet18.pt[/cyan]

[cyan]compress flops small.onnx --all --json flops.json[/cyan]

[cyan]compress flops net.pt --arch net.py:build --input-shape 1,3,320,320 --top 10[/cyan]
"""


def flops(  # noqa: PLR0917 - typer reads the options from the parameters, one each
    file: measuring.File,
    arch: reading.Arch = None,
    input_shape: reading.InputShape = None,
    num_classes: reading.NumClasses = None,
    trust: reading.Trust = False,
    top: measuring.Top = 30,
    everything: measuring.All = False,
    json: writing.Json = None,
    quiet: running.Quiet = False,
    debug: running.Debug = False,
) -> None:
    """Run the command."""
    with told_in_words(debug=debug):
        shape = checks.input_shape(input_shape)
        checks.checkpoint(file)
        checks.outputs((), (json,), inputs=(file,))
        from compress.core.files import written_whole
        from compress.pipeline.flops import run_flops
        from compress.report.flops import flops_json, flops_table
        from compress.report.terminal import console

        with progress_for(quiet=quiet).stage("load and count"):
            cost = run_flops(file, arch=arch, input_shape=shape, num_classes=num_classes, trust=trust)
        if json is not None:
            with written_whole(json) as temporary:
                temporary.write_text(flops_json(cost), encoding="utf-8")
        if not quiet:
            console().print(flops_table(cost, None if everything else top))

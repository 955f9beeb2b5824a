"""`compress flops`: what every layer of a network costs."""

from __future__ import annotations

from compress.cli import checks
from compress.cli.errors import told_in_words
from compress.cli.options import measuring, reading, running, writing
from compress.cli.progress import progress_for
from compress.cli.records import values

HELP = """\
MACs are multiply-accumulates; FLOPs are twice that. Traffic is what an operator reads and writes, once each. Layers \
with few FLOPs a byte are bound by memory: taking channels from them saves less time than MACs.

Examples

compress flops resnet18.pt

compress flops small.onnx --all --json flops.json

compress flops net.pt --arch net.py:build --input-shape 1,3,320,320 --top 10
"""


def flops(
    *,
    file: measuring.File,
    read: reading.Reading,
    top: measuring.Top = 30,
    everything: measuring.All = False,
    json: writing.Json = None,
    speaking: running.Speaking,
) -> None:
    """Run the command."""
    with told_in_words(debug=speaking.debug):
        how = values(read) | {"input_shape": checks.input_shape(read.input_shape)}
        checks.checkpoint(file)
        checks.outputs((), (json,), inputs=(file,))
        from compress.core.files import written_whole
        from compress.pipeline.flops import run_flops
        from compress.report.flops import flops_json, flops_table
        from compress.report.terminal import console

        with progress_for(quiet=speaking.quiet).stage("load and count"):
            cost = run_flops(file, **how)
        if json is not None:
            with written_whole(json) as temporary:
                temporary.write_text(flops_json(cost), encoding="utf-8")
        if not speaking.quiet:
            console().print(flops_table(cost, None if everything else top))

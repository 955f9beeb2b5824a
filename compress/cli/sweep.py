"""`compress sweep`: how much accuracy is left when so many channels of one layer leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.cli import exploring as shared
from compress.cli.errors import told_in_words
from compress.cli.options import exploring, images, reading, running, writing
from compress.cli.progress import progress_for

HELP = """Remove 1, 2, 3 ... channels of one layer, physically, and measure each network.

Channels leave in the order of their importance, the least important first. Where the layer's channels are its own, \
they leave together with what reads them: a weight D x 3 x 3 x P becomes D x 3 x 3 x (P-K). Where they are added to a \
residual stream, only the layer's own outputs leave: they add nothing any more, and the stream keeps its width. With \
--group the channels leave the whole stream instead, from every layer that makes or reads them.

What is the same in all networks is computed once for each batch of images; the output says how much that saved. \
Ctrl-C keeps the figures of the images seen so far.

[bold]Examples[/bold]

[cyan]compress sweep net.pt --layer layer2.1.conv2 --k 1:128:2 --data test.npz --plot sweep.svg[/cyan]

Two criteria on one plot, and every figure:
[cyan]compress sweep net.pt --layer conv3 -i activation,l1 --k 1:128 --data digits --plot k.png --json k.json[/cyan]
"""


def sweep(  # noqa: PLR0917 - typer reads the options from the parameters, one each
    checkpoint: reading.Checkpoint,
    layer: exploring.Layer,
    data: exploring.Needed,
    k: exploring.Counts,
    importance: exploring.Criteria = "activation",
    group: exploring.Whole = False,
    arch: reading.Arch = None,
    input_shape: reading.InputShape = None,
    num_classes: reading.NumClasses = None,
    trust: reading.Trust = False,
    calibration: exploring.Ranked = None,
    images: exploring.Images = None,
    download: images.Download = False,
    mean: images.Mean = None,
    std: images.Std = None,
    resize: images.Resize = None,
    plot: exploring.Plot = None,
    json: writing.Json = None,
    threads: running.Threads = None,
    seed: running.Seed = 0,
    quiet: running.Quiet = False,
    debug: running.Debug = False,
) -> None:
    """Run the command."""
    given = dict(locals())
    with told_in_words(debug=debug):
        read = shared.fields(given, (json,), (plot,))
        how = {"layer": layer, "counts": shared.counts(k), "importance": shared.names(importance), "group": group}
        _run(read, how, json, plot, quiet=quiet)


def _run(read: dict[str, Any], how: dict[str, Any], json: Path | None, plot: Path | None, *, quiet: bool) -> None:
    from compress.pipeline.exploring import ExploreOptions
    from compress.pipeline.sweep import SweepOptions, run_sweep
    from compress.report.exploring import write_report
    from compress.report.sweep import draw, told, tree
    from compress.report.terminal import console

    found = run_sweep(SweepOptions(explore=ExploreOptions(**read), **how), progress_for(quiet=quiet))
    if json is not None:
        write_report(found.origin, tree(found), json)
    if plot is not None:
        draw(found, plot)
    if not quiet:
        console().print(told(found))
    shared.ended(complete=found.complete, files=(json, plot))

"""`compress sensitivity`: which groups of channels and which residual blocks a network can do without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.cli import exploring as shared
from compress.cli.errors import told_in_words
from compress.cli.options import cutting, exploring, images, reading, running, writing
from compress.cli.progress import progress_for

HELP = """Measure the network with 10, 20 ... 90 % of each group's channels gone, and without each residual block.

One group is cut at a time, its least important channels first, and the rest stays whole. A residual block is reduced \
to its shortcut: its branch adds nothing. Blocks are found in the graph, as additions of two values that part from \
one; no name decides. `compress slim --drop-blocks` takes them away.

Without labels, the figures tell how often the answer is still the original's. Ctrl-C keeps what was measured.

[bold]Examples[/bold]

[cyan]compress sensitivity resnet18.pt --data test/[/cyan]

On fewer images, as a heat map and with every figure:
[cyan]compress sensitivity net.pt --data digits --images 500 --plot heat.png --json sensitivity.json[/cyan]
"""


def sensitivity(  # noqa: PLR0917 - typer reads the options from the parameters, one each
    checkpoint: reading.Checkpoint,
    data: exploring.Needed,
    importance: cutting.Importance = None,
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
        _run(shared.fields(given, (json,), (plot,)), importance, json, plot, quiet=quiet)


def _run(read: dict[str, Any], importance: str | None, json: Path | None, plot: Path | None, *, quiet: bool) -> None:
    from compress.pipeline.exploring import ExploreOptions
    from compress.pipeline.sensitivity import SensitivityOptions, run_sensitivity
    from compress.report.exploring import write_report
    from compress.report.sensitivity import draw, told, tree
    from compress.report.terminal import console

    options = SensitivityOptions(explore=ExploreOptions(**read), importance=importance)
    found = run_sensitivity(options, progress_for(quiet=quiet))
    if json is not None:
        write_report(found.origin, tree(found), json)
    if plot is not None:
        draw(found, plot)
    if not quiet:
        console().print(told(found))
    shared.ended(complete=found.complete, files=(json, plot))

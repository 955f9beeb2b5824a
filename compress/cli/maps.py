"""`compress maps`: what the channels of a layer show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress.cli import exploring as shared
from compress.cli.errors import told_in_words
from compress.cli.options import exploring, images, reading, running, writing
from compress.cli.progress import progress_for

HELP = """Draw the mean feature maps of a layer over a data set, the most active channels first, in one colour scale.

Any module that gives (N, C, H, W) will do: a convolution, or a whole stage. Channels that are zero on every image are \
counted and named: they are dead, and `compress slim --drop-dead` takes them away.

[bold]Examples[/bold]

[cyan]compress maps resnet18.pt --layer layer4 --data test/ --top 64 --out maps.png[/cyan]

[cyan]compress maps net.pt --arch net.py:build --layer conv3 --data digits --json maps.json[/cyan]
"""


def maps(  # noqa: PLR0917 - typer reads the options from the parameters, one each
    checkpoint: reading.Checkpoint,
    layer: exploring.Layer,
    data: exploring.Needed,
    top: exploring.Top = 64,
    arch: reading.Arch = None,
    input_shape: reading.InputShape = None,
    num_classes: reading.NumClasses = None,
    trust: reading.Trust = False,
    images: exploring.Images = None,
    download: images.Download = False,
    mean: images.Mean = None,
    std: images.Std = None,
    resize: images.Resize = None,
    out: exploring.Picture = None,
    json: writing.Json = None,
    threads: running.Threads = None,
    seed: running.Seed = 0,
    quiet: running.Quiet = False,
    debug: running.Debug = False,
) -> None:
    """Run the command."""
    given = dict(locals())
    with told_in_words(debug=debug):
        _run(shared.fields(given, (json,), (out,)), {"layer": layer, "top": top}, json, out, quiet=quiet)


def _run(read: dict[str, Any], how: dict[str, Any], json: Path | None, out: Path | None, *, quiet: bool) -> None:
    from compress.pipeline.exploring import ExploreOptions
    from compress.pipeline.maps import MapsOptions, run_maps
    from compress.report.exploring import write_report
    from compress.report.maps import draw, told, tree
    from compress.report.terminal import console

    found = run_maps(MapsOptions(explore=ExploreOptions(**read), **how), progress_for(quiet=quiet))
    if json is not None:
        write_report(found.origin, tree(found), json)
    if out is not None:
        draw(found, out)
    if not quiet:
        console().print(told(found))
    shared.ended(complete=found.complete, files=(json, out))

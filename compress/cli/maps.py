"""`compress maps`: what the channels of a layer show."""

from __future__ import annotations

from compress.cli import exploring as shared
from compress.cli.errors import told_in_words
from compress.cli.options import exploring, images, reading, running, writing
from compress.cli.progress import progress_for
from compress.cli.records import values

HELP = """\
Any module that gives (N, C, H, W) will do: a convolution, or a whole stage. Channels that are zero on every image are \
counted and named: they are dead, and `compress slim --drop-dead` takes them away.

Examples

compress maps resnet18.pt --layer layer4 --data test/ --top 64 --out maps.png

compress maps net.pt --arch net.py:build --layer conv3 --data digits --json maps.json
"""


def maps(
    *,
    checkpoint: reading.Checkpoint,
    layer: exploring.Layer,
    top: exploring.Top = 64,
    looked: exploring.Looking,
    read: reading.Reading,
    prepared: images.Preparing,
    out: exploring.Picture = None,
    json: writing.Json = None,
    repeated: running.Repeating,
    speaking: running.Speaking,
) -> None:
    """Run the command."""
    given = values(read, looked, prepared, repeated) | {"checkpoint": checkpoint}
    with told_in_words(debug=speaking.debug):
        explore = shared.fields(given, (json,), (out,))
        from compress.pipeline.exploring import ExploreOptions
        from compress.pipeline.maps import MapsOptions, run_maps
        from compress.report import maps as words

        options = MapsOptions(explore=ExploreOptions(**explore), layer=layer, top=top)
        found = run_maps(options, progress_for(quiet=speaking.quiet))
        shared.finish(found, words, json, out, quiet=speaking.quiet)

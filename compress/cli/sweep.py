"""`compress sweep`: how much accuracy is left when so many channels of one layer leave."""

from __future__ import annotations

from compress.cli import exploring as shared
from compress.cli.errors import told_in_words
from compress.cli.options import exploring, images, reading, running, writing
from compress.cli.progress import progress_for
from compress.cli.records import values

HELP = """\
Channels leave in the order of their importance, the least important first. Where the layer's channels are its own, \
they leave together with what reads them: a weight D x 3 x 3 x P becomes D x 3 x 3 x (P-K). Where they are added to a \
residual stream, only the layer's own outputs leave: they add nothing any more, and the stream keeps its width. With \
--group the channels leave the whole stream instead, from every layer that makes or reads them.

What is the same in all networks is computed once for each batch of images; the output says how much that saved. The \
rest runs in bfloat16 where that is faster, and again in float32 wherever an answer could differ. \
Ctrl-C keeps the figures of the images seen so far.

Examples

compress sweep net.pt --layer layer2.1.conv2 --k 1:128:2 --data test.npz --plot sweep.svg

Two criteria on one plot, and every figure:
compress sweep net.pt --layer conv3 -i activation,l1 --k 1:128 --data digits --plot k.png --json k.json
"""


def sweep(
    *,
    checkpoint: reading.Checkpoint,
    layer: exploring.Layer,
    k: exploring.Counts,
    importance: exploring.Criteria = "activation",
    group: exploring.Whole = False,
    looked: exploring.Looking,
    read: reading.Reading,
    calibration: exploring.Ranked = None,
    prepared: images.Preparing,
    plot: exploring.Plot = None,
    json: writing.Json = None,
    repeated: running.Repeating,
    speaking: running.Speaking,
) -> None:
    """Run the command."""
    given = values(read, looked, prepared, repeated) | {"checkpoint": checkpoint, "calibration": calibration}
    with told_in_words(debug=speaking.debug):
        explore = shared.fields(given, (json,), (plot,))
        counts, criteria = shared.counts(k), shared.names(importance)
        from compress.pipeline.exploring import ExploreOptions
        from compress.pipeline.sweep import SweepOptions, run_sweep
        from compress.report import sweep as words

        options = SweepOptions(
            explore=ExploreOptions(**explore), layer=layer, counts=counts, importance=criteria, group=group
        )
        found = run_sweep(options, progress_for(quiet=speaking.quiet))
        shared.finish(found, words, json, plot, quiet=speaking.quiet)

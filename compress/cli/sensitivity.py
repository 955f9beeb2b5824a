"""`compress sensitivity`: which groups of channels and which residual blocks a network can do without."""

from __future__ import annotations

from compress.cli import exploring as shared
from compress.cli.errors import told_in_words
from compress.cli.options import cutting, exploring, images, reading, running, writing
from compress.cli.progress import progress_for
from compress.cli.records import values

HELP = """\
One group is cut at a time, its least important channels first, and the rest stays whole. A residual block is reduced \
to its shortcut: its branch adds nothing. Blocks are found in the graph, as additions of two values that part from \
one; no name decides. `compress slim --drop-blocks` takes them away.

Without labels, the figures tell how often the answer is still the original's. Ctrl-C keeps what was measured.

Examples

compress sensitivity resnet18.pt --data test/

On fewer images, as a heat map and with every figure:
compress sensitivity net.pt --data digits --images 500 --plot heat.png --json sensitivity.json
"""


def sensitivity(
    *,
    checkpoint: reading.Checkpoint,
    looked: exploring.Looking,
    read: reading.Reading,
    importance: cutting.Importance = None,
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
        from compress.pipeline.exploring import ExploreOptions
        from compress.pipeline.sensitivity import SensitivityOptions, run_sensitivity
        from compress.report import sensitivity as words

        options = SensitivityOptions(explore=ExploreOptions(**explore), importance=importance)
        found = run_sensitivity(options, progress_for(quiet=speaking.quiet))
        shared.finish(found, words, json, plot, quiet=speaking.quiet)

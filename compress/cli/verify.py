"""`compress verify`: do two files compute the same?"""

from __future__ import annotations

from typing import Any

import typer

from compress.cli import checks
from compress.cli.errors import told_in_words
from compress.cli.options import images, reading, running, verifying, writing
from compress.cli.progress import progress_for
from compress.cli.records import values

HELP = """\
Shows the largest error, how often both choose the same class and, with --data, the accuracy of both. The exit code is \
0 where they agree and 2 where they do not.

Examples

A pruned network and the file that was made of it:
compress verify pruned.pt small.onnx

An int8 file against the original, on labelled images:
compress verify net.pt small.onnx --arch net.py:build --data test/ --agreement 0.97
"""


def verify(
    *,
    first: verifying.First,
    second: verifying.Second,
    tolerance: verifying.Tolerance = 1e-4,
    agreement: verifying.Agreement = None,
    read: reading.Reading,
    data: images.Data = None,
    prepared: images.Preparing,
    json: writing.Json = None,
    seed: running.Seed = 0,
    speaking: running.Speaking,
) -> None:
    """Run the command: all options but --json and those of the terminal are the fields of VerifyOptions."""
    given = values(read, prepared) | {"first": first, "second": second, "data": data, "seed": seed}
    given |= {"tolerance": tolerance, "agreement": agreement}
    with told_in_words(debug=speaking.debug):
        for path in (first, second):
            checks.checkpoint(path)
        checks.outputs((), (json,), inputs=(first, second))
        given["input_shape"] = checks.input_shape(read.input_shape)
        given["mean"], given["std"] = checks.normalisation(prepared.mean, prepared.std)
        found = _run(given, quiet=speaking.quiet)
        if json is not None:
            _write(found, json)
        if not speaking.quiet:
            from compress.report.comparison import comparison_table
            from compress.report.terminal import console

            console().print(comparison_table(found))
        if not found.same:
            raise typer.Exit(2)


def _run(fields: dict[str, Any], *, quiet: bool) -> Any:
    from compress.pipeline.verify import VerifyOptions, run_verify

    return run_verify(VerifyOptions(**fields), progress_for(quiet=quiet))


def _write(found: Any, path: Any) -> None:
    from compress.core.files import written_whole
    from compress.report.comparison import comparison_json

    with written_whole(path) as temporary:
        temporary.write_text(comparison_json(found), encoding="utf-8")

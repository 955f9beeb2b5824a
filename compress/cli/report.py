"""`compress report`: the JSON of earlier commands becomes a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compress.cli import checks
from compress.cli.errors import told_in_words
from compress.cli.options import running
from compress.core.errors import UsageError

HELP = """\
The page is a single file that needs no network: open it from disk, send it, print it. Several runs of `slim` are \
compared, accuracy against latency and MACs.

Examples

compress slim net.pt --percent 0.5 --data test/ --json half.json

compress report half.json --out report.html

Several runs, and the same as Markdown for a pull request:
compress report half.json third.json bench.json --out report.md
"""

Runs = Annotated[
    list[Path],
    typer.Argument(metavar="RUN.json...", help="Files that --json of any command wrote.", show_default=False),
]
Page = Annotated[
    Path,
    typer.Option("--out", "-o", metavar="FILE", help="The page: .html, or .md for a pull request.", show_default=False),
]


def report(*, runs: Runs, out: Page, speaking: running.Speaking) -> None:
    """Run the command."""
    with told_in_words(debug=speaking.debug):
        for path in runs:
            if not path.is_file():
                raise UsageError(f"there is no file {path}", fix="name what --json of a command wrote")
        checks.outputs((), (out,), inputs=runs)

        from compress.report.page.build import write_report

        write_report(runs, out)
        if not speaking.quiet:
            print(f"wrote {out} ({len(runs)} {'run' if len(runs) == 1 else 'runs'})")

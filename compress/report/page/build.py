"""Runs -> chapters -> one HTML file that needs nothing else, or Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from compress.core.errors import UsageError
from compress.core.files import written_whole
from compress.report.page import bench, flops, inspect, maps, sensitivity, slim, sweep, train, verify
from compress.report.page.blocks import Chapter
from compress.report.page.front import comparison
from compress.report.page.runs import Run, read_runs

CHAPTERS: Mapping[str, Callable[[Run], Chapter]] = {
    "slim": slim.chapter,
    "inspect": inspect.chapter,
    "bench": bench.chapter,
    "flops": flops.chapter,
    "sweep": sweep.chapter,
    "sensitivity": sensitivity.chapter,
    "maps": maps.chapter,
    "train": train.chapter,
    "verify": verify.chapter,
}
TEMPLATES = {".html": "page.html.j2", ".md": "page.md.j2"}


def write_report(paths: Sequence[Path], out: Path) -> None:
    """Write the report on the JSON files to `out`, whole or not at all; its suffix, .html or .md, says which kind.

    Raises UsageError where a file cannot be read or shown, or the suffix is another.
    """
    if out.suffix not in TEMPLATES:
        raise UsageError(f"--out {out}: a report is .html or .md", fix="--out report.html")
    text = render(read_runs(paths, tuple(CHAPTERS)), TEMPLATES[out.suffix])
    with written_whole(out) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render(runs: Sequence[Run], template: str) -> str:
    """Return the page as text; figures of several runs are compared first."""
    chapters = [_chapter(run) for run in runs]
    compared = comparison(runs)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("compress.report.page"),
        autoescape=template.endswith(".html.j2"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["percent"] = _percent
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return environment.get_template(template).render(chapters=chapters, compared=compared, made=made)


def _chapter(run: Run) -> Chapter:
    try:
        return CHAPTERS[run.kind](run)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise UsageError(
            f"the JSON of {run.name} lacks what a report on `compress {run.kind}` needs: {error!r}",
            fix="write it again with this version's --json",
        ) from error


def _percent(share: Any) -> str:
    """Return a fraction as a CSS percentage."""
    return f"{100 * float(share):.3f}%"

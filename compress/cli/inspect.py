"""`compress inspect`: which channels could leave, and why the others cannot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.cli import checks, options
from compress.cli.errors import told_in_words
from compress.cli.progress import progress_for
from compress.core.types import Attention

if TYPE_CHECKING:
    from compress.graph.analyse import Analysis

HELP = """Show the groups of channels of a network: their sizes, and why some have to stay.

[bold]Example[/bold]

[cyan]compress inspect resnet18.pt[/cyan]
"""


def inspect(  # noqa: PLR0917 - typer reads the options from the parameters, one each
    checkpoint: options.Checkpoint,
    attention: options.AttentionOption = Attention.HEADS,
    arch: options.Arch = None,
    input_shape: options.InputShape = None,
    num_classes: options.NumClasses = None,
    trust: options.Trust = False,
    json: options.Json = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Run the command."""
    with told_in_words(debug=debug):
        shape = checks.input_shape(input_shape)
        checks.checkpoint(checkpoint)
        checks.outputs((), (json,), inputs=(checkpoint,))
        reading = {"arch": arch, "input_shape": shape, "num_classes": num_classes, "trust": trust}
        with progress_for(quiet=quiet).stage("analyse"):
            analysis = _analysed(checkpoint, {"attention": attention, **reading})
        _tell(checkpoint.name, analysis, json, quiet=quiet)


def _analysed(checkpoint: Path, how: dict[str, Any]) -> Analysis:
    from compress import pipeline

    return pipeline.inspect(checkpoint, **how)


def _tell(name: str, analysis: Analysis, json: Path | None, *, quiet: bool) -> None:
    from compress.core.files import written_whole
    from compress.report.groups import groups_json, groups_table
    from compress.report.terminal import console

    if json is not None:
        with written_whole(json) as temporary:
            temporary.write_text(groups_json(name, analysis.groups, analysis.unknown), encoding="utf-8")
    if not quiet:
        console().print(groups_table(name, analysis.groups, analysis.unknown))

"""The program `compress`: its commands and its own options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

import compress
from compress.cli import bench, flops, inspect, maps, report, sensitivity, slim, sweep, train, verify
from compress.cli.records import flat

HELP = """Make a trained PyTorch network smaller and faster: remove channels, check that nothing else changed, export.

Start with: [bold]compress slim resnet18.pt --percent 0.5 --out small.onnx[/bold]
"""

app = typer.Typer(
    name="compress",
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "slim": (slim.slim, slim.HELP),
    "inspect": (inspect.inspect, inspect.HELP),
    "bench": (bench.bench, bench.HELP),
    "flops": (flops.flops, flops.HELP),
    "report": (report.report, report.HELP),
    "sweep": (sweep.sweep, sweep.HELP),
    "train": (train.train, train.HELP),
    "sensitivity": (sensitivity.sensitivity, sensitivity.HELP),
    "maps": (maps.maps, maps.HELP),
    "verify": (verify.verify, verify.HELP),
}
for name, (command, text) in COMMANDS.items():
    app.command(name, help=text, no_args_is_help=True)(flat(command))


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"compress {compress.__version__}")
        raise typer.Exit


@app.callback()
def compress_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Hold the options of the program itself."""
    del version


def main() -> None:
    """Run the program; the console script's entry point."""
    app(prog_name="compress")

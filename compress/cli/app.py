"""The program `compress`: its commands and its own options."""

from __future__ import annotations

from typing import Annotated

import typer

import compress
from compress.cli import bench, flops, inspect, maps, report, sensitivity, slim, sweep, train, verify

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
app.command("slim", help=slim.HELP, no_args_is_help=True)(slim.slim)
app.command("inspect", help=inspect.HELP, no_args_is_help=True)(inspect.inspect)
app.command("bench", help=bench.HELP, no_args_is_help=True)(bench.bench)
app.command("flops", help=flops.HELP, no_args_is_help=True)(flops.flops)
app.command("report", help=report.HELP, no_args_is_help=True)(report.report)
app.command("sweep", help=sweep.HELP, no_args_is_help=True)(sweep.sweep)
app.command("train", help=train.HELP, no_args_is_help=True)(train.train)
app.command("sensitivity", help=sensitivity.HELP, no_args_is_help=True)(sensitivity.sensitivity)
app.command("maps", help=maps.HELP, no_args_is_help=True)(maps.maps)
app.command("verify", help=verify.HELP, no_args_is_help=True)(verify.verify)


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

"""The program `compress`: its commands and its own options."""

from __future__ import annotations

import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperGroup, TyperOption

import compress
from compress.cli.help import WIDEST, Command, unbroken
from compress.cli.records import flat

HELP = """Make a trained PyTorch network smaller and faster: remove channels, check that nothing else changed, export.

Start with:
compress slim resnet18.pt --percent 0.5 --out small.onnx
"""
# The first line of each command's help; the rest is HELP in the file of that name, which has the function of that name.
COMMANDS = {
    "slim": "Remove channels from a trained network, check the result, measure it, and export it.",
    "inspect": "Show which channels could leave, what they carry, and why the others stay.",
    "bench": "Measure networks against each other, and say only what the measurement supports.",
    "flops": "Count MACs, parameters, activations and memory traffic of a network, layer by layer, for one input.",
    "report": "Make one page of what earlier commands found: figures, charts, and the commands to do it again.",
    "sweep": "Remove 1, 2, 3 ... channels of one layer, physically, and measure each network.",
    "train": "Train a network, plainly or with channels pulled towards zero, and write a checkpoint that can be cut.",
    "sensitivity": "Measure the network with 10, 20 ... 90 % of each group's channels gone, and without each residual "
    "block.",
    "maps": "Draw the mean feature maps of a layer over a data set, the most active channels first, in one colour "
    "scale.",
    "verify": "Compare two files of any formats on the same inputs, each in its own runtime.",
}


def command(name: str) -> Any:
    """Import the command `name` and return it as typer runs it."""
    home = importlib.import_module(f"compress.cli.{name}")
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    text = f"{COMMANDS[name]}\n\n{unbroken(home.HELP)}"
    alone.command(name, cls=Command, help=text, no_args_is_help=True)(flat(getattr(home, name)))
    return typer.main.get_command(alone)


def joined(args: list[str]) -> list[str]:
    """Read `--int8 auto` as `--int8-auto`: an option cannot be both a flag and take a word.

    >>> joined(["net.pt", "--int8", "auto", "--int8"])
    ['net.pt', '--int8-auto', '--int8']
    """
    found: list[str] = []
    for arg in args:
        if arg == "auto" and found[-1:] == ["--int8"]:
            found[-1] = "--int8-auto"
        else:
            found.append(arg)
    return found


class Commands(TyperGroup):
    """Commands that are listed by their first line, and imported when one of them is asked for."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the name and the whole command that `args` begin with, and the other arguments."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, command(name) if name and listed else None, joined(rest)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write every command with its whole line."""
        del ctx
        with formatter.section(typer.style("Commands", bold=True)):
            formatter.write_dl(list(COMMANDS.items()))

    def get_help_option(self, ctx: Any) -> TyperOption | None:
        """Return typer's --help with a default: where it has none, typer imports pydantic to read that it is absent."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.default = False
        return option


app = typer.Typer(
    name="compress",
    cls=Commands,
    help=unbroken(HELP),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDEST},
)


def _listed() -> None:
    """Stand for a command that is not imported yet."""


for _name, _line in COMMANDS.items():
    app.command(_name, help=_line)(_listed)


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

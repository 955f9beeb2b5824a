"""`compress inspect`: which channels could leave, and why the others cannot."""

from __future__ import annotations

from compress.cli import checks, options
from compress.cli.errors import told_in_words

HELP = """Show the groups of channels of a network: their sizes, and why some have to stay.

[bold]Example[/bold]

[cyan]compress inspect resnet18.pt[/cyan]
"""


def inspect(
    checkpoint: options.Checkpoint,
    arch: options.Arch = None,
    input_shape: options.InputShape = None,
    num_classes: options.NumClasses = None,
    trust: options.Trust = False,
    debug: options.Debug = False,
) -> None:
    """Run the command."""
    with told_in_words(debug=debug):
        checks.checkpoint(checkpoint)
        shape = checks.input_shape(input_shape)
        del arch, shape, num_classes, trust

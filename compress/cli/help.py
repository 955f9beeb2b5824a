"""How a command's help is laid out: plain text, since what draws typer's boxes takes a third of a second to import."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand

WIDEST = 110


class Command(TyperCommand):
    """A command whose options stand under the names of their panels, in the order in which they are declared."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and every panel's options."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            line = parameter.get_help_record(ctx)
            if line is not None:
                other = "Arguments" if parameter.param_type_name == "argument" else "Other"
                panels.setdefault(getattr(parameter, "rich_help_panel", None) or other, []).append(line)
        for panel, lines in panels.items():
            with formatter.section(typer.style(panel, bold=True)):
                formatter.write_dl(lines)


def unbroken(text: str) -> str:
    r"""Mark the paragraphs that hold a command to copy: no line of them is broken; what ends with a colon tells of it.

    >>> unbroken("Wrapped as\nit fits.\n\nHalf of it:\ncompress slim net.pt")
    'Wrapped as\nit fits.\n\n\x08\nHalf of it:\n  compress slim net.pt'
    """
    paragraphs = []
    for paragraph in text.split("\n\n"):
        lines = paragraph.splitlines()
        if any(line.startswith("compress ") for line in lines):
            lines = ["\b", *(line if line.endswith(":") else f"  {line}" for line in lines)]
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)

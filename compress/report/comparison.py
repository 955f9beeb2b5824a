"""What comparing two files found, as data, as a table and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from compress.core.types import Accuracy
from compress.report.units import percentage

FORMAT = "compress-verify-1"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two files: its name, its format, and its accuracy in its own runtime where there is labelled data."""

    name: str
    format: str
    accuracy: Accuracy | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How far two files are apart.

    `max_relative_error` is max |second - first| / max |first| over all outputs on `inputs` inputs, `agreement` the
    fraction of them on which both choose the same class, None without classes. `on` names the inputs.
    `least_agreement`, where given, is asked for instead of `tolerance`. The rest says how to do it again.
    """

    first: Side
    second: Side
    max_relative_error: float
    agreement: float | None
    inputs: int
    on: str
    tolerance: float
    least_agreement: float | None = None
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def same(self) -> bool:
        """Whether the files agree: by their classes where an agreement was asked for, else within the tolerance."""
        if self.least_agreement is not None:
            return self.agreement is not None and self.agreement >= self.least_agreement
        return self.max_relative_error <= self.tolerance


def comparison_json(found: Comparison) -> str:
    """Return the comparison as JSON text; a number that is not finite becomes null."""
    tree = {"format": FORMAT, "same": found.same, **asdict(found)}
    if not math.isfinite(found.max_relative_error):
        tree["max_relative_error"] = None
    for side in ("first", "second"):
        if tree[side]["accuracy"] is not None:
            classes = tree[side]["accuracy"]["per_class"]
            tree[side]["accuracy"]["per_class"] = [x if math.isfinite(x) else None for x in classes]
    return json.dumps(tree, indent=2, allow_nan=False) + "\n"


def comparison_table(found: Comparison) -> RenderableType:
    """Return the comparison as a table and a sentence."""
    table = Table(header_style="bold")
    for name in ("file", "format", "top-1", "loss, nats"):
        table.add_column(name, justify="left" if name in {"file", "format"} else "right")
    for side in (found.first, found.second):
        reached = side.accuracy
        words = ("", "") if reached is None else (percentage(reached.top1), f"{reached.loss:.4f}")
        table.add_row(side.name, side.format, *words)
    same = "" if found.agreement is None else f", same class on {percentage(found.agreement)}"
    asked = f"a relative error of {found.tolerance:g}"
    if found.least_agreement is not None:
        asked = f"the same class on {percentage(found.least_agreement)}"
    sentence = f"largest relative error {found.max_relative_error:.2g}{same}, on {found.on}; asked: {asked}"
    verdict = Text("the same: " if found.same else "DIFFERENT: ", "bold green" if found.same else "bold red")
    return Group(table, verdict.append(sentence, "not bold default"))

"""What `compress train` tells: a table for the terminal, and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from compress.core.types import Accuracy
from compress.report.units import count, duration, percentage

if TYPE_CHECKING:
    from torch import nn

    from compress.recovery.training.loop import Trained
    from compress.recovery.training.run import Epoch

FORMAT = "compress-train-1"
NEAR_ZERO = 0.01
BINS = 40

UNITS: Mapping[str, str] = {
    "loss": "nats per image",
    "right": "fraction of the held-out images",
    "lr": "learning rate at the end of the epoch",
    "top1": "fraction of images, in [0, 1]",
    "top5": "fraction of images, in [0, 1]",
    "per_class": "fraction of the class's images, in [0, 1]",
    "parameters": "parameters",
    "scales": "absolute values of the BatchNorm scales; near_zero is the fraction below 0.01",
    "seconds": "seconds of wall time, of the last run where the training was resumed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scales:
    """The absolute BatchNorm scales of a network: how many, which fraction is below 0.01, and their histogram."""

    number: int
    near_zero: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """Everything that one run of `train` measured; `accuracy_on` says on which images, `class_names` may be empty."""

    arch: str
    arch_options: Mapping[str, Any]
    parameters: int
    recipe_name: str
    recipe: Mapping[str, Any]
    trained_on: str
    done: Trained
    accuracy: Accuracy | None
    accuracy_on: str | None
    class_names: tuple[str, ...]
    scales: Scales | None
    out: str
    machine: Mapping[str, object]
    versions: Mapping[str, str]
    command: str
    notes: tuple[str, ...] = ()


def scales_in(module: nn.Module) -> Scales | None:
    """Count the BatchNorm scales of a network; None where it has none."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    found = [m.weight.detach().abs().cpu() for m in module.modules() if isinstance(m, _BatchNorm) and m.affine]
    if not found:
        return None
    every = torch.cat(found)
    counts, edges = torch.histogram(every, BINS)
    return Scales(
        number=len(every),
        near_zero=float((every < NEAR_ZERO).double().mean()),
        edges=tuple(edges.tolist()),
        counts=tuple(int(n) for n in counts),
    )


def epoch_line(epoch: Epoch, epochs: int) -> str:
    """Say in one line what an epoch reached."""
    held = "" if epoch.score is None else f"  held-out {percentage(epoch.score.right)}, loss {epoch.score.loss:.4f}"
    return f"epoch {epoch.number} of {epochs}: loss {epoch.loss:.4f}{held}"


def told(report: TrainReport) -> RenderableType:
    """Return the report as something rich can print."""
    done, recipe = report.done, report.recipe
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    how = f"{report.recipe_name}: {recipe['optimizer']}, lr {recipe['lr']:g}, batch {recipe['batch_size']}"
    rows = [
        ("network", f"{report.arch}, {count(report.parameters)} parameters"),
        ("recipe", f"{how}, {recipe['schedule']}, {done.precision}, seed {recipe['seed']}"),
        ("trained on", report.trained_on),
        ("epochs", _epochs(report)),
    ]
    if report.scales is not None:
        near = f"{percentage(report.scales.near_zero)} of {report.scales.number:,} are below {NEAR_ZERO}"
        rows.append(("scales", near))
    if report.accuracy is not None:
        rows.append(("accuracy", f"{percentage(report.accuracy.top1)} on {report.accuracy_on}"))
    rows += [("note", note) for note in report.notes]
    rows.append(("wrote", f"{report.out}  weights, architecture and preprocessing; compress slim reads it"))
    for label, text in rows:
        facts.add_row(label, Text(text))
    return Group(*([_classes(report)] if report.accuracy is not None else []), facts)


def _epochs(report: TrainReport) -> str:
    done = report.done
    parts = [f"{len(done.epochs)} of {report.recipe['epochs']}, {done.steps:,} steps in {duration(done.seconds)}"]
    if done.resumed:
        parts.append(f"{done.resumed:,} of the steps by earlier runs")
    if done.processes > 1:
        parts.append(f"{done.processes} processes")
    if done.stopped_early:
        parts.append("stopped: no epoch got better")
    parts.append(f"epoch {done.kept} is kept" if done.kept else "the last one is kept")
    return ", ".join(parts)


def _classes(report: TrainReport) -> Table:
    """Accuracy of every class."""
    table = Table(header_style="bold")
    table.add_column("class")
    table.add_column("accuracy", justify="right")
    assert report.accuracy is not None
    for number, fraction in enumerate(report.accuracy.per_class):
        name = report.class_names[number] if number < len(report.class_names) else str(number)
        table.add_row(name, percentage(fraction) if math.isfinite(fraction) else "no image")
    table.add_section()
    table.add_row("all", percentage(report.accuracy.top1))
    return table


def train_json(report: TrainReport) -> str:
    """Return every figure as a JSON text that ends in a newline."""
    done = asdict(report.done)
    data = {
        "format": FORMAT,
        "units": dict(UNITS),
        "command": report.command,
        "versions": dict(report.versions),
        "machine": dict(report.machine),
        "arch": report.arch,
        "arch_options": dict(report.arch_options),
        "parameters": report.parameters,
        "recipe": {"name": report.recipe_name, **report.recipe},
        "trained_on": report.trained_on,
        "training": done,
        "accuracy": None if report.accuracy is None else asdict(report.accuracy),
        "accuracy_on": report.accuracy_on,
        "class_names": list(report.class_names),
        "scales": None if report.scales is None else asdict(report.scales),
        "out": report.out,
        "notes": list(report.notes),
    }
    return json.dumps(_finite(data), indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """Numbers that are not finite become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value if isinstance(value, str | int | None) else str(value)

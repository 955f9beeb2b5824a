"""What the channels of one layer show on average; as a table, JSON and a grid of pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from compress.report.exploring import Origin, facts

SIDE = 32  # pixels of a map in the JSON file; larger ones are reduced
LISTED = 10  # channels in the terminal
DIGITS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Maps:
    """Mean feature maps (channels, H, W) over all images, and per channel the mean and the largest magnitude.

    `order` are the channels, the most active (by mean magnitude) first; `shown` of them are drawn. `dead` are those
    that are zero everywhere on every image.
    """

    origin: Origin
    layer: str
    maps: np.ndarray
    activity: np.ndarray
    largest: np.ndarray
    order: tuple[int, ...]
    shown: int
    dead: tuple[int, ...]
    images: int
    asked: int
    complete: bool

    @property
    def top(self) -> tuple[int, ...]:
        """The channels that are drawn."""
        return self.order[: self.shown]


def reduced(maps: np.ndarray) -> np.ndarray:
    """Maps of at most SIDE x SIDE pixels, each the mean of a rectangle.

    >>> reduced(np.arange(64 * 64.0).reshape(1, 64, 64)).shape
    (1, 32, 32)
    """
    height, width = maps.shape[1:]
    down, across = -(-height // SIDE), -(-width // SIDE)
    tall = np.add.reduceat(maps, np.arange(0, height, down), axis=1)
    made: np.ndarray = np.add.reduceat(tall, np.arange(0, width, across), axis=2)
    ones = np.add.reduceat(np.add.reduceat(np.ones((height, width)), np.arange(0, height, down), 0),
                           np.arange(0, width, across), 1)  # fmt: skip
    return made / ones


def tree(found: Maps) -> dict[str, Any]:
    """The figures as they stand in the JSON file."""
    small = reduced(found.maps[list(found.top)])
    return {
        "layer": found.layer,
        "channels": len(found.order),
        "size": list(found.maps.shape[1:]),
        "images": found.images,
        "asked": found.asked,
        "complete": found.complete,
        "order": list(found.order),
        "activation": found.activity.tolist(),
        "largest": found.largest.tolist(),
        "dead": list(found.dead),
        "top": [
            {"channel": c, "map": np.round(picture, DIGITS).tolist()}
            for c, picture in zip(found.top, small, strict=True)
        ],
        "map_size": list(small.shape[1:]),
    }


def told(found: Maps) -> RenderableType:
    """Return the findings as something rich can print."""
    table = Table(header_style="bold")
    for name in ("channel", "mean activation", "largest"):
        table.add_column(name, justify="right")
    for c in found.order[:LISTED]:
        table.add_row(str(c), f"{found.activity[c]:.4g}", f"{found.largest[c]:.4g}")
    size = " x ".join(map(str, found.maps.shape[1:]))
    title = f"{found.origin.network}: {found.layer}, {len(found.order)} channels of {size}, the most active first"
    names = ", ".join(map(str, found.dead)) or "none"
    rows = [("dead", f"{len(found.dead)} of {len(found.order)} channels are zero on every image: {names}")]
    if found.dead:
        rows.append(("", "compress slim --drop-dead takes channels away that do nothing"))
    return Group(
        Text(title, "bold"),
        table,
        facts(found.origin, (found.images, found.asked), rows, complete=found.complete),
    )


def draw(found: Maps, path: Path) -> None:
    """Draw the most active maps in a grid with one colour scale; PNG, SVG or PDF by suffix."""
    from compress.report.plots import grid

    grid(
        found.maps[list(found.top)],
        [f"{c}: {found.activity[c]:.3g}" for c in found.top],
        path,
        title=f"{found.origin.network}: {found.layer}, the {len(found.top)} most active of {len(found.order)} channels",
        unit=f"mean over {found.images:,} images of {found.origin.data}",
    )

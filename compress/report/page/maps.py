"""A run of `compress maps` as a chapter: the mean feature maps with one colour scale, and the dead channels by name."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

from compress.report.page.blocks import Chapter, Facts, Picture, Pictures, Section
from compress.report.page.common import reproduce
from compress.report.page.runs import Run

COLOURS = "viridis"


def chapter(run: Run) -> Chapter:
    """Return the chapter of a run of `maps`."""
    data = run.data
    values = [value for top in data["top"] for row in top["map"] for value in row]
    low, high = min(values, default=0.0), max(values, default=1.0)
    pictures = tuple(
        Picture(str(top["channel"]), _png(top["map"], low, high), _words(data, top["channel"])) for top in data["top"]
    )
    dead = ", ".join(map(str, data["dead"])) or "none"
    facts = Facts((("colours", f"from {low:.3g} to {high:.3g}"), ("dead", f"{len(data['dead'])} channels: {dead}")))
    size = " x ".join(map(str, data["size"]))
    lead = f"Mean over {data['images']:,} images of {data['data']['name']}, {size} pixels, the most active first."
    title = f"{data['layer']}: {len(data['top'])} of {data['channels']} channels"
    section = Section(title, lead, (Pictures(pictures), facts))
    return Chapter(run.key, run.name, f"Feature maps of {data['network']['name']}.", "", (section, *reproduce(run)))


def _words(data: Mapping[str, Any], channel: int) -> str:
    return f"channel {channel}: mean activation {data['activation'][channel]:.4g}"


def _png(rows: Sequence[Sequence[float]], low: float, high: float) -> str:
    """Return a map as a PNG in a data URI, a pixel a value."""
    import matplotlib as mpl
    import numpy as np
    from PIL import Image

    shares = (np.asarray(rows, dtype=float) - low) / ((high - low) or 1.0)
    colours = mpl.colormaps[COLOURS](shares, bytes=True)[..., :3]
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(colours)).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()

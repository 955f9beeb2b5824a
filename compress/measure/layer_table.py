"""From a network's layers to a table of their times on this device: which widths to measure, and the runtime's step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

from compress.core.latency import Grid, LatencyTable, Layer, rising, whole
from compress.measure.layer_store import Device, times_of
from compress.measure.layer_times import layer_times

# Widths that are measured, as shares of the layer's own.
SHARES = (0.125, 0.25, 0.5, 0.75, 1.0)
STEPS = (32, 16, 8, 4)
# The share of the rise that lies at the multiples of a step, and the rise below which there is nothing to see.
MOST = 0.8
LEAST_RISE = 0.05
# Widths that are measured to find the step, and the widest: one step is little of a wide layer's time, as noise is.
WINDOW = 64
WIDEST = 2 * WINDOW


def table_of(
    macs: Mapping[Layer, int],
    device: Device,
    *,
    progress: Callable[[int, int], None] | None = None,
    folder: Path | None = None,
    measure: Callable[..., Sequence[float]] = layer_times,
) -> LatencyTable:
    """Return the table for the layers, measured on this machine or read from the cache in `folder`.

    `macs` are the MACs in all layers of a shape: where most are, the runtime's step is looked for. Convolutions in
    groups cannot be as wide as one likes, and are left out.
    """

    def run(layers: Sequence[Layer]) -> Sequence[float]:
        return measure(layers, threads=device.threads, provider=device.provider, progress=progress)

    plain = [layer for layer in macs if layer[0].groups == 1]
    around = probes(max(plain, key=macs.__getitem__)) if plain else []
    seen = times_of(around, device, run, folder)
    step = step_of({outputs: seconds for (_, _, outputs), seconds in seen.items()})
    points = {layer: (_widths(layer[1], step), _widths(layer[2], step)) for layer in plain}
    wanted = [p for layer, (ins, outs) in points.items() for p in _points(layer, ins, outs)]
    seconds = times_of(list(dict.fromkeys(wanted)), device, run, folder)
    return LatencyTable(step, {layer: _grid(layer, ins, outs, seconds, step) for layer, (ins, outs) in points.items()})


def probes(layer: Layer) -> list[Layer]:
    """Return the layer at every output width of a window, none above its own, to see where its time jumps."""
    shape, inputs, outputs = layer
    last = min(outputs, WIDEST)
    widths = range(max(last - WINDOW, 1), last + 1)
    return [(shape, width if shape.kind == "depthwise" else inputs, width) for width in widths]


def step_of(seconds: Mapping[int, float]) -> int:
    """Return the largest step whose multiples are where the time jumps; 1 where it rises with every channel.

    `seconds` are times by width, every width of a window. The rise from the first to the last is a sum of jumps; a step
    is accepted where most of it lies at its multiples, as between the middle of the widths before and after each.

    >>> step_of({w: float(-(-w // 16)) for w in range(33, 97)})
    16
    >>> step_of({w: float(w) for w in range(1, 65)})
    1
    """
    if len(seconds) < 2:
        return 1
    rise = math.log(seconds[max(seconds)] / seconds[min(seconds)])
    if rise < LEAST_RISE:
        return 1
    return next((step for step in STEPS if sum(_jumps(seconds, step)) >= MOST * rise), 1)


def _jumps(seconds: Mapping[int, float], step: int) -> Iterator[float]:
    """How much the time rises, in logarithms, at each multiple of the step."""
    for width in seconds:
        after = [seconds[w] for w in range(width + 1, width + step // 2 + 1) if w in seconds]
        before = [seconds[w] for w in range(width - step // 2 + 1, width + 1) if w in seconds]
        if width % step == 0 and before and after:
            yield math.log(median(after) / median(before))


def _widths(own: int, step: int) -> tuple[int, ...]:
    """Widths to measure: multiples of the step near shares of the layer's own, one step, and its own."""
    near = {max(round(share * own / step), 1) * step for share in SHARES[:-1]}
    return tuple(sorted({own, *(width for width in {step, *near} if width < own)}))


def _points(layer: Layer, inputs: Sequence[int], outputs: Sequence[int]) -> list[Layer]:
    if layer[0].kind == "depthwise":
        return [(layer[0], width, width) for width in outputs]
    return [(layer[0], i, o) for i in inputs for o in outputs]


def _grid(
    layer: Layer, inputs: Sequence[int], outputs: Sequence[int], seconds: Mapping[Layer, float], step: int
) -> Grid:
    """The measured points as a grid; the layer's own width stands where it is computed as."""
    shape = layer[0]
    columns = tuple(whole(width, step) for width in outputs)
    if shape.kind == "depthwise":  # one width is both
        return Grid((whole(layer[1], step),), columns, rising([[seconds[shape, width, width] for width in outputs]]))
    rows = tuple(whole(width, step) for width in inputs)
    return Grid(rows, columns, rising([[seconds[shape, i, o] for o in outputs] for i in inputs]))

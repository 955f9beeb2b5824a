"""What a benchmark found, in the terminal and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from itertools import groupby

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from compress.measure.bench_results import BenchReport, Standing
from compress.measure.explain import Change, Explained
from compress.measure.profile import LayerTime
from compress.report.jsonfile import finite
from compress.report.units import byte_size, count, duration

FORMAT = "compress-bench-1"
UNITS = {
    "seconds": "seconds a pass over one batch: percentiles over all passes",
    "throughput": "inputs a second, at the median pass",
    "ratio": "median over rounds of latency / the first file's; low and high bound its 95 % interval",
    "control": "latency of the first file's second load / its first: how far two loads of one file differ",
    "load": "seconds from the file to a network that can run, in a fresh process",
    "peak": "bytes of resident memory that loading and running added at most, in a fresh process",
    "device_peak": "bytes that PyTorch held on CUDA at most",
    "file_bytes": "bytes",
    "macs": "multiply-accumulates of a pass; FLOPs are twice that",
    "traffic": "bytes read and written by the operator, once each",
    "flops": "floating point operations a second",
    "bandwidth": "bytes a second, read and written",
}


def _setting(standing: Standing) -> tuple[str, str, int, int]:
    return str(standing.backend), str(standing.device), standing.batch, standing.threads


def bench_tables(report: BenchReport) -> RenderableType:
    """Return one table for each backend and setting, then what could not be measured, layers, notes and the machine."""
    parts: list[RenderableType] = []
    ordered = sorted(report.standings, key=_setting)
    for (backend, device, batch, threads), standings in groupby(ordered, _setting):
        rows = list(standings)
        title = f"{backend} on {device}, batch {batch}, {threads} threads ({rows[0].runtime}, {rows[0].rounds} rounds)"
        parts += [Text(title, "bold"), _table(rows)]
    for layers in report.layers:
        parts += layer_tables(layers)
    parts += [Text(f"not measured  {s.label} in {s.backend} ({s.setting}): {s.why}") for s in report.skipped]
    parts += [Text(f"note  {note}") for note in report.notes]
    machine = report.machine
    if machine:
        isa = machine.get("isa")
        extensions = ", ".join(map(str, isa)) if isinstance(isa, (list, tuple)) else ""
        load = machine.get("load")
        busy = f", load {load:.2f}" if isinstance(load, float) else ""
        parts.append(Text(f"machine  {machine.get('cpu')} ({extensions}), {machine.get('cores')} cores{busy}"))
    return Group(*parts)


def _table(rows: Sequence[Standing]) -> Table:
    fresh = any(row.load is not None for row in rows)
    accuracy = any(row.accuracy is not None for row in rows)
    table = Table(header_style="bold", box=SIMPLE, pad_edge=False)
    table.add_column("file", overflow="fold", min_width=16)
    for name in ("p50", "p90", "p99", "inputs/s", "against the first [95 %]", "size"):
        table.add_column(name, justify="right")
    for name in (*(["load", "peak memory"] if fresh else []), *(["top-1"] if accuracy else [])):
        table.add_column(name, justify="right")
    for row in rows:
        cells = [row.label, *(duration(s) for s in (row.seconds.p50, row.seconds.p90, row.seconds.p99))]
        cells += [
            count(round(row.throughput, 1)),
            "" if row.ratio is None else str(row.ratio),
            byte_size(row.file_bytes),
        ]
        if fresh:
            peak = row.peak if row.device_peak is None else row.device_peak
            cells += ["" if row.load is None else duration(row.load), "" if peak is None else byte_size(peak)]
        if accuracy:
            cells.append("" if row.accuracy is None else f"{row.accuracy:.2%}")
        table.add_row(*cells)
    return table


def layer_tables(layers: Explained) -> list[RenderableType]:
    """Return the layers that multiply, before and after, and the sentences that say where the time goes."""
    against = f" against {layers.against}" if layers.against else ""
    roof = layers.roof
    title = (
        f"layers of {layers.label}{against} in onnxruntime, batch {layers.batch}; this machine reaches "
        f"{roof.flops / 1e9:.0f} GFLOP/s and copies {roof.bandwidth / 1e9:.1f} GB/s on {roof.threads} threads"
    )
    table = Table(header_style="bold", box=SIMPLE, pad_edge=False)
    table.add_column("layer", overflow="fold", min_width=12)
    for name in ("weight", "time", "GFLOP/s", *(["MACs", "time"] if layers.against else [])):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("" if layers.against is None else "after / before; why not less", overflow="fold", min_width=20)
    for change in layers.changes:
        table.add_row(*_layer_row(change, compared=layers.against is not None))
    for name, seconds in layers.rest_after:
        was = dict(layers.rest_before).get(name)
        change_of_time = [] if layers.against is None else ["", f"{seconds / was:.2f}" if was else ""]
        table.add_row(f"all {name}", "", duration(seconds) if seconds else "0", "", *change_of_time, "")
    return [Text(title, "bold"), table, *(Text(sentence) for sentence in layers.sentences)]


def _layer_row(change: Change, *, compared: bool) -> list[str]:
    before, after = change.before, change.after
    layer = after or before
    assert layer is not None
    now = [duration(layer.seconds), f"{layer.flops / 1e9:.1f}"] if after is not None else ["gone", ""]
    ratios = ["", ""] if compared else []
    if before is not None and after is not None:
        ratios = [f"{after.macs / before.macs:.2f}", f"{after.seconds / before.seconds:.2f}" if before.seconds else ""]
    return [layer.name, _weights(before, after), *now, *ratios, change.words]


def _weights(before: LayerTime | None, after: LayerTime | None) -> str:
    texts = ["x".join(map(str, t.weight)) for t in (before, after) if t is not None]
    return " -> ".join(dict.fromkeys(texts))


def bench_json(report: BenchReport) -> str:
    """Return every figure as a JSON text that ends in a newline."""
    tree = {"format": FORMAT, "units": UNITS, **dataclasses.asdict(report)}
    for row, standing in zip(tree["standings"], report.standings, strict=True):
        if standing.ratio is not None:
            row["ratio"]["outcome"] = standing.ratio.outcome
    return json.dumps(finite(tree), indent=2, allow_nan=False) + "\n"

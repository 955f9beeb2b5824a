"""latency.json as tables that people read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def tables(results: Mapping[str, Any], bars: Mapping[str, float]) -> str:
    """Return the Markdown page: the machine, and a table for each part that was measured."""
    machine = results.get("about", {}).get("machine", {})
    versions = machine.get("versions", {})
    head = (
        f"`python benchmarks/latency.py` on {machine.get('cpu')} ({', '.join(machine.get('isa', ()))}), "
        f"{machine.get('cores')} cores, load {machine.get('load')} when it began; onnxruntime "
        f"{versions.get('onnxruntime')}, torch {versions.get('torch')}, "
        f"Torch-Pruning {versions.get('torch-pruning')}. "
        "One thread, batch size 1, random weights. Ratios are medians over interleaved rounds, with 95 % intervals."
    )
    lines = ["# Latency", "", head]
    for part, table in (("half", _half), ("target", _target), ("same", _same)):
        if results.get(part):
            lines += ["", *table(results[part], bars)]
    return "\n".join(lines) + "\n"


def _interval(found: Mapping[str, Any]) -> str:
    return f"{found['ratio']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"


def _half(rows: Mapping[str, Any], bars: Mapping[str, float]) -> list[str]:
    lines = [
        "## Half of the MACs",
        "",
        "Against the original. *Of ideal* is the ratio of latency over that of MACs. Torch-Pruning cuts the same share",
        "of every layer until its MACs are nearest to ours, at round_to 1, 8 and 16: MACs, then latency. The last",
        "ratio is ours against the fastest of those whose MACs are within 5 % of ours.",
        "",
        "| network | MACs | latency | of ideal | bar | Torch-Pruning, 1 | 8 | 16 | ours against the fastest | load |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in (n for n in bars if n in rows):
        row = rows[name]
        if "latency" not in row:
            lines.append(f"| {name} | {row.get('error', 'not timed')} | | | {bars[name]} | | | | | |")
            continue
        ideal = row["latency"]["ours"]["ratio"] / row["ours"]
        cells = [name, f"{row['ours']:.3f}", _interval(row["latency"]["ours"]), f"{ideal:.2f}", f"{bars[name]}"]
        for label in ("tp1", "tp8", "tp16"):
            there = row["latency"].get(label)
            cells.append(f"{row[label]:.3f}: {there['ratio']:.3f}" if there else "fails")
        cells.append(f"{_interval(row['against_best'])} ({row['best']})" if "best" in row else "")
        lines.append(f"| {' | '.join(cells)} | {row['load']} |")
    return lines


def _target(rows: Mapping[str, Any], _: Mapping[str, float]) -> list[str]:
    lines = [
        "## `--latency 0.5`",
        "",
        "The error is the sum of squared differences to the original's outputs, over that of these to their mean,",
        "on held-out random inputs, after absorbing (and raw), against that of the `--macs` cut that takes as long.",
        "",
        "| network | latency | step | table, s | MACs | error | `--macs` cut: MACs | its latency / ours | its error |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, row in rows.items():
        if "reached" not in row:
            lines.append(f"| {name} | {row.get('error')} | | | | | | | |")
            continue
        ours, other = row["error"]["latency"], row["error"]["macs"]
        cells = [name, _interval(row["reached"]), f"{row['step']}", f"{row['table_seconds']:.0f}"]
        cells += [
            f"{row['macs_share']:.3f}",
            f"{ours['recovered']:.3f} ({ours['raw']:.3f})",
            f"{row['macs_budget']:.3f}",
        ]
        cells += [_interval(row["macs_against_latency"]), f"{other['recovered']:.3f} ({other['raw']:.3f})"]
        lines.append(f"| {' | '.join(cells)} |")
        lines += [f"\n{note}\n" for note in row["notes"]]
    return lines


def _same(rows: Mapping[str, Any], _: Mapping[str, float]) -> list[str]:
    lines = ["## A file against itself", ""]
    for name, row in rows.items():
        if "hold_1" not in row:
            lines.append(f"{name}: {row.get('error')}")
            continue
        lines.append(
            f"{name}: {row['hold_1']} of {row['runs']} intervals hold 1; the median interval is "
            f"{row['median_width']:.3f} wide (load {row['load']})."
        )
    return lines

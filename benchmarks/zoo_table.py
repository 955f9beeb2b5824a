"""The zoo's results as tables."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

Record = Mapping[str, Any]


def write_table(records: Mapping[tuple[str, str], Record], path: Path) -> None:
    """Write the summary and one table a kind."""
    kinds: dict[str, list[Record]] = {}
    for (kind, _), record in records.items():
        kinds.setdefault(kind, []).append(record)
    parts = ["# The zoo: every network cut by half\n", _versions(), _summary(kinds)]
    for kind, rows in kinds.items():
        parts.append(f"## {kind}\n\n{_table(rows)}")
    path.write_text("\n".join(parts))


def _versions() -> str:
    from importlib.metadata import version

    names = ("torch", "torchvision", "timm", "onnxruntime", "torch-pruning")
    return (
        "Written by `python benchmarks/zoo.py --onnx --peer`: random weights; half of every group's channels leave "
        "(`--scope layer --percent 0.5`). *free* is the share of conv and linear output channels that may leave, "
        "the network's own outputs aside; *MACs* is after / before; *error* is the largest relative difference to the "
        "masked original in float64; *seconds* are analysis, plan and cut on one thread of a shared machine, beside "
        "Torch-Pruning's graph and prune at the same ratio (`-` where it was not run).\n\n"
        f"Python {platform.python_version()}, " + ", ".join(f"{n} {version(n)}" for n in names) + ".\n"
    )


def _summary(kinds: Mapping[str, list[Record]]) -> str:
    lines = [
        "| kind | networks | exact, runs | user's module | median free | MACs < 0.40 | ONNX parity | Torch-Pruning |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, rows in kinds.items():
        good = [r for r in rows if r.get("ok")]
        onnx = [r for r in rows if "onnx_seconds" in r]
        peer = [r for r in rows if "peer_seconds" in r]
        cells = [
            kind,
            str(len(rows)),
            str(len(good)),
            str(sum(r.get("delivered") == "module" for r in good)),
            f"{median(r['free'] for r in good):.0%}" if good else "-",
            str(sum(r["macs_ratio"] < 0.4 for r in good)),
            f"{sum('onnx' in r for r in onnx)} of {len(onnx)}" if onnx else "-",
            f"{sum(bool(r.get('peer_ok')) for r in peer)} of {len(peer)}" if peer else "-",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    both = [r for rows in kinds.values() for r in rows if r.get("ok") and r.get("peer_ok")]
    text = "\n".join(lines) + "\n"
    if both:
        ratio = median(r["peer_s"] / (r["seconds"]) for r in both)
        text += f"\nOver the {len(both)} networks that both tools cut, Torch-Pruning takes {ratio:.1f} times as long "
        text += "at the median.\n"
    return text


def _table(rows: list[Record]) -> str:
    lines = [
        "| network | free | MACs | delivered | error | seconds | ONNX | Torch-Pruning | remarks |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join(lines + [_row(r) for r in rows]) + "\n"


def _row(r: Record) -> str:
    name = f"{r['name']} ({r['family']})" if r.get("family") not in ("", r["name"], None) else r["name"]
    seconds = f"{r['seconds']:.2f}" if "seconds" in r else "-"
    onnx = f"{r['onnx']:.0e}" if "onnx" in r else ("fails" if "onnx_error" in r else "-")
    peer = f"{r['peer_s']:.2f}" if r.get("peer_ok") else ("fails" if "peer_error" in r else "-")
    cells = [
        name,
        f"{r['free']:.0%}" if "free" in r else "-",
        f"{r['macs_ratio']:.2f}" if "macs_ratio" in r else "-",
        r.get("delivered", "-") if r.get("ok") else "**fails**",
        f"{r['exact']:.0e}" if "exact" in r else "-",
        seconds,
        onnx,
        peer,
        _remarks(r),
    ]
    return "| " + " | ".join(cells) + " |"


def _remarks(r: Record) -> str:
    told = []
    if not r.get("ok"):
        told.append(str(r.get("error", "no result")))
    if r.get("ok") and r.get("delivered") == "graph":
        told.append(f"graph: {r['why']}")
    if ("free" in r and r["free"] < 0.6) or r.get("macs_ratio", 0) >= 0.4:
        told.append("stays: " + "; ".join(f"{n} {why}" for why, n in list(r.get("pins", {}).items())[:2]))
    if r.get("onnx_error"):
        told.append(f"ONNX: {r['onnx_error']}")
    return ". ".join(t.replace("|", "/").replace("\n", " ")[:220] for t in told)

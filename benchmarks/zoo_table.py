"""The zoo's results as tables: each bar with its number, then a table a kind."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

Record = Mapping[str, Any]
FEW, FASTER = 0.25, 3


def write_table(records: Mapping[tuple[str, str], Record], path: Path) -> None:
    """Write the bars, the summary and one table a kind."""
    kinds: dict[str, list[Record]] = {}
    for (kind, _), record in records.items():
        kinds.setdefault(kind, []).append(record)
    every = list(records.values())
    parts = ["# The zoo: every network cut by half\n", _versions(every), _bars(every), _few(every)]
    parts += ["## By kind\n", _summary(kinds)]
    for kind, rows in kinds.items():
        parts.append(f"## {kind}\n\n{_table(rows)}")
    path.write_text("\n".join(parts))


def _versions(every: Sequence[Record]) -> str:
    from importlib.metadata import version

    names = ("torch", "torchvision", "timm", "onnxruntime", "torch-pruning")
    commits = {t: Counter(str(r.get(f"{t}_commit")) for r in every if f"{t}_seconds" in r) for t in _TASKS}
    told = "; ".join(f"{t}: " + ", ".join(f"{c} ({n})" for c, n in found.most_common()) for t, found in commits.items())
    return (
        "Written by `python benchmarks/zoo.py --stale --speed --onnx --jobs 2`: random weights; half of every group's "
        "channels leave (`--scope layer --percent 0.5`). Inputs are small where the architecture permits, 64 "
        "pixels for torchvision's classifiers and segmentation, 128 for timm, detection and flow, else the next "
        "size that the network takes; every record in `zoo.jsonl` holds its own.\n\n"
        "*free* is the share of conv and linear output channels that may leave, the network's own outputs aside; "
        "*MACs* is after / before; *error* is the largest relative difference to the masked original in float64; "
        "*seconds* are CPU seconds of analysis, plan and cut on one thread, unverified, and those of Torch- "
        "Pruning's graph and step at the same ratio and criterion (l2): in turns in one process that has cut a "
        "small network with both before, the least of up to three rounds (one where the first took over 5 s). "
        "Torch-Pruning *hangs* where it has not ended after 60 CPU seconds. Whole detectors take lists of images, "
        "which no file does: their backbones and necks are exported.\n\n"
        f"Python {platform.python_version()}, "
        + ", ".join(f"{n} {version(n)}" for n in names)
        + f". Commits: {told}.\n"
    )


_TASKS = ("cut", "speed", "onnx")


def _share(found: Sequence[bool]) -> str:
    return f"{sum(found)} of {len(found)} ({sum(found) / max(len(found), 1):.1%})"


def _median(values: Sequence[float], form: Callable[[float], str]) -> str:
    return f"{form(median(values))} over {len(values)}" if values else "-"


def ratios(every: Sequence[Record]) -> list[float]:
    """How many times as long Torch-Pruning takes, for every network that both cut."""
    return [r["peer_s"] / r["seconds"] for r in every if r.get("ok") and r.get("peer_ok")]


def _bars(every: Sequence[Record]) -> str:
    tried = [r for r in every if "cut_seconds" in r]
    good = [r for r in tried if r.get("ok")]
    onnx = [r for r in every if "onnx_seconds" in r]
    cnn = [r["free"] for r in good if r.get("attention") is False]
    transformers = [r["free"] for r in good if r.get("attention")]
    low = [r for r in good if r["free"] < FEW]
    timed = [r for r in every if "speed_seconds" in r]
    times = ratios(every)
    whole = [not str(r.get("why")).startswith("only ") for r in good]
    rows = [
        ("cut, verified exact, runs", "all, and 96 of 98 of timm", _share([bool(r.get("ok")) for r in tried])),
        ("ONNX parity", "as above", _share(["onnx" in r for r in onnx])),
        ("the user's own module is delivered", "at least 85 %", _share([r["delivered"] == "module" for r in good])),
        ("all of the network was cut, not a part", "", _share(whole)),
        ("MACs below 0.40", "at least 90 %", _share([r["macs_ratio"] < 0.4 for r in good])),
        ("median free, without attention", "at least 90 %", _median(cnn, "{:.0%}".format)),
        ("median free, with attention", "at least 60 %", _median(transformers, "{:.0%}".format)),
        ("under 25 % free", "explained below", str(len(low))),
        (
            "Torch-Pruning's time over ours, median of what both cut",
            "at least 3",
            _median(times, "{:.2f}".format),
        ),
        ("of these, where ours takes less than a third", "", _share([n >= FASTER for n in times])),
        ("Torch-Pruning cuts, and the result runs", "", _share([bool(r.get("peer_ok")) for r in timed])),
        ("Torch-Pruning hangs", "", str(sum(_hangs(r) for r in timed))),
    ]
    text = "\n".join(f"| {what} | {bar} | {value} |" for what, bar, value in rows)
    return (
        f"## The bars\n\n| what | bar | measured |\n|---|---|---|\n{text}\n\n"
        "*With attention* are networks whose run multiplies two tensors that both hang on the input "
        "(`scaled_dot_product_attention`, `bmm`), whatever their name.\n"
    )


def _hangs(r: Record) -> bool:
    return str(r.get("peer_error")).startswith("hangs")


def _few(every: Sequence[Record]) -> str:
    lines = [
        f"- {r['name']} ({r['kind']}): {r['free']:.0%} free; stays: "
        + "; ".join(f"{n} channels, {why}" for why, n in r.get("pins", {}).items())
        for r in every
        if r.get("ok") and r["free"] < FEW
    ]
    return "Networks under 25 % free, and why:\n\n" + ("\n".join(lines) if lines else "none.") + "\n"


def _summary(kinds: Mapping[str, list[Record]]) -> str:
    lines = [
        "| kind | networks | exact, runs | own module | median free | MACs < 0.40 | ONNX parity | peer | ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind, rows in kinds.items():
        good = [r for r in rows if r.get("ok")]
        onnx = [r for r in rows if "onnx_seconds" in r]
        peer = [r for r in rows if "speed_seconds" in r]
        cells = [
            kind,
            str(len(rows)),
            str(len(good)),
            str(sum(r.get("delivered") == "module" for r in good)),
            f"{median(r['free'] for r in good):.0%}" if good else "-",
            str(sum(r["macs_ratio"] < 0.4 for r in good)),
            f"{sum('onnx' in r for r in onnx)} of {len(onnx)}" if onnx else "-",
            f"{sum(bool(r.get('peer_ok')) for r in peer)} of {len(peer)}" if peer else "-",
            _median(ratios(rows), "{:.2f}".format),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _table(rows: list[Record]) -> str:
    lines = [
        "| network | free | MACs | delivered | error | seconds | ONNX | Torch-Pruning | remarks |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join(lines + [_row(r) for r in rows]) + "\n"


def _row(r: Record) -> str:
    name = f"{r['name']} ({r['family']})" if r.get("family") not in ("", r["name"], None) else r["name"]
    seconds = f"{r['seconds']:.3f}" if "seconds" in r else "-"
    onnx = f"{r['onnx']:.0e}" if "onnx" in r else ("fails" if "onnx_error" in r else "-")
    failed = ("hangs" if _hangs(r) else "fails") if "peer_error" in r else "-"
    peer = f"{r['peer_s']:.3f}" if r.get("peer_ok") else failed
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
        told.append(str(r.get("cut_error", "no result")))
    if str(r.get("why")).startswith("only "):
        told.append(str(r["why"]))
    if r.get("ok") and r.get("delivered") == "graph":
        told.append(f"graph: {r['why']}")
    if ("free" in r and r["free"] < 0.6) or r.get("macs_ratio", 0) >= 0.4:
        told.append("stays: " + "; ".join(f"{n} {why}" for why, n in list(r.get("pins", {}).items())[:2]))
    if r.get("onnx_error"):
        told.append(f"ONNX: {r['onnx_error']}")
    if r.get("peer_error"):
        told.append(f"Torch-Pruning {r['peer_error']}")
    if r.get("speed_error"):
        told.append(f"timing: {r['speed_error']}")
    return ". ".join(t.replace("|", "/").replace("\n", " ")[:220] for t in told)

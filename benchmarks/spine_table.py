"""The results of spine.py as tables, each with its bar."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

Record = Mapping[str, Any]
MB = 1e6
MILLION = 1e6
FAILS = "fails"
# Bars of the product, by the numbers.
EXACT, PARITY, OF_IDEAL, MEMORY, HELP = 1e-6, 1e-4, 1.2, 2.5, 0.3
DENSE_RATIO = 3.0
INTRODUCTION = """\
Written by `python benchmarks/spine.py` (from `spine.json`, which holds every figure). Random weights, batch-norm
statistics and affine parameters drawn too; one thread; `--scope layer --percent 0.5 --importance l2`, default rounding.
Torch-Pruning: `MagnitudePruner`, `MagnitudeImportance(p=2)`, `pruning_ratio=0.5`, local, the last Linear ignored,
otherwise its defaults (it does not round widths unless told to).
"""
NETWORKS = """\
## Exactness, parity, latency

*error* is the largest difference to the masked original in float64, relative to the largest output; *parity* the same
between PyTorch and the ONNX file in onnxruntime, before and after the cut, at batch 1, 2 and 5; *ORT* is the latency
after / before in onnxruntime on the CPU (batch 1, median of interleaved rounds, 95 % interval). Seconds are CPU time of
a warm call. Torch-Pruning's result is checked against the original that reads zeros where its channels left (- where a
layer norm mixes channels, for which that is no reference).
"""
SPEED = """\
## Seconds of a cut

Trace + analyse + plan + remove (`compress.slim(..., verify=False)`) against Torch-Pruning's graph + prune: CPU seconds
on one thread, interleaved, first round not counted; medians, and the median of the per-round ratios.
"""
HALVES = """\
## When half of the MACs go

The percentage at which about half of the MACs stay (224 px, default rounding, l2), and the latency in onnxruntime on
the CPU.
"""
PEAKS = f"""\
## Peak memory

Peak resident memory over what the process held with the model loaded, in MB (batch 2), in processes of their own;
*bound* is {MEMORY} times the model's size plus one forward pass.
"""
DEPTH = ("densenet121", "densenet169", "densenet201")
ALSO_DEEP = ("resnet50", "resnet101", "resnet152", "swin_t", "swin_s", "swin_b")


def tables(results: Mapping[str, Record]) -> str:
    """All tables as one Markdown text."""
    from spine import ELEVEN

    parts = [
        "# The spine: cutting well-known networks by half\n",
        INTRODUCTION,
        _about(results.get("about", {})),
    ]
    makers = {"speed": _speed, "half": _half, "memory": _memory, "help": _help}
    parts += [make(results[part], ELEVEN) for part, make in makers.items() if part in results]
    if "networks" in results:
        parts.insert(3, _networks(results["networks"], results.get("speed", {}), ELEVEN))
    return "\n".join(parts)


def _about(about: Record) -> str:
    machine = about.get("machine")
    if not machine:
        return ""
    note = f"\n{about['note']}\n" if "note" in about else ""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"{machine['cpu']} ({', '.join(machine['isa'])}), {machine['cores']} cores (shared with other work), "
        f"{machine['os']}, Python {machine['python']}, {versions}; "
        f"widths in multiples of {machine['kernel_block']}.\n{note}"
    )


def _rows(head: str, rows: Iterable[Iterable[str]]) -> str:
    columns = head.count("|") + 1
    lines = [f"| {head} |", "|" + "---|" * columns]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def _in_order(records: Record, order: Iterable[str]) -> list[tuple[str, Record]]:
    first = [name for name in order if name in records]
    return [(name, records[name]) for name in [*first, *(n for n in records if n not in first)]]


def _met(condition: bool) -> str:
    return "met" if condition else "**missed**"


def _networks(records: Record, speed: Record, order: Iterable[str]) -> str:
    names = _in_order(records, order)
    good = [r["compress"] for _, r in names if "error" not in r["compress"]]
    exact = [r for r in good if r["exact"] <= EXACT]
    parity = [r for r in good if r["onnx_parity"] <= PARITY]
    return (
        f"{NETWORKS}\n"
        + _rows(
            "network | analyse s | plan + cut s | MACs before (M) | after / before | error | parity | ORT",
            [_network_row(name, r["compress"], speed.get(name, {})) for name, r in names],
        )
        + f"\nBars: exact to {EXACT:g} on {len(exact)} of {len(names)} ({_met(len(exact) == len(names))}); parity to "
        f"{PARITY:g} on {len(parity)} of {len(names)} ({_met(len(parity) == len(names))}).\n\n"
        "Torch-Pruning in the same run:\n\n"
        + _rows(
            "network | wall s | runs | error | parity | MACs after / before: compress | Torch-Pruning | "
            "ORT: compress | Torch-Pruning",
            [_peer_row(name, r) for name, r in names],
        )
    )


def _network_row(name: str, r: Record, speed: Record) -> list[str]:
    if "error" in r:
        return [name, f"{FAILS}: {r['error']}", *["-"] * 6]
    before, after = r["macs"]
    timed = "analyse" in speed
    return [
        name,
        f"{speed['analyse']:.3f}" if timed else "-",
        f"{speed['median']['compress'] - speed['analyse']:.3f}" if timed else "-",
        f"{before / MILLION:.0f}",
        f"{after / before:.3f}",
        f"{r['exact']:.1e}",
        f"{r['onnx_parity']:.1e}",
        _ort(r),
    ]


def _peer_row(name: str, r: Record) -> list[str]:
    ours, peer = r["compress"], r["torch_pruning"]
    share = f"{ours['macs'][1] / ours['macs'][0]:.3f}" if "macs" in ours else FAILS
    if "error" in peer:
        return [name, "-", f"{FAILS}: {peer['error']}", "-", "-", share, "-", _ort(ours), "-"]
    theirs = f"{peer['macs'] / ours['macs'][0]:.3f}" if "macs" in ours else "-"
    exact = "-" if peer["exact"] is None else f"{peer['exact']:.1e}"
    return [
        name, f"{peer['seconds']:.3f}", "yes", exact, f"{peer['onnx_parity']:.1e}",
        share, theirs, _ort(ours), _ort(peer),
    ]  # fmt: skip


def _ort(r: Record) -> str:
    if "ort" not in r:
        return "-"
    return f"{r['ort']['ratio']:.2f} ({r['ort']['low']:.2f}-{r['ort']['high']:.2f})"


def _speed(records: Record, order: Iterable[str]) -> str:
    rows = []
    for name, r in _in_order(records, order):
        if "error" in r:
            rows.append([name, f"{FAILS}: {r['error']}", *["-"] * 4])
            continue
        mine, peer = r["median"]["compress"], r["median"].get("torch_pruning")
        rows.append([
            name,
            str(r["layers"]),
            f"{mine:.3f}",
            f"{peer:.3f}" if "ratio" in r else f"{FAILS}: {r['torch_pruning_error']}",
            f"{r['ratio']:.1f}" if "ratio" in r else "-",
            f"{1e3 * mine / r['layers']:.2f}",
        ])  # fmt: skip
    return (
        f"{SPEED}\n"
        + _rows("network | layers | compress s | Torch-Pruning s | ratio | compress ms a layer", rows)
        + "\n"
        + _speed_bars(records, order)
    )


def _speed_bars(records: Record, order: Iterable[str]) -> str:
    ratios = [records[n]["ratio"] for n in order if "ratio" in records.get(n, {})]
    lines = []
    if ratios:
        lines.append(
            f"Median of the {len(ratios)} networks that Torch-Pruning can cut, of the eleven: {median(ratios):.1f} "
            f"(bar: above 1, {_met(median(ratios) > 1)}; smallest {min(ratios):.1f})."
        )
    every = [r["ratio"] for r in records.values() if "ratio" in r]
    if len(every) > len(ratios):
        least = f"{min(every):.1f} to {max(every):.0f}"
        lines.append(
            f"Median of all {len(every)} in the table that Torch-Pruning can cut: {median(every):.1f} ({least})."
        )
    dense = records.get(DEPTH[0], {}).get("ratio")
    if dense:
        lines.append(f"{DEPTH[0]}: {dense:.1f} (bar: {DENSE_RATIO:.0f}, {_met(dense >= DENSE_RATIO)}).")
    if all("median" in records.get(n, {}) for n in DEPTH):
        growth = [
            f"{n} {1e3 * records[n]['median']['compress'] / records[n]['layers']:.2f}"
            + (
                f" (Torch-Pruning {1e3 * records[n]['median']['torch_pruning'] / records[n]['layers']:.1f})"
                if "ratio" in records[n]
                else ""
            )
            for n in (*DEPTH, *(n for n in ALSO_DEEP if "median" in records.get(n, {})))
        ]
        lines.append(f"Growth with depth, ms a layer: {', '.join(growth)} (bar: linear, so constant).")
    return "Bars: " + " ".join(lines) + "\n" if lines else ""


def _half(records: Record, _: Iterable[str]) -> str:
    rows, met = [], []
    for name, scopes in records.items():
        for scope, r in ((s, r) for s, r in scopes.items() if s != "load"):
            if "error" in r:
                rows.append([name, scope, f"{FAILS}: {r['error']}", *["-"] * 3])
                continue
            met.append(r["of_ideal"] <= OF_IDEAL)
            rows.append([name, scope, f"{r['percent']:.3f}", f"{r['macs_ratio']:.3f}", _ort(r), f"{r['of_ideal']:.2f}"])
    return (
        f"{HALVES}\n"
        + _rows("network | scope | percent | MACs after / before | ORT after / before | ORT / MACs", rows)
        + f"\nBar: latency ratio within {OF_IDEAL:g} of the MACs ratio: {_met(all(met))}.\n"
    )


def _memory(records: Record, _: Iterable[str]) -> str:
    rows, met = [], []
    for name, r in records.items():
        parts = [r[what] for what in ("forward", "cut", "cut and verify")]
        if any("error" in part for part in parts):
            rows.append([name, f"{FAILS}: {next(p['error'] for p in parts if 'error' in p)}", *["-"] * 5])
            continue
        model, forward, *peaks = parts[0]["model"], *(part["peak"] for part in parts)
        bound = MEMORY * model + forward
        met.append(max(peaks) <= bound)
        rows.append([
            name,
            *(f"{size / MB:.0f}" for size in (model, forward)),
            *(f"{peak / MB:.0f} ({peak / model:.2f} models)" for peak in peaks),
            *(f"{peak / bound:.2f}" for peak in peaks),
        ])  # fmt: skip
    return (
        f"{PEAKS}\n"
        + _rows(
            "network | model | one forward pass | cut | cut and verify | cut / bound | cut and verify / bound", rows
        )
        + f"\nBar: below the bound: {_met(all(met))}.\n"
    )


def _help(records: Record, _: Iterable[str]) -> str:
    rows = [
        [f"`{command}`", f"{taken['wall']:.3f}", f"{taken['cpu']:.3f}", str(len(taken["runs"])), f"{taken['load']:g}"]
        for command, taken in records.items()
    ]
    table = _rows("command | wall seconds, median | CPU seconds, median | runs | load of the machine", rows)
    made = sorted({f"Python {taken['python']}, typer {taken['typer']}" for taken in records.values()})
    met = _met(all(taken["wall"] < HELP for taken in records.values()))
    return f"## What help takes\n\n{'; '.join(made)}.\n\n{table}\nBar: {HELP} s: {met}.\n"

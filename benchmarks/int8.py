"""Latency of resnet18 on the CPU in ONNX Runtime: float32, cut by half, and cut by half in int8.

    python benchmarks/int8.py                 # then benchmarks/results/int8.json and int8.md
    python benchmarks/int8.py --rounds 30     # more rounds than 15

Every pair is timed in interleaved rounds in one process, on one thread at batch 1. The weights are random, because what
int8 costs in accuracy needs a trained network: the README tells that of the one in `models/`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
RESULTS = HERE / "results" / "int8.json"
NETWORK = "resnet18"
BAR = 4.0


def main() -> None:
    """Write the three files, time each against the first, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = _measured(Path(folder), options.rounds)
    RESULTS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    RESULTS.with_suffix(".md").write_text(_table(found))
    print(RESULTS.with_suffix(".md").read_text())


def _measured(folder: Path, rounds: int) -> dict[str, Any]:
    import torch
    from spine_child import cut, machine, make

    from compress.export import export
    from compress.export.int8 import quantize
    from compress.measure.latency import compare
    from compress.measure.runners import onnxruntime_runner

    module, x = make(NETWORK)
    small = cut(module, x, verify=False)
    costs = small.report.costs_after.macs / small.report.costs_before.macs
    files = {name: folder / f"{name}.onnx" for name in ("original", "original, int8", "pruned", "pruned, int8")}
    export(module, (x,), files["original"])
    export(small.model, (x,), files["pruned"])
    inputs = torch.randn(32, *x.shape[1:], generator=torch.Generator().manual_seed(0))
    for name in ("original", "pruned"):
        quantize(files[name], files[f"{name}, int8"], inputs, min_agreement=0.0)
    before = onnxruntime_runner(files["original"], batch=1, threads=1)
    steps = {}
    for name in ("pruned", "original, int8", "pruned, int8"):
        after = onnxruntime_runner(files[name], batch=1, threads=1)
        steps[name] = asdict(compare(before, after, rounds=rounds, max_seconds=60)) | {"about": machine()}
    sizes = {name: path.stat().st_size for name, path in files.items()}
    return {"network": NETWORK, "macs_ratio": costs, "bytes": sizes, "steps": steps, "bar": BAR}


def _table(found: dict[str, Any]) -> str:
    about = found["steps"]["pruned, int8"]["about"]
    lines = ["| step | size, MiB | latency, ms | times as fast as the original | 95 % interval |"]
    lines.append("|---|--:|--:|--:|--:|")
    steps = found["steps"]
    lines.append(f"| original | {found['bytes']['original'] / 2**20:.1f} | {_ms(steps['pruned']['before'])} | 1 | |")
    for name, step in steps.items():
        span = f"{1 / step['high']:.2f} to {1 / step['low']:.2f}"
        size = f"{found['bytes'][name] / 2**20:.1f}"
        lines.append(f"| {name} | {size} | {_ms(step['after'])} | {1 / step['ratio']:.2f} | {span} |")
    reached = 1 / steps["pruned, int8"]["ratio"]
    loads = ", ".join(f"{step['about']['load']:.1f}" for step in steps.values())
    words = (
        f"{found['network']}, {found['macs_ratio']:.3f} of its MACs left, ONNX Runtime {about['onnxruntime']}, one "
        f"thread, batch 1, {steps['pruned']['rounds']} interleaved rounds a pair. {about['cpu']} "
        f"({', '.join(about['isa'])}), {about['cores']} cores, mean number of running processes at each pair: {loads}. "
        "Command: `python benchmarks/int8.py`."
    )
    verdict = "met" if reached >= found["bar"] else "MISSED"
    bar = f"Bar: pruned + int8 at least {found['bar']:g} times as fast: {verdict}."
    return f"# int8\n\n{words}\n\n" + "\n".join(lines) + f"\n\n{bar}\n"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f}"


if __name__ == "__main__":
    main()

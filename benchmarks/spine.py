"""The main job on well-known networks: is it exact, how long does it take, what does it bring; beside Torch-Pruning.

    python benchmarks/spine.py                                    # every part, then the tables
    python benchmarks/spine.py --part speed --only 'densenet*'    # some of it again; the rest of the results stays
    python benchmarks/spine.py --table                            # benchmarks/results/spine.md from spine.json

Parts: `networks` (exactness, parity, latency), `speed` (seconds of a cut against Torch-Pruning's), `half` (latency
against MACs), `memory`, `help`. Every measurement runs in a process of its own, on one thread, with a time limit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "spine.json"

ELEVEN = (
    "resnet18", "resnet50", "vgg16_bn", "densenet121", "mobilenet_v3_large", "shufflenet_v2_x1_0", "regnet_y_400mf",
    "inception_v3", "googlenet", "efficientnet_b0", "convnext_tiny",
)  # fmt: skip
DEEPER = ("densenet169", "densenet201", "resnet101", "resnet152", "vit_b_16", "swin_t", "swin_s", "swin_b")
WIDER = (
    "alexnet", "resnet34", "resnext50_32x4d", "wide_resnet50_2", "vgg11", "squeezenet1_0", "mobilenet_v2", "mnasnet1_0",
    "mobilenet_v3_small", "regnet_x_800mf", "regnet_y_1_6gf", "efficientnet_b2", "efficientnet_v2_s", "convnext_small",
    "vit_b_32",
)  # fmt: skip
HALVED = ("resnet18", "resnet50", "mobilenet_v3_large")
WEIGHED = ("resnet18", "resnet50", "mobilenet_v3_large", "efficientnet_b0", "vgg16_bn", "vit_b_16")
NETWORKS = {"networks": ELEVEN, "speed": ELEVEN + DEEPER + WIDER, "half": HALVED, "memory": WEIGHED}
PARTS = (*NETWORKS, "help")
HELPED = ("compress --help", "compress slim --help")
HELP_RUNS = 10


def main() -> None:
    """Measure what was asked for, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part (repeatable)")
    parser.add_argument("--only", default="*", help="names of networks, as a glob")
    parser.add_argument("--limit", type=float, default=300, help="seconds for one measurement of one network")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only write the tables")
    options = parser.parse_args()
    results: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    if not options.table:
        for part, name, found in _measured(options.part or PARTS, options.only, options.limit):
            results.setdefault(part, {})[name] = found
            print(part, name, json.dumps(found)[:300], flush=True)
            options.out.parent.mkdir(exist_ok=True)
            options.out.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    from spine_table import tables

    options.out.with_suffix(".md").write_text(tables(results))


def _measured(parts: tuple[str, ...], only: str, limit: float) -> Iterator[tuple[str, str, dict[str, Any]]]:
    if set(parts) != {"help"}:
        yield "about", "machine", _child(["machine"], limit)
    for part in (p for p in PARTS if p in parts):
        if part == "help":
            for command in HELPED:
                yield part, command, _help_seconds(command)
            continue
        for name in (n for n in NETWORKS[part] if fnmatchcase(n, only)):
            with tempfile.TemporaryDirectory() as folder:
                yield part, name, _of(part, name, folder, limit) | {"load": round(os.getloadavg()[0], 2)}


def _of(part: str, name: str, folder: str, limit: float) -> dict[str, Any]:
    """All figures of one network in one part."""
    if part == "networks":
        ours = _child(["network", name, folder], limit)
        return {"compress": ours, "torch_pruning": _child(["peer", name, folder], limit)}
    if part == "half":
        return {scope: _child(["half", name, folder, scope], limit) for scope in ("layer", "global")}
    if part == "memory":
        return {what: _child(["memory", name, what], limit) for what in ("forward", "cut", "cut and verify")}
    return _child(["speed", name], limit)


def _child(arguments: list[str], limit: float) -> dict[str, Any]:
    """Run one measurement in a process of its own; {"error": ...} where it fails or takes too long."""
    command = [sys.executable, "-W", "ignore", str(HERE / "spine_child.py"), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"no result within {limit:.0f} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if lines:
        return dict(json.loads(lines[-1].removeprefix("RESULT ")))
    return {"error": (done.stderr.strip().splitlines() or [f"process ended with {done.returncode}"])[-1][:200]}


def _help_seconds(command: str) -> dict[str, Any]:
    """Wall and CPU seconds of a command's help, once the program is compiled, as pip does, and in the file cache."""
    about = {"load": round(os.getloadavg()[0], 2), "python": platform.python_version(), "typer": version("typer")}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    full, runs = [sys.executable, "-m", *command.split()], []
    for _ in range(HELP_RUNS + 1):
        start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(full, capture_output=True, check=True, cwd=HERE.parent, env=environment)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        runs.append({"wall": wall, "cpu": cpu})
    return {"runs": runs[1:]} | {kind: median(run[kind] for run in runs[1:]) for kind in ("wall", "cpu")} | about


if __name__ == "__main__":
    main()

"""Is half of the MACs half of the time, and does --latency keep its promise? Beside Torch-Pruning, in onnxruntime.

    python benchmarks/latency.py                        # everything, under 12 minutes on two idle cores
    python benchmarks/latency.py --part half --only 'resnet*'
    python benchmarks/latency.py --table                # benchmarks/results/latency.md from latency.json

Parts: `half` (six networks at half of their MACs; the original, ours, and Torch-Pruning's cut of as many MACs at
round_to 1, 8 and 16, all in the same rounds), `target` (--latency 0.5, and the reconstruction error against a --macs
cut of equal measured latency), `same` (a file against itself, 20 times). Files are made first, two networks at a time;
what is timed runs alone, on one thread, at batch size 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "latency.json"

BARS = {
    "resnet18": 1.1, "resnet50": 1.1, "vgg16_bn": 1.1, "mobilenet_v3_large": 1.1, "efficientnet_b0": 1.3,
    "convnext_tiny": 1.3,
}  # fmt: skip
TARGETS = ("resnet50", "mobilenet_v3_large")
PARTS = ("half", "target", "same")
WORKERS = 2


def main() -> None:
    """Measure what was asked for, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part (repeatable)")
    parser.add_argument("--only", default="*", help="names of networks, as a glob")
    parser.add_argument("--limit", type=float, default=420, help="seconds for one measurement of one network")
    parser.add_argument("--files", type=Path, help="keep the files of `half` here, and use those that are there")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only write the tables")
    options = parser.parse_args()
    results: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    if not options.table:
        start = time.monotonic()
        for part, name, found in _measured(options):
            results.setdefault(part, {})[name] = found
            print(f"{time.monotonic() - start:.0f} s", part, name, json.dumps(found)[:300], flush=True)
            options.out.parent.mkdir(exist_ok=True)
            options.out.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    from latency_table import tables

    options.out.with_suffix(".md").write_text(tables(results, BARS))


def _measured(options: argparse.Namespace) -> Iterator[tuple[str, str, dict[str, Any]]]:
    parts = options.part or PARTS
    yield "about", "machine", _child(["machine"], options.limit)
    with tempfile.TemporaryDirectory() as place:
        folder = options.files or Path(place)
        folder.mkdir(exist_ok=True)
        names = [name for name in BARS if fnmatchcase(name, options.only)]
        if "half" in parts:
            with ThreadPoolExecutor(WORKERS) as pool:
                asked = {n: pool.submit(_child, ["prepare", n, str(folder)], options.limit) for n in names}
            made = {name: future.result() for name, future in asked.items()}
            for name in names:
                timed = _child(["half", name, str(folder)], options.limit) if "error" not in made[name] else {}
                yield "half", name, made[name] | timed | _load()
        for name in (n for n in TARGETS if "target" in parts and fnmatchcase(n, options.only)):
            yield "target", name, _child(["target", name, str(folder)], options.limit) | _load()
        if "same" in parts:
            yield "same", "resnet18", _child(["same", "resnet18", str(folder)], options.limit) | _load()


def _load() -> dict[str, float]:
    return {"load": round(os.getloadavg()[0], 2)}


def _child(arguments: list[str], limit: float) -> dict[str, Any]:
    """Run one measurement in a process of its own; an error is a result, too."""
    command = [sys.executable, str(HERE / "latency_child.py"), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=limit, env=environment)
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than {limit:.0f} s"}
    try:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return {"error": (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1][:300]}
    return found


if __name__ == "__main__":
    main()

"""Prune every network of the zoo by half, prove the result exact, and write down what came of it.

    python benchmarks/zoo.py                       # what is not yet in benchmarks/results/zoo.jsonl
    python benchmarks/zoo.py --only 'swin*' --again --onnx --peer
    python benchmarks/zoo.py --table               # benchmarks/results/zoo.md from zoo.jsonl

Every network runs in a process of its own with a time limit. `--peer` adds Torch-Pruning on the same network and input,
`--onnx` the export to ONNX and its parity in ONNX Runtime (slow).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from multiprocessing import get_context
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
RESULTS = HERE / "results" / "zoo.jsonl"
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}


def run_child(task: str, kind: str, name: str, pipe: Any) -> None:
    """Do one task in this process and send the record."""
    from zoo_child import record_of

    pipe.send(record_of(task, kind, name))


def main() -> None:
    """Run what was asked for, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="names of networks or timm families, as a glob")
    parser.add_argument("--kind", default="*", help="kinds of networks, as a glob")
    parser.add_argument("--again", action="store_true", help="also what the results file already holds")
    parser.add_argument("--failed", action="store_true", help="again those that failed")
    parser.add_argument("--onnx", action="store_true", help="export to ONNX and compare in ONNX Runtime")
    parser.add_argument("--peer", action="store_true", help="Torch-Pruning on the same networks")
    parser.add_argument("--limit", type=float, default=300, help="seconds for one network")
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only write the table")
    options = parser.parse_args()
    if not options.table:
        _run(options)
    from zoo_table import write_table

    write_table(load(options.out), options.out.with_suffix(".md"))


def load(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the newest record of every network."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            record = json.loads(line)
            found[record["kind"], record["name"]] = found.get((record["kind"], record["name"]), {}) | record
    return found


def _run(options: argparse.Namespace) -> None:
    from zoo_models import entries

    get_context("forkserver").set_forkserver_preload(["zoo_child", "timm", "torchvision"])
    known = load(options.out)
    asked = [
        e
        for e in entries()
        if fnmatchcase(e.kind, options.kind) and any(fnmatchcase(name, options.only) for name in (e.name, e.family))
    ]
    tasks = ["cut"] + ["onnx"] * options.onnx + ["peer"] * options.peer
    todo = []
    for entry in asked:
        record = known.get((entry.kind, entry.name), {})
        for task in tasks:
            failed = options.failed and task == "cut" and not record.get("ok")
            if options.again or failed or f"{task}_seconds" not in record:
                todo.append((task, entry.kind, entry.name, entry.family))
    print(f"{len(todo)} runs")
    with ThreadPoolExecutor(options.jobs) as pool:
        for record in pool.map(lambda t: _one(*t, options.limit), todo):
            print(_line(record), flush=True)
            with options.out.open("a") as file:
                file.write(json.dumps(record) + "\n")


def _one(task: str, kind: str, name: str, family: str, limit: float) -> dict[str, Any]:
    """Run one task on one network in a process of its own."""
    base = {"kind": kind, "name": name, "family": family, "task": task}
    context = get_context("forkserver")
    start = time.perf_counter()
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=run_child, args=(task, kind, name, theirs))
    process.start()
    theirs.close()
    try:
        found = mine.recv() if mine.poll(limit) else {_fails(task): f"no result within {limit:.0f} s"}
    except EOFError:
        process.join()
        found = {_fails(task): f"the process ended with {process.exitcode}"}
    process.kill()
    process.join()
    return base | found | {f"{task}_seconds": round(time.perf_counter() - start, 1)}


def _fails(task: str) -> str:
    return "error" if task == "cut" else f"{task}_error"


def _line(r: dict[str, Any]) -> str:
    head = f"{r['task']:4} {r['kind'][:22]:22} {r['name']:34}"
    if r["task"] == "cut":
        if "free" not in r:
            return f"{head} FAILS {r.get('error')}"
        text = f"free {r['free']:.2f} MACs {r.get('macs_ratio', 1):.2f} {r.get('delivered', '-'):6} "
        text += f"{r.get('exact', 9):.1e} {r.get('seconds', 0):.2f} s"
        return f"{head} {text} {'' if r.get('ok') else 'FAILS'} {r.get('error') or r.get('why') or ''}"
    return f"{head} {r.get(r['task'] + '_error') or 'ok'} {r['task']} {r[r['task'] + '_seconds']} s"


if __name__ == "__main__":
    main()

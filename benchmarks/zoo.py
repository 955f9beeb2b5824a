"""Prune every network of the zoo by half, prove the result exact, and write down what came of it.

    python benchmarks/zoo.py --stale --speed --onnx --jobs 2    # all of it from this commit; goes on where it stopped
    python benchmarks/zoo.py --speed --onnx                     # what is not yet in benchmarks/results/zoo.jsonl
    python benchmarks/zoo.py --only 'swin*' --again --speed     # some networks again
    python benchmarks/zoo.py --table                            # benchmarks/results/zoo.md from zoo.jsonl

Every network runs in a process of its own on one thread, with a limit of CPU seconds. `--speed` times analysis, plan
and cut beside Torch-Pruning's graph and step, in turns in one process; `--onnx` exports and compares in ONNX Runtime.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from multiprocessing import get_context
from pathlib import Path
from threading import Lock
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
PATIENCE = 12  # wall seconds for each CPU second of the limit: the machine may be busy
RESULTS = HERE / "results" / "zoo.jsonl"
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}


def run_child(tasks: list[str], kind: str, name: str, limit: float, pipe: Any) -> None:
    """Do the tasks in this process and send a record of each."""
    from zoo_child import records_of

    for record in records_of(tasks, kind, name, limit):
        pipe.send(record)


def main() -> None:
    """Run what was asked for, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="names of networks or timm families, as a glob")
    parser.add_argument("--kind", default="*", help="kinds of networks, as a glob")
    parser.add_argument("--again", action="store_true", help="also what the results file already holds")
    parser.add_argument("--stale", action="store_true", help="also what the results file holds from another commit")
    parser.add_argument("--onnx", action="store_true", help="export to ONNX and compare in ONNX Runtime")
    parser.add_argument("--speed", action="store_true", help="time it beside Torch-Pruning")
    parser.add_argument("--limit", type=float, default=240, help="CPU seconds for one task on one network")
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="only write the table")
    options = parser.parse_args()
    if not options.table:
        _run(options)
    from zoo_table import write_table

    write_table(load(options.out), options.out.with_suffix(".md"))


def load(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """What is known of every network: the newest record of each task, together."""
    newest: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            record = json.loads(line)
            if record["task"] == "cut":
                record.pop("seconds", None)  # earlier records timed it there, by the wall clock
            newest.setdefault((record["kind"], record["name"]), {})[record["task"]] = record
    order = ("cut", "speed", "onnx")
    return {key: {k: v for t in order for k, v in tasks.get(t, {}).items()} for key, tasks in newest.items()}


def _run(options: argparse.Namespace) -> None:
    from zoo_models import entries

    get_context("forkserver").set_forkserver_preload(["zoo_child", "timm", "torchvision"])
    known, commit = load(options.out), _commit()
    asked = [
        e
        for e in entries()
        if fnmatchcase(e.kind, options.kind) and any(fnmatchcase(name, options.only) for name in (e.name, e.family))
    ]
    todo = []
    for together in (["cut"] + ["speed"] * options.speed, ["onnx"] * options.onnx):
        for entry in asked:
            if together == ["onnx"] and entry.kind == "torchvision detection":
                continue  # a file takes no list of images; the backbones are exported, as a kind of their own
            record = known.get((entry.kind, entry.name), {})
            done = {t for t in together if f"{t}_seconds" in record}
            if options.stale:
                done = {t for t in done if record.get(f"{t}_commit") == commit}
            tasks = [t for t in together if options.again or t not in done]
            if tasks:
                todo.append((tasks, entry.kind, entry.name, entry.family))
    print(f"{len(todo)} runs")
    lock = Lock()

    def run(job: tuple[list[str], str, str, str]) -> None:
        for record in _of(*job, options.limit):
            with lock, options.out.open("a") as file:
                print(_line(record), flush=True)
                file.write(json.dumps(record | {f"{record['task']}_commit": commit}) + "\n")

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(run, todo))


def _commit() -> str:
    """The commit that the code is at, with a plus where something is changed."""
    told = ["git", "-C", str(HERE), "describe", "--always", "--dirty=+", "--exclude=*", "--abbrev=8"]
    return subprocess.run(told, capture_output=True, text=True, check=False).stdout.strip()


def _of(tasks: list[str], kind: str, name: str, family: str, limit: float) -> Iterator[dict[str, Any]]:
    """Run the tasks on one network in a process of its own; in another one from the task on that ended it."""
    base = {"kind": kind, "name": name, "family": family}
    context = get_context("forkserver")
    left = list(tasks)
    while left:
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=run_child, args=(left, kind, name, limit, theirs))
        process.start()
        theirs.close()
        failure = None
        while left and failure is None:
            try:
                if mine.poll(PATIENCE * limit):
                    yield base | mine.recv()
                    left = left[1:]
                    continue
                failure = "the process does not answer"
            except EOFError:
                process.join()
                failure = f"the process ended with {process.exitcode}"
        process.kill()
        process.join()
        if failure is not None:
            yield base | {"task": left[0], f"{left[0]}_error": failure, f"{left[0]}_seconds": limit}
            left = left[1:]


def _line(r: dict[str, Any]) -> str:
    task = r["task"]
    head = f"{task:5} {r['kind'][:24]:24} {r['name']:34} {r[f'{task}_seconds']:6.1f}"
    if f"{task}_error" in r:
        return f"{head} FAILS {r[f'{task}_error']}"
    if task == "cut":
        text = f"free {r['free']:.2f} MACs {r['macs_ratio']:.2f} {r['delivered']:6} {r['exact']:.1e}"
        return f"{head} {text} {r['why'][:160]}"
    if task == "speed":
        beside = f"{r['peer_s']:.3f} ratio {r['peer_s'] / r['seconds']:.2f}" if r["peer_ok"] else r["peer_error"][:160]
        return f"{head} {r['seconds']:.3f} s, theirs {beside}"
    return f"{head} {r['onnx']:.1e}"


if __name__ == "__main__":
    main()

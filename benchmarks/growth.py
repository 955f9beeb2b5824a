"""How the time of a cut grows with depth, for three families of networks, beside Torch-Pruning.

python benchmarks/growth.py [--rounds 10] [--processes 4] [--table]

A cut is trace, analysis, plan and removal by l2 of half of the channels of every layer, in CPU seconds on one thread.
All networks take turns in one process, and that in several processes one after the other, as how memory happens to lie
makes one process up to a tenth slower than the next: the least of all rounds counts. Torch-Pruning's graph and step,
which takes up to a minute, runs once a network, its faster half three times. An exponent compares the deepest network
with the least deep one: 1 is linear.

A dense network's layer reads everything before it, so what there is to look at grows with the square of the depth.
That is counted too: reads are the tensors that all operators take.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import math
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import zoo_child  # noqa: E402
from zoo_models import find, randomise  # noqa: E402

from compress.core.files import written_whole  # noqa: E402
from compress.graph.analyse import analyse  # noqa: E402
from compress.graph.couplings import operands  # noqa: E402
from compress.measure.machine import this_machine  # noqa: E402

RESULTS = Path(__file__).parent / "results"
FAMILIES = (
    ("densenet121", "densenet169", "densenet201"),
    ("resnet50", "resnet101", "resnet152"),
    ("swin_t", "swin_s", "swin_b"),
)
SIZES = ("operators", "reads", "parameters")
SLOW, AGAIN = 5.0, 2  # what takes Torch-Pruning no longer than so many seconds is timed so many times more
LIMIT = 90  # CPU seconds for Torch-Pruning; what is deeper than a network that takes longer is not tried

Network = tuple[nn.Module, tuple[Any, ...]]


def main() -> None:
    """Time all of it, and write growth.json and growth.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="rounds a process")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--table", action="store_true", help="only the table again, from growth.json")
    given = parser.parse_args()
    if not given.table:
        with written_whole(RESULTS / "growth.json") as temporary:
            temporary.write_text(json.dumps(measured(given.rounds, given.processes), indent=1) + "\n", encoding="utf-8")
    found = json.loads((RESULTS / "growth.json").read_text(encoding="utf-8"))
    with written_whole(RESULTS / "growth.md") as temporary:
        temporary.write_text(told(found), encoding="utf-8")
    print(told(found))


def measured(rounds: int, processes: int) -> dict[str, Any]:
    """Sizes and seconds of every network."""
    fresh = get_context("spawn")
    runs = []
    for _ in range(processes):
        with fresh.Pool(1) as pool:
            runs.append(pool.apply(ours, (rounds,)))
    networks = ready(zoo_child._peer)
    found = {name: sizes(*network) for name, network in networks.items()}
    for name, row in found.items():
        row["seconds"] = min(run[name] for run in runs)
    for family in FAMILIES:
        for name in family:
            found[name] |= peer(*networks[name])
            if "peer_error" in found[name]:
                break
    return {
        "versions": {"torch": torch.__version__, "torch-pruning": version("torch-pruning")},
        "machine": asdict(this_machine()),
        "rounds": rounds,
        "processes": processes,
        "networks": found,
    }


def ours(rounds: int) -> dict[str, float]:
    """The least seconds of so many rounds, by network."""
    times: dict[str, dict[str, float]] = defaultdict(dict)
    networks = ready(zoo_child._mine)
    for _ in range(rounds):
        for name, (module, example) in networks.items():
            _keep(times[name], "seconds", lambda m=module, e=example: zoo_child._mine(m, e))
    return {name: found["seconds"] for name, found in times.items()}


def ready(cut: Callable[..., None]) -> dict[str, Network]:
    """All networks, in a process that has cut one: imports and what is done once a process are in no time."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    cut(zoo_child._small(), (torch.randn(2, 3, 16, 16),))
    return {name: made(name) for family in FAMILIES for name in family}


def made(name: str) -> Network:
    """A network of torchvision with random weights, and its example input."""
    torch.manual_seed(0)
    module, example = find("torchvision classification", name).make()
    module.eval()
    randomise(module)
    return module, example


def sizes(module: nn.Module, example: tuple[Any, ...]) -> dict[str, Any]:
    """How many operators the network has, how many tensors they read, how many parameters it has."""
    ops = analyse(module, example).traces[0].ops
    count = sum(p.numel() for p in module.parameters())
    return {"operators": len(ops), "reads": sum(len(operands(op)) for op in ops), "parameters": count}


def peer(module: nn.Module, example: tuple[Any, ...]) -> dict[str, Any]:
    """Torch-Pruning's seconds, or why there are none; it cuts in place, so each time a copy."""
    times: dict[str, Any] = {}
    try:
        for _ in range(1 + AGAIN):
            other = copy.deepcopy(module)

            def work(other: nn.Module = other) -> None:
                _keep(times, "peer_seconds", lambda: zoo_child._peer(other, example))

            zoo_child.with_limit(work, LIMIT)
            if times["peer_seconds"] > SLOW:
                break
    except zoo_child.TooLongError:
        return {"peer_error": f"no end within {LIMIT} CPU seconds"}
    except Exception as error:  # noqa: BLE001 - the record says what happened
        return {"peer_error": f"{type(error).__name__}: {error}".splitlines()[0]}
    return times


def _keep(times: dict[str, Any], name: str, work: Callable[[], None]) -> None:
    gc.collect()
    start = time.process_time()
    work()
    times[name] = min(times.get(name, math.inf), time.process_time() - start)


def exponent(rows: Sequence[Mapping[str, Any]], size: str, seconds: str) -> str:
    """By which power of the size the seconds grow from the first to the last row.

    >>> exponent([{"n": 10, "s": 1.0}, {"n": 15, "s": 2.0}, {"n": 20, "s": 4.0}], "n", "s")
    '2.00'
    """
    first, last = rows[0], rows[-1]
    if any(seconds not in row for row in rows):
        return "-"
    return f"{math.log(last[seconds] / first[seconds]) / math.log(last[size] / first[size]):.2f}"


def told(found: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    head = ("networks", "operators", "reads", "million parameters", "ours, s", *(f"in {size}" for size in SIZES))
    head += ("Torch-Pruning, s", "in operators")
    lines = ["| " + " | ".join(head) + " |", "|---|---|---|---|---|--:|--:|--:|---|--:|"]
    for family in FAMILIES:
        rows = [found["networks"][name] for name in family]
        cells = [
            ", ".join(family),
            ", ".join(str(row["operators"]) for row in rows),
            ", ".join(str(row["reads"]) for row in rows),
            ", ".join(f"{row['parameters'] / 1e6:.0f}" for row in rows),
            ", ".join(f"{row['seconds']:.3f}" for row in rows),
            *(exponent(rows, size, "seconds") for size in SIZES),
            ", ".join(f"{row['peer_seconds']:.2f}" if "peer_seconds" in row else "-" for row in rows),
            exponent(rows, "operators", "peer_seconds"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    errors = {name: row["peer_error"] for name, row in found["networks"].items() if "peer_error" in row}
    return (
        "# How the time of a cut grows with depth\n\n"
        f"`python benchmarks/growth.py --rounds {found['rounds']} --processes {found['processes']}`, "
        f"torch {found['versions']['torch']}, torch-pruning {found['versions']['torch-pruning']}, "
        f"{found['machine']['cpu']}. CPU seconds on one thread, the least of all rounds in several processes, for "
        "trace, analysis, plan and removal of half of the channels; exponents from the least deep to the deepest "
        "network. Reads: the tensors that all operators take, which in a dense network grow with the square of the "
        "depth.\n\n"
        + "\n".join(lines)
        + "\n"
        + "".join(f"\nTorch-Pruning on {name}: {why}\n" for name, why in errors.items())
    )


if __name__ == "__main__":
    main()

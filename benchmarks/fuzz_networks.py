"""Cut random networks and compare each with its masked original in float64; count what differs.

    python -m benchmarks.fuzz_networks --count 10000 --seed 0

Every network is made from its number, so that a mismatch is found again. Where its own code cannot follow, the exported
graph is cut; of one network in `--graph-every` it always is, then with a dynamic batch size and compared with both the
masked module and the masked graph.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import torch

from compress.core.choosing import Attention
from tests.zoo.generate import generate
from tests.zoo.harness import Snapshot, cut_both

RESULT = Path(__file__).parent / "results" / "fuzz_networks.json"
TOLERANCE = 1e-6


def one(number: int, *, graph: bool) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Cut network `number`; return what it is made of and what happened."""
    made = generate(Random(number))
    before = Snapshot.of(made.module)
    facts: dict[str, Any] = {"problem": None, "groups": 0, "follows": False, "graph": False, "error": 0.0}
    try:
        outcome = cut_both(
            made.module, made.example, attention=list(Attention)[number % 2], seed=number, graph=graph, whole=graph
        )
    except Exception as error:  # noqa: BLE001 - what goes wrong is the result
        lines = str(error).strip().splitlines()
        return made.kinds, facts | {"problem": f"{type(error).__name__}: {lines[0] if lines else ''}"}
    facts |= {
        "groups": len(outcome.analysis.prunable),
        "follows": outcome.why_not is None,
        "graph": outcome.graph_error is not None,
        "error": outcome.worst,
    }
    if not outcome.worst <= TOLERANCE:
        facts["problem"] = f"differs by {outcome.worst:.3g} of the largest output"
    elif not before.same(made.module):
        facts["problem"] = "the original was changed"
    return made.kinds, facts


def main() -> None:
    """Run, tell how far it is, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="number of the first network")
    parser.add_argument("--graph-every", type=int, default=10, help="cut the graph too for one network in so many")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many minutes")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    start, kinds, problems = time.perf_counter(), Counter[str](), []
    done = follows = graphs = groups = untouched = 0
    worst = 0.0
    for number in range(given.seed, given.seed + given.count):
        if time.perf_counter() - start > 60 * given.minutes:
            break
        made, facts = one(number, graph=number % given.graph_every == 0)
        kinds.update(set(made))
        done += 1
        follows += facts["follows"]
        graphs += facts["graph"]
        groups += facts["groups"]
        untouched += facts["groups"] == 0 and facts["problem"] is None
        if facts["problem"]:
            problems.append({"number": number, "problem": facts["problem"], "made of": list(made)})
            print(number, facts["problem"], made, flush=True)
        else:
            worst = max(worst, facts["error"])
        if done % 100 == 0:
            print(f"{done} networks, {len(problems)} problems, {time.perf_counter() - start:.0f} s", flush=True)
    result = {
        "seed": given.seed,
        "count": done,
        "mismatches": len(problems),
        "problems": problems,
        "largest relative error of the others": worst,
        "tolerance": TOLERANCE,
        "module's own code followed": follows,
        "graphs cut": graphs,
        "graphs cut with a dynamic batch size": -(-done // given.graph_every),
        "prunable groups": groups,
        "networks without a prunable group": untouched,
        "kinds of blocks": dict(sorted(kinds.items())),
        "seconds": round(time.perf_counter() - start, 1),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"{done} networks, {len(problems)} mismatches -> {given.out.name}")


if __name__ == "__main__":
    main()

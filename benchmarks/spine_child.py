"""One measurement of one network, in a process of its own; called by spine.py."""

from __future__ import annotations

import gc
import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

# The machine's kernels block by 16 or 8; both tools are asked for half of every layer.
PERCENT = 0.5
ROUNDS = 5
SLOW, SLOW_ROUNDS = 5.0, 3
HALF = 0.5
LATENCY_SECONDS = 10.0


def make(name: str, batch: int = 2) -> tuple[nn.Module, Tensor]:
    """Build a torchvision classifier at its own input size, with random weights none of which hides a wrong cut."""
    import torchvision
    from zoo_models import randomise

    torch.manual_seed(0)
    options = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
    module = torchvision.models.get_model(name, weights=None, **options).eval()
    randomise(module)
    size = 299 if name == "inception_v3" else 224
    return module, torch.randn(batch, 3, size, size)


def cut(module: nn.Module, x: Tensor, *, verify: bool, percent: float = PERCENT, scope: str = "layer") -> Any:
    """Do what `compress slim --scope layer --importance l2` does, with the default rounding."""
    import compress

    return compress.slim(module, x, percent=percent, scope=scope, importance="l2", verify=verify)


def peer_cut(module: nn.Module, x: Tensor, interactive: Callable[[Any], None] | None = None) -> None:
    """Do the same with Torch-Pruning, in place: group magnitude, half of every layer, the classifier's outputs stay."""
    import torch_pruning as tp

    head = [m for m in module.modules() if isinstance(m, nn.Linear)][-1]
    importance = tp.importance.MagnitudeImportance(p=2)
    pruner = tp.pruner.MagnitudePruner(module, x, importance=importance, pruning_ratio=PERCENT, ignored_layers=[head])
    if interactive is None:
        pruner.step()
        return
    for group in pruner.step(interactive=True):
        interactive(group)
        group.prune()


def machine() -> dict[str, Any]:
    """Where and with what the figures were measured."""
    from compress.measure.machine import kernel_block, this_machine

    names = ("torch", "torchvision", "onnx", "onnxruntime", "onnxscript", "onnxsim", "torch-pruning", "numpy", "scipy")
    return asdict(this_machine()) | {"kernel_block": kernel_block(), "versions": {n: version(n) for n in names}}


def network(name: str, folder: str) -> dict[str, Any]:
    """Cut, check against the masked original, export, and time in onnxruntime."""
    from compress.export import export
    from compress.measure.latency import compare
    from compress.measure.runners import onnxruntime_runner

    module, x = make(name)
    done = cut(module, x, verify=True)
    report = done.report
    after = export(done.model, (x,), Path(folder) / "after.onnx")
    before = export(module, (x,), Path(folder) / "before.onnx")
    pair = [onnxruntime_runner(Path(e.path), batch=1, threads=1) for e in (before, after)]
    return {
        "macs": [report.costs_before.macs, report.costs_after.macs],
        "parameters": [report.costs_before.parameters, report.costs_after.parameters],
        "round_to": report.cut.round_to,
        "delivered": report.delivered,
        "exact": report.verdict.max_relative_error,
        "onnx_parity": max(before.max_relative_error, after.max_relative_error),
        "onnx_notes": [*after.notes],
        "ort": asdict(compare(pair[0], pair[1], max_seconds=LATENCY_SECONDS)),
    }


def speed(name: str) -> dict[str, Any]:
    """CPU seconds of a whole cut without the check, interleaved with Torch-Pruning's graph and cut."""
    from compress.graph.analyse import analyse

    module, x = make(name)
    layers = sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in module.modules())
    seconds: dict[str, list[float]] = {"compress": [], "torch_pruning": []}
    error = None
    rounds = ROUNDS
    for i in range(ROUNDS + 1):
        if i > rounds:
            break
        # The first round is a warm-up of both, and is not counted.
        mine = _cpu_seconds(lambda: cut(module, x, verify=False))
        theirs = None
        if error is None:
            other, y = make(name, batch=1)
            try:
                theirs = _cpu_seconds(lambda other=other, y=y: peer_cut(other, y))
            except Exception as caught:  # noqa: BLE001 - the record says what happened
                error = f"{type(caught).__name__}: {caught}"[:200]
            if theirs is not None and theirs > SLOW:
                rounds = SLOW_ROUNDS
        if i > 0:
            seconds["compress"].append(mine)
            if theirs is not None:
                seconds["torch_pruning"].append(theirs)
    analysis = median(_cpu_seconds(lambda: analyse(module, (x,))) for _ in range(rounds))
    found: dict[str, Any] = {"layers": layers, "seconds": seconds, "analyse": analysis}
    found["median"] = {who: median(times) for who, times in seconds.items() if times}
    if error is not None:
        return found | {"torch_pruning_error": error}
    pairs = zip(seconds["torch_pruning"], seconds["compress"], strict=True)
    return found | {"ratio": median(b / a for b, a in pairs)}


def _cpu_seconds(work: Callable[[], Any]) -> float:
    gc.collect()
    start = time.process_time()
    work()
    return time.process_time() - start


def half(name: str, folder: str, scope: str) -> dict[str, Any]:
    """Find the percentage that leaves half of the MACs, and compare the latency with the MACs."""
    from compress.export import export
    from compress.measure.latency import compare
    from compress.measure.runners import onnxruntime_runner

    module, x = make(name)
    tried: list[tuple[float, float, float]] = []
    low, high = 0.0, 0.98
    for _ in range(9):
        percent = (low + high) / 2
        costs = cut(module, x, verify=False, percent=percent, scope=scope).report
        share = costs.costs_after.macs / costs.costs_before.macs
        tried.append((abs(share - HALF), percent, share))
        low, high = (percent, high) if share > HALF else (low, percent)
    _, percent, share = min(tried)
    done = cut(module, x, verify=False, percent=percent, scope=scope)
    before = export(module, (x,), Path(folder) / "before.onnx")
    after = export(done.model, (x,), Path(folder) / "after.onnx")
    pair = [onnxruntime_runner(Path(e.path), batch=1, threads=1) for e in (before, after)]
    ort = compare(pair[0], pair[1], max_seconds=LATENCY_SECONDS)
    return {"percent": percent, "macs_ratio": share, "ort": asdict(ort), "of_ideal": ort.ratio / share}


def main() -> None:
    """Run one measurement and print its record."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    from spine_memory import memory
    from spine_peer import peer

    known = {f.__name__: f for f in (machine, network, peer, speed, half, memory)}
    try:
        record = known[sys.argv[1]](*sys.argv[2:])
    except Exception as error:  # noqa: BLE001 - the record says what happened
        record = {"error": f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"[:300]}
    print("RESULT " + json.dumps(record), flush=True)


if __name__ == "__main__":
    main()

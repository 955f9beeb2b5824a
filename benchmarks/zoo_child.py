"""What is done to one network of the zoo: cut it by half and prove it, export it, or hand it to the other tool."""

from __future__ import annotations

import resource
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree
from zoo_models import find, randomise

from compress.core.budgets import Percent
from compress.core.clock import Clock
from compress.core.types import Scope
from compress.graph.analyse import Analysis, analyse
from compress.graph.trace import tensors_in
from compress.surgery.network import cut_network
from compress.surgery.planned import CutOptions

MEMORY = 14 << 30
OUTPUT = "output of the network"  # the reason by which outputs stay


def record_of(task: str, kind: str, name: str) -> dict[str, Any]:
    """Do `task` to one network; what came of it."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    record: dict[str, Any] = {}
    try:
        module, example = find(kind, name).make()
        module.eval()
        randomise(module)
        {"cut": _cut, "onnx": _onnx, "peer": _peer}[task](module, example, record)
    except Exception as error:  # noqa: BLE001 - the record says what happened
        text = (str(error).strip().splitlines() or [""])[0][:300]
        record["error" if task == "cut" else f"{task}_error"] = f"{type(error).__name__}: {text}"
    return record


def _options(**more: Any) -> CutOptions:
    return CutOptions(budget=Percent(0.5), scope=Scope.LAYER, **more)


def _cut(module: nn.Module, example: tuple[Any, ...], record: dict[str, Any]) -> None:
    record["parameters"] = sum(p.numel() for p in module.parameters())
    record["input"] = [list(t.shape) for t in pytree.tree_leaves(example)]
    analysis = analyse(module, example)
    free, total, pins = freedom(analysis)
    inner = total - pins.get(OUTPUT, 0)  # the network's own outputs stay by definition
    record |= {"free": free / max(inner, 1), "free_of_all": free / max(total, 1), "pins": _most(pins)}
    record["unknown"] = dict(analysis.unknown)
    record["on_meta"] = analysis.traces[0].on_meta
    clock = Clock()
    cut = cut_network(module, example, _options(verify=False), clock)
    record["seconds"] = sum(clock.seconds.values())
    record["stages"] = {name: round(s, 3) for name, s in clock.seconds.items()}
    cut = cut_network(module, example, _options(), Clock())
    record |= {"delivered": "module" if cut.delivered.own else "graph", "why": cut.delivered.why}
    record |= {"macs": cut.before.macs, "macs_ratio": cut.after.macs / max(cut.before.macs, 1)}
    record["parameters_ratio"] = cut.after.parameters / max(cut.before.parameters, 1)
    assert cut.delivered.verdict is not None
    record["exact"] = cut.delivered.verdict.max_relative_error
    record["effect"] = _effect(module, cut.delivered.module.eval(), example)
    record["ok"] = True


def _effect(module: nn.Module, cut: nn.Module, example: tuple[Any, ...]) -> float:
    """How far the cut moved the outputs: zero would mean that the check proved nothing."""
    with torch.no_grad():
        pairs = zip(tensors_in(module(*example)), tensors_in(cut(*example)), strict=True)
        alike = [(a, b) for a, b in pairs if a.numel() and a.shape == b.shape]
        return max((float((a - b).abs().max() / a.abs().max()) for a, b in alike), default=-1.0)


def freedom(analysis: Analysis) -> tuple[int, int, Counter[str]]:
    """Output channels of convolutions and linear layers: those free to leave, all, and pinned ones by reason."""
    consumed = np.zeros(analysis.couplings.count, dtype=bool)
    for labels in analysis.couplings.consumed:
        consumed[labels] = True
    convolved = {op.args[1].value for t in analysis.traces for op in t.ops if op.name == "aten.convolution"}
    numbers = {n: v for t in analysis.traces for n, v in t.parameters.items()}
    making: dict[str, int] = {}
    for name, dims in analysis.parameters.items():
        reads = [labels is not None and bool(consumed[labels].any()) for labels in dims]
        if len(dims) >= 2 and (any(reads) or numbers.get(name) in convolved):
            making[name] = next((d for d, r in enumerate(reads) if not r and dims[d] is not None), -1)
    free = total = 0
    pins: Counter[str] = Counter()
    for group in analysis.groups:
        for member in group.members:
            if making.get(member.parameter) == member.dim:
                count = member.indices.size
                total += count
                if group.prunable:
                    free += count
                else:
                    reason = group.pinned[0]
                    pins[OUTPUT if reason.why == OUTPUT else str(reason)] += count
    return free, total, pins


def _most(pins: Counter[str]) -> dict[str, int]:
    return dict([(why, n) for why, n in pins.most_common(5) if why != OUTPUT][:4])


def _onnx(module: nn.Module, example: tuple[Any, ...], record: dict[str, Any]) -> None:
    from compress.export import export

    cut = cut_network(module, example, _options(verify=False), Clock())
    with tempfile.TemporaryDirectory() as folder:
        done = export(cut.delivered.module, example, Path(folder) / "network.onnx")
    record |= {"onnx": done.max_relative_error, "onnx_batches": list(done.batch_sizes), "onnx_notes": list(done.notes)}


def _peer(module: nn.Module, example: tuple[Any, ...], record: dict[str, Any]) -> None:
    import torch_pruning as tp  # type: ignore[import-not-found]

    classes = [m for m in module.modules() if isinstance(m, nn.Linear) and m.out_features == 1000]
    start = time.perf_counter()
    pruner = tp.pruner.BasePruner(
        module, example, importance=tp.importance.MagnitudeImportance(p=2), pruning_ratio=0.5, ignored_layers=classes
    )
    pruner.step()
    record["peer_s"] = time.perf_counter() - start
    with torch.no_grad():
        module(*example)
    record["peer_ok"] = True

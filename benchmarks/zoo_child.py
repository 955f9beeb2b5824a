"""What is done to one network of the zoo: cut it by half and prove it, time it beside the other tool, export it."""

from __future__ import annotations

import copy
import gc
import resource
import signal
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree
from zoo_models import find, randomise

from compress.core.budgets import Percent
from compress.core.choosing import Scope
from compress.core.clock import Clock
from compress.graph.analyse import Analysis, analyse
from compress.graph.couplings import operands
from compress.graph.trace import Trace, tensors_in
from compress.surgery.network import cut_network
from compress.surgery.planned import CutOptions

MEMORY = 14 << 30
OUTPUT = "output of the network"  # the reason by which outputs stay
CLASSES = (1000, 91, 21, 400)  # widths of the layers that the other tool is told to leave alone: they give the answer
ROUNDS, SLOW = 3, 5.0  # timed rounds, of which one only where the first took more than so many seconds
PEER_LIMIT = 60  # CPU seconds


class TooLongError(BaseException):
    """The CPU time is over; no `except Exception` on the way may swallow it."""


def records_of(tasks: Sequence[str], kind: str, name: str, limit: float) -> Iterator[dict[str, Any]]:
    """Do each of the tasks to one network; what came of it, one record a task. `limit` is in CPU seconds a task."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    made: list[Any] = []
    for task in tasks:
        record: dict[str, Any] = {"task": task}
        start = time.process_time()
        try:
            with_limit(lambda task=task, record=record: _do(task, kind, name, made, record), limit)
        except TooLongError:
            record[f"{task}_error"] = f"no end within {limit:.0f} CPU seconds"
        except Exception as error:  # noqa: BLE001 - the record says what happened
            record[f"{task}_error"] = _told(error)
        yield record | {f"{task}_seconds": round(time.process_time() - start, 1)}


def with_limit(work: Callable[[], Any], limit: float) -> Any:
    """Run `work`; TooLongError after so many CPU seconds, again every second in case it is swallowed."""

    def over(*_: Any) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, limit, 1.0)
    try:
        return work()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _told(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [""])[0][:300]
    return f"{type(error).__name__}: {text}"


def _do(task: str, kind: str, name: str, made: list[Any], record: dict[str, Any]) -> None:
    if not made:
        torch.manual_seed(0)
        module, example = find(kind, name).make()
        module.eval()
        randomise(module)
        made += [module, example]
    {"cut": _cut, "onnx": _onnx, "speed": _speed}[task](made[0], made[1], record)


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
    record |= {"on_meta": analysis.traces[0].on_meta, "operators": len(analysis.traces[0].ops)}
    record["attention"] = attends(analysis.traces[0])
    cut = cut_network(module, example, _options(), Clock())
    record |= {"delivered": "module" if cut.delivered.own else "graph", "why": cut.delivered.why}
    record |= {"macs": cut.before.macs, "macs_ratio": cut.after.macs / max(cut.before.macs, 1)}
    record["parameters_ratio"] = cut.after.parameters / max(cut.before.parameters, 1)
    assert cut.delivered.verdict is not None
    record["exact"] = cut.delivered.verdict.max_relative_error
    record["effect"] = _effect(module, cut.delivered.module.eval(), example)
    record["ok"] = True


def attends(recorded: Trace) -> bool:
    """Whether the network multiplies two tensors that both hang on its input, as attention does."""
    fixed = set(recorded.parameters.values())
    for op in recorded.ops:
        read = operands(op)
        if read and all(v in fixed for v in read):
            fixed.update(op.outs)
            continue
        product = op.name in ("aten.bmm", "aten.baddbmm") and not any(v in fixed for v in read[-2:])
        if product or "_scaled_dot_product" in op.name:
            return True
    return False


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


def _speed(module: nn.Module, example: tuple[Any, ...], record: dict[str, Any]) -> None:
    """CPU seconds of both tools' analysis, plan and cut, same ratio and criterion, in turns, the least of each."""
    small, image = _small(), (torch.randn(2, 3, 16, 16),)
    for cut in (_mine, _peer):  # imports and what is done once a process are in neither time
        cut(small, image)
    mine: list[float] = []
    theirs: list[float] = []
    error = None
    for _ in range(ROUNDS):
        if not mine or mine[0] < SLOW:
            mine.append(_cpu_seconds(lambda: _mine(module, example)))
        if error is None and (not theirs or theirs[0] < SLOW):
            other = copy.deepcopy(module)  # they cut in place
            try:
                theirs.append(with_limit(lambda other=other: _cpu_seconds(lambda: _peer(other, example)), PEER_LIMIT))
                if len(theirs) == 1:
                    record["peer_outputs"] = _still_runs(module, other, example)
            except TooLongError:
                error = f"hangs: no end within {PEER_LIMIT} CPU seconds"
            except Exception as caught:  # noqa: BLE001 - the record says what happened
                error = f"fails: {_told(caught)}"
    record |= {"seconds": min(mine), "peer_ok": error is None}
    record |= {"peer_s": min(theirs)} if error is None else {"peer_error": error}


def _cpu_seconds(work: Callable[[], Any]) -> float:
    gc.collect()
    start = time.process_time()
    work()
    return time.process_time() - start


def _mine(module: nn.Module, example: tuple[Any, ...]) -> None:
    cut_network(module, example, _options(importance="l2", verify=False), Clock())


def _peer(module: nn.Module, example: tuple[Any, ...]) -> None:
    import torch_pruning as tp  # type: ignore[import-not-found]

    classes = [
        m
        for m in module.modules()
        if (isinstance(m, nn.Linear) and m.out_features in CLASSES)
        or (isinstance(m, nn.Conv2d) and m.out_channels in CLASSES)
    ]
    importance = tp.importance.MagnitudeImportance(p=2)
    tp.pruner.BasePruner(module, example, importance=importance, pruning_ratio=0.5, ignored_layers=classes).step()


def _still_runs(module: nn.Module, cut: nn.Module, example: tuple[Any, ...]) -> str:
    """Run the cut network; say whether its outputs have the shapes of the original's."""
    with torch.no_grad():
        before, after = ([t.shape for t in tensors_in(m.eval()(*example))] for m in (module, cut))
    return "as before" if before == after else "of other shapes"


def _small() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.LayerNorm(8), nn.Linear(8, 1000)).eval()

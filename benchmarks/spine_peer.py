"""Torch-Pruning on the same network: what it leaves, whether that runs, and whether it computes what was kept."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

NORMS_OVER_CHANNELS = (nn.LayerNorm, nn.GroupNorm)
READERS = (nn.Linear, nn.Conv2d)


def peer(name: str, folder: str) -> dict[str, Any]:
    """Cut with Torch-Pruning, run, export and time the result against the original, `folder`/before.onnx."""
    from spine_child import LATENCY_SECONDS, make, peer_cut

    from compress.export import export
    from compress.graph.costs import macs
    from compress.graph.trace import trace
    from compress.measure.latency import compare
    from compress.measure.runners import onnxruntime_runner

    module, x = make(name)
    original = copy.deepcopy(module)
    peer_cut(copy.deepcopy(module), x[:1])
    gone = Gone(module)
    start = time.perf_counter()
    peer_cut(module, x[:1], gone.note)
    found: dict[str, Any] = {"seconds": time.perf_counter() - start}
    with torch.no_grad():
        module(x)
    found |= {"runs": True, "macs": macs(trace(module, (x,)))}
    found["exact"] = _error(original, module, x, gone.indices())
    after = export(module, (x,), Path(folder) / "peer.onnx")
    found["onnx_parity"] = after.max_relative_error
    before = Path(folder) / "before.onnx"
    if before.exists():
        pair = [onnxruntime_runner(p, batch=1, threads=1) for p in (before, Path(after.path))]
        found["ort"] = asdict(compare(pair[0], pair[1], max_seconds=LATENCY_SECONDS))
    return found


class Gone:
    """Which input channels, by their original numbers, every convolution and linear layer has lost."""

    def __init__(self, module: nn.Module) -> None:
        """All are there at the beginning."""
        self.names = {m: n for n, m in module.named_modules() if isinstance(m, READERS)}
        self.sizes = {n: _inputs(m) for m, n in self.names.items()}
        self.kept = {n: list(range(size)) for n, size in self.sizes.items()}

    def note(self, group: Any) -> None:
        """Take note of a group that is about to leave; its indices are those of the layers as they are now."""
        for dep, indices in group:
            layer = dep.target.module
            reads = "in_channels" in dep.handler.__name__ or "depthwise" in dep.handler.__name__
            if layer in self.names and reads:
                leave = {int(i) for i in indices}
                name = self.names[layer]
                self.kept[name] = [k for i, k in enumerate(self.kept[name]) if i not in leave]

    def indices(self) -> Mapping[str, list[int]]:
        """Layer name -> original numbers of the channels that it no longer reads."""
        return {n: sorted(set(range(self.sizes[n])) - set(kept)) for n, kept in self.kept.items()}


def _inputs(layer: Any) -> int:
    return int(layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels)


def _error(original: nn.Module, cut: nn.Module, x: Tensor, gone: Mapping[str, list[int]]) -> float | None:
    """Largest relative float64 difference to the original that reads zeros where channels left; None under norms."""
    if any(isinstance(m, NORMS_OVER_CHANNELS) for m in original.modules()):
        return None
    reference = copy.deepcopy(original).double()
    for name, indices in gone.items():
        layer = reference.get_submodule(name)
        mask = torch.ones(_inputs(layer), dtype=torch.float64)
        mask[indices] = 0
        shaped = mask if isinstance(layer, nn.Linear) else mask[:, None, None]
        layer.register_forward_pre_hook(lambda _, args, shaped=shaped: (args[0] * shaped, *args[1:]))
    with torch.no_grad():
        want, have = reference(x.double()), copy.deepcopy(cut).double()(x.double())
    return float((want - have).abs().max() / want.abs().max())

"""Where a cut network and its original can be compared inside: the outputs of modules that both have, stage by stage.

A stage ends where the size of the maps changes: of every size the last module that gives it is compared. Which channels
of the original are left in the cut one's output, the labels of the graph say.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from compress.graph.analyse import Analysis
from compress.graph.trace import tensors_in
from compress.surgery.cut import sizes_after


@dataclass(frozen=True, slots=True)
class Feature:
    """The output of the module at `path`, and which indices of which of the original's dimensions the cut one has."""

    path: str
    kept: tuple[tuple[int, np.ndarray], ...]

    def of_original(self, output: Tensor) -> Tensor:
        """Return the part of the original's output that the cut network computes too."""
        for dim, indices in self.kept:
            output = output.index_select(dim, torch.from_numpy(indices).to(output.device))
        return output


def stage_features(analysis: Analysis, dead: np.ndarray, original: nn.Module, cut: nn.Module) -> tuple[Feature, ...]:
    """Return one feature for every size of maps, in the order of the network; none where `cut` has no such modules.

    Modules whose outputs do not have the shapes that the graph says (they return something older) are left out.
    """
    recorded, sizes = analysis.traces[0], sizes_after(analysis, dead)
    both = {path for path, _ in original.named_modules()} & {path for path, _ in cut.named_modules()} - {""}
    last: dict[str, int] = {}
    for number, op in enumerate(recorded.ops):
        parts = op.path.split(".")
        for depth in range(1, len(parts) + 1):
            last[".".join(parts[:depth])] = number
    ends: dict[tuple[int, ...], tuple[int, int, str]] = {}
    for path, number in last.items():
        outs = recorded.ops[number].outs
        if path not in both or not outs or len(recorded.shapes[outs[0]]) < 3:
            continue
        value = outs[0]
        carried = {dim for dims, _ in analysis.layouts[0].get(value, ()) for dim in dims} or {1}
        size = tuple(n for dim, n in enumerate(recorded.shapes[value]) if dim not in carried)
        candidate = (number, -len(path), path)
        ends[size] = max(ends.get(size, candidate), candidate)
    found = []
    for number, _, path in sorted(ends.values()):
        value = recorded.ops[number].outs[0]
        alive = [(dim, sizes.alive(value, dim)) for dim in range(len(recorded.shapes[value]))]
        kept = tuple((dim, np.flatnonzero(mask)) for dim, mask in alive if mask is not None)
        found.append(Feature(path, kept))
    return tuple(found)


@contextmanager
def watching(module: nn.Module, features: tuple[Feature, ...]) -> Iterator[dict[str, Tensor]]:
    """Yield a dictionary that holds, after every run of `module`, the outputs at the features' paths."""
    seen: dict[str, Tensor] = {}

    def note(path: str) -> torch.utils.hooks.RemovableHandle:
        """Write down what the module at `path` returns."""

        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            """Keep the first tensor of the output."""
            tensors = tensors_in(output)
            if tensors:
                seen[path] = tensors[0]

        return module.get_submodule(path).register_forward_hook(hook)

    handles = [note(feature.path) for feature in features]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def fitting(features: tuple[Feature, ...], original: nn.Module, cut: nn.Module, inputs: Tensor) -> tuple[Feature, ...]:
    """Return the features whose outputs have the same shape in both networks on `inputs`."""
    with watching(original, features) as whole, watching(cut, features) as small, torch.no_grad():
        original(inputs)
        cut(inputs)
    return tuple(
        f
        for f in features
        if f.path in whole
        and f.path in small
        and all(d < whole[f.path].ndim and k[-1] < whole[f.path].shape[d] for d, k in f.kept)
        and f.of_original(whole[f.path]).shape == small[f.path].shape
    )

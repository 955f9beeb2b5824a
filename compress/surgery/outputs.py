"""Take output channels away from one layer alone, where they are added to a stream that keeps its width.

What leaves adds nothing to the stream: the layer (and the batch norm behind it) computes the kept channels only, and
they are put at their places among zeros. Everything else of the network is shared with the original, not copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.core.errors import PlanError, UsageError
from compress.core.members import Members, Slots
from compress.core.types import Group
from compress.graph.analyse import Analysis
from compress.graph.couplings import operands
from compress.graph.modules import tensors_of
from compress.graph.rules.table import arguments
from compress.graph.trace import Ref, Trace
from compress.surgery.attributes import refresh_layers
from compress.surgery.cut import Kept, kept_tensors
from compress.surgery.module import twin
from compress.surgery.silence import double_output
from compress.surgery.submodule import find


class Placed(nn.Module):
    """A layer whose results are some channels of a wider tensor; the others are zero."""

    kept: Tensor

    def __init__(self, layer: nn.Module, kept: Tensor, width: int, dim: int) -> None:
        """`kept` int64 (channels,) are the places along dimension `dim`, which becomes `width` long."""
        super().__init__()
        self.layer, self.width, self.dim = layer, width, dim
        self.register_buffer("kept", kept)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's result among zeros: (N, width, *) for convolutions, (*, width) for linear layers."""
        y: Tensor = self.layer(x)
        shape = list(y.shape)
        shape[self.dim] = self.width
        last = y.dim() == 4 and y.is_contiguous(memory_format=torch.channels_last)
        order = torch.channels_last if last else torch.contiguous_format
        zeros = torch.empty(shape, dtype=y.dtype, device=y.device, memory_format=order).zero_()
        return zeros.index_copy_(self.dim, self.kept, y)


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer whose own outputs may leave: its path, the batch norm behind it, how many outputs, along which dimension.

    `group` are the outputs as a group for the criteria of importance: only what produces them.
    """

    path: str
    norm: str | None
    size: int
    dim: int
    group: Group

    @property
    def last(self) -> str:
        """The path of the module behind which the channels are what the stream gets."""
        return self.norm or self.path


def weight_of(analysis: Analysis, path: str) -> str:
    """The name of the layer's weight; UsageError where `path` names no layer with output channels."""
    name = f"{path}.weight"
    if name not in analysis.shapes or len(analysis.shapes[name]) < 2:
        layers = [n.removesuffix(".weight") for n, s in analysis.shapes.items() if n.endswith(".weight") and len(s) > 1]
        near = [n for n in layers if path in n or n in path][:5] or layers[:5]
        raise UsageError(f"{path!r} is no convolution or linear layer of the network", fix=f"e.g. {', '.join(near)}")
    return name


def group_of(analysis: Analysis, path: str) -> Group:
    """The one group to which the layer's outputs belong; PlanError where they are in several, or must stay."""
    name = weight_of(analysis, path)
    found = [g for g in analysis.groups if any(m.parameter == name and m.produces for m in g.members)]
    if len(found) != 1:
        raise PlanError(f"the outputs of {path} are in {len(found)} groups", fix="sweep a layer whose outputs are one")
    if found[0].pinned:
        raise PlanError(f"the outputs of {path} must stay: {found[0].pinned[0]}", fix="compress inspect says which may")
    return found[0]


def alone(analysis: Analysis, group: Group, path: str) -> bool:
    """Whether no other convolution or linear layer makes channels of the group (depthwise ones pass them on)."""
    grouped = {n for n, v in analysis.traces[0].parameters.items() if v in _grouped(analysis.traces[0])}
    makers = {m.parameter for m in group.members if m.produces and len(analysis.shapes[m.parameter]) > 1}
    return not makers - grouped - {f"{path}.weight"}


def _grouped(run: Trace) -> set[int]:
    """Weights of convolutions over several groups, by value."""
    found = [arguments(op) for op in run.ops if op.name == "aten.convolution"]
    return {a["weight"].value for a in found if a["groups"] > 1}


def layer_of(module: nn.Module, analysis: Analysis, path: str) -> Layer:
    """Find the layer at `path`, and the batch norm that alone reads it.

    Raises UsageError where the layer runs several times, over several groups, or is not a module of the network.
    """
    name, run = weight_of(analysis, path), analysis.traces[0]
    find(module, path)
    reading = [op for op in run.ops if op.path == path and op.outs]
    uses = [op for op in run.ops if run.parameters.get(name) in operands(op)]
    if len(uses) != 1 or run.parameters[name] in _grouped(run):
        times = f"runs {len(uses)} times" if len(uses) != 1 else "is a grouped convolution"
        raise UsageError(f"{path} {times}: its outputs cannot leave alone", fix="--group cuts the whole group")
    made = reading[-1].outs[0]
    norm = None
    readers = [op for op in run.ops if made in operands(op)]
    if len(readers) == 1 and "batch_norm" in readers[0].name and made not in run.outputs:
        scale = arguments(readers[0]).get("running_mean")
        names = {v: n for n, v in run.parameters.items()}
        owner = names.get(scale.value, "") if isinstance(scale, Ref) else ""
        norm = owner.rpartition(".")[0] or None
    owners = {path, norm}
    size = analysis.shapes[name][0]
    linear = len(analysis.shapes[name]) == 2
    own = tuple((n, 0) for n, shape in analysis.shapes.items() if n.rpartition(".")[0] in owners and shape)
    starts = np.arange(len(own)) * size
    slots, makes = Slots(own, starts, starts + size), np.zeros(len(own), dtype=bool)
    members = Members(slots, np.arange(len(own)), starts[:, None], np.array([size]), makes)
    return Layer(path, norm, size, -1 if linear else 1, Group(path, members, np.arange(size)))


def shared(module: nn.Module, kept: Kept) -> nn.Module:
    """Copy `module` with only the kept indices of what `kept` names; every other tensor is the original's own."""
    tensors = tensors_of(module)
    memo: dict[int, Any] = {id(t): t for t in tensors.values()}
    named = {n: tensors[n] for n in kept}
    for name, new in kept_tensors(named, kept).items():
        old = tensors[name]
        memo[id(old)] = nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else new
    copied: nn.Module = twin(module, memo)
    refresh_layers(copied, kept)
    return copied


def without_outputs(module: nn.Module, layer: Layer, kept: np.ndarray) -> nn.Module:
    """Return `module` whose `layer` computes only the kept outputs; the input module is left untouched."""
    keep: dict[str, dict[int, np.ndarray]] = {m.parameter: {0: kept} for m in layer.group.members}
    copied = shared(module, keep)
    placed = Placed(copied.get_submodule(layer.last), torch.from_numpy(kept), layer.size, layer.dim)
    owner = copied.get_submodule(layer.last.rpartition(".")[0])
    owner._modules[layer.last.rpartition(".")[2]] = placed
    return copied


def error_without(module: nn.Module, cut: nn.Module, layer: Layer, kept: np.ndarray, example: tuple[Any, ...]) -> float:
    """How far `cut` is from the original whose outputs are multiplied by zero there: max |difference| / max |output|.

    Both run in float64.
    """
    stays = torch.zeros(layer.size, dtype=torch.float64)
    stays[torch.from_numpy(kept)] = 1

    def mask(_: nn.Module, _inputs: Any, y: Tensor) -> Tensor:
        shape = [1] * y.dim()
        shape[layer.dim] = layer.size
        return y * stays.reshape(shape)

    wide = tuple(x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in example)
    handle = module.get_submodule(layer.last).register_forward_hook(mask)
    try:
        want = double_output(module, wide)
    finally:
        handle.remove()
    got = double_output(cut, wide)
    return max(float((a - b).abs().max() / (a.abs().max() or 1.0)) for a, b in zip(want, got, strict=True))

"""Bring a layer's attributes in line with its parameters: PyTorch's own layers by meaning, others by what changed.

A user's module may hold sizes of its own (`self.num_heads = 12`). Those are repaired from the facts that the graph
gives: every constant of an operator that ran in that module, before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from typing import Any

from torch import nn
from torch.utils import _pytree as pytree

from compress.graph.analyse import Analysis
from compress.graph.couplings import operands
from compress.graph.modules import walk
from compress.graph.rewrite import Sizes, new_constants, whole_groups
from compress.graph.rules.table import arguments
from compress.graph.trace import Ref

Facts = dict[str, dict[Any, set[Any]]]


def _conv(layer: Any, _: Any) -> None:
    transposed = layer.transposed
    old_in, old_out, groups = layer.in_channels, layer.out_channels, layer.groups
    first, second = layer.weight.shape[:2]
    if whole_groups(groups, old_in // groups):
        layer.groups = groups * first // (old_in if transposed else old_out)
    layer.in_channels, layer.out_channels = (
        (first, second * layer.groups) if transposed else (second * layer.groups, first)
    )


def _linear(layer: Any, _: Any) -> None:
    layer.out_features, layer.in_features = layer.weight.shape


def _batch_norm(layer: Any, _: Any) -> None:
    for tensor in (layer.weight, layer.running_mean):
        if tensor is not None:
            layer.num_features = tensor.shape[0]


def _group_norm(layer: Any, _: Any) -> None:
    if layer.weight is not None:
        channels, groups = layer.num_channels, layer.num_groups
        if whole_groups(groups, channels // groups):
            layer.num_groups = groups * layer.weight.shape[0] // channels
        layer.num_channels = layer.weight.shape[0]


def _layer_norm(layer: Any, _: Any) -> None:
    if layer.weight is not None:
        layer.normalized_shape = tuple(layer.weight.shape)


def _embedding(layer: Any, _: Any) -> None:
    layer.num_embeddings, layer.embedding_dim = layer.weight.shape


def _prelu(layer: Any, _: Any) -> None:
    layer.num_parameters = layer.weight.numel()


def _recurrent(layer: Any, _: Any) -> None:
    gates = {"LSTM": 4, "GRU": 3}.get(layer.mode, 1)
    layer.hidden_size = layer.weight_hh_l0.shape[0] // gates
    layer.input_size = layer.weight_ih_l0.shape[1]
    if layer.proj_size:
        layer.proj_size = layer.weight_hh_l0.shape[1]


def _cell(layer: Any, _: Any) -> None:
    layer.hidden_size, layer.input_size = layer.weight_hh.shape[1], layer.weight_ih.shape[1]


_LAYERS: tuple[tuple[type[nn.Module], Callable[[Any, Any], None]], ...] = (
    (nn.modules.conv._ConvNd, _conv),
    (nn.Linear, _linear),
    (nn.modules.batchnorm._NormBase, _batch_norm),
    (nn.GroupNorm, _group_norm),
    (nn.LayerNorm, _layer_norm),
    (nn.RMSNorm, _layer_norm),
    (nn.Embedding, _embedding),
    (nn.PReLU, _prelu),
    (nn.RNNBase, _recurrent),
    (nn.RNNCellBase, _cell),
)


def refresh_layers(module: nn.Module, changed: Iterable[str]) -> None:
    """Set the size attributes of PyTorch's layers that own one of the `changed` parameters."""
    owners = {name.rpartition(".")[0] for name in changed}
    for path, layer in walk(module):
        if path in owners:
            for kind, refresh in _LAYERS:
                if isinstance(layer, kind):
                    refresh(layer, None)
                    break


def refresh_bare_norms(module: nn.Module, analysis: Analysis, sizes: Sizes, number: int = 0) -> None:
    """Set the sizes of normalisations that own no parameters, from what they were seen to normalise."""
    for op in analysis.traces[number].ops:
        bound = arguments(op) if "norm" in op.name else {}
        layer = module.get_submodule(op.path) if bound and op.path else None
        if layer is None or not isinstance(layer, _NORMS) or next(layer.parameters(), None) is not None:
            continue
        ins = {key: item.value for key, item in bound.items() if isinstance(item, Ref)}
        changed = new_constants(op.name, bound, ins, op.outs, sizes)
        if isinstance(layer, nn.GroupNorm):
            layer.num_groups, layer.num_channels = changed.get("group", layer.num_groups), sizes.after(op.outs[0])[1]
        elif isinstance(layer, nn.LayerNorm):
            layer.normalized_shape = tuple(changed.get("normalized_shape", layer.normalized_shape))
        elif op.outs and len(sizes.after(op.outs[0])) > 1 and layer.running_mean is None:
            # Instance norm folds the batch into the channels, so the count is by proportion.
            before, after = sizes.shapes[op.outs[0]][1], sizes.after(op.outs[0])[1]
            layer.num_features = layer.num_features * after // before


_NORMS = (nn.GroupNorm, nn.LayerNorm, nn.modules.batchnorm._NormBase)


def facts(analysis: Analysis, sizes: Sizes, number: int = 0) -> Facts:
    """Per module path: every integer an operator was given or saw as an extent there -> what it becomes."""
    found: Facts = {}
    for op in analysis.traces[number].ops:
        here = found.setdefault(op.path, {})
        bound = arguments(op)
        ins = {key: item.value for key, item in bound.items() if isinstance(item, Ref)}
        changed = new_constants(op.name, bound, ins, op.outs, sizes)
        for key, given in bound.items():
            _note(here, given, changed.get(key, given))
        for value in (*operands(op), *op.outs):
            for old, new in zip(sizes.shapes[value], sizes.after(value), strict=True):
                if old > 1:
                    here.setdefault(old, set()).add(new)
    return found


def _note(here: dict[Any, set[Any]], old: Any, new: Any) -> None:
    if isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)) and len(old) == len(new):
        for one, two in zip(old, new, strict=True):
            _note(here, one, two)
    elif isinstance(old, int) and not isinstance(old, bool) and old > 1 and isinstance(new, int):
        here.setdefault(old, set()).add(new)


def subtrees(found: Facts) -> Facts:
    """Facts of every module and everything inside it."""
    merged: Facts = {}
    for path, table in found.items():
        above = path
        while True:
            into = merged.setdefault(above, {})
            for old, new in table.items():
                into.setdefault(old, set()).update(new)
            if not above:
                break
            above = above.rpartition(".")[0]
    return merged


def options(old: Any, table: Mapping[Any, set[Any]]) -> list[Any]:
    """What an attribute of value `old` may have become by the table; collections entry by entry.

    >>> options((("h", 8), 3), {8: {4}, 3: {3}})
    [(('h', 4), 3)]
    """
    entries, spec = pytree.tree_flatten(old)
    every = [[i, *sorted(table.get(i, set()) - {i}, reverse=True)] if _size(i) else [i] for i in entries]
    if len(every) > 4:  # too many to mix: every entry takes its first option
        every = [one[-1:] if i not in table.get(i, set()) else one[:1] for i, one in zip(entries, every, strict=True)]
    found = [list(mixed) for mixed in product(*every)]
    found.sort(key=lambda new: sum(a != b for a, b in zip(entries, new, strict=True)))
    return [pytree.tree_unflatten(new, spec) for new in found if new != entries][:24]


def certain(name: str, old: Any, table: Mapping[Any, set[Any]]) -> Any:
    """What an attribute of value `old` must have become; None where the table leaves a choice.

    What its name, or its key in a dictionary, calls something else than channels stays.

    >>> certain("config", {"width": 32, "num_layers": 12}, {32: {16}, 12: {6}})
    {'width': 16, 'num_layers': 12}
    """
    named, spec = pytree.tree_flatten_with_path(old)
    entries = [i for _, i in named]
    names = [next((str(k.key) for k in reversed(keys) if isinstance(k, pytree.MappingKey)), name) for keys, _ in named]
    every = [
        table.get(i, {i}) if _size(i) and _may_be_channels(by) else {i} for by, i in zip(names, entries, strict=True)
    ]
    if any(len(one) > 1 for one in every):
        return None
    return pytree.tree_unflatten([next(iter(one)) for one in every], spec)


def _may_be_channels(name: str) -> bool:
    """Whether `name` leaves it open: what it says last decides, but for `size`, which is said of everything.

    >>> [_may_be_channels(name) for name in ("hidden_size", "patch_dim", "patch_size", "num_layers")]
    [True, True, False, False]
    """
    words = [word for word in name.lower().split("_") if word not in ("size", "sizes")]
    return not words or words[-1] not in _OTHERS


_OTHERS = frozenset({
    "stride", "strides", "kernel", "kernels", "dilation", "padding", "patch", "patches", "window", "windows", "image",
    "img", "resolution", "frames", "layers", "depth", "depths", "blocks", "stages", "levels", "steps", "iterations",
    "epochs", "seed",
})  # fmt: skip


def _size(entry: Any) -> bool:
    return isinstance(entry, int) and not isinstance(entry, bool) and entry > 1


def folded(table: Mapping[Any, set[Any]], batch: int) -> dict[Any, set[Any]]:
    """The table's changed numbers divided by the batch size, for extents that the batch was merged into."""
    found: dict[Any, set[Any]] = {}
    for old, every in table.items():
        if batch > 1 and old % batch == 0:
            found.setdefault(old // batch, set()).update(n // batch for n in every if n != old and n % batch == 0)
    return found


def own_attributes(module: nn.Module) -> Iterator[tuple[str, nn.Module, str, Any]]:
    """Path, module, name and value of every attribute that may hold sizes and is not PyTorch's own layers' business."""
    for path, inner in module.named_modules():
        if type(inner).__module__.startswith("torch.nn.modules") and not isinstance(inner, _SIZED):
            continue
        for key, value in list(vars(inner).items()):
            if key not in _MODULE and _holds_sizes(value):
                yield path, inner, key, value


_SIZED = (nn.MultiheadAttention, nn.Transformer)


def _holds_sizes(value: Any) -> bool:
    """Whether it is an integer, or a collection of plain values with one among them."""
    if type(value) in (tuple, list, dict):
        entries = pytree.tree_leaves(value)
        return all(type(i) in _PLAIN for i in entries) and any(map(_size, entries))
    return isinstance(value, int) and not isinstance(value, bool)


_MODULE = frozenset(vars(nn.Module()))
_PLAIN = (int, str, float, bool, type(None))

"""What an operator's constants become when labels leave: sizes of a view, bounds of a slice, numbers of groups.

One function for the operators of the dispatcher and those of an exported program: constants are found by their schema
names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compress.graph.couplings import Layout
from compress.graph.rules.table import wrap

Bound = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Shapes before and after: `layouts[v]` as in the analysis, `dead[label]` True where a label leaves.

    `masks` and `done` remember what was found; the other fields must not change.
    """

    shapes: list[tuple[int, ...]]
    layouts: Mapping[int, Layout]
    dead: np.ndarray
    masks: dict[tuple[int, int], np.ndarray | None] = field(default_factory=dict, repr=False)
    done: dict[int, tuple[int, ...]] = field(default_factory=dict, repr=False)

    def alive(self, value: int, dim: int) -> np.ndarray | None:
        """Boolean mask over the indices of `dim`, or None where all stay."""
        for dims, array in self.layouts.get(value, ()):
            if dim in dims:
                axis = dims.index(dim)
                key = id(array), axis  # a layer's labels are those of many values
                if key not in self.masks:
                    self.masks[key] = self._mask(array, axis)
                return self.masks[key]
        return None

    def _mask(self, array: np.ndarray, axis: int) -> np.ndarray | None:
        dies = self.dead[array]
        if not dies.any():
            return None
        stays = ~dies
        mask = np.asarray(stays.any(axis=tuple(a for a in range(stays.ndim) if a != axis)) if stays.ndim > 1 else stays)
        return None if mask.all() else mask

    def before(self, value: int, dim: int, index: int) -> int:
        """How many of the first `index` indices of `dim` stay."""
        mask = self.alive(value, dim)
        return index if mask is None else int(np.count_nonzero(mask[:index]))

    def after(self, value: int) -> tuple[int, ...]:
        """Shape of the value once the dead labels have left."""
        found = self.done.get(value)
        if found is None:
            shape = list(self.shapes[value])
            for dims, _ in self.layouts.get(value, ()):
                for dim in dims:
                    mask = self.alive(value, dim)
                    if mask is not None:
                        shape[dim] = int(np.count_nonzero(mask))
            found = self.done[value] = tuple(shape)
        return found


@dataclass(frozen=True, slots=True)
class Scaled:
    """A size that the graph computes (12 * batch): what it computes, times `new / old`."""

    given: Any
    new: int
    old: int


def whole_groups(groups: int, each_in: int) -> bool:
    """Whether a grouped operator loses whole groups; otherwise every group loses the same positions."""
    return groups > 1 and groups >= each_in


def new_constants(
    name: str, bound: Bound, ins: Mapping[str, int], outs: tuple[int, ...], sizes: Sizes
) -> dict[str, Any]:
    """Return the arguments of the operator `name` that must change, by schema name.

    `bound` holds its arguments, `ins` the value numbers of its tensor arguments by schema name, `outs` of its results.
    """
    changed: dict[str, Any] = {}
    kind = name.removeprefix("aten.").removesuffix("_copy")
    for key in ("size", "shape", "sizes"):
        given = bound.get(key)
        if isinstance(given, (list, tuple)) and outs and kind != "sym_size":
            changed |= _shape_list(kind, key, list(given), bound, ins, outs[0], sizes)
    rewrite = _BY_KIND.get(kind)
    if rewrite is not None:
        changed |= rewrite(bound, ins, outs, sizes)
    return {key: value for key, value in changed.items() if value != bound.get(key)}


def _shape_list(
    kind: str, key: str, given: list[Any], bound: Bound, ins: Mapping[str, int], out: int, sizes: Sizes
) -> dict[str, Any]:
    target, before = list(sizes.after(out)), list(sizes.shapes[out])
    if kind == "unflatten":
        at = wrap(int(bound["dim"]), len(sizes.shapes[ins["self"]]))
        target, before = target[at : at + len(given)], before[at : at + len(given)]
    if len(target) != len(given):
        return {}

    def follow(item: Any, old: int, new: int) -> Any:
        if isinstance(item, int):
            return new if item == old else item  # -1, or the size of something else (of the images of a sampling grid)
        return item if old == new else Scaled(item, new, old)

    return {key: [follow(*entry) for entry in zip(given, before, target, strict=True)]}


def _split(bound: Bound, ins: Mapping[str, int], outs: tuple[int, ...], sizes: Sizes) -> dict[str, Any]:
    dim = wrap(int(bound["dim"]), len(sizes.shapes[ins["self"]]))
    lengths = [sizes.after(out)[dim] for out in outs]
    for key in ("split_sizes", "split_size"):
        if isinstance(bound.get(key), (list, tuple)):
            return {key: lengths}
        if isinstance(bound.get(key), int):
            return {key: lengths[0]}
    return {}


def _slice(bound: Bound, ins: Mapping[str, int], _: tuple[int, ...], sizes: Sizes) -> dict[str, Any]:
    x = ins["self"]
    dim = wrap(int(bound["dim"]), len(sizes.shapes[x]))
    if sizes.alive(x, dim) is None or bound.get("step", 1) not in (1, None):
        return {}  # with a step whole runs leave, so that it starts where it did
    size = sizes.shapes[x][dim]
    changed = {}
    for key in ("start", "end"):
        given = bound.get(key)
        if isinstance(given, int) and -size <= given < size:
            changed[key] = sizes.before(x, dim, given % size)
    return changed


def _narrow(bound: Bound, ins: Mapping[str, int], outs: tuple[int, ...], sizes: Sizes) -> dict[str, Any]:
    x = ins["self"]
    dim = wrap(int(bound["dim"]), len(sizes.shapes[x]))
    start = bound["start"]
    moved = {"start": sizes.before(x, dim, start % sizes.shapes[x][dim])} if isinstance(start, int) and start else {}
    return {**moved, "length": sizes.after(outs[0])[dim]}


def _repeat(bound: Bound, ins: Mapping[str, int], outs: tuple[int, ...], sizes: Sizes) -> dict[str, Any]:
    before, after = sizes.after(ins["self"]), sizes.after(outs[0])
    given = bound["repeats"]
    if isinstance(given, int):
        if bound.get("dim") is None:
            return {}
        dim = wrap(int(bound["dim"]), len(before))
        return {"repeats": after[dim] // before[dim]}
    old = sizes.shapes[outs[0]]
    lead = len(after) - len(before)
    return {
        "repeats": [
            n if after[d] == old[d] else after[d] // (before[d - lead] if d >= lead else 1) for d, n in enumerate(given)
        ]
    }


def _select(bound: Bound, ins: Mapping[str, int], _: tuple[int, ...], sizes: Sizes) -> dict[str, Any]:
    x = ins["self"]
    dim = wrap(int(bound["dim"]), len(sizes.shapes[x]))
    index = bound["index"]
    mask = sizes.alive(x, dim)
    if mask is None or not isinstance(index, int):
        return {}
    moved = sizes.before(x, dim, index % len(mask))
    return {"index": moved - int(mask.sum()) if index < 0 else moved}


def _conv(bound: Bound, ins: Mapping[str, int], _: tuple[int, ...], sizes: Sizes) -> dict[str, Any]:
    groups, x = bound.get("groups", 1), ins["input"]
    channels = sizes.shapes[x][1]
    if not isinstance(groups, int):  # the graph computes it, from the batch
        return {}
    if not whole_groups(groups, channels // groups):
        return {}
    return {"groups": groups * sizes.after(x)[1] // channels}


def _group_norm(bound: Bound, ins: Mapping[str, int], _: tuple[int, ...], sizes: Sizes) -> dict[str, Any]:
    x = ins["input"]
    channels, left = sizes.shapes[x][1], sizes.after(x)[1]
    key = "group" if "group" in bound else "num_groups"
    groups = int(bound[key])
    changed: dict[str, Any] = {"C": left} if "C" in bound else {}
    if whole_groups(groups, channels // groups):
        changed[key] = groups * left // channels
    return changed


def _normalized(bound: Bound, ins: Mapping[str, int], _: tuple[int, ...], sizes: Sizes) -> dict[str, Any]:
    rank = len(bound["normalized_shape"])
    return {"normalized_shape": list(sizes.after(ins["input"])[-rank:])}


def _pad(bound: Bound, ins: Mapping[str, int], outs: tuple[int, ...], sizes: Sizes) -> dict[str, Any]:
    given, out = list(bound["pad"]), outs[0]
    rank = len(sizes.shapes[out])
    for i in range(0, len(given), 2):
        dim = rank - 1 - i // 2
        mask = sizes.alive(out, dim)
        if mask is None or not all(isinstance(n, int) and n >= 0 for n in given[i : i + 2]):
            continue
        before, after = given[i], given[i + 1]
        given[i], given[i + 1] = int(mask[:before].sum()), int(mask[len(mask) - after :].sum())
    return {"pad": given}


def _attention(bound: Bound, ins: Mapping[str, int], _: tuple[int, ...], sizes: Sizes) -> dict[str, Any]:
    width = sizes.shapes[ins["query"]][-1]
    if bound.get("scale") is None and sizes.after(ins["query"])[-1] != width:
        return {"scale": 1 / math.sqrt(width)}  # the softmax scale stays the original's
    return {}


_BY_KIND = {
    "split": _split, "split_with_sizes": _split, "unsafe_split": _split, "slice": _slice, "narrow": _narrow,
    "select": _select,
    "convolution": _conv, "conv1d": _conv, "conv2d": _conv, "conv3d": _conv, "conv_transpose1d": _conv,
    "conv_transpose2d": _conv, "conv_transpose3d": _conv, "torchvision.deform_conv2d": _conv,
    "native_group_norm": _group_norm, "group_norm": _group_norm,
    "native_layer_norm": _normalized, "layer_norm": _normalized, "rms_norm": _normalized,
    "_fused_rms_norm": _normalized,
    "repeat": _repeat, "repeat_interleave": _repeat, "constant_pad_nd": _pad, "pad": _pad,
    "scaled_dot_product_attention": _attention,
    "_scaled_dot_product_flash_attention": _attention, "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_efficient_attention": _attention, "_scaled_dot_product_cudnn_attention": _attention,
}  # fmt: skip

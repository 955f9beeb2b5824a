"""A module tree as it is: its parts, its tensors, and how to run it without leaving a trace of that on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from operator import is_not
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from compress.core.errors import TraceError

Parts = list[tuple[str, nn.Module]]  # every submodule with its path


def walk(module: nn.Module) -> Parts:
    """Every submodule once, with its path, in the order of `named_modules`, whose nested generators take long."""
    found: list[tuple[str, nn.Module]] = []
    seen: set[int] = set()
    waiting: list[tuple[str, nn.Module]] = [("", module)]
    while waiting:
        entry = waiting.pop()
        path, part = entry
        if id(part) in seen:
            continue
        seen.add(id(part))
        found.append(entry)
        if inner := part._modules:
            before = path + "." if path else ""
            waiting += [(before + n, m) for n, m in reversed(inner.items()) if m is not None]
    return found


def require_python(parts: Parts) -> None:
    """Raise TraceError where a module is compiled: its operators cannot be seen, nor its tensors replaced."""
    for path, part in parts:
        if isinstance(part, torch.jit.ScriptModule):
            raise TraceError(
                f"{path or 'the network'} is a TorchScript module, whose code cannot be looked into",
                fix="give the Python module that it was made from, or the whole network as a file of torch.jit.save",
            )


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """What the network holds, by name: parameters, buffers, and tensors that are plain attributes."""
    parts = walk(module)
    state = state_of(parts)
    return state | attributes_of(parts, state)


def attributes_of(parts: Parts, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of floating point that modules keep as plain attributes only (a table of positions), by name.

    `state` is `state_of(parts)`: what is a parameter or a buffer too is left out.
    """
    held = {id(t) for t in state.values()}
    found: dict[int, tuple[str, Tensor]] = {}
    for path, part in parts:
        for name, item in vars(part).items():
            if item.__class__ is not Tensor or id(item) in held:
                continue
            if item.is_floating_point() and item.dim() and not item.is_meta:
                found.setdefault(id(item), (f"{path}.{name}" if path else name, item))
    return dict(found.values())


def state_of(parts: Parts) -> dict[str, Tensor]:
    """Parameters and buffers by name; a tensor shared by several names appears once, under the first."""
    found: dict[int, tuple[str, Tensor]] = {}
    for kind in ("_parameters", "_buffers"):
        for path, part in parts:
            if table := vars(part)[kind]:
                before = path + "." if path else ""
                for name, tensor in table.items():
                    if tensor is not None and id(tensor) not in found:
                        found[id(tensor)] = before + name, tensor
    return dict(found.values())


def fresh(inputs: Any) -> Any:
    """Copies of all tensors in `inputs`: a network may write into what it is given (`x -= mean`)."""
    return pytree.tree_map_only(Tensor, torch.clone, inputs)


@contextmanager
def quiet_module(module: nn.Module, parts: Parts | None = None) -> Iterator[None]:
    """Keep what the module remembers, and attention on its Python path (its fused kernel hides the operators).

    Train/eval modes, attributes, buffers and dictionaries that forward fills as caches are afterwards as they were.
    `parts` is `walk(module)`, for who has it already.
    """
    parts = walk(module) if parts is None else parts
    filled, empty = _remembered(parts)
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        forget(parts)
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for now, before in filled:
            if now.keys() != before.keys() or any(map(is_not, now.values(), before.values())):
                now.clear()
                now.update(before)
        for now in empty:
            if now:
                now.clear()


@contextmanager
def by_operators() -> Iterator[None]:
    """Run LSTMs as on meta tensors, by the operators that they are made of, which the processor's own kernel hides."""
    library = torch.backends.mkldnn
    before = library.enabled
    library.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        library.enabled = before


def _remembered(parts: Parts) -> tuple[list[tuple[dict[str, Any], dict[str, Any]]], list[dict[str, Any]]]:
    """The dictionaries the modules keep their state in: attributes, and those that are dictionaries (hooks too).

    With copies of those that hold something; most are empty.
    """
    filled, empty = [], []
    for _, m in parts:
        own = vars(m)
        filled.append((own, own.copy()))
        for item in own.values():
            if item.__class__ in _ATOMS:
                continue
            if isinstance(item, dict):
                if item:
                    filled.append((item, dict(item)))
                else:
                    empty.append(item)
    return filled, empty


_ATOMS: frozenset[type] = frozenset({bool, int, float, str, tuple, type(None)})


def forget(parts: Parts) -> None:
    """Let modules drop what they keep between evaluations (biases gathered once), as their own `train` does.

    What is kept there was computed from parameters that may since have been cut. Modes stay as they are.
    """
    for _, owner in parts:
        if type(owner).train is not nn.Module.train:
            modes = [(m, m.training) for m in owner.modules()]
            owner.train()
            owner.train(modes[0][1])
            for m, mode in modes:
                m.training = mode


def set_mode(module: nn.Module, *, train: bool, parts: Parts | None = None) -> None:
    """Switch to training or evaluation; an exported graph has only the mode it was exported in."""
    if isinstance(module, fx.GraphModule):
        return
    if any(m.training is not train for _, m in (walk(module) if parts is None else parts)):
        module.train(train)


@contextmanager
def replaced(module: nn.Module, others: Mapping[int, Tensor], parts: Parts | None = None) -> Iterator[None]:
    """Put other tensors in the place of parameters and buffers, by id of these; afterwards they are back."""
    parts = walk(module) if parts is None else parts
    tables: list[dict[str, Any]] = [t for _, m in parts for t in (m._parameters, m._buffers) if t]
    before = [dict(table) for table in tables]
    try:
        for table in tables:
            for name, own in table.items():
                if own is not None:
                    table[name] = others[id(own)]
        yield
    finally:
        for table, owned in zip(tables, before, strict=True):
            table.update(owned)

"""Cut the user's own module: the same class with smaller parameters, its attributes repaired until its code follows."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.core.collector import uncollected
from compress.graph.analyse import Analysis
from compress.graph.modules import quiet_module, walk
from compress.graph.positions import all_renumbered
from compress.surgery.agreement import Progress
from compress.surgery.attributes import refresh_bare_norms, refresh_layers
from compress.surgery.cut import Kept, kept_indices, kept_tensors, sizes_after
from compress.surgery.follow import follow


@dataclass(frozen=True, slots=True)
class CutModule:
    """The cut module; `repaired`: attributes beyond those of PyTorch's layers; `why_not` is None where it follows.

    `parts` says where its run parts from what the graph expects.
    """

    module: nn.Module
    repaired: dict[str, tuple[Any, Any]]
    why_not: str | None
    parts: Progress


def sliced_copy(
    module: nn.Module, tensors: Mapping[str, Tensor], kept: Kept, renewed: Mapping[int, Tensor] | None = None
) -> nn.Module:
    """Copy `module` with only the kept indices of its `tensors`; the original is never copied whole.

    `renewed` holds tensors, parameters or not, that others take the place of, by id.
    """
    memo: dict[int, Any] = {}
    for name, new in kept_tensors(tensors, kept).items():
        old = tensors[name]
        if isinstance(old, nn.Parameter):
            memo[id(old)] = nn.Parameter(new, requires_grad=old.requires_grad)
        else:
            memo[id(old)] = new
    memo.update(renewed or {})
    memo = {**_computed(module), **memo}
    with quiet_module(module):  # what it keeps between evaluations is not copied
        copied: nn.Module = twin(module, memo)
    refresh_layers(copied, kept)
    return copied


def _computed(module: nn.Module) -> dict[int, Tensor]:
    """Copies of the tensors that autograd made and that a module keeps, by id: `deepcopy` refuses them.

    The weights of `nn.utils.weight_norm` are such, which every run computes anew.
    """
    kept = [item for _, part in walk(module) for item in vars(part).values() if isinstance(item, Tensor)]
    return {id(t): t.detach().clone() for t in kept if not t.is_leaf}


_PLAIN: frozenset[type] = frozenset(
    {int, float, bool, str, bytes, type(None), type, FunctionType, torch.dtype, torch.device}
)


@cache
def _copies_itself(kind: type) -> bool:
    """Whether a class (beyond nn.Module) says how it is copied."""
    methods = ("__deepcopy__", "__getstate__", "__reduce__", "__reduce_ex__")
    return any(name in vars(base) for base in kind.__mro__ if base not in (object, nn.Module) for name in methods)


def twin(module: nn.Module, memo: dict[int, Any]) -> Any:
    """Deep-copy a module tree: what `copy.deepcopy` does, without visiting the plain values one by one."""
    if id(module) in memo:
        return memo[id(module)]
    if _copies_itself(type(module)):  # type: ignore[arg-type]  # mypy takes classes for unhashable
        return copy.deepcopy(module, memo)
    made = object.__new__(type(module))
    memo[id(module)] = made
    for key, value in vars(module).items():
        kind = type(value)
        if kind in _PLAIN or (kind is tuple and all(type(item) in _PLAIN for item in value)):
            new: Any = value
        elif kind in (dict, OrderedDict, set) and not value:
            new = kind()
        elif key == "_modules":
            new = {name: None if child is None else twin(child, memo) for name, child in value.items()}
        elif key in ("_parameters", "_buffers"):
            new = {name: None if t is None else copy.deepcopy(t, memo) for name, t in value.items()}
        else:
            new = copy.deepcopy(value, memo)
        made.__dict__[key] = new
    return made


def cut_module(
    module: nn.Module,
    example: tuple[Any, ...],
    analysis: Analysis,
    dead: np.ndarray,
    check: Callable[[nn.Module], bool] | None = None,
) -> CutModule:
    """Take the dead labels away from `module`, and try to make its code follow; the input module is left untouched.

    `check` tells whether a module computes the right thing; it is asked only where the operators do not tell already.
    """
    with uncollected():
        sizes, kept = sizes_after(analysis, dead), kept_indices(analysis, dead)
        twin = sliced_copy(module, analysis.tensors, kept, all_renumbered(analysis.couplings, dead))
        refresh_bare_norms(twin, analysis, sizes)
    repaired, end = follow(twin, example, analysis, sizes, check)
    return CutModule(twin, repaired, end.problem, end)

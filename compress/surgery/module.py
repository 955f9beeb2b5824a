"""Cut the user's own module: the same class with smaller parameters, its attributes repaired until its code follows."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from compress.core.errors import TraceError
from compress.core.types import Plan
from compress.graph.analyse import Analysis
from compress.graph.trace import tensors_of, trace
from compress.surgery.attributes import facts, mismatch, refresh_layers, repair
from compress.surgery.cut import kept_tensors, sizes_after


@dataclass(frozen=True, slots=True)
class CutModule:
    """The cut module; `repaired` lists attributes changed beyond PyTorch's own layers; `why_not` is None where it follows."""

    module: nn.Module
    repaired: dict[str, tuple[Any, Any]]
    why_not: str | None


def sliced_copy(module: nn.Module, plan: Plan) -> nn.Module:
    """Copy `module` with only the kept indices of every parameter and buffer; the original is never copied whole."""
    tensors = tensors_of(module)
    parameters = dict(module.named_parameters())
    memo: dict[int, Any] = {}
    for name, new in kept_tensors(tensors, plan).items():
        old = tensors[name]
        if name in parameters:
            memo[id(old)] = nn.Parameter(new, requires_grad=old.requires_grad)
        else:
            memo[id(old)] = new
    twin = copy.deepcopy(module, memo)
    refresh_layers(twin, plan.keep)
    return twin


def cut_module(
    module: nn.Module, example: tuple[Any, ...], analysis: Analysis, plan: Plan, dead: np.ndarray
) -> CutModule:
    """Cut `module` as planned, and try to make its code follow; the input module is left untouched."""
    sizes = sizes_after(analysis, dead)
    twin = sliced_copy(module, plan)
    problem = _problem(twin, example, analysis, sizes)
    if problem is None:
        return CutModule(twin, {}, None)
    known = facts(analysis, sizes)
    for bold in (False, True):
        attempt = sliced_copy(module, plan)
        repaired = repair(attempt, known, bold=bold)
        if repaired and _problem(attempt, example, analysis, sizes) is None:
            return CutModule(attempt, repaired, None)
    return CutModule(twin, {}, problem)


def _problem(twin: nn.Module, example: tuple[Any, ...], analysis: Analysis, sizes: Any) -> str | None:
    try:
        return mismatch(analysis, sizes, trace(twin, example))
    except TraceError as error:
        return error.what

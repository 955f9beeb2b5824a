"""The table of rules, and how a rule reads its operator's arguments by their schema names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from compress.core.registry import Registry
from compress.graph.couplings import Couplings
from compress.graph.trace import Op, Ref

Rule = Callable[[Couplings, Op], None]
RULES: Registry[Rule] = Registry("operator rule")
rule = RULES.register


def rule_of(name: str) -> Rule | None:
    """The operator's rule: one that writes in place, or copies, does to channels what the plain one does."""
    return RULES.get(name) or RULES.get(name.removesuffix("_")) or RULES.get(name.removesuffix("_copy"))


_DEFAULTS: dict[int, tuple[Any, tuple[str, ...], dict[str, Any]]] = {}


def _defaults(func: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Names of an operator's arguments, and all their defaults; by identity, as operators hash slowly."""
    found = _DEFAULTS.get(id(func))
    if found is None:
        own = {a.name: a.default_value if a.has_default_value() else None for a in func._schema.arguments}
        found = _DEFAULTS[id(func)] = func, tuple(own), own
    return found[1], found[2]


def arguments(op: Op) -> dict[str, Any]:
    """The operator's arguments by schema name, defaults filled in; tensors are Refs."""
    names, defaults = _defaults(op.func)
    bound = defaults.copy()
    bound.update(zip(names, op.args, strict=False))
    bound.update(op.kwargs)
    return bound


def value(item: Any) -> int:
    """The number of a tensor argument that must be there."""
    assert isinstance(item, Ref)
    return item.value


def wrap(dim: int, rank: int) -> int:
    """A dimension counted from the front."""
    return dim + rank if dim < 0 else dim

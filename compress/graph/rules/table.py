"""The table of rules, and how a rule reads its operator's arguments by their schema names."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from compress.core.registry import Registry
from compress.graph.couplings import Couplings
from compress.graph.trace import Op, Ref

Rule = Callable[[Couplings, Op], None]
RULES: Registry[Rule] = Registry("operator rule")
rule = RULES.register


@cache
def _schema(func: Any) -> tuple[tuple[str, Any], ...]:
    return tuple((a.name, a.default_value if a.has_default_value() else None) for a in func._schema.arguments)


def arguments(op: Op) -> dict[str, Any]:
    """The operator's arguments by schema name, defaults filled in; tensors are Refs."""
    given = op.args
    bound = {name: given[i] if i < len(given) else default for i, (name, default) in enumerate(_schema(op.func))}
    bound.update(op.kwargs)
    return bound


def value(item: Any) -> int:
    """The number of a tensor argument that must be there."""
    assert isinstance(item, Ref)
    return item.value


def wrap(dim: int, rank: int) -> int:
    """A dimension counted from the front."""
    return dim + rank if dim < 0 else dim

"""How labels flow through each operator: one small function an operator, keyed by its ATen name.

A rule reads the labels of the operator's inputs and sets those of its outputs, ties labels that must leave together
and pins those that must stay. What has no rule is pinned by the caller, and reported. To add one, see CONTRIBUTING.md.
"""

from __future__ import annotations

from compress.graph.rules import (
    contraction,
    create,
    elementwise,
    indexed,
    norm,
    reduce,
    select,
    shape,
    spatial,
    spectral,
)
from compress.graph.rules.table import RULES, Rule

__all__ = [
    "RULES",
    "Rule",
    "contraction",
    "create",
    "elementwise",
    "indexed",
    "norm",
    "reduce",
    "select",
    "shape",
    "spatial",
    "spectral",
]

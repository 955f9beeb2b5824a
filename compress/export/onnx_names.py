"""What the outputs of an ONNX file are called: by their keys, where the network returns a dict of tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import onnx_ir as ir
from torch import Tensor


def numbered(stem: str, count: int) -> list[str]:
    """Return `count` names: the stem, then the stem with 1, 2, ...

    >>> numbered("output", 3)
    ['output', 'output_1', 'output_2']
    """
    return [stem if i == 0 else f"{stem}_{i}" for i in range(count)]


def output_names(output: Any, count: int) -> list[str]:
    """Return names for the `count` tensors of a network's output.

    The keys of a dict of tensors, of which those that are no identifiers, as the "0" of a feature pyramid, follow
    "output_"; for every other output, and where two keys would become one name, output, output_1, ...
    """
    plain = numbered("output", count)
    if not isinstance(output, Mapping) or not all(isinstance(value, Tensor) for value in output.values()):
        return plain
    keys = [str(key) for key in output]
    names = [key if key.isidentifier() else "output_" + re.sub(r"\W", "_", key) for key in keys]
    return names if len(set(names)) == len(names) == count else plain


def name_outputs(graph: ir.Graph, names: list[str]) -> None:
    """Call the outputs of `graph` by `names`; one whose name another value of the graph has keeps its own.

    Nothing is renamed where names would not be unique, or where one value is handed out twice.
    """
    outputs = set(graph.outputs)
    made = (value for node in ir.traversal.RecursiveGraphIterator(graph) for value in node.outputs)
    others = (*graph.inputs, *graph.initializers.values(), *made)
    taken = {value.name for value in others if value not in outputs}
    new = [value.name if name in taken else name for value, name in zip(graph.outputs, names, strict=True)]
    if len(set(new)) == len(new) == len(outputs):
        for value, name in zip(graph.outputs, new, strict=True):
            value.name = name

"""Global pooling in an exported program, written so that the ONNX exporter sees what it is."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram

_ADAPTIVE = torch.ops.aten.adaptive_avg_pool2d.default
_MEAN = torch.ops.aten.mean.dim


def with_means(program: ExportedProgram) -> ExportedProgram:
    """Write every adaptive average pool to 1 x 1 as a mean over height and width, in place; return the program.

    PyTorch decomposes the pool into a mean and, for a channels-last input, a strided view of it: seven ONNX operators
    that compute indices, where none is needed.
    """
    for node in list(program.graph.nodes):
        if node.target is _ADAPTIVE and _to_one(node.args[1]):
            with program.graph.inserting_before(node):
                mean = program.graph.call_function(_MEAN, (node.args[0], [-1, -2], True))
            mean.meta.update(node.meta)
            node.replace_all_uses_with(mean)
            program.graph.erase_node(node)
            for spec in program.graph_signature.output_specs:
                if getattr(spec.arg, "name", None) == node.name:
                    spec.arg.name = mean.name
    return program


def _to_one(size: Any) -> bool:
    return size == 1 or list(size if isinstance(size, list | tuple) else [size]) in ([1, 1], [1])

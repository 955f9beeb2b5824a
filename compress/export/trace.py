"""The exported program behind the `.onnx` and `.pt2` targets."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram


def exported_program(
    module: nn.Module, example: tuple[Tensor, ...], batched: tuple[bool, ...], sized: tuple[bool, ...]
) -> ExportedProgram:
    """Trace `module` on `example`, with one free dimension shared as dimension 0 of the inputs marked in `batched`.

    Of the inputs marked in `sized` the dimensions 2 and 3, height and width, are free too.

    Raises what `torch.export` raises: among others where the network's code fixes the batch size.
    """
    shapes = None
    if any(batched) or any(sized):
        # A named dimension makes torch.export refuse a network that fixes its batch; Dim.AUTO would fix it silently.
        batch = Dim("batch", min=1)
        # Networks halve their height and width, which a named dimension would have to spell out; DYNAMIC does not.
        size = {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
        pairs = zip(batched, sized, strict=True)
        shapes = tuple(({0: batch} if free else {}) | (size if wide else {}) or None for free, wide in pairs)
    with torch.no_grad():
        program = torch.export.export(module, example, dynamic_shapes=shapes, strict=False)
    for node in program.graph.nodes:
        # Paths of the machine that exported have no place in a file that is given away.
        node.meta.pop("stack_trace", None)
    return program
